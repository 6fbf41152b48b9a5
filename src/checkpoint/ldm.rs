//! CompVis's (LDM's) names for UNet and autoencoder, translated to diffusers'.
//!
//! LDM numbers its modules one after another through all blocks, so that their place in a block
//! depends on what came before. The structure is read from the names themselves: what a module
//! contains tells what it is, and a down- or upsampler ends a block.
use super::component::{Part, Targets};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// What the names of a single file's networks begin with.
pub(super) const UNET: &str = "model.diffusion_model.";
pub(super) const VAE: &str = "first_stage_model.";
pub(super) const CLIP: &str = "cond_stage_model.transformer.";
pub(super) const OPEN_CLIP: &str = "cond_stage_model.model.";
/// The same of Stable Diffusion XL's text encoders, and what both begin with.
pub(super) const XL: &str = "conditioner.embedders.";
pub(super) const XL_CLIP: &str = "conditioner.embedders.0.transformer.";
pub(super) const XL_REFINER: &str = "conditioner.embedders.0.model.";
pub(super) const XL_OPEN_CLIP: &str = "conditioner.embedders.1.model.";

/// What a numbered module of the UNet is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Module {
    Resnet,
    Transformer,
    Downsample,
    Upsample,
}

/// Where each numbered module of an LDM UNet goes.
#[derive(Debug)]
pub(super) struct UNetNames {
    /// "input_blocks.1.0" -> (what it is, "down_blocks.0.resnets.0").
    modules: HashMap<String, (Module, String)>,
    /// What the two linear layers that read labels are called: classes', or Stable Diffusion XL's.
    label: &'static str,
}

impl UNetNames {
    /// The same of Stable Diffusion XL's family, whose labels are sizes and the pooled prompt.
    pub fn of_xl(self) -> Self {
        UNetNames { label: "add_embedding", ..self }
    }

    /// Reads the structure from all names of a UNet (without the `model.diffusion_model.` before
    /// them). The error says which module is of no known kind.
    pub fn new<'a>(names: impl Iterator<Item = &'a str>) -> Result<Self, String> {
        let (mut input, mut middle, mut output) = (Stage::new(), Stage::new(), Stage::new());
        for name in names {
            let mut parts = name.split('.');
            let (stage, block) = match parts.next() {
                Some("input_blocks") => (&mut input, parts.next().and_then(|n| n.parse().ok())),
                Some("middle_block") => (&mut middle, Some(0)),
                Some("output_blocks") => (&mut output, parts.next().and_then(|n| n.parse().ok())),
                _ => continue,
            };
            let module = parts.next().and_then(|n| n.parse().ok());
            let (Some(block), Some(module), Some(inside)) = (block, module, parts.next()) else {
                return Err(format!("`{name}` is not a name that a UNet has"));
            };
            stage.entry(block).or_default().entry(module).or_default().insert(inside.to_string());
        }
        let gap = [(&input, "input_blocks"), (&middle, "middle_block"), (&output, "output_blocks")]
            .into_iter()
            .find_map(|(stage, name)| gap(stage, name));
        // The very first is the input convolution, which needs no number.
        input.remove(&0);

        let mut modules = HashMap::new();
        for (stage, name, side) in
            [(&input, "input_blocks", "down"), (&output, "output_blocks", "up")]
        {
            let (mut block, mut layer) = (0, 0);
            for (number, inside) in stage {
                let mut ended = false;
                for (module, contents) in inside {
                    let from = format!("{name}.{number}.{module}");
                    let kind = kind(&from, contents)?;
                    let to = match kind {
                        Module::Resnet => format!("{side}_blocks.{block}.resnets.{layer}"),
                        Module::Transformer => format!("{side}_blocks.{block}.attentions.{layer}"),
                        Module::Downsample => format!("{side}_blocks.{block}.downsamplers.0"),
                        Module::Upsample => format!("{side}_blocks.{block}.upsamplers.0"),
                    };
                    ended |= matches!(kind, Module::Downsample | Module::Upsample);
                    modules.insert(from, (kind, to));
                }
                (block, layer) = if ended { (block + 1, 0) } else { (block, layer + 1) };
            }
        }
        let (mut resnets, mut attentions) = (0, 0);
        for (module, contents) in middle.values().flatten() {
            let from = format!("middle_block.{module}");
            let kind = kind(&from, contents)?;
            let (list, number) = match kind {
                Module::Resnet => ("resnets", &mut resnets),
                Module::Transformer => ("attentions", &mut attentions),
                _ => return Err(format!("`{from}` is a sampler in the middle of a UNet")),
            };
            modules.insert(from, (kind, format!("mid_block.{list}.{number}")));
            *number += 1;
        }
        match gap {
            Some(gap) => Err(format!(
                "the UNet's `{gap}.*` are missing, though there are tensors with the numbers \
                    before and after it (a damaged file?)"
            )),
            None => Ok(Self { modules, label: "class_embedding" }),
        }
    }

    /// The canonical tensors of a name (without the `model.diffusion_model.` before it).
    pub fn translate(&self, name: &str) -> Targets {
        self.canonical(name).map(|n| vec![(n, Part::Whole)]).unwrap_or_default()
    }

    fn canonical(&self, name: &str) -> Option<String> {
        for (from, to) in [
            ("input_blocks.0.0.", "conv_in."),
            ("time_embed.0.", "time_embedding.linear_1."),
            ("time_embed.2.", "time_embedding.linear_2."),
            ("time_embed.cond_proj.", "time_embedding.cond_proj."),
            ("label_emb.weight", "class_embedding.weight"),
            ("out.0.", "conv_norm_out."),
            ("out.2.", "conv_out."),
        ] {
            if let Some(rest) = name.strip_prefix(from) {
                return Some(format!("{to}{rest}"));
            }
        }
        for (from, to) in [("label_emb.0.0.", "linear_1"), ("label_emb.0.2.", "linear_2")] {
            if let Some(rest) = name.strip_prefix(from) {
                return Some(format!("{}.{to}.{rest}", self.label));
            }
        }
        // "middle_block.0." has one number before the rest, the others two.
        let numbers = if name.starts_with("middle_block.") { 1 } else { 2 };
        let (at, _) = name.match_indices('.').nth(numbers)?;
        let (kind, to) = self.modules.get(&name[..at])?;
        let rest = &name[at + 1..];
        let rest = match kind {
            Module::Resnet => resnet(rest)?,
            Module::Transformer => rest.to_string(),
            Module::Downsample => format!("conv.{}", rest.strip_prefix("op.")?),
            Module::Upsample => rest.to_string(),
        };
        Some(format!("{to}.{rest}"))
    }
}

/// (block, module) -> the first names inside it, for one of the three stages.
type Stage = BTreeMap<usize, BTreeMap<usize, BTreeSet<String>>>;

/// The first module that is missing between others.
fn gap(stage: &Stage, name: &str) -> Option<String> {
    let missing = |numbers: &[usize]| {
        let pair = numbers.windows(2).find(|pair| pair[1] - pair[0] > 1)?;
        Some(pair[0] + 1)
    };
    let blocks: Vec<usize> = stage.keys().copied().collect();
    if let Some(block) = missing(&blocks) {
        return Some(format!("{name}.{block}"));
    }
    stage.iter().find_map(|(block, modules)| {
        let modules: Vec<usize> = modules.keys().copied().collect();
        let module = missing(&modules)?;
        Some(match name {
            "middle_block" => format!("{name}.{module}"),
            _ => format!("{name}.{block}.{module}"),
        })
    })
}

fn kind(name: &str, contents: &BTreeSet<String>) -> Result<Module, String> {
    let has = |n: &str| contents.contains(n);
    if has("in_layers") {
        Ok(Module::Resnet)
    } else if has("transformer_blocks") || has("proj_in") {
        Ok(Module::Transformer)
    } else if has("op") {
        Ok(Module::Downsample)
    } else if has("conv") {
        Ok(Module::Upsample)
    } else {
        let list = contents.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        Err(format!("`{name}` (with {list}) is not a module that Stable Diffusion's UNet has"))
    }
}

fn resnet(rest: &str) -> Option<String> {
    [
        ("in_layers.0.", "norm1."),
        ("in_layers.2.", "conv1."),
        ("emb_layers.1.", "time_emb_proj."),
        ("out_layers.0.", "norm2."),
        ("out_layers.3.", "conv2."),
        ("skip_connection.", "conv_shortcut."),
    ]
    .iter()
    .find_map(|(from, to)| rest.strip_prefix(from).map(|r| format!("{to}{r}")))
}

/// Levels of an LDM autoencoder's decoder, which numbers them from the highest resolution although
/// it runs from the lowest.
pub(super) fn decoder_levels<'a>(names: impl Iterator<Item = &'a str>) -> usize {
    names
        .filter_map(|n| n.strip_prefix("decoder.up.")?.split('.').next()?.parse::<usize>().ok())
        .max()
        .map_or(0, |n| n.saturating_add(1))
}

/// The canonical tensors of an autoencoder's name (without the `first_stage_model.` before it).
pub(super) fn vae_names(levels: usize, name: &str) -> Targets {
    vae_canonical(levels, name).map(|n| vec![n]).unwrap_or_default()
}

fn vae_canonical(levels: usize, name: &str) -> Option<(String, Part)> {
    if name.starts_with("quant_conv.") || name.starts_with("post_quant_conv.") {
        return Some((name.to_string(), Part::Whole));
    }
    let (side, rest) =
        name.split_once('.').filter(|(side, _)| matches!(*side, "encoder" | "decoder"))?;
    let (first, inner) = rest.split_once('.')?;
    match first {
        "conv_in" | "conv_out" => return Some((name.to_string(), Part::Whole)),
        "norm_out" => return Some((format!("{side}.conv_norm_out.{inner}"), Part::Whole)),
        _ => {}
    }
    let (second, inner) = inner.split_once('.')?;
    if first == "mid" {
        return match second {
            "block_1" => {
                Some((format!("{side}.mid_block.resnets.0.{}", shortcut(inner)), Part::Whole))
            }
            "block_2" => {
                Some((format!("{side}.mid_block.resnets.1.{}", shortcut(inner)), Part::Whole))
            }
            "attn_1" => {
                Some((format!("{side}.mid_block.attentions.0.{}", attention(inner)?), Part::Matrix))
            }
            _ => None,
        };
    }
    let level: usize = second.parse().ok()?;
    let block = match (side, first) {
        ("encoder", "down") => format!("encoder.down_blocks.{level}"),
        ("decoder", "up") => {
            format!("decoder.up_blocks.{}", levels.checked_sub(level.checked_add(1)?)?)
        }
        _ => return None,
    };
    let (kind, inner) = inner.split_once('.')?;
    match kind {
        "block" => Some((format!("{block}.resnets.{}", shortcut(inner)), Part::Whole)),
        "attn" => {
            let (number, inner) = inner.split_once('.')?;
            Some((format!("{block}.attentions.{number}.{}", attention(inner)?), Part::Matrix))
        }
        "downsample" => Some((format!("{block}.downsamplers.0.{inner}"), Part::Whole)),
        "upsample" => Some((format!("{block}.upsamplers.0.{inner}"), Part::Whole)),
        _ => None,
    }
}

fn shortcut(rest: &str) -> String {
    rest.replace("nin_shortcut.", "conv_shortcut.")
}

/// LDM's names, and diffusers' newer and older ones, which some converters leave as they are.
fn attention(rest: &str) -> Option<String> {
    [
        (["norm.", "group_norm.", "group_norm."], "group_norm."),
        (["q.", "to_q.", "query."], "to_q."),
        (["k.", "to_k.", "key."], "to_k."),
        (["v.", "to_v.", "value."], "to_v."),
        (["proj_out.", "to_out.0.", "proj_attn."], "to_out.0."),
    ]
    .iter()
    .find_map(|(from, to)| {
        from.iter().find_map(|from| rest.strip_prefix(from)).map(|r| format!("{to}{r}"))
    })
}
