//! `UNet2DConditionModel`'s configuration, resolved block by block.
use super::keys::Keys;
use super::{Activation, ConfigError};
use serde_json::{Value, json};
use std::path::Path;

/// A conditional UNet. Per-block settings are resolved: `down` and `up` each list their blocks in
/// the order they run.
#[derive(Debug, Clone, PartialEq)]
pub struct UNetConfig {
    /// Latent height and width that the model was trained at, where the file says so.
    pub sample_size: Option<[usize; 2]>,
    /// Channels of the latent that goes in (4; 9 for inpainting models).
    pub in_channels: usize,
    /// Channels of the prediction.
    pub out_channels: usize,
    /// Channels of each down block.
    pub block_out_channels: Vec<usize>,
    /// Down blocks, highest resolution first.
    pub down: Vec<UNetBlock>,
    /// The block in the middle; some distilled models have none.
    pub mid: Option<MidBlock>,
    /// Up blocks, lowest resolution first.
    pub up: Vec<UNetBlock>,
    /// Width of the text encoding.
    pub cross_attention_dim: usize,
    /// Transformer projections are linear layers; otherwise 1x1 convolutions.
    pub use_linear_projection: bool,
    /// Attention scores must be computed in f32.
    pub upcast_attention: bool,
    /// Groups of every group norm.
    pub norm_num_groups: usize,
    /// Epsilon of the group norms in resnet blocks and before the output.
    pub norm_eps: f32,
    /// Nonlinearity of resnet blocks, the time embedding and the output.
    pub activation: Activation,
    /// The input is scaled to 2x - 1 first.
    pub center_input_sample: bool,
    /// The time embedding is [cos, sin] rather than [sin, cos].
    pub flip_sin_to_cos: bool,
    /// Subtracted from the half width in the time embedding's frequencies.
    pub freq_shift: f32,
    /// Width of the time embedding after its first linear layer.
    pub time_embedding_dim: usize,
    /// Width of a guidance-scale condition that is added to the time embedding (distilled LCM
    /// models).
    pub time_cond_proj_dim: Option<usize>,
    /// Size of a table of class embeddings that is added to the time embedding.
    pub num_class_embeds: Option<usize>,
    /// What Stable Diffusion XL is told besides the prompt: a summary of it, and sizes.
    pub addition: Option<Addition>,
    /// Padding of the downsampling convolutions: 1, or 0 for padding on the right and bottom only.
    pub downsample_padding: usize,
}

/// What is added to the time embedding of Stable Diffusion XL (`text_time`): the pooled prompt and
/// numbers as sinusoids, through two linear layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addition {
    /// Width of the pooled prompt.
    pub text: usize,
    /// Width of each number's sinusoids.
    pub number: usize,
}

impl Addition {
    /// Numbers that are told: height and width of the original, top and left of the cut, height and
    /// width aimed at.
    pub const NUMBERS: usize = 6;

    /// Width of all of it.
    pub fn width(&self) -> usize {
        self.text + self.number * Self::NUMBERS
    }
}

/// A down or an up block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UNetBlock {
    /// Channels of its output.
    pub channels: usize,
    /// Resnet blocks (an up block has one more than the down block it mirrors).
    pub layers: usize,
    /// It has a transformer after each resnet block.
    pub attention: bool,
    /// Transformer blocks in each transformer.
    pub transformer_layers: usize,
    /// Attention heads.
    pub heads: usize,
    /// The first attention of each transformer block looks at the text too, instead of at the
    /// picture.
    pub only_cross_attention: bool,
    /// It ends with a downsampling (down) or upsampling (up) by two.
    pub resample: bool,
}

/// The middle: resnet, and after it `attention` times a transformer and a resnet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MidBlock {
    /// Channels.
    pub channels: usize,
    /// It has a transformer between its two resnet blocks.
    pub attention: bool,
    /// Transformer blocks in the transformer.
    pub transformer_layers: usize,
    /// Attention heads.
    pub heads: usize,
    /// As in [`UNetBlock`].
    pub only_cross_attention: bool,
}

impl UNetConfig {
    /// Reads a `unet/config.json`; `file` is used in errors.
    pub fn from_json(config: &Value, file: &Path) -> Result<Self, ConfigError> {
        let keys = Keys::new(config, file)?;
        refuse_unsupported(&keys)?;
        let block_out_channels = keys.counts("block_out_channels", &[320, 640, 1280, 1280])?;
        let blocks = block_out_channels.len();
        let norm_num_groups = groups(&keys, &block_out_channels)?;
        let layers = keys.per_block("layers_per_block", blocks, 2)?;
        let transformer_layers = keys.per_block("transformer_layers_per_block", blocks, 1)?;
        let heads = heads(&keys, blocks)?;
        let only_cross = keys.flags_per_block("only_cross_attention", blocks)?;
        let down_types =
            block_types(&keys, "down_block_types", "CrossAttnDownBlock2D", "DownBlock2D", blocks)?;
        let up_types =
            block_types(&keys, "up_block_types", "CrossAttnUpBlock2D", "UpBlock2D", blocks)?;

        let block = |i: usize, attention: bool, extra: usize, resample: bool| UNetBlock {
            channels: block_out_channels[i],
            layers: layers[i] + extra,
            attention,
            transformer_layers: transformer_layers[i],
            heads: heads[i],
            only_cross_attention: only_cross[i],
            resample,
        };
        let down: Vec<_> =
            down_types.iter().enumerate().map(|(i, &a)| block(i, a, 0, i + 1 < blocks)).collect();
        let up: Vec<_> = up_types
            .iter()
            .enumerate()
            .map(|(i, &a)| block(blocks - 1 - i, a, 1, i + 1 < blocks))
            .collect();
        let last = blocks - 1;
        let mid = mid_block(&keys)?.map(|attention| MidBlock {
            channels: block_out_channels[last],
            attention,
            transformer_layers: transformer_layers[last],
            heads: heads[last],
            only_cross_attention: keys
                .get("mid_block_only_cross_attention")
                .and_then(Value::as_bool)
                .unwrap_or_else(|| {
                    keys.get("only_cross_attention").and_then(Value::as_bool).unwrap_or(false)
                }),
        });
        let attended =
            down.iter().chain(&up).filter(|b| b.attention).map(|b| (b.channels, b.heads));
        for (channels, heads) in
            attended.chain(mid.iter().filter(|m| m.attention).map(|m| (m.channels, m.heads)))
        {
            if channels % heads != 0 {
                let key = if keys.get("num_attention_heads").is_some() {
                    "num_attention_heads"
                } else {
                    "attention_head_dim"
                };
                return Err(keys.invalid(
                    key,
                    format!("a number of heads that divides the block's {channels} channels"),
                ));
            }
        }
        let downsample_padding = match keys.get("downsample_padding") {
            None => 1,
            Some(v) if v.as_u64() == Some(0) => 0,
            Some(v) if v.as_u64() == Some(1) => 1,
            Some(_) => return Err(keys.unsupported("downsample_padding", "0 or 1")),
        };
        Ok(Self {
            sample_size: sample_size(&keys)?,
            in_channels: keys.count("in_channels", 4)?,
            out_channels: keys.count("out_channels", 4)?,
            cross_attention_dim: cross_attention_dim(&keys)?,
            use_linear_projection: keys.flag("use_linear_projection", false)?,
            upcast_attention: keys.flag("upcast_attention", false)?,
            norm_num_groups,
            norm_eps: keys.positive_number("norm_eps", 1e-5)?,
            activation: keys.activation("act_fn", Activation::Silu, &[Activation::Silu])?,
            center_input_sample: keys.flag("center_input_sample", false)?,
            flip_sin_to_cos: keys.flag("flip_sin_to_cos", true)?,
            freq_shift: keys.number("freq_shift", 0.0)?,
            time_embedding_dim: keys.count("time_embedding_dim", 4 * block_out_channels[0])?,
            time_cond_proj_dim: keys.optional_count("time_cond_proj_dim")?,
            num_class_embeds: keys.optional_count("num_class_embeds")?,
            addition: addition(&keys)?,
            downsample_padding,
            block_out_channels,
            down,
            mid,
            up,
        })
    }

    /// Cross-attention layers in the order they run (down, middle, up): the number of layer-wise
    /// embeddings of a concept word.
    pub fn cross_attention_layers(&self) -> usize {
        let of = |b: &UNetBlock| {
            if b.attention { b.layers * b.transformer_layers } else { 0 }
        };
        let mid = self.mid.as_ref().filter(|m| m.attention).map_or(0, |m| m.transformer_layers);
        self.down.iter().chain(&self.up).map(of).sum::<usize>() + mid
    }

    /// Made for inpainting: it reads, after the noisy latents, a mask and the latents of the
    /// picture without what lies in it.
    pub fn inpaints(&self) -> bool {
        self.in_channels == 2 * self.out_channels + 1
    }

    /// Height and width of a latent must be multiples of this.
    pub fn size_multiple(&self) -> usize {
        1 << self.down.iter().filter(|b| b.resample).count()
    }
}

fn refuse_unsupported(keys: &Keys) -> Result<(), ConfigError> {
    keys.must_be("_class_name", &json!("UNet2DConditionModel"))?;
    for key in [
        "class_embed_type",
        "encoder_hid_dim",
        "encoder_hid_dim_type",
        "time_embedding_act_fn",
        "timestep_post_act",
        "cross_attention_norm",
        "reverse_transformer_layers_per_block",
    ] {
        keys.must_be_null(key)?;
    }
    for (key, only) in [
        ("dual_cross_attention", json!(false)),
        ("resnet_time_scale_shift", json!("default")),
        ("resnet_skip_time_act", json!(false)),
        ("resnet_out_scale_factor", json!(1)),
        ("mid_block_scale_factor", json!(1)),
        ("time_embedding_type", json!("positional")),
        ("conv_in_kernel", json!(3)),
        ("conv_out_kernel", json!(3)),
        ("attention_type", json!("default")),
        ("class_embeddings_concat", json!(false)),
    ] {
        keys.must_be(key, &only)?;
    }
    Ok(())
}

/// `text_time`, or nothing.
fn addition(keys: &Keys) -> Result<Option<Addition>, ConfigError> {
    const KEY: &str = "addition_embed_type";
    const INPUT: &str = "projection_class_embeddings_input_dim";
    match keys.text(KEY)? {
        None => return Ok(None),
        Some("text_time") => {}
        Some(_) => return Err(keys.unsupported(KEY, "text_time, null")),
    }
    let number = keys.count("addition_time_embed_dim", 256)?;
    let width = keys.count(INPUT, 2816)?;
    let numbers = Addition::NUMBERS;
    match width.checked_sub(number * numbers).filter(|text| *text > 0) {
        Some(text) => Ok(Some(Addition { text, number })),
        None => Err(keys.invalid(INPUT, format!("more than {numbers} numbers of {number} each"))),
    }
}

/// Heads per block. For historical reasons diffusers stores the number of heads under
/// `attention_head_dim`, and `num_attention_heads` is null.
fn heads(keys: &Keys, blocks: usize) -> Result<Vec<usize>, ConfigError> {
    if keys.get("num_attention_heads").is_some() {
        return keys.per_block("num_attention_heads", blocks, 8);
    }
    keys.per_block("attention_head_dim", blocks, 8)
}

fn block_types(
    keys: &Keys,
    key: &str,
    cross: &str,
    plain: &str,
    blocks: usize,
) -> Result<Vec<bool>, ConfigError> {
    let up = key.starts_with("up");
    let Some(types) = keys.texts(key)? else {
        // The default is the layout of SD: attention everywhere but at the lowest resolution.
        return if blocks == 4 {
            Ok((0..4).map(|i| i != if up { 0 } else { 3 }).collect())
        } else {
            Err(keys.invalid(
                key,
                format!("a list of {blocks} block types, as many as `block_out_channels`"),
            ))
        };
    };
    if types.len() != blocks {
        return Err(
            keys.invalid(key, format!("{blocks} block types, as many as `block_out_channels`"))
        );
    }
    types
        .iter()
        .map(|&t| match t {
            t if t == cross => Ok(true),
            t if t == plain => Ok(false),
            _ => Err(keys.unsupported(key, format!("{cross}, {plain}"))),
        })
        .collect()
}

fn mid_block(keys: &Keys) -> Result<Option<bool>, ConfigError> {
    const KEY: &str = "mid_block_type";
    if keys.is_null(KEY) {
        return Ok(None);
    }
    match keys.text(KEY)? {
        None | Some("UNetMidBlock2DCrossAttn") => Ok(Some(true)),
        Some("UNetMidBlock2D") => Ok(Some(false)),
        Some(_) => Err(keys.unsupported(KEY, "UNetMidBlock2DCrossAttn, UNetMidBlock2D, null")),
    }
}

fn groups(keys: &Keys, channels: &[usize]) -> Result<usize, ConfigError> {
    const KEY: &str = "norm_num_groups";
    if keys.is_null(KEY) {
        return Err(keys.unsupported(KEY, "a number of groups"));
    }
    let groups = keys.count(KEY, 32)?;
    match channels.iter().find(|&c| c % groups != 0) {
        None => Ok(groups),
        Some(c) => Err(keys.invalid(KEY, format!("a number of groups that divides {c} channels"))),
    }
}

fn cross_attention_dim(keys: &Keys) -> Result<usize, ConfigError> {
    const KEY: &str = "cross_attention_dim";
    match keys.get(KEY) {
        Some(Value::Array(_)) => {
            let dims = keys.counts(KEY, &[])?;
            match dims.iter().all(|d| *d == dims[0]) {
                true => Ok(dims[0]),
                false => Err(keys.unsupported(KEY, "the same width in every block")),
            }
        }
        _ => keys.count(KEY, 1280),
    }
}

fn sample_size(keys: &Keys) -> Result<Option<[usize; 2]>, ConfigError> {
    const KEY: &str = "sample_size";
    match keys.get(KEY) {
        None => Ok(None),
        Some(Value::Array(_)) => match keys.counts(KEY, &[])?[..] {
            [h, w] => Ok(Some([h, w])),
            _ => Err(keys.invalid(KEY, "one number, or height and width")),
        },
        Some(_) => Ok(keys.optional_count(KEY)?.map(|n| [n, n])),
    }
}
