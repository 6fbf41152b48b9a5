//! Model folders in diffusers' layout.
use super::component::Targets;
use super::part::{component, text_names, unet_names, vae_names, vision_names};
use super::{Checkpoint, Component, Control, Error, Folder, Kind, SecondEncoder, TokenizerFiles};
use crate::text::KNOWN_WORDS_FILE;
use serde_json::Value;
use std::collections::BTreeMap;

/// Opens a model folder.
pub(super) fn open(folder: &Folder, variant: Option<&str>) -> Result<Checkpoint, Error> {
    let model_index = folder.json("model_index.json")?;
    if model_index.is_none() && !folder.join("unet").has("config.json") {
        return Err(Error::Unrecognised {
            path: folder.path().to_path_buf(),
            problem: not_a_model(folder),
        });
    }
    let part = |name: &str, stem: &str, translate: fn(&str) -> Targets| {
        component(&folder.join(name), stem, variant, translate)
    };
    let tower = ["image_encoder", "clip_vision"]
        .into_iter()
        .find(|name| folder.join(name).has("config.json"));
    let vision = tower.map(|name| part(name, "model", vision_names)).transpose()?;
    // Pipelines of diffusers keep it in a folder of its own.
    let beside = |name: &&str| folder.join(name).has("preprocessor_config.json");
    let preprocessor = tower.into_iter().chain(["feature_extractor"]).find(beside);
    let vision_preprocessor = preprocessor
        .map(|name| folder.join(name).json("preprocessor_config.json"))
        .transpose()?
        .flatten();
    let mut controls = BTreeMap::new();
    for name in ["t2i_adapter", "controlnet"] {
        let inside = folder.join(name);
        if inside.has("config.json") {
            controls.insert(name.to_string(), Control::of_folder(&inside)?);
        }
    }
    let scheduler = folder.join("scheduler");
    let tokenizer = folder.join("tokenizer");
    let second = match folder.join(SECOND).has("config.json") {
        false => None,
        true => Some(second(folder, part(SECOND, "model", text_names)?, model_index.as_ref())),
    };
    if second.is_some() && !folder.join("text_encoder").has("config.json") {
        let problem = super::single::REFINER.to_string();
        return Err(Error::Unrecognised { path: folder.path().to_path_buf(), problem });
    }
    let text_encoder = part("text_encoder", "model", text_names)?;
    Ok(Checkpoint {
        path: folder.path().to_path_buf(),
        kind: Kind::DiffusersFolder,
        unet: part("unet", "diffusion_pytorch_model", unet_names)?,
        vae: part("vae", "diffusion_pytorch_model", vae_names)?,
        vision,
        vision_preprocessor,
        controls,
        tokenizer: match tokenizer.exists() {
            true => TokenizerFiles::Folder(tokenizer),
            false => TokenizerFiles::standard(&text_encoder),
        },
        text_encoder,
        second,
        scheduler: scheduler.json("scheduler_config.json")?.ok_or_else(|| Error::MissingFile {
            folder: scheduler.path().to_path_buf(),
            wanted: "scheduler_config.json".to_string(),
        })?,
        model_index,
        generation: generation(folder)?,
        concepts: folder.json("new_concept_cfg.json")?,
        words: folder.text(KNOWN_WORDS_FILE)?,
        notes: Vec::new(),
    })
}

/// The folder of Stable Diffusion XL's second text encoder.
const SECOND: &str = "text_encoder_2";

/// What goes with a second text encoder.
fn second(folder: &Folder, component: Component, index: Option<&Value>) -> SecondEncoder {
    let tokenizer = folder.join("tokenizer_2");
    let tokenizer = match tokenizer.exists() {
        true => TokenizerFiles::Folder(tokenizer),
        false => TokenizerFiles::standard(&component),
    };
    let zeros = index.and_then(|index| index.get("force_zeros_for_empty_prompt")?.as_bool());
    SecondEncoder { component, tokenizer, zeros_for_empty: zeros.unwrap_or(true) }
}

fn not_a_model(folder: &Folder) -> String {
    let names = folder.names();
    let files: Vec<_> = names.iter().filter(|n| n.ends_with(".safetensors")).collect();
    let hint = if names.iter().any(|n| n == "config.json") {
        "it looks like one part of a model; give the folder above it".to_string()
    } else if let Some(first) = files.first() {
        format!("to use a model that is one file, name the file, such as {first}")
    } else if names.is_empty() {
        "the folder is empty".to_string()
    } else {
        "it has neither model_index.json nor unet/config.json".to_string()
    };
    format!("not a model folder: {hint}")
}

/// `generation_config.json`, as far as it is used: a text-to-image model's recommended guidance.
fn generation(folder: &Folder) -> Result<Option<Value>, Error> {
    const FILE: &str = "generation_config.json";
    let found = folder.json(FILE)?;
    if let Some(scale) = found.as_ref().and_then(|value| value.get("guidance_scale"))
        && !scale.is_number()
    {
        let problem = format!("`guidance_scale` is {scale}, expected a number");
        return Err(Error::Unrecognised { path: folder.path().join(FILE), problem });
    }
    Ok(found)
}
