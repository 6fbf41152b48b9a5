//! Model folders in diffusers' layout, with the older names that some of them still have.
use super::component::{Part, Targets};
use super::{Checkpoint, Component, Control, Error, Folder, Kind, TensorFile, TokenizerFiles};
use crate::text::KNOWN_WORDS_FILE;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

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

/// Opens one folder of a model, such as `unet/`.
pub(super) fn component(
    folder: &Folder,
    stem: &str,
    variant: Option<&str>,
    translate: fn(&str) -> Targets,
) -> Result<Component, Error> {
    let config = folder.json("config.json")?.ok_or_else(|| missing(folder, "config.json"))?;
    let Weights { files, owner } = weights(folder, stem, variant)?;
    let files = files.into_iter().map(Arc::new).collect();
    let mut component = Component::gather(folder.path(), files, |index, name| {
        // With an index, a tensor counts only in the file that the index names for it.
        let elsewhere = owner.as_ref().is_some_and(|o| o.get(name) != Some(&index));
        Some(if elsewhere { Vec::new() } else { translate(name) })
    })?;
    component.config = config;
    component.config_path = folder.path().join("config.json");
    Ok(component)
}

struct Weights {
    files: Vec<TensorFile>,
    /// For sharded weights: the number of the file that holds each tensor.
    owner: Option<BTreeMap<String, usize>>,
}

fn missing(folder: &Folder, wanted: &str) -> Error {
    Error::MissingFile { folder: folder.path().to_path_buf(), wanted: wanted.to_string() }
}

/// Finds a folder's weights: the preferred variant, plain ones, `fp16`, of safetensors before
/// pickles, or else the only file of tensors there is.
fn weights(folder: &Folder, stem: &str, variant: Option<&str>) -> Result<Weights, Error> {
    let pickled = if stem == "model" { "pytorch_model" } else { stem };
    let variants = || variant.into_iter().map(Some).chain([None, Some("fp16")]);
    for (stem, ending) in [(stem, "safetensors"), (pickled, "bin")] {
        for variant in variants() {
            let (file, indices) = match variant {
                None => (format!("{stem}.{ending}"), vec![format!("{stem}.{ending}.index.json")]),
                Some(v) => (
                    format!("{stem}.{v}.{ending}"),
                    vec![
                        format!("{stem}.{ending}.index.{v}.json"),
                        format!("{stem}.{v}.{ending}.index.json"),
                    ],
                ),
            };
            if folder.has(&file) {
                return Ok(Weights { files: vec![folder.tensors(&file)?], owner: None });
            }
            if let Some(index) = indices.iter().find(|i| folder.has(i)) {
                return shards(folder, index);
            }
        }
    }
    let names = folder.names();
    let ending = |ends: &[&str]| -> Vec<&String> {
        names.iter().filter(|n| ends.iter().any(|e| n.ends_with(e))).collect()
    };
    let tensors = match ending(&[".safetensors"]) {
        none if none.is_empty() => ending(&[".bin", ".pt", ".pth", ".ckpt"]),
        found => found,
    };
    match tensors[..] {
        [only] => Ok(Weights { files: vec![folder.tensors(only)?], owner: None }),
        [] => Err(missing(folder, &format!("{stem}.safetensors"))),
        ref several => Err(Error::Unrecognised {
            path: folder.path().to_path_buf(),
            problem: format!(
                "no {stem}.safetensors, and {} other files of tensors to choose from ({}, ...)",
                several.len(),
                several[0]
            ),
        }),
    }
}

/// Weights spread over several files by an index: `{"weight_map": {"<tensor>": "<file>"}}`.
fn shards(folder: &Folder, index: &str) -> Result<Weights, Error> {
    let path = folder.path().join(index);
    let bad = |problem: String| Error::Index { path: path.clone(), problem };
    let json = folder.json(index)?.unwrap_or_default();
    let map = json
        .get("weight_map")
        .and_then(Value::as_object)
        .filter(|map| !map.is_empty())
        .ok_or_else(|| bad("no `weight_map` that names a file for each tensor".to_string()))?;
    let mut numbers: BTreeMap<&str, usize> = BTreeMap::new();
    let mut files: Vec<TensorFile> = Vec::new();
    let mut owner = BTreeMap::new();
    for (tensor, file) in map {
        let name = file
            .as_str()
            .ok_or_else(|| bad(format!("`weight_map`: `{tensor}` has no file name")))?;
        // A name with a separator would reach outside the folder.
        if name.contains(['/', '\\']) || name == ".." {
            return Err(bad(format!(
                "`weight_map`: `{name}` is not the name of a file in this folder"
            )));
        }
        let number = match numbers.get(name) {
            Some(&n) => n,
            None => {
                if !folder.has(name) {
                    return Err(bad(format!(
                        "`weight_map` names {name}, which is not in the folder"
                    )));
                }
                files.push(folder.tensors(name)?);
                numbers.insert(name, files.len() - 1);
                files.len() - 1
            }
        };
        if !files[number].contains(tensor) {
            return Err(bad(format!(
                "`weight_map` says that {name} holds `{tensor}`, but it does not"
            )));
        }
        owner.insert(tensor.clone(), number);
    }
    Ok(Weights { files, owner: Some(owner) })
}

/// A UNet's names are canonical as they are.
pub(super) fn unet_names(name: &str) -> Targets {
    vec![(name.to_string(), Part::Whole)]
}

/// An autoencoder's names; its attention layers used to be called and stored otherwise.
pub(super) fn vae_names(name: &str) -> Targets {
    let Some((module, rest)) = name.split_once(".attentions.") else {
        return vec![(name.to_string(), Part::Whole)];
    };
    let Some((number, layer)) = rest.split_once('.') else {
        return vec![(name.to_string(), Part::Whole)];
    };
    let (layer, parameter) = layer.rsplit_once('.').unwrap_or((layer, ""));
    let layer = match layer {
        "query" => "to_q",
        "key" => "to_k",
        "value" => "to_v",
        "proj_attn" => "to_out.0",
        same => same,
    };
    vec![(format!("{module}.attentions.{number}.{layer}.{parameter}"), Part::Matrix)]
}

/// A text encoder's names: with `text_model.` before them, which newer transformers leave out.
pub(super) fn text_names(name: &str) -> Targets {
    tower_names(name, "text_model.", "vision_model.")
}

/// A vision tower's names: with `vision_model.` before them, which newer transformers leave out.
pub(super) fn vision_names(name: &str) -> Targets {
    tower_names(name, "vision_model.", "text_model.")
}

/// The projections to the joint space stand outside either tower and are kept: a text encoder that
/// only drives pictures has none, so that the file of the vision tower may hold both.
fn tower_names(name: &str, own: &str, other: &str) -> Targets {
    let bare = ["text_projection.", "visual_projection.", "logit_scale"];
    // Older programs saved this buffer of 0, 1, 2, ...
    if name.ends_with("position_ids") || name.starts_with(other) {
        return Vec::new();
    }
    let name = match name.starts_with(own) || bare.iter().any(|b| name.starts_with(b)) {
        true => name.to_string(),
        false => format!("{own}{name}"),
    };
    vec![(name, Part::Whole)]
}
