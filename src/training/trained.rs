//! From the state of a run to a concept.

use std::collections::BTreeMap;

use super::config::Settings;
use super::step::{Network, State, TrainedLayer, network_prefix, rows_name};
use crate::backend::Rounding;
use crate::concept::{CLASS_WORD, Concept, Lora, ModelHash, UpdateSet, Word};
use crate::graph::Array;

/// The concept that a state holds, with the settings that made it. It is the same for the same
/// settings, pictures and model: nothing of the machine, the time or the places of files goes in,
/// but for what was rounded besides weights.
pub fn concept(
    settings: &Settings,
    rounding: Option<Rounding>,
    base: ModelHash,
    state: &State,
    layers: &[TrainedLayer],
) -> Concept {
    Concept {
        name: settings.name.clone(),
        words: words(settings, state),
        updates: networks(state)
            .map(|network| (network, updates(settings, state, layers, network)))
            .collect(),
        base: Some(base),
        metadata: metadata(settings, rounding, state),
    }
}

/// Those that a state is about: of the second text encoder, where its words are there.
fn networks(state: &State) -> impl Iterator<Item = Network> {
    let second = state.arrays.contains_key(rows_name(Network::TextEncoder2));
    let all = [Network::TextEncoder, Network::TextEncoder2, Network::UNet];
    all.into_iter().filter(move |network| second || *network != Network::TextEncoder2)
}

fn words(settings: &Settings, state: &State) -> Vec<Word> {
    if !state.arrays.contains_key(rows_name(Network::TextEncoder)) {
        return Vec::new();
    }
    let count = settings.words.len().max(1);
    // Of the word at a place, in one text encoder.
    let rows = |place: usize, network: Network| {
        let rows = state.arrays.get(rows_name(network))?;
        let (width, copies) = (rows.shape.channels(), rows.shape.rows() / count);
        let values = rows.values().chunks_exact((copies * width).max(1)).nth(place)?;
        Some((network, Array::f32([copies, width], values.to_vec())))
    };
    let word = |(place, text): (usize, &String)| Word {
        text: text.clone(),
        initializer: settings.initializers.get(place).map(ToString::to_string),
        rows: networks(state)
            .filter(|network| network.is_text_encoder())
            .filter_map(|network| rows(place, network))
            .collect(),
    };
    settings.words.iter().enumerate().map(word).collect()
}

fn updates(
    settings: &Settings,
    state: &State,
    layers: &[TrainedLayer],
    network: Network,
) -> UpdateSet {
    let prefix = network_prefix(network);
    let of = |layer: &TrainedLayer, part: &str| {
        state.arrays.get(&format!("{prefix}.{}.lora_{part}.weight", layer.name)).cloned()
    };
    let update = |layer: &TrainedLayer| {
        let lora = Lora { down: of(layer, "down")?, up: of(layer, "up")? };
        Some((layer.name.clone(), lora.into()))
    };
    let layers =
        layers.iter().filter(|layer| layer.network == network).filter_map(update).collect();
    UpdateSet { scale: settings.alpha, layers, ..UpdateSet::default() }
}

fn metadata(
    settings: &Settings,
    rounding: Option<Rounding>,
    state: &State,
) -> BTreeMap<String, String> {
    let mut kept = serde_json::to_value(settings).unwrap_or_default();
    if let Some(kept) = kept.as_object_mut() {
        for place in ["output", "folders", "model", "name", "prior_folder"] {
            kept.remove(place);
        }
    }
    let mut metadata = BTreeMap::from([
        ("mos_program".to_string(), format!("mos {}", env!("CARGO_PKG_VERSION"))),
        ("mos_settings".to_string(), kept.to_string()),
        ("mos_method".to_string(), settings.method.to_string()),
        ("mos_seed".to_string(), settings.seed.to_string()),
        ("mos_alpha".to_string(), settings.alpha.to_string()),
        ("mos_steps".to_string(), state.step.to_string()),
    ]);
    metadata.extend(settings.class_word.clone().map(|word| (CLASS_WORD.to_string(), word)));
    let rounding = rounding.filter(|rounding| *rounding != Rounding::default());
    metadata.extend(rounding.map(|rounding| ("mos_rounding".to_string(), rounding.to_string())));
    metadata
}
