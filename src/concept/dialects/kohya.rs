//! kohya's LoRA files, which web UIs and ComfyUI read: `lora_unet_<layer>` and `lora_te_<layer>` with underscores for dots, each
//! with `lora_down.weight`, `lora_up.weight`, sometimes `lora_mid.weight`, and `alpha`; the factor is alpha over rank. Words come
//! along as textual inversions, `bundle_emb.<word>.string_to_param.*`.

use crate::checkpoint::TensorFile;
use crate::concept::file::tensor_error;
use crate::concept::{Concept, LowRankSet, Result, Update};
use crate::graph::Array;

use super::gather::{Network, Scale, Updates, stranger, words};
use super::{Read, Tensors, inversion, names};

const EMBEDDING: &str = "bundle_emb.";
const PREFIXES: [(&str, Network); 4] = [
    ("lora_unet_", Network::Unet),
    ("lora_te_", Network::Text),
    ("lora_te1_", Network::Text),
    ("lora_te_text_encoder_", Network::Text),
];

/// Endings of other ways to write a change, and what they are called.
const OTHERS: [(&str, &str); 8] = [
    ("hada_", "a LoHa"),
    ("lokr_", "a LoKr"),
    ("oft_", "an OFT"),
    ("dora_scale", "a DoRA"),
    ("diff", "whole weights (a `full` network)"),
    ("on_input", "an IA3"),
    ("w_norm", "norm weights (a GLoRA or LyCORIS `norm` network)"),
    ("a1.weight", "a GLoRA"),
];

pub fn is_it(file: &TensorFile) -> bool {
    file.names().any(|name| name.starts_with("lora_unet_") || name.starts_with("lora_te"))
}

pub fn read(file: &TensorFile) -> Result<Read> {
    let (mut updates, mut concept) = (Updates::default(), Concept::default());
    for name in file.names() {
        if let Some(rest) = name.strip_prefix(EMBEDDING) {
            let text = rest.split_once(".string_to_param").map_or(rest, |(word, _)| word);
            concept.words.extend(words(file, name, text)?);
            continue;
        }
        let found = PREFIXES.iter().find_map(|(prefix, network)| Some((*network, name.strip_prefix(prefix)?)));
        let Some((network, (layer, part))) = found.and_then(|(network, rest)| Some((network, rest.split_once('.')?))) else {
            if name.starts_with("lora_te2_") {
                return Err(tensor_error(
                    file,
                    name,
                    "it belongs to a second text encoder (Stable Diffusion XL), which is not supported".into(),
                ));
            }
            return Err(stranger(file, name, "kohya's files"));
        };
        let entry = updates.entry(network, names::dotted(layer));
        match part {
            "lora_down.weight" => entry.down = Some(name.to_string()),
            "lora_up.weight" => entry.up = Some(name.to_string()),
            "lora_mid.weight" => entry.middle = Some(name.to_string()),
            "alpha" => entry.scale = Scale::Alpha(name.to_string()),
            other => {
                let kind = OTHERS.iter().find(|(part, _)| other.starts_with(part)).map_or("of an unknown form", |(_, kind)| kind);
                return Err(tensor_error(
                    file,
                    name,
                    format!("the change is {kind}, which is not supported; LoRA and LoCon are"),
                ));
            }
        }
    }
    let [text, unet] = updates.read(file)?;
    Ok(Read { concept: Concept { text, unet, ..concept }, notes: Vec::new() })
}

/// The file's tensors. `conv_projections`: whether the model's `proj_in` and `proj_out` are 1x1 convolutions (Stable Diffusion
/// 1.x), which readers expect as such.
pub fn tensors(concept: &Concept, conv_projections: bool) -> Tensors {
    let mut tensors = Vec::new();
    for word in &concept.words {
        tensors.push((format!("{EMBEDDING}{}.string_to_param.*", word.text), inversion::mean(word)));
    }
    for (prefix, LowRankSet { scale, layers }) in [("lora_te_", &concept.text), ("lora_unet_", &concept.unet)] {
        for (layer, update) in layers {
            let name = format!("{prefix}{}", names::underscored(layer));
            let is_window = layer.ends_with("proj_in") || layer.ends_with("proj_out") || layer.ends_with("conv_shortcut");
            let Update { down, up } = if conv_projections && is_window { as_windows(update) } else { update.clone() };
            let alpha = Array::f32(&[][..], vec![scale * update.rank() as f32]);
            // A convolution's widening half is a 1x1 convolution.
            let up = if down.shape.len() == 4 { as_window(up) } else { up };
            tensors.extend([
                (format!("{name}.lora_down.weight"), down),
                (format!("{name}.lora_up.weight"), up),
                (format!("{name}.alpha"), alpha),
            ]);
        }
    }
    tensors
}

/// A matrix as the weight of a 1x1 convolution.
fn as_window(array: Array) -> Array {
    match array.shape[..] {
        [a, b] => Array { shape: [a, b, 1, 1].into(), ..array },
        _ => array,
    }
}

fn as_windows(update: &Update) -> Update {
    Update { down: as_window(update.down.clone()), up: as_window(update.up.clone()) }
}
