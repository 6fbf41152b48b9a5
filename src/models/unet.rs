//! The conditional UNet of Stable Diffusion (Rombach et al. 2022), diffusers'
//! `UNet2DConditionModel`.

use super::config::{Addition, MidBlock, UNetBlock, UNetConfig};
use crate::graph::{Result, Tensor};
use crate::nn::{Encodings, Layers, Prompt, Resnet, Transformer, sinusoids};

/// What a UNet reads.
#[derive(Clone, Copy, Debug)]
pub struct UNetInputs<'a> {
    /// Noisy latents `[batch, height, width, in_channels]`; any size that survives the
    /// downsampling.
    pub sample: Tensor,
    /// [`time_features`] of the timesteps, `[batch, block_out_channels[0]]`.
    pub time: Tensor,
    /// The prompt, for each batch entry.
    pub prompt: Encodings<'a>,
    /// For models with a `time_cond_proj_dim`: features of the guidance scale,
    /// `[batch, time_cond_proj_dim]`.
    pub guidance: Option<Tensor>,
    /// For models with `num_class_embeds`: class ids `[batch]`.
    pub class: Option<Tensor>,
    /// For models with an `addition`: [`addition_features`], `[batch, width]`.
    pub addition: Option<Tensor>,
    /// What control models add.
    pub residuals: Residuals<'a>,
}

/// What control models add.
#[derive(Clone, Copy, Debug, Default)]
pub struct Residuals<'a> {
    /// ControlNet's, to be added to each skip connection, in the order of [`UNetOutput::skips`];
    /// none or all of them.
    pub skips: &'a [Tensor],
    /// ControlNet's, to be added to the middle block's output.
    pub middle: Option<Tensor>,
    /// T2I-Adapter's: one feature map for each down block, first to last, and one for the middle
    /// where it has that. A down block with attention takes it before its downsampling, one without
    /// after it.
    pub adapter: &'a [Tensor],
}

/// What a pass of the UNet gives.
#[derive(Clone, Debug)]
pub struct UNetOutput {
    /// The prediction `[batch, height, width, out_channels]`.
    pub sample: Tensor,
    /// The skip connections as the down blocks made them (before [`Residuals::skips`]): the first
    /// convolution's output, then each layer's and each downsampling's.
    pub skips: Vec<Tensor>,
    /// Output of the middle block, before [`Residuals::middle`].
    pub middle: Tensor,
    /// What the last layer of the up blocks reads but for its skip connection, for [`shallow`].
    pub deep: Tensor,
}

/// One cross-attention of a UNet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CrossAttention {
    /// Full name, e.g. `down_blocks.0.attentions.0.transformer_blocks.0.attn2`.
    pub name: String,
    /// Width of its queries, keys and values.
    pub channels: usize,
    /// Attention heads.
    pub heads: usize,
}

/// The timesteps as the UNet's input `time`, `[timesteps, block_out_channels[0]]` row-major.
pub fn time_features(config: &UNetConfig, timesteps: &[f32]) -> Vec<f32> {
    sinusoids(timesteps, config.block_out_channels[0], config.flip_sin_to_cos, config.freq_shift)
}

/// The numbers that Stable Diffusion XL is told of a picture: how large the original was (height,
/// width), where it was cut (top, left), and the size that is aimed at (height, width).
pub type SizeNumbers = [f32; Addition::NUMBERS];

/// A pooled prompt and the numbers that go with it as a row of the UNet's input `addition`.
pub fn addition_features(
    config: &UNetConfig,
    addition: &Addition,
    pooled: &[f32],
    numbers: &SizeNumbers,
) -> Vec<f32> {
    let flip = config.flip_sin_to_cos;
    let numbers = sinusoids(numbers, addition.number, flip, config.freq_shift);
    pooled.iter().copied().chain(numbers).collect()
}

/// Builds one pass of the UNet.
pub fn unet(layers: &mut Layers, config: &UNetConfig, inputs: &UNetInputs) -> Result<UNetOutput> {
    let resnet = resnet_style(config);
    let mut prompt = Prompt::new(inputs.prompt);
    let residuals = &inputs.residuals;
    let maps = config.down.len();
    if !residuals.adapter.is_empty() && ![maps, maps + 1].contains(&residuals.adapter.len()) {
        let message = format!(
            "the model has {maps} down blocks, {} features are given",
            residuals.adapter.len()
        );
        return Err(layers.graph.shape_error("adapter", message));
    }
    if config.center_input_sample {
        return Err(refusal(layers, "`center_input_sample` is not supported"));
    }
    let told = Told { class: inputs.class, addition: inputs.addition };
    let time = time_embedding(layers, config, inputs.time, inputs.guidance, told)?;
    let x = layers.conv("conv_in", inputs.sample, config.block_out_channels[0], 3)?;
    let (skips, middle) = first_half(layers, config, x, time, &mut prompt, residuals.adapter)?;
    let mut x = add_if_given(layers, middle, residuals.middle.as_ref())?;

    let mut open = controlled_skips(layers, &skips, residuals.skips)?;
    let mut deep = x;
    for (i, block) in config.up.iter().enumerate() {
        x = layers.within(format!("up_blocks.{i}"), |layers| {
            for j in 0..block.layers {
                let skip = open.pop().ok_or_else(|| {
                    refusal(
                        layers,
                        "the up blocks have more layers than the down blocks have skips",
                    )
                })?;
                deep = x;
                x = layers.block(|layers| {
                    let x = layers.graph.concat_channels(x, skip)?;
                    layers.resnet(&format!("resnets.{j}"), x, Some(time), block.channels, resnet)
                })?;
                if block.attention {
                    x = layers.transformer(
                        &format!("attentions.{j}"),
                        x,
                        transformer(config, block),
                        &mut prompt,
                    )?;
                }
            }
            if block.resample {
                // To the size of the next skip, which is not twice this one where a downsampling
                // met an odd size.
                let next = *open.last().ok_or_else(|| {
                    refusal(
                        layers,
                        "the up blocks have more layers than the down blocks have skips",
                    )
                })?;
                let [_, height, width, _] = layers.image(next, "upsample")?;
                x = layers.upsample("upsamplers.0", x, block.channels, height, width)?;
            }
            Ok(x)
        })?;
    }

    let sample = last_layers(layers, config, x)?;
    prompt.finish(layers)?;
    Ok(UNetOutput { sample, skips, middle, deep })
}

/// From the last up block's output to the prediction.
fn last_layers(layers: &mut Layers, config: &UNetConfig, x: Tensor) -> Result<Tensor> {
    let resnet = resnet_style(config);
    let x = layers.group_norm("conv_norm_out", x, resnet.groups, resnet.epsilon)?;
    let x = layers.graph.activation(x, resnet.activation)?;
    layers.conv("conv_out", x, config.out_channels, 3)
}

/// Builds the outermost layers alone, on the deep features of another pass
/// ([`UNetOutput::deep`]): the first convolution and the last layer of the up blocks, which change
/// most from step to step (Ma et al. 2024, "DeepCache"). Without control models.
pub fn shallow(
    layers: &mut Layers,
    config: &UNetConfig,
    inputs: &UNetInputs,
    deep: Tensor,
) -> Result<Tensor> {
    let resnet = resnet_style(config);
    let told = Told { class: inputs.class, addition: inputs.addition };
    let time = time_embedding(layers, config, inputs.time, inputs.guidance, told)?;
    let skip = layers.conv("conv_in", inputs.sample, config.block_out_channels[0], 3)?;
    let Some((i, block)) = config.up.iter().enumerate().next_back() else {
        return Err(refusal(layers, "there are no up blocks"));
    };
    let j = block.layers.saturating_sub(1);
    let x = layers.within(format!("up_blocks.{i}"), |layers| {
        let x = layers.graph.concat_channels(deep, skip)?;
        let x = layers.resnet(&format!("resnets.{j}"), x, Some(time), block.channels, resnet)?;
        if !block.attention {
            return Ok(x);
        }
        let style = transformer(config, block);
        let own = style.depth * if style.only_cross_attention { 2 } else { 1 };
        let before = cross_attentions(config).len().saturating_sub(own);
        let mut prompt = Prompt::from(inputs.prompt, before);
        layers.transformer(&format!("attentions.{j}"), x, style, &mut prompt)
    })?;
    last_layers(layers, config, x)
}

/// Channels of [`UNetOutput::deep`].
pub fn deep_channels(config: &UNetConfig) -> usize {
    let last = config.up.last().map_or(0, |block| block.channels);
    match config.up.as_slice() {
        [.., before, block] if block.layers < 2 => before.channels,
        _ => last,
    }
}

/// The down blocks and the middle block, from the first convolution's output `x`: skip connections
/// as in [`UNetOutput::skips`], and the middle block's output. `features`: as in
/// [`Residuals::adapter`].
pub(super) fn first_half(
    layers: &mut Layers,
    config: &UNetConfig,
    mut x: Tensor,
    time: Tensor,
    prompt: &mut Prompt,
    features: &[Tensor],
) -> Result<(Vec<Tensor>, Tensor)> {
    let resnet = resnet_style(config);
    let mut skips = vec![x];
    for (i, block) in config.down.iter().enumerate() {
        x = layers.within(format!("down_blocks.{i}"), |layers| {
            for j in 0..block.layers {
                x = layers.resnet(
                    &format!("resnets.{j}"),
                    x,
                    Some(time),
                    block.channels,
                    resnet,
                )?;
                if block.attention {
                    x = layers.transformer(
                        &format!("attentions.{j}"),
                        x,
                        transformer(config, block),
                        prompt,
                    )?;
                    if j + 1 == block.layers {
                        x = add_if_given(layers, x, features.get(i))?;
                    }
                }
                skips.push(x);
            }
            if block.resample {
                x = layers.downsample(
                    "downsamplers.0",
                    x,
                    block.channels,
                    config.downsample_padding,
                )?;
                skips.push(x);
            }
            if let Some(&feature) = features.get(i).filter(|_| !block.attention) {
                x = layers.graph.add(x, feature)?;
                // The last skip is the block's output, so it carries the feature too.
                skips.pop();
                skips.push(x);
            }
            Ok(x)
        })?;
    }

    if let Some(block) = &config.mid {
        x = layers.within("mid_block", |layers| {
            x = layers.resnet("resnets.0", x, Some(time), block.channels, resnet)?;
            if block.attention {
                x = layers.transformer(
                    "attentions.0",
                    x,
                    middle_transformer(config, block),
                    prompt,
                )?;
                x = layers.resnet("resnets.1", x, Some(time), block.channels, resnet)?;
            }
            Ok(x)
        })?;
    }
    x = add_if_given(layers, x, features.get(config.down.len()))?;
    Ok((skips, x))
}

fn resnet_style(config: &UNetConfig) -> Resnet {
    Resnet {
        groups: config.norm_num_groups,
        epsilon: config.norm_eps,
        activation: config.activation.into(),
    }
}

/// The cross-attentions in the order in which [`Encodings`] are read: down -> middle -> up.
pub fn cross_attentions(config: &UNetConfig) -> Vec<CrossAttention> {
    let mut all = Vec::new();
    let mut add = |prefix: String, style: Transformer, channels: usize| {
        for i in 0..style.depth {
            let attentions: &[&str] =
                if style.only_cross_attention { &["attn1", "attn2"] } else { &["attn2"] };
            for attention in attentions {
                let name = format!("{prefix}.transformer_blocks.{i}.{attention}");
                all.push(CrossAttention { name, channels, heads: style.heads });
            }
        }
    };
    for (i, block) in config.down.iter().enumerate().filter(|(_, block)| block.attention) {
        for j in 0..block.layers {
            add(
                format!("down_blocks.{i}.attentions.{j}"),
                transformer(config, block),
                block.channels,
            );
        }
    }
    if let Some(block) = config.mid.as_ref().filter(|block| block.attention) {
        add("mid_block.attentions.0".into(), middle_transformer(config, block), block.channels);
    }
    for (i, block) in config.up.iter().enumerate().filter(|(_, block)| block.attention) {
        for j in 0..block.layers {
            add(
                format!("up_blocks.{i}.attentions.{j}"),
                transformer(config, block),
                block.channels,
            );
        }
    }
    all
}

/// Height and width of the feature maps of a pass over latents of `height` x `width`, each once,
/// from the largest: where attention may stand.
pub fn feature_sizes(config: &UNetConfig, height: usize, width: usize) -> Vec<[usize; 2]> {
    let mut size = [height, width];
    let mut sizes = vec![size];
    for _ in config.down.iter().filter(|block| block.resample) {
        size = halved(config, size);
        sizes.push(size);
    }
    sizes.dedup();
    sizes
}

/// Shapes `[height, width, channels]` of the skip connections of a pass over latents of `size`
/// (height, width), in the order of [`UNetOutput::skips`].
pub fn skips(config: &UNetConfig, size: [usize; 2]) -> Vec<[usize; 3]> {
    let mut size = size;
    let mut shapes: Vec<[usize; 3]> =
        config.block_out_channels.first().map(|c| [size[0], size[1], *c]).into_iter().collect();
    for block in &config.down {
        shapes.extend(std::iter::repeat_n([size[0], size[1], block.channels], block.layers));
        if block.resample {
            size = halved(config, size);
            shapes.push([size[0], size[1], block.channels]);
        }
    }
    shapes
}

/// Shapes `[height, width, channels]` of [`Residuals::adapter`], the last of them the middle's.
pub fn block_features(config: &UNetConfig, size: [usize; 2]) -> Vec<[usize; 3]> {
    let mut size = size;
    let mut feature = |block: &UNetBlock| {
        let before = size;
        if block.resample {
            size = halved(config, size);
        }
        let [height, width] = if block.attention { before } else { size };
        [height, width, block.channels]
    };
    let mut all: Vec<[usize; 3]> = config.down.iter().map(&mut feature).collect();
    let channels = config.down.last().map_or(0, |block| block.channels);
    all.push([size[0], size[1], channels]);
    all
}

/// Height and width after a downsampling: a 3x3 convolution of stride 2 rounds up with a padding of
/// 1 on all sides, down with one below and to the right.
fn halved(config: &UNetConfig, size: [usize; 2]) -> [usize; 2] {
    size.map(|side| (side + config.downsample_padding.min(1)) / 2)
}

/// Builds the keys and values of every cross-attention, for [`Encodings::KeysValues`]: `texts`
/// `[batch, tokens, text channels]` are one encoding for all, or one for each.
pub fn keys_values(
    layers: &mut Layers,
    config: &UNetConfig,
    texts: &[Tensor],
) -> Result<Vec<(Tensor, Tensor)>> {
    let attentions = cross_attentions(config);
    if texts.len() != 1 && texts.len() != attentions.len() {
        let message = format!(
            "the model has {} cross-attentions, the prompt has {} encodings",
            attentions.len(),
            texts.len()
        );
        return Err(layers.graph.shape_error("cross-attention", message));
    }
    let texts = texts.iter().cycle();
    let build = |(attention, &text): (&CrossAttention, &Tensor)| {
        layers.within(&attention.name, |layers| layers.keys_values(text, attention.channels))
    };
    attentions.iter().zip(texts).map(build).collect()
}

/// What a UNet is told besides the time.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Told {
    /// As in [`UNetInputs`].
    pub class: Option<Tensor>,
    /// As in [`UNetInputs`].
    pub addition: Option<Tensor>,
}

/// What every residual block is told of the time: `[batch, time_embedding_dim]`, activated.
pub(super) fn time_embedding(
    layers: &mut Layers,
    config: &UNetConfig,
    time: Tensor,
    guidance: Option<Tensor>,
    Told { class, addition }: Told,
) -> Result<Tensor> {
    let activation = config.activation.into();
    if guidance.is_some() != config.time_cond_proj_dim.is_some() {
        return Err(refusal(
            layers,
            "a guidance input goes with `time_cond_proj_dim`, and only with it",
        ));
    }
    if class.is_some() != config.num_class_embeds.is_some() {
        return Err(refusal(
            layers,
            "a class input goes with `num_class_embeds`, and only with it",
        ));
    }
    if addition.is_some() != config.addition.is_some() {
        return Err(refusal(
            layers,
            "an addition goes with `addition_embed_type`, and only with it",
        ));
    }
    let mut time = layers.time_embedding(
        "time_embedding",
        time,
        guidance,
        config.time_embedding_dim,
        activation,
    )?;
    if let (Some(class), Some(classes)) = (class, config.num_class_embeds) {
        let table = layers.within("class_embedding", |layers| {
            Ok(layers.parameter("weight", [classes, config.time_embedding_dim]))
        })?;
        let class = layers.graph.embedding(table, class)?;
        time = layers.graph.add(time, class)?;
    }
    if let Some(addition) = addition {
        let width = config.time_embedding_dim;
        let more = layers.time_embedding("add_embedding", addition, None, width, activation)?;
        time = layers.graph.add(time, more)?;
    }
    layers.graph.activation(time, activation)
}

fn controlled_skips(
    layers: &mut Layers,
    skips: &[Tensor],
    residuals: &[Tensor],
) -> Result<Vec<Tensor>> {
    if residuals.is_empty() {
        return Ok(skips.to_vec());
    }
    if residuals.len() != skips.len() {
        let message = format!(
            "the model has {} skip connections, {} residuals are given",
            skips.len(),
            residuals.len()
        );
        return Err(layers.graph.shape_error("residuals", message));
    }
    skips.iter().zip(residuals).map(|(&skip, &residual)| layers.graph.add(skip, residual)).collect()
}

fn add_if_given(layers: &mut Layers, x: Tensor, residual: Option<&Tensor>) -> Result<Tensor> {
    match residual {
        Some(&residual) => layers.graph.add(x, residual),
        None => Ok(x),
    }
}

fn transformer(config: &UNetConfig, block: &UNetBlock) -> Transformer {
    Transformer {
        heads: block.heads,
        depth: block.transformer_layers,
        groups: config.norm_num_groups,
        only_cross_attention: block.only_cross_attention,
    }
}

fn middle_transformer(config: &UNetConfig, block: &MidBlock) -> Transformer {
    Transformer {
        heads: block.heads,
        depth: block.transformer_layers,
        groups: config.norm_num_groups,
        only_cross_attention: block.only_cross_attention,
    }
}

fn refusal(layers: &Layers, message: &str) -> crate::graph::Error {
    layers.graph.shape_error("unet", message.into())
}
