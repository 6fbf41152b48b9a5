//! Small networks beside a model: TAESD in its author's layout and in diffusers', and ESRGAN's
//! upscalers under the names of both of their programs. All under one naming.
use std::path::Path;
use std::sync::Arc;

use super::component::{Component, Part, Targets};
use super::part::component;
use super::whole::open_model;
use super::{Error, Folder, TensorFile};

/// A small autoencoder's weights, as diffusers names them: `decoder.layers.0.weight`.
///
/// # Errors
/// A file or folder that cannot be read, or holds something else.
pub fn open_tiny_vae(path: &Path) -> Result<Component, Error> {
    let unrecognised = |problem: String| Error::Unrecognised { path: path.to_path_buf(), problem };
    let component = match std::fs::metadata(path).map_err(Error::io(path, "open"))?.is_dir() {
        true => {
            let opened = component(&Folder::disk(path), "diffusion_pytorch_model", None, whole)?;
            match opened.config["_class_name"].as_str() {
                Some("AutoencoderTiny") => opened,
                other => {
                    return Err(unrecognised(format!(
                        "`_class_name` in config.json is {}, expected AutoencoderTiny",
                        other.unwrap_or("nothing")
                    )));
                }
            }
        }
        false => {
            let file = Arc::new(open_model(path)?);
            let halves = halves(&file);
            Component::gather(path, vec![file], |_, name| Some(tiny_target(&halves, name)))?
        }
    };
    match component.contains("decoder.layers.0.weight")
        && component.contains("decoder.layers.2.conv.0.weight")
    {
        true => Ok(component),
        false => Err(unrecognised(
            "no small autoencoder's decoder (TAESD: `decoder.layers.0.weight` and so on, or its \
                author's `1.weight`) is in it"
                .into(),
        )),
    }
}

/// A prefix, the half that it leads to, and how far its author's numbers are from diffusers'.
type Half = (String, &'static str, usize);

/// Its author's files hold one half each, whose layers are numbered from the beginning (the decoder
/// begins with a layer that diffusers does not count), or both, each behind its name.
fn halves(file: &TensorFile) -> Vec<Half> {
    let prefixes = [
        ("encoder.layers.", "encoder"),
        ("decoder.layers.", "decoder"),
        ("taesd_encoder.", "encoder"),
        ("taesd_decoder.", "decoder"),
        ("encoder.", "encoder"),
        ("decoder.", "decoder"),
    ];
    let has = |name: String| file.contains(&name);
    let mut found = Vec::new();
    for (prefix, half) in prefixes {
        let known = found.iter().any(|(_, other, _): &Half| *other == half);
        if known
            || !has(format!("{prefix}2.conv.0.weight")) && !has(format!("{prefix}3.conv.0.weight"))
        {
            continue;
        }
        let shift = usize::from(half == "decoder" && !has(format!("{prefix}0.weight")));
        found.push((prefix.to_string(), half, shift));
    }
    if found.is_empty() && has("3.conv.0.weight".into()) {
        // One half alone: an encoder reads three colours.
        let reads = |name: &str| file.tensor(name).and_then(|view| view.shape().get(1).copied());
        match has("0.weight".into()) && reads("0.weight") == Some(3) {
            true => found.push((String::new(), "encoder", 0)),
            false => found.push((String::new(), "decoder", 1)),
        }
    }
    found
}

fn tiny_target(halves: &[Half], name: &str) -> Targets {
    for (prefix, half, shift) in halves {
        let Some((number, rest)) =
            name.strip_prefix(prefix.as_str()).and_then(|n| n.split_once('.'))
        else {
            continue;
        };
        let number = number.parse::<usize>().ok().and_then(|n| n.checked_sub(*shift));
        return match number {
            Some(number) => whole(&format!("{half}.layers.{number}.{rest}")),
            None => Vec::new(),
        };
    }
    Vec::new()
}

fn whole(name: &str) -> Targets {
    vec![(name.to_string(), Part::Whole)]
}

/// The weights of an upscaler of ESRGAN's kind, under the names of BasicSR's `RRDBNet`.
///
/// # Errors
/// A file that cannot be read, or holds something else.
pub fn open_upscaler(path: &Path) -> Result<Component, Error> {
    let file = Arc::new(open_model(path)?);
    let has = |name: &str| file.contains(name);
    let prefix = ["", "params_ema.", "params."].into_iter().find(|prefix| {
        has(&format!("{prefix}conv_first.weight")) || has(&format!("{prefix}model.0.weight"))
    });
    let Some(prefix) = prefix else {
        return Err(Error::Unrecognised {
            path: path.to_path_buf(),
            problem: "no upscaler of ESRGAN's kind is in it (`conv_first.weight` and so on, or \
                `model.0.weight`)"
                .into(),
        });
    };
    // Of old, doublings are every third layer, and two convolutions follow.
    let doublings = (1..9).take_while(|i| has(&format!("{prefix}model.{}.weight", 3 * i))).count();
    let blocks =
        (0..).take_while(|i| has(&format!("{prefix}model.1.sub.{i}.RDB1.conv1.0.weight"))).count();
    Component::gather(path, vec![file.clone()], |_, name| {
        let name = name.strip_prefix(prefix)?;
        Some(match name.strip_prefix("model.") {
            None => whole(name),
            Some(old) => whole(&of_old(old, blocks, doublings)?),
        })
    })
}

/// The name of today: `1.sub.0.RDB1.conv1.0.weight` is `body.0.rdb1.conv1.weight`.
fn of_old(name: &str, blocks: usize, doublings: usize) -> Option<String> {
    if let Some((block, rest)) = name.strip_prefix("1.sub.").and_then(|rest| rest.split_once('.')) {
        if block.parse::<usize>().ok()? == blocks {
            return Some(format!("conv_body.{rest}"));
        }
        let (dense, rest) = rest.strip_prefix("RDB")?.split_once('.')?;
        let (conv, rest) = rest.split_once(".0.")?;
        return Some(format!("body.{block}.rdb{dense}.{conv}.{rest}"));
    }
    let (number, rest) = name.split_once('.')?;
    let number: usize = number.parse().ok()?;
    let layer = match number {
        0 => "conv_first".to_string(),
        n if n == 3 * doublings + 2 => "conv_hr".to_string(),
        n if n == 3 * doublings + 4 => "conv_last".to_string(),
        n if n % 3 == 0 && n / 3 <= doublings => format!("conv_up{}", n / 3),
        _ => return None,
    };
    Some(format!("{layer}.{rest}"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::PathBuf;

    use super::super::{TensorView, write};
    use super::*;

    fn saved(folder: &Path, names: &[(&str, usize)]) -> PathBuf {
        let path = folder.join("a.safetensors");
        let values = vec![0.5; 64];
        let view = |inputs: usize| {
            TensorView::from_f32(vec![2, inputs, 1, 1], &values[..2 * inputs]).unwrap()
        };
        let tensors: Vec<(String, TensorView)> =
            names.iter().map(|(name, inputs)| (name.to_string(), view(*inputs))).collect();
        write(&path, &tensors, &BTreeMap::new()).unwrap();
        path
    }

    #[test]
    fn small_autoencoders_of_all_layouts_have_one_naming() {
        let folder = tempfile::tempdir().unwrap();
        let open = |names: &[(&str, usize)]| {
            let opened = open_tiny_vae(&saved(folder.path(), names));
            opened.map(|component| component.names().map(str::to_string).collect::<Vec<_>>())
        };
        let expected = ["decoder.layers.0.weight", "decoder.layers.2.conv.0.weight"];
        // diffusers', its author's decoder alone, and both of its author's halves in one file.
        let diffusers = [("decoder.layers.0.weight", 4), ("decoder.layers.2.conv.0.weight", 2)];
        assert_eq!(open(&diffusers).unwrap(), expected);
        assert_eq!(open(&[("1.weight", 4), ("3.conv.0.weight", 2)]).unwrap(), expected);
        let both = [
            ("taesd_decoder.1.weight", 4),
            ("taesd_decoder.3.conv.0.weight", 2),
            ("taesd_encoder.0.weight", 3),
            ("taesd_encoder.3.conv.0.weight", 2),
        ];
        assert_eq!(open(&both).unwrap()[..2], expected);
        assert_eq!(open(&both).unwrap()[2], "encoder.layers.0.weight");
        // An encoder alone decodes nothing.
        let error = open(&[("0.weight", 3), ("3.conv.0.weight", 2)]).unwrap_err().to_string();
        assert!(error.contains("decoder.layers.0.weight"), "{error}");
        assert!(open(&[("unet.weight", 4)]).is_err());
    }

    #[test]
    fn upscalers_of_both_layouts_have_one_naming() {
        let folder = tempfile::tempdir().unwrap();
        let open = |names: &[&str]| {
            let names: Vec<(&str, usize)> = names.iter().map(|name| (*name, 2)).collect();
            let opened = open_upscaler(&saved(folder.path(), &names));
            opened.map(|component| component.names().map(str::to_string).collect::<Vec<_>>())
        };
        let old = [
            "model.0.weight",
            "model.1.sub.0.RDB1.conv1.0.weight",
            "model.1.sub.0.RDB3.conv5.0.bias",
            "model.1.sub.1.weight",
            "model.3.weight",
            "model.6.weight",
            "model.8.weight",
            "model.10.weight",
        ];
        let mut expected = [
            "conv_first.weight",
            "body.0.rdb1.conv1.weight",
            "body.0.rdb3.conv5.bias",
            "conv_body.weight",
            "conv_up1.weight",
            "conv_up2.weight",
            "conv_hr.weight",
            "conv_last.weight",
        ];
        expected.sort_unstable();
        assert_eq!(open(&old).unwrap(), expected);
        assert_eq!(open(&expected).unwrap(), expected);
        let inside: Vec<String> = expected.iter().map(|n| format!("params_ema.{n}")).collect();
        let inside: Vec<&str> = inside.iter().map(String::as_str).collect();
        assert_eq!(open(&inside).unwrap(), expected);
        let error = open(&["body.weight"]).unwrap_err().to_string();
        assert!(error.contains("ESRGAN"), "{error}");
    }
}
