//! LoRAs as ComfyUI names them: `diffusion_model.<layer>` with LDM's or diffusers' layers and
//! `text_encoders.clip_l.transformer.<layer>` (`clip_g` of a second one), with dots, each with `lora_down.weight`,
//! `lora_up.weight` and `alpha`, with PEFT's endings or those of other kinds of changes. The factor
//! is alpha over rank.

use crate::checkpoint::{TensorFile, other_change};
use crate::concept::parts::Part;
use crate::concept::{Concept, Network, Result};

use super::gather::{Gathered, foreign_form, other_encoder, unknown_tensor};
use super::{Read, alpha, names};
use crate::watch::Parts;

const UNET: [&str; 2] = ["diffusion_model.", "model.diffusion_model."];
const TEXT: &str = "text_encoders.";
/// CLIP's text encoders of Stable Diffusion 1.x, 2.x and XL.
const CLIP: [(&str, Network); 3] = [
    ("clip_l.", Network::TextEncoder),
    ("clip_h.", Network::TextEncoder),
    ("clip_g.", Network::TextEncoder2),
];
/// PEFT's, besides the usual ones.
const ENDINGS: [(&str, Part); 4] = [
    (".lora_A.weight", Part::Down),
    (".lora_B.weight", Part::Up),
    (".lora_A.default.weight", Part::Down),
    (".lora_B.default.weight", Part::Up),
];

/// The layer and the part of a tensor, which no weight of a model itself has.
fn part_of(name: &str) -> Option<(&str, Part)> {
    let of_peft = ENDINGS.iter().find_map(|(end, part)| Some((name.strip_suffix(end)?, *part)));
    of_peft.or_else(|| Part::at_end(name).filter(|(_, part)| *part != Part::Ia3Weight))
}

fn is_prefixed(name: &str) -> bool {
    UNET.iter().any(|prefix| name.starts_with(prefix)) || name.starts_with(TEXT)
}

pub fn is_it(file: &TensorFile) -> bool {
    let is_update = |name: &str| part_of(name).is_some_and(|(_, part)| part.tells_an_update());
    file.names().any(|name| is_prefixed(name) && is_update(name))
}

pub fn read(file: &TensorFile, progress: &mut Parts) -> Result<Read> {
    let mut updates = Gathered::default();
    for name in file.names() {
        let Some((layer, part)) = part_of(name).filter(|_| is_prefixed(name)) else {
            return Err(match other_change(name) {
                Some(kind) => foreign_form(file, name, kind),
                None => unknown_tensor(file, name, "ComfyUI's LoRA files"),
            });
        };
        let (network, layer) = match layer.strip_prefix(TEXT) {
            Some(text) => {
                let (inside, network) = CLIP
                    .iter()
                    .find_map(|(clip, network)| Some((text.strip_prefix(clip)?, *network)))
                    .ok_or_else(|| other_encoder(file, name))?;
                (network, names::text_layer(inside.strip_prefix("transformer.").unwrap_or(inside)))
            }
            None => {
                let layer =
                    UNET.iter().find_map(|prefix| layer.strip_prefix(prefix)).unwrap_or(layer);
                (Network::UNet, names::unet_layer(file, name, layer)?)
            }
        };
        updates.add(file, name, network, layer, part)?;
    }
    let notes = alpha::complete(file, &mut updates)?;
    let updates = updates.read(file, progress)?;
    Ok(Read { concept: Concept { updates, ..Concept::default() }, notes })
}
