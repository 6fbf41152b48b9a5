//! LoRA files of PEFT and diffusers: `unet.<layer>.lora_A.weight`, `lora_B.weight`, and the names that diffusers wrote before.
//!
//! The factor is alpha over rank, where metadata or an `alpha` tensor tells alpha; otherwise 1.

use serde_json::Value;

use crate::checkpoint::TensorFile;
use crate::concept::file::tensor_error;
use crate::concept::{Concept, LowRankSet, Result};

use super::gather::{Network, Scale, Updates, scaled, stranger};
use super::names::{self, of_processor};
use super::{Read, Tensors};

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
/// The key under which diffusers keeps PEFT's settings, as JSON.
const SETTINGS: &str = "lora_adapter_metadata";

pub fn is_it(file: &TensorFile) -> bool {
    let ends = |name: &str, all: &[&str]| all.iter().any(|end| name.ends_with(end));
    file.names().any(|name| ends(name, &DOWN[..5]) || name.ends_with("_lora.down.weight"))
}

/// The network and the layer of a name without its ending.
fn layer_of(name: &str) -> Option<(Network, String)> {
    let name = name.strip_prefix("base_model.model.").unwrap_or(name);
    let (network, layer) = match name {
        name if name.starts_with("unet.") => (Network::Unet, &name["unet.".len()..]),
        name if name.starts_with("text_encoder.") => (Network::Text, &name["text_encoder.".len()..]),
        name if name.starts_with("text_encoder_2.") || name.starts_with("transformer.") => return None,
        name if names::is_text(name) => (Network::Text, name),
        name => (Network::Unet, name),
    };
    let layer = of_processor(layer);
    Some((network, if network == Network::Text { names::text_layer(&layer) } else { layer }))
}

pub fn read(file: &TensorFile) -> Result<Read> {
    let mut updates = Updates::default();
    for name in file.names() {
        let part = |endings: &[&str]| endings.iter().find_map(|end| name.strip_suffix(end));
        let foreign = || tensor_error(file, name, "it belongs to a network that this program does not have".into());
        if let Some(layer) = part(&DOWN) {
            let (network, layer) = layer_of(layer).ok_or_else(foreign)?;
            updates.entry(network, layer).down = Some(name.to_string());
        } else if let Some(layer) = part(&UP) {
            let (network, layer) = layer_of(layer).ok_or_else(foreign)?;
            updates.entry(network, layer).up = Some(name.to_string());
        } else if let Some(layer) = name.strip_suffix(".alpha") {
            let layer = layer.strip_suffix(".lora").unwrap_or(layer);
            let (network, layer) = layer_of(layer).ok_or_else(foreign)?;
            updates.entry(network, layer).scale = Scale::Alpha(name.to_string());
        } else if name.contains("lora_magnitude_vector") {
            return Err(tensor_error(file, name, "the change is a DoRA, which is not supported; LoRA is".into()));
        } else {
            return Err(stranger(file, name, "PEFT's and diffusers' LoRA files"));
        }
    }
    settings(file, &mut updates)?;
    let [text, unet] = updates.read(file)?;
    Ok(Read { concept: Concept { text, unet, ..Concept::default() }, notes: Vec::new() })
}

/// Alphas that the file's metadata tells: PEFT's `lora_alpha`, `alpha_pattern` and `use_rslora`, each behind its network's name.
fn settings(file: &TensorFile, updates: &mut Updates) -> Result<()> {
    let Some(text) = file.metadata().get(SETTINGS) else { return Ok(()) };
    let settings: Value = serde_json::from_str(text).map_err(|e| crate::concept::Error::File {
        path: file.path().to_path_buf(),
        problem: format!("metadata `{SETTINGS}` cannot be read: {e}"),
    })?;
    for (network, layer, names) in updates.iter_mut() {
        let of = |key: &str| {
            let prefix = if network == Network::Text { "text_encoder" } else { "unet" };
            settings.get(format!("{prefix}.{key}")).or_else(|| settings.get(key))
        };
        let pattern = of("alpha_pattern").and_then(Value::as_object);
        let special = pattern.and_then(|all| {
            let fits = |key: &&String| layer == key.as_str() || layer.ends_with(&format!(".{key}"));
            all.iter().find(|(key, _)| fits(key)).map(|(_, alpha)| alpha)
        });
        let Some(alpha) = special.or_else(|| of("lora_alpha")).and_then(Value::as_f64) else { continue };
        if matches!(names.scale, Scale::One) {
            let stabilised = of("use_rslora").and_then(Value::as_bool) == Some(true);
            names.scale = if stabilised { Scale::Stabilised(alpha as f32) } else { Scale::Number(alpha as f32) };
        }
    }
    Ok(())
}

/// Updates whose scale is in the matrices, which every reader takes.
pub fn tensors(concept: &Concept) -> Tensors {
    let mut tensors = Vec::new();
    for (network, LowRankSet { scale, layers }) in [("text_encoder", &concept.text), ("unet", &concept.unet)] {
        for (layer, update) in layers {
            tensors.push((format!("{network}.{layer}.lora_A.weight"), update.down.clone()));
            tensors.push((format!("{network}.{layer}.lora_B.weight"), scaled(&update.up, *scale)));
        }
    }
    tensors
}
