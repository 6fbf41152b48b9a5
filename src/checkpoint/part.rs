//! One network's folder in diffusers' layout, with the older names that some of them still have.
use super::component::{Part, Targets};
use super::{Component, Error, Folder, TensorFile};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Opens one folder of a model, such as `unet/`.
pub(super) fn component(
    folder: &Folder,
    stem: &str,
    variant: Option<&str>,
    translate: fn(&str) -> Targets,
) -> Result<Component, Error> {
    let config = folder.json("config.json")?.ok_or_else(|| missing(folder, "config.json"))?;
    let NetworkFiles { files, owner } = files(folder, stem, variant)?;
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

/// The files that hold a network's weights.
pub(super) struct NetworkFiles {
    pub files: Vec<TensorFile>,
    /// For sharded weights: the number of the file that holds each tensor.
    pub owner: Option<BTreeMap<String, usize>>,
}

fn missing(folder: &Folder, wanted: &str) -> Error {
    Error::MissingFile { folder: folder.path().to_path_buf(), wanted: wanted.to_string() }
}

/// Finds a folder's weights: the preferred variant, plain ones, `fp16`, of safetensors before
/// pickles, or else the only file of tensors there is.
pub(super) fn files(
    folder: &Folder,
    stem: &str,
    variant: Option<&str>,
) -> Result<NetworkFiles, Error> {
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
                return Ok(NetworkFiles { files: vec![folder.tensors(&file)?], owner: None });
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
        [only] => Ok(NetworkFiles { files: vec![folder.tensors(only)?], owner: None }),
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
fn shards(folder: &Folder, index: &str) -> Result<NetworkFiles, Error> {
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
    Ok(NetworkFiles { files, owner: Some(owner) })
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
