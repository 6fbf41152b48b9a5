//! LoRA files of PEFT and diffusers: `unet.<layer>.lora_A.weight`, `lora_B.weight`, and the names
//! that diffusers wrote before; PEFT's LoHa, LoKr, IA3 and DoRA, which are named as LyCORIS' are.
//!
//! The factor is alpha over rank, where an `alpha` tensor or settings beside the tensors tell
//! alpha; otherwise 1.

use crate::checkpoint::{TensorFile, other_change};
use crate::concept::parts::Part;
use crate::concept::tensors::tensor_error;
use crate::concept::{Concept, Lora, Network, Result, Update};

use super::alpha;
use super::gather::{Gathered, foreign_form, unknown_tensor};
use super::names::{self, of_processor};
use super::{Read, Tensors};
use crate::watch::Parts;

const DOWN: [&str; 6] = [
    ".lora_A.weight",
    ".lora_A.default.weight",
    ".lora_A.default_0.weight",
    ".lora.down.weight",
    ".lora_linear_layer.down.weight",
    ".down.weight",
];
const UP: [&str; 6] = [
    ".lora_B.weight",
    ".lora_B.default.weight",
    ".lora_B.default_0.weight",
    ".lora.up.weight",
    ".lora_linear_layer.up.weight",
    ".up.weight",
];

const MAGNITUDE: &str = ".lora_magnitude_vector";

pub fn is_it(file: &TensorFile) -> bool {
    let ends = |name: &str, all: &[&str]| all.iter().any(|end| name.ends_with(end));
    let other = |name: &str| other_part(name).is_some_and(|(_, part)| part.tells_an_update());
    file.names()
        .any(|name| ends(name, &DOWN[..5]) || name.ends_with("_lora.down.weight") || other(name))
}

/// The layer and the part of a tensor of another kind of change. PEFT leaves the adapter's name out
/// when it saves, others do not.
fn other_part(name: &str) -> Option<(&str, Part)> {
    let bare = name.strip_suffix(".default").unwrap_or(name);
    if let Some(layer) = bare.strip_suffix(".weight").unwrap_or(bare).strip_suffix(MAGNITUDE) {
        return Some((layer, Part::Magnitude));
    }
    let of_lora = |part| matches!(part, Part::Down | Part::Up | Part::Middle);
    Part::at_end(bare).filter(|(_, part)| !of_lora(*part) && *part != Part::Ia3Weight)
}

/// The network and the layer of a name without its ending.
fn layer_of(file: &TensorFile, tensor: &str, name: &str) -> Result<(Network, String)> {
    let name = name.strip_prefix("base_model.model.").unwrap_or(name);
    let (network, layer) = match name {
        name if name.starts_with("unet.") => (Network::UNet, &name["unet.".len()..]),
        name if name.starts_with("text_encoder.") => {
            (Network::TextEncoder, &name["text_encoder.".len()..])
        }
        name if name.starts_with("text_encoder_2.") => {
            (Network::TextEncoder2, &name["text_encoder_2.".len()..])
        }
        name if name.starts_with("transformer.") => {
            return Err(tensor_error(
                file,
                tensor,
                "it belongs to a network that this program does not have".into(),
            ));
        }
        // PEFT saves each network in a folder of its own.
        name if names::is_text(name) => match names::is_in_second_folder(file) {
            true => (Network::TextEncoder2, name),
            false => (Network::TextEncoder, name),
        },
        name => (Network::UNet, name),
    };
    let layer = of_processor(layer);
    Ok(match network {
        network if network.is_text_encoder() => (network, names::text_layer(&layer)),
        _ => (network, names::unet_layer(file, tensor, &layer)?),
    })
}

pub fn read(file: &TensorFile, progress: &mut Parts) -> Result<Read> {
    let mut updates = Gathered::default();
    for name in file.names() {
        let ending = |endings: &[&str]| endings.iter().find_map(|end| name.strip_suffix(end));
        let (layer, part) = if let Some(layer) = ending(&DOWN) {
            (layer, Part::Down)
        } else if let Some(layer) = ending(&UP) {
            (layer, Part::Up)
        } else if let Some(layer) = name.strip_suffix(".alpha") {
            (layer.strip_suffix(".lora").unwrap_or(layer), Part::Alpha)
        } else if let Some(found) = other_part(name) {
            found
        } else if let Some(kind) = other_change(name) {
            return Err(foreign_form(file, name, kind));
        } else {
            return Err(unknown_tensor(file, name, "PEFT's and diffusers' LoRA files"));
        };
        let (network, layer) = layer_of(file, name, layer)?;
        updates.add(file, name, network, layer, part)?;
    }
    let notes = alpha::complete(file, &mut updates)?;
    let updates = updates.read(file, progress)?;
    Ok(Read { concept: Concept { updates, ..Concept::default() }, notes })
}

/// Updates whose scale is in the matrices, which every reader takes. Those that are no LoRA are
/// left out.
pub fn tensors(concept: &Concept) -> Tensors {
    let mut tensors = Vec::new();
    for (network, set) in concept.updates.iter() {
        let network = network.folder();
        for (layer, update) in &set.layers {
            let Update::Lora(Lora { down, up }) = update.scaled(set.scale) else { continue };
            tensors.push((format!("{network}.{layer}.lora_A.weight"), down));
            tensors.push((format!("{network}.{layer}.lora_B.weight"), up));
        }
    }
    tensors
}
