//! What does not fit into a network of a single file. Its structure is read from the names, so that
//! where tensors are missing, a smaller network is found; what lies outside of that tells it.
use super::component::Component;
use super::{Error, TensorFile};
use serde_json::Value;
use std::path::Path;

/// An error where tensors belong to no layer of the UNet that its configuration describes.
/// `inferred`: the configuration was read from the tensors.
pub(super) fn check_unet(component: &Component, inferred: bool) -> Result<(), Error> {
    let Some(blocks) = unet_blocks(&component.config) else { return Ok(()) };
    check(component, "UNet", |name| fits_unet(&blocks, name))?;
    let attended = |types: &[bool]| types.iter().filter(|is| **is).count();
    let mirrored = blocks.down.iter().eq(blocks.up.iter().rev());
    if inferred && !mirrored {
        let problem = format!(
            "the UNet has attention in {} blocks on its way down and in {} others on its way up: \
                tensors are missing (a damaged file?)",
            attended(&blocks.down),
            attended(&blocks.up)
        );
        return Err(refused(component.path(), problem));
    }
    Ok(())
}

/// The same of an autoencoder.
pub(super) fn check_vae(component: &Component, inferred: bool) -> Result<(), Error> {
    let Some(blocks) = vae_blocks(&component.config) else { return Ok(()) };
    check(component, "VAE", |name| fits_vae(&blocks, name))?;
    let has = |name: &str| component.contains(name);
    let (encoder, decoder) = (has("quant_conv.weight"), has("post_quant_conv.weight"));
    if inferred && encoder != decoder {
        let (there, missing) = match encoder {
            true => ("quant_conv", "post_quant_conv"),
            false => ("post_quant_conv", "quant_conv"),
        };
        let problem =
            format!("the VAE has {there} but no {missing}, which goes with it (a damaged file?)");
        return Err(refused(component.path(), problem));
    }
    Ok(())
}

/// The same of a text encoder; a note where it has fewer layers than all others of its width.
pub(super) fn check_text(component: &Component, notes: &mut Vec<String>) -> Result<(), Error> {
    let count = |key: &str| component.config.get(key).and_then(Value::as_u64);
    let Some(layers) = count("num_hidden_layers") else { return Ok(()) };
    check(component, "text encoder", |name| {
        let number = name.strip_prefix("text_model.encoder.layers.");
        let number = number.and_then(|rest| rest.split('.').next()?.parse::<u64>().ok());
        number.is_none_or(|number| number < layers)
    })?;
    // Of 24 layers of Stable Diffusion 2.x' the last is not run, and may not be there.
    let usual = match count("hidden_size") {
        Some(768) => 12,
        Some(1024) => 23,
        Some(1280) => 32,
        _ => 0,
    };
    if layers < usual {
        let width = count("hidden_size").unwrap_or_default();
        notes.push(format!(
            "{}: a text encoder of width {width} has {layers} layers here, where Stable \
                Diffusion's have {usual}: the last ones may be missing",
            component.path().display()
        ));
    }
    Ok(())
}

/// A note of tensors with a network's name that are nothing it has, but for what is known to be of
/// no use.
pub(super) fn note_unread(file: &TensorFile, components: &[&Component], notes: &mut Vec<String>) {
    const USELESS: [&str; 10] = [
        "position_ids",
        "logit_scale",
        "attn_mask",
        "text_projection",
        "num_updates",
        "model_ema.decay",
        ".scale_input",
        ".input_scale",
        ".comfy_quant",
        ".weight_format",
    ];
    let is_useless = |name: &str| {
        USELESS.iter().any(|end| name.ends_with(end))
            || name.contains("scaled_fp8")
            || name.contains(".resblocks.23.")
            || ["model_ema.", "loss."].iter().any(|of| {
                name.strip_prefix("first_stage_model.").is_some_and(|name| name.starts_with(of))
            })
    };
    let unread: Vec<&String> = components
        .iter()
        .flat_map(|component| component.ignored())
        .filter(|name| !is_useless(name))
        .collect();
    let Some(first) = unread.first() else { return };
    let others = match unread.len() - 1 {
        0 => String::new(),
        others => format!(" and {others} more"),
    };
    notes.push(format!(
        "{}: left out, as nothing reads them: `{first}`{others} (`mos inspect` counts them)",
        file.path().display()
    ));
}

fn refused(path: &Path, problem: String) -> Error {
    Error::Unrecognised { path: path.to_path_buf(), problem }
}

/// An error with the tensors, as the file calls them, that do not fit.
fn check(component: &Component, what: &str, fits: impl Fn(&str) -> bool) -> Result<(), Error> {
    let stray: Vec<&str> = component.names().filter(|name| !fits(name)).collect();
    let Some(first) = stray.first() else { return Ok(()) };
    let first = component.source(first).unwrap_or(first);
    let (tensors, fit, them) = match stray.len() {
        1 => (format!("tensor `{first}`"), "fits", "it"),
        n => (format!("tensor `{first}` and {} more", n - 1), "fit", "them"),
    };
    let problem = format!(
        "{tensors} {fit} nowhere in the {what} that the other tensors make: some that belong \
            beside {them} are missing (a damaged file?)"
    );
    Err(refused(component.path(), problem))
}

/// What a network has, block by block.
struct Blocks {
    /// Whether they have attention.
    down: Vec<bool>,
    up: Vec<bool>,
    layers: Vec<usize>,
    /// Transformer blocks of each attention.
    depths: Vec<usize>,
    /// Resnets and attentions of the middle.
    middle: (usize, usize),
}

/// Whether each block of such types has attention.
fn attended(config: &Value, key: &str, with: &str) -> Option<Vec<bool>> {
    let types = config.get(key)?.as_array()?;
    types.iter().map(|name| Some(name.as_str()?.contains(with))).collect()
}

/// A number for each block, or one for all.
fn per_block(config: &Value, key: &str, blocks: usize) -> Option<Vec<usize>> {
    let number = |value: &Value| usize::try_from(value.as_u64()?).ok();
    match config.get(key)? {
        Value::Array(all) if all.len() == blocks => all.iter().map(number).collect(),
        one => Some(vec![number(one)?; blocks]),
    }
}

fn unet_blocks(config: &Value) -> Option<Blocks> {
    let down = attended(config, "down_block_types", "CrossAttn")?;
    let up = attended(config, "up_block_types", "CrossAttn")?;
    let blocks = down.len();
    if up.len() != blocks {
        return None;
    }
    let middle = match config.get("mid_block_type") {
        Some(Value::Null) => (0, 0),
        Some(Value::String(name)) if !name.contains("CrossAttn") => (2, 0),
        _ => (2, 1),
    };
    Some(Blocks {
        layers: per_block(config, "layers_per_block", blocks)?,
        depths: per_block(config, "transformer_layers_per_block", blocks)?,
        down,
        up,
        middle,
    })
}

fn vae_blocks(config: &Value) -> Option<Blocks> {
    let down = attended(config, "down_block_types", "Attn")?;
    let up = attended(config, "up_block_types", "Attn")?;
    let blocks = down.len();
    let attention = config.get("mid_block_add_attention").and_then(Value::as_bool);
    Some(Blocks {
        layers: per_block(config, "layers_per_block", blocks)?,
        depths: vec![0; blocks],
        middle: (2, usize::from(attention.unwrap_or(true))),
        down,
        up,
    })
}

/// A name within the blocks: the block's number, what it is (`resnets`), the number of that, and
/// the rest.
fn numbered(rest: &str) -> Option<(usize, &str, usize, &str)> {
    let mut parts = rest.splitn(4, '.');
    let block = parts.next()?.parse().ok()?;
    let kind = parts.next()?;
    Some((block, kind, parts.next()?.parse().ok()?, parts.next().unwrap_or_default()))
}

impl Blocks {
    fn has(&self, up: bool, (block, kind, layer, rest): (usize, &str, usize, &str)) -> bool {
        let (types, mirrored) = match up {
            true => (&self.up, self.layers.len().checked_sub(block.saturating_add(1))),
            false => (&self.down, Some(block)),
        };
        let (Some(attention), Some(at)) = (types.get(block), mirrored) else { return false };
        let (Some(layers), Some(depth)) = (self.layers.get(at), self.depths.get(at)) else {
            return false;
        };
        let layers = layers.saturating_add(usize::from(up));
        match kind {
            "resnets" => layer < layers,
            "attentions" => *attention && layer < layers && within(rest, *depth),
            _ => true,
        }
    }

    fn has_in_middle(&self, rest: &str) -> bool {
        let mut parts = rest.splitn(3, '.');
        let (kind, number) = (parts.next().unwrap_or_default(), parts.next());
        let number: Option<usize> = number.and_then(|number| number.parse().ok());
        let depth = self.depths.last().copied().unwrap_or_default();
        let Some(number) = number else { return true };
        match kind {
            "resnets" => number < self.middle.0,
            "attentions" => {
                number < self.middle.1 && within(parts.next().unwrap_or_default(), depth)
            }
            _ => true,
        }
    }
}

/// A name within an attention belongs to one of its transformer blocks, or to none.
fn within(rest: &str, depth: usize) -> bool {
    let number = rest.strip_prefix("transformer_blocks.");
    let number = number.and_then(|rest| rest.split('.').next()?.parse::<usize>().ok());
    number.is_none_or(|number| number < depth)
}

fn fits_unet(blocks: &Blocks, name: &str) -> bool {
    if let Some(rest) = name.strip_prefix("mid_block.") {
        return blocks.has_in_middle(rest);
    }
    let (up, rest) = match name.strip_prefix("down_blocks.") {
        Some(rest) => (false, rest),
        None => match name.strip_prefix("up_blocks.") {
            Some(rest) => (true, rest),
            None => return true,
        },
    };
    numbered(rest).is_none_or(|parts| blocks.has(up, parts))
}

fn fits_vae(blocks: &Blocks, name: &str) -> bool {
    name.strip_prefix("encoder.")
        .or_else(|| name.strip_prefix("decoder."))
        .is_none_or(|name| fits_unet(blocks, name))
}
