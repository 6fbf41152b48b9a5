//! What a file or folder is and holds: the data behind `mos inspect`.
use super::component::Component;
use super::describe::summarise;
pub use super::describe::{ComponentReport, InversionReport, Report, TensorReport, describe_file};
use super::part::{component, text_names, unet_names, vae_names, vision_names};
pub use super::what::What;
use super::what::classify;
use super::{CONFIG_METADATA, Checkpoint, Error, Folder, Kind, TensorFile, adapter, hub};
use crate::text::KnownWords;
use std::path::Path;

/// Describes a model folder, a folder of one network, or any file of tensors.
pub fn inspect(path: &Path) -> Result<Report, Error> {
    let meta = std::fs::metadata(path).map_err(Error::io(path, "open"))?;
    if meta.is_dir() {
        return inspect_folder(&hub::snapshot(path)?);
    }
    let report = describe_file(&TensorFile::open_any(path)?);
    match report.what {
        What::SingleFileSd1 | What::SingleFileSd2 | What::SingleFileSdxl => {
            Ok(describe_model(&Checkpoint::open(path)?, report))
        }
        _ => Ok(report),
    }
}

/// Describes a model that is open already, such as the one that ships with the program.
pub fn inspect_model(model: &Checkpoint) -> Report {
    describe_model(model, Report::new(&model.path, What::DiffusersFolder))
}

fn inspect_folder(path: &Path) -> Result<Report, Error> {
    let folder = Folder::disk(path);
    let is_model = folder.has("model_index.json") || folder.join("unet").has("config.json");
    if is_model || !folder.has("config.json") {
        if let ([first, rest @ ..], false) = (&adapter::known(path)[..], is_model) {
            let mut report = inspect(first)?;
            for more in rest {
                report.take(inspect(more)?);
                report.path = path.to_path_buf();
            }
            return Ok(report);
        }
        let empty = Report::new(path, What::DiffusersFolder);
        return Ok(describe_model(&Checkpoint::open(path)?, empty));
    }
    // One network: its kind is in its configuration, or else in the names of its tensors.
    let config = folder.json("config.json")?.unwrap_or_default();
    let is = |key: &str, part: &str| config[key].as_str().is_some_and(|v| v.contains(part));
    let known = if is("_class_name", "UNet") {
        Some((What::Unet, "unet", unet_names as fn(&str) -> _))
    } else if is("_class_name", "Autoencoder") {
        Some((What::Vae, "vae", vae_names as _))
    } else if is("model_type", "clip_text") {
        Some((What::TextEncoder, "text_encoder", text_names as _))
    } else if is("_class_name", "ControlNet") {
        Some((What::ControlNet, "controlnet", unet_names as _))
    } else if is("_class_name", "T2IAdapter") {
        Some((What::T2iAdapter, "adapter", unet_names as _))
    } else if is("model_type", "clip_vision") {
        Some((What::VisionEncoder, "vision", vision_names as _))
    } else {
        None
    };
    let (what, name, translate) = known.unwrap_or((What::Unknown, "tensors", unet_names as _));
    let stem = if is("_class_name", "") { "diffusion_pytorch_model" } else { "model" };
    let component = component(&folder, stem, None, translate)?;
    let mut report = Report::new(path, what);
    let by_names = classify(&component.names().collect::<Vec<_>>());
    let finer = [(What::Unet, What::UnetSdxl), (What::ControlNet, What::ControlNetSdxl)];
    if what == What::Unknown || finer.contains(&(what, by_names)) {
        report.is(by_names);
    }
    report.components.push(describe_component(name, &component));
    Ok(report)
}

fn describe_model(model: &Checkpoint, mut report: Report) -> Report {
    report.components = [
        ("text_encoder", Some(&model.text_encoder)),
        ("text_encoder_2", model.second.as_ref().map(|second| &second.component)),
        ("unet", Some(&model.unet)),
        ("vae", Some(&model.vae)),
        ("vision", model.vision.as_ref()),
    ]
    .into_iter()
    .filter_map(|(name, component)| Some(describe_component(name, component?)))
    .collect();
    report.scheduler = Some(model.scheduler.clone());
    report.model_index = model.model_index.clone();
    if let Some(words) = &model.words {
        report.known_words = KnownWords::parse(words).kinds().to_vec();
    }
    report.notes = model.notes.clone();
    if model.kind == Kind::SingleFile {
        let told = |part: &&ComponentReport| {
            report.metadata.contains_key(&format!("{CONFIG_METADATA}{}", part.name))
        };
        let silent: Vec<&str> =
            report.components.iter().filter(|part| !told(part)).map(|part| &*part.name).collect();
        let all = silent.len() == report.components.len();
        let note = match silent.is_empty() {
            true => "the configurations are those in the file's metadata".to_string(),
            false if all => "the configurations are inferred from the weights".to_string(),
            false => {
                format!("inferred from the weights: the configuration of {}", silent.join(", "))
            }
        };
        report.notes.push(note);
    }
    report
}

fn describe_component(name: &str, component: &Component) -> ComponentReport {
    let tensors = component.names().filter_map(|n| {
        Some(TensorReport {
            name: n.to_string(),
            dtype: component.dtype(n)?,
            shape: component.shape(n)?.to_vec(),
            bytes: component.byte_len(n)? as u64,
        })
    });
    let mut report = summarise(name, component.path(), tensors.collect());
    report.config = component.config.clone();
    report.ignored = component.ignored().to_vec();
    report
}
