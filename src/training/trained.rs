//! From the state of a run to a concept.

use std::collections::BTreeMap;

use super::config::Settings;
use super::step::{Network, State, TrainedLayer, network_prefix};
use crate::concept::{Concept, Lora, ModelHash, UpdateSet, Word};
use crate::graph::Array;

/// The concept that a state holds, with the settings that made it. It is the same for the same
/// settings, pictures and model: nothing of the machine, the time or the places of files goes in.
pub fn concept(
    settings: &Settings,
    base: ModelHash,
    state: &State,
    layers: &[TrainedLayer],
) -> Concept {
    Concept {
        name: settings.name.clone(),
        words: words(settings, state),
        updates: [Network::TextEncoder, Network::UNet]
            .map(|network| (network, updates(settings, state, layers, network)))
            .into(),
        base: Some(base),
        metadata: metadata(settings, state),
    }
}

fn words(settings: &Settings, state: &State) -> Vec<Word> {
    let Some(rows) = state.arrays.get("rows") else { return Vec::new() };
    let (width, count) = (rows.shape.channels(), settings.words.len().max(1));
    let copies = rows.shape.rows() / count;
    let each = rows.values().chunks_exact((copies * width).max(1));
    let initializers = settings.initializers.iter().map(Some).chain(std::iter::repeat(None));
    let word =
        |((text, from), values): ((&String, Option<&super::config::Initializer>), &[f32])| Word {
            initializer: from.map(ToString::to_string),
            ..Word::new(text, Array::f32([copies, width], values.to_vec()))
        };
    settings.words.iter().zip(initializers).zip(each).map(word).collect()
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

fn metadata(settings: &Settings, state: &State) -> BTreeMap<String, String> {
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
    metadata.extend(settings.class_word.clone().map(|word| ("mos_class_word".to_string(), word)));
    metadata
}
