//! kohya's and LyCORIS' files, which web UIs and ComfyUI read: `lora_unet_<layer>` and
//! `lora_te_<layer>` with underscores for dots, each with `lora_down.weight`, `lora_up.weight`,
//! sometimes `lora_mid.weight`, or the tensors of another kind of change, and `alpha`; the factor is
//! alpha over rank. Words may come along as textual inversions,
//! `bundle_emb.<word>.string_to_param.*`.

use crate::checkpoint::{TensorFile, other_change};
use crate::concept::parts::{self, Part};
use crate::concept::{Concept, LoHa, LoKr, Lora, Network, Result, Right, Update};
use crate::graph::Array;

use super::alpha;
use super::gather::{Gathered, foreign_form, join_words, unknown_tensor, words_of};
use super::{Read, Tensors, inversion, names};
use crate::watch::Parts;

const EMBEDDING: &str = "bundle_emb.";
/// What layers' names begin with; longer ones before those that they begin with. LyCORIS has its
/// own where it wraps a network by itself.
const PREFIXES: [(&str, Option<Network>); 12] = [
    ("lora_unet_", Some(Network::UNet)),
    ("lora_te2_", Some(Network::TextEncoder2)),
    ("lycoris_te2_", Some(Network::TextEncoder2)),
    ("lycoris_text_encoder_2_", Some(Network::TextEncoder2)),
    ("lora_te_text_encoder_", Some(Network::TextEncoder)),
    ("lora_te1_", Some(Network::TextEncoder)),
    ("lora_te_", Some(Network::TextEncoder)),
    ("lycoris_unet_", Some(Network::UNet)),
    ("lycoris_text_encoder_", Some(Network::TextEncoder)),
    ("lycoris_te1_", Some(Network::TextEncoder)),
    ("lycoris_te_", Some(Network::TextEncoder)),
    // The layer's own name tells.
    ("lycoris_", None),
];

pub fn is_it(file: &TensorFile) -> bool {
    file.names().any(|name| {
        ["lora_unet_", "lora_te", "lycoris_", EMBEDDING]
            .iter()
            .any(|prefix| name.starts_with(prefix))
    })
}

/// The network and the canonical layer of a name without its ending.
fn layer_of(file: &TensorFile, tensor: &str) -> Option<Result<(Network, String)>> {
    let (prefix, network) = PREFIXES.iter().find(|(prefix, _)| tensor.starts_with(prefix))?;
    let (layer, _) = tensor[prefix.len()..].split_once('.')?;
    let layer = names::dotted(layer);
    let network = network.unwrap_or(if names::is_text(&layer) {
        Network::TextEncoder
    } else {
        Network::UNet
    });
    Some(match network {
        // diffusers' own converter leaves `text_model` out.
        network if network.is_text_encoder() => Ok((network, names::text_layer(&layer))),
        _ => names::unet_layer(file, tensor, &layer).map(|layer| (network, layer)),
    })
}

pub fn read(file: &TensorFile, progress: &mut Parts) -> Result<Read> {
    let (mut updates, mut concept) = (Gathered::default(), Concept::default());
    for name in file.names() {
        if let Some(rest) = name.strip_prefix(EMBEDDING) {
            // Stable Diffusion XL's embeddings are named after the text encoders.
            let of = |ending| rest.strip_suffix(ending);
            let (text, encoder) = match (of(".clip_l"), of(".clip_g")) {
                (Some(text), _) => (text, Network::TextEncoder),
                (None, Some(text)) => (text, Network::TextEncoder2),
                (None, None) => {
                    let text = rest.split_once(".string_to_param").map_or(rest, |(word, _)| word);
                    (text, Network::TextEncoder)
                }
            };
            let found = words_of(file, name, text, encoder)?;
            join_words(file, name, &mut concept.words, found)?;
            continue;
        }
        let (Some(found), Some((_, part))) = (layer_of(file, name), name.split_once('.')) else {
            return Err(unknown_tensor(file, name, "kohya's files"));
        };
        let unknown =
            || foreign_form(file, name, other_change(part).unwrap_or("of an unknown form"));
        let part = Part::of(part).ok_or_else(unknown)?;
        let (network, layer) = found?;
        updates.add(file, name, network, layer, part)?;
    }
    let notes = alpha::complete(file, &mut updates)?;
    let updates = updates.read(file, progress)?;
    Ok(Read { concept: Concept { updates, ..concept }, notes })
}

/// The file's tensors. `conv_projections`: whether the model's `proj_in` and `proj_out` are 1x1
/// convolutions (Stable Diffusion 1.x), which readers expect as such. `bundle`: the words go into
/// the file as well.
///
/// # Errors
/// A change that such files cannot hold, with its layer.
pub fn tensors(concept: &Concept, conv_projections: bool, bundle: bool) -> Result<Tensors, String> {
    let mut tensors = Vec::new();
    for vectors in concept.spoken().iter().filter(|_| bundle) {
        let text = vectors.first().map_or("", |word| &word.text);
        for (part, array) in inversion::tensors(vectors) {
            let part = part.unwrap_or("string_to_param.*");
            tensors.push((format!("{EMBEDDING}{text}.{part}"), array));
        }
    }
    let xl = concept.is_xl();
    for (network, set) in concept.updates.iter() {
        let prefix = match network {
            Network::TextEncoder if xl => "lora_te1_",
            Network::TextEncoder => "lora_te_",
            Network::TextEncoder2 => "lora_te2_",
            Network::UNet => "lora_unet_",
        };
        for (layer, update) in &set.layers {
            let name = format!("{prefix}{}", names::underscored(layer));
            let Some(lora) = update.lora() else {
                let parts = others(update, set.scale).map_err(|e| format!("`{layer}` is {e}"))?;
                let named = |(ending, array)| (format!("{name}.{ending}"), array);
                tensors.extend(parts.into_iter().map(named));
                continue;
            };
            let is_window = layer.ends_with("proj_in")
                || layer.ends_with("proj_out")
                || layer.ends_with("conv_shortcut");
            let alpha = Array::f32(&[][..], vec![set.scale * lora.rank() as f32]);
            let Lora { down, up } = match conv_projections && is_window {
                true => as_windows(lora),
                false => lora.clone(),
            };
            // A convolution's widening half is a 1x1 convolution.
            let up = if down.shape.len() == 4 { as_window(up) } else { up };
            tensors.extend([
                (format!("{name}.lora_down.weight"), down),
                (format!("{name}.lora_up.weight"), up),
                (format!("{name}.alpha"), alpha),
            ]);
        }
        for (layer, update) in &set.biases {
            let name = format!("{prefix}{}", names::underscored(layer));
            let norm = set.layers.get(layer).is_some_and(|w| w.weight_shape().len() == 1);
            match parts::bias_tensor(&update.scaled(set.scale), norm) {
                Some((part @ (Part::DiffB | Part::BNorm), bias)) => {
                    tensors.push((format!("{name}.{}", part.ending()), bias));
                }
                _ => return Err(format!("`{layer}` has an {} of its bias", update.kind())),
            }
        }
    }
    Ok(tensors)
}

/// The tensors of a change that is no LoRA, with alpha where the kind has one.
fn others(update: &Update, scale: f32) -> Result<Vec<(&'static str, Array)>, String> {
    let rank = match update {
        Update::LoHa(LoHa([first, _])) => Some(first.rank()),
        Update::LoKr(LoKr { right: Right::Lora(lora), .. }) => Some(lora.rank()),
        _ => None,
    };
    let mut alpha = rank.map(|rank| rank as f32 * scale);
    let update = if rank.is_some() { update.clone() } else { update.scaled(scale) };
    let mut found = parts::tensors(&update)?;
    if let Update::Dora(dora) = &update {
        // Its inner change is at full scale: alpha is the rank.
        let inner = others(&dora.change, 1.0)?.into_iter();
        alpha = inner
            .filter(|(ending, _)| *ending == Part::Alpha.ending())
            .fold(dora.change.lora().map(|lora| lora.rank() as f32), |_, (_, alpha)| {
                alpha.values().first().copied()
            });
    }
    for (part, array) in &mut found {
        *array = match (*part, &array.shape[..]) {
            // The readers multiply matrices.
            (Part::HadaW1B | Part::HadaW2B | Part::LokrW2B, &[rank, d, h, w]) => {
                Array { shape: [rank, d * h * w].into(), ..array.clone() }
            }
            // A convolution's widening half is one too.
            (Part::Up, _) if update.weight_shape().len() == 4 => as_window(array.clone()),
            (Part::Ia3Weight | Part::OnInput, _) => {
                return Err(format!("an {}, which such files hold in two ways", update.kind()));
            }
            _ => continue,
        };
    }
    let alpha = alpha.map(|alpha| (Part::Alpha, Array::f32(&[][..], vec![alpha])));
    Ok(found.into_iter().chain(alpha).map(|(part, array)| (part.ending(), array)).collect())
}

/// A matrix as the weight of a 1x1 convolution.
fn as_window(array: Array) -> Array {
    match array.shape[..] {
        [a, b] => Array { shape: [a, b, 1, 1].into(), ..array },
        _ => array,
    }
}

fn as_windows(lora: &Lora) -> Lora {
    Lora { down: as_window(lora.down.clone()), up: as_window(lora.up.clone()) }
}
