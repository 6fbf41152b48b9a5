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
    let index = model_index.as_ref();
    let named = |part: &str| names(index, part);
    // Not its tokenizers, where CLIP's own would do.
    for part in ["unet", "vae", "text_encoder", SECOND, "scheduler"] {
        if named(part) && !folder.join(part).exists() {
            return Err(left_out(folder, part));
        }
    }
    let mut notes = Vec::new();
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
    let second = match folder.join(SECOND).has("config.json") {
        false => None,
        true => {
            let component = part(SECOND, "model", text_names)?;
            let tokenizer = tokenizer(folder, "tokenizer_2", &component, index, &mut notes)?;
            let zeros =
                index.and_then(|index| index.get("force_zeros_for_empty_prompt")?.as_bool());
            let zeros_for_empty = zeros.unwrap_or(true);
            Some(SecondEncoder { component, tokenizer, zeros_for_empty })
        }
    };
    if second.is_some() && !folder.join("text_encoder").has("config.json") {
        let problem = super::single::REFINER.to_string();
        return Err(Error::Unrecognised { path: folder.path().to_path_buf(), problem });
    }
    let text_encoder = part("text_encoder", "model", text_names)?;
    let tokenizer = tokenizer(folder, "tokenizer", &text_encoder, index, &mut notes)?;
    Ok(Checkpoint {
        path: folder.path().to_path_buf(),
        kind: Kind::DiffusersFolder,
        unet: part("unet", "diffusion_pytorch_model", unet_names)?,
        vae: part("vae", "diffusion_pytorch_model", vae_names)?,
        vision,
        vision_preprocessor,
        controls,
        tokenizer,
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
        notes,
    })
}

/// The folder of Stable Diffusion XL's second text encoder.
const SECOND: &str = "text_encoder_2";

/// `model_index.json` names that part of the model.
fn names(index: Option<&Value>, part: &str) -> bool {
    let told = index.and_then(|index| index.get(part)?.as_array());
    told.is_some_and(|told| told.iter().any(|value| !value.is_null()))
}

/// The error for a part that is named there and not in the folder.
fn left_out(folder: &Folder, part: &str) -> Error {
    let problem = format!(
        "{part} is missing: model_index.json names it, and there is no such folder (an incomplete \
            download or copy?)"
    );
    Error::Unrecognised { path: folder.path().to_path_buf(), problem }
}

/// Tokens of CLIP's own tokenizer.
const CLIP_TOKENS: u64 = 49_408;

/// The tokenizer of a text encoder: that in the folder of this name, or CLIP's own.
fn tokenizer(
    folder: &Folder,
    name: &str,
    text_encoder: &Component,
    index: Option<&Value>,
    notes: &mut Vec<String>,
) -> Result<TokenizerFiles, Error> {
    let inside = folder.join(name);
    if inside.exists() {
        return Ok(TokenizerFiles::Folder(inside));
    }
    if names(index, name) {
        let tokens = text_encoder.config.get("vocab_size").and_then(Value::as_u64);
        if tokens.is_some_and(|tokens| tokens < CLIP_TOKENS) {
            return Err(left_out(folder, name));
        }
        notes.push(format!(
            "{name} is missing, though model_index.json names it: CLIP's own is taken"
        ));
    }
    Ok(TokenizerFiles::standard(text_encoder))
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
