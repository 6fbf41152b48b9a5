//! Networks that steer a model by a picture: ControlNets and T2I-Adapters, in diffusers' layout and
//! in their authors'.
use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};

use super::component::{Component, Part, Targets};
use super::describe::describe_file;
use super::infer::{self, Missing};
use super::part::{component, unet_names};
use super::what::{CONTROL_MODEL, DIFFERENCE, HINTS, What};
use super::whole::open_model;
use super::{Error, Folder, TensorFile, ldm};

/// What kind of network steers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ControlKind {
    /// A copy of the UNet's first half that runs in every step (Zhang et al. 2023).
    ControlNet,
    /// A small network that runs once for a picture (Mou et al. 2023).
    T2IAdapter,
}

/// A steering network under diffusers' names.
#[derive(Debug, Clone)]
pub struct Control {
    /// What it does, and how it is built.
    pub kind: ControlKind,
    /// Its weights and its configuration.
    pub component: Component,
    /// What it shares with the UNet of the model that it steers is stored as the difference from
    /// that: the model's weights of the same names are to be added.
    pub difference: bool,
}

const STEM: &str = "diffusion_pytorch_model";

impl Control {
    /// Opens a folder with `config.json`, or a file whose names tell what it is.
    ///
    /// # Errors
    /// Files that cannot be read, or hold something else.
    pub fn open(path: &Path) -> Result<Control, Error> {
        let meta = std::fs::metadata(path).map_err(Error::io(path, "open"))?;
        if meta.is_dir() {
            return Self::of_folder(&Folder::disk(path));
        }
        let file = Arc::new(open_model(path)?);
        let has = |prefix: &str| file.names().any(|name| name.starts_with(prefix));
        let unreadable = |problem| Error::Unrecognised { path: path.to_path_buf(), problem };
        let what = describe_file(&file).what;
        if !matches!(what, What::ControlNet | What::ControlNetSdxl | What::T2iAdapter) {
            let expected = "expected a ControlNet or a T2I-Adapter";
            let kind = what.describe();
            return Err(unreadable(match what {
                What::Unknown => "neither a ControlNet nor a T2I-Adapter".to_string(),
                What::ControlNetOther | What::ControlLora | What::ControlLllite => {
                    format!("this is a {kind}, which is not supported; {expected}")
                }
                _ => format!("this is a {kind}; {expected}"),
            }));
        }
        let [original, diffusers] = HINTS;
        for prefix in [CONTROL_MODEL, ""] {
            if has(&format!("{prefix}{original}")) {
                let stripped = file.names().filter_map(|name| name.strip_prefix(prefix));
                // Those that read labels are Stable Diffusion XL's.
                let names = ldm::UNetNames::new(stripped).map_err(unreadable)?.of_xl();
                return control_net(&file, |name| {
                    name.strip_prefix(prefix).map(|name| original_control_net(&names, name))
                });
            }
        }
        if has(diffusers) {
            return control_net(&file, |name| Some(unet_names(name)));
        }
        if what == What::T2iAdapter {
            return adapter(&file);
        }
        Err(unreadable(format!(
            "a ControlNet without the layers that read the picture (`{original}` or `{diffusers}`)"
        )))
    }

    /// Opens a folder in diffusers' layout.
    pub(super) fn of_folder(folder: &Folder) -> Result<Control, Error> {
        let component = component(folder, STEM, None, unet_names)?;
        let kind = match component.config["_class_name"].as_str() {
            Some("ControlNetModel") => ControlKind::ControlNet,
            Some("T2IAdapter") => ControlKind::T2IAdapter,
            other => {
                let found = other.unwrap_or("nothing");
                let problem = format!(
                    "`_class_name` in config.json is {found}, expected ControlNetModel or \
                        T2IAdapter"
                );
                return Err(Error::Unrecognised { path: folder.path().to_path_buf(), problem });
            }
        };
        let difference = kind == ControlKind::ControlNet && component.contains(DIFFERENCE);
        Ok(Control { kind, component, difference })
    }
}

fn control_net(
    file: &Arc<TensorFile>,
    translate: impl Fn(&str) -> Option<Targets>,
) -> Result<Control, Error> {
    let component = Component::gather(file.path(), vec![file.clone()], |_, name| translate(name))?;
    let control = configured(ControlKind::ControlNet, component, infer::control_net)?;
    let difference =
        file.names().any(|name| name.strip_prefix(CONTROL_MODEL).unwrap_or(name) == DIFFERENCE);
    Ok(Control { difference, ..control })
}

fn configured(
    kind: ControlKind,
    mut component: Component,
    infer: fn(&Component) -> Result<Value, Missing>,
) -> Result<Control, Error> {
    component.config = match infer(&component) {
        Ok(config) => config,
        Err(missing) => {
            component.require_all([missing.as_str()])?;
            let problem = format!("tensor `{missing}` has too few dimensions");
            return Err(Error::Unrecognised { path: component.path().to_path_buf(), problem });
        }
    };
    Ok(Control { kind, component, difference: false })
}

/// The authors' names: those of the UNet's first half, `input_hint_block.{0, 2, .., 14}`,
/// `zero_convs.N.0`, `middle_block_out.0`.
fn original_control_net(names: &ldm::UNetNames, name: &str) -> Targets {
    let part = |prefix: &str| name.strip_prefix(prefix).and_then(|rest| rest.split_once('.'));
    let canonical = if let Some((number, parameter)) = part("input_hint_block.") {
        match number.parse::<usize>() {
            Ok(0) => format!("controlnet_cond_embedding.conv_in.{parameter}"),
            Ok(14) => format!("controlnet_cond_embedding.conv_out.{parameter}"),
            Ok(n) if n % 2 == 0 => {
                format!("controlnet_cond_embedding.blocks.{}.{parameter}", n / 2 - 1)
            }
            _ => return Vec::new(),
        }
    } else if let Some((number, rest)) = part("zero_convs.") {
        format!("controlnet_down_blocks.{number}.{}", rest.strip_prefix("0.").unwrap_or(rest))
    } else if let Some(parameter) = name.strip_prefix("middle_block_out.0.") {
        format!("controlnet_mid_block.{parameter}")
    } else {
        return names.translate(name);
    };
    vec![(canonical, Part::Whole)]
}

fn adapter(file: &Arc<TensorFile>) -> Result<Control, Error> {
    // The authors' full adapter numbers all residual blocks through; the first of a stage has the
    // convolution to its width.
    let widened = |i: &usize| file.contains(&format!("body.{i}.in_conv.weight"));
    let light = file.contains("body.0.body.0.block1.weight");
    let each = (1..16).find(widened).unwrap_or(2);
    let translate = |name: &str| -> Option<Targets> {
        let canonical = match name.strip_prefix("body.").and_then(|rest| rest.split_once('.')) {
            _ if name.starts_with("adapter.") => name.to_string(),
            None => format!("adapter.{name}"),
            Some((number, rest)) if light => {
                let rest = rest
                    .strip_prefix("body.")
                    .map_or_else(|| rest.to_string(), |rest| format!("resnets.{rest}"));
                format!("adapter.body.{number}.{rest}")
            }
            Some((number, rest)) => {
                let Ok(number) = number.parse::<usize>() else { return Some(Vec::new()) };
                let (stage, layer) = (number / each, number % each);
                match rest.starts_with("in_conv.") {
                    true => format!("adapter.body.{stage}.{rest}"),
                    false => format!("adapter.body.{stage}.resnets.{layer}.{rest}"),
                }
            }
        };
        Some(vec![(canonical, Part::Whole)])
    };
    let component = Component::gather(file.path(), vec![file.clone()], |_, name| translate(name))?;
    configured(ControlKind::T2IAdapter, component, adapter_config)
}

/// `config.json` of a T2I-Adapter, from its weights.
fn adapter_config(c: &Component) -> Result<Value, Missing> {
    let dim = |name: &str, axis: usize| {
        c.shape(name).and_then(|s| s.get(axis)).copied().ok_or_else(|| name.to_string())
    };
    let light = c.contains("adapter.body.0.out_conv.weight");
    let inner = if light { "adapter.body.0.in_conv.weight" } else { "adapter.conv_in.weight" };
    let last = if light { "out_conv.weight" } else { "resnets.0.block1.weight" };
    let stages = (0..).take_while(|i| c.contains(&format!("adapter.body.{i}.{last}"))).count();
    let mut channels = Vec::new();
    for i in 0..stages {
        channels.push(dim(&format!("adapter.body.{i}.{last}"), 0)?);
    }
    if light {
        // The last stage of a light adapter has no width of its own.
        channels.pop();
    }
    let layers = (0..)
        .take_while(|i| c.contains(&format!("adapter.body.0.resnets.{i}.block1.weight")))
        .count();
    if stages == 0 || layers == 0 {
        return Err("adapter.body.0.resnets.0.block1.weight".into());
    }
    // One or three numbers of each pixel: of blocks of 16 x 16 in adapters for Stable Diffusion XL.
    let numbers = dim(inner, 1)?;
    let xl = !light && [256, 768].contains(&numbers);
    let side = if xl { 16 } else { 8 };
    let kind = match (light, xl) {
        (true, _) => "light_adapter",
        (false, true) => "full_adapter_xl",
        (false, false) => "full_adapter",
    };
    Ok(json!({
        "_class_name": "T2IAdapter",
        "adapter_type": kind,
        "channels": channels,
        "downscale_factor": side,
        "in_channels": numbers / (side * side),
        "num_res_blocks": layers,
    }))
}
