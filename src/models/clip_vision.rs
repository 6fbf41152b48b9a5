//! CLIP's vision tower (Radford et al. 2021), transformers' `CLIPVisionModelWithProjection`.

use super::config::ClipVisionConfig;
use crate::graph::{Result, Tensor};
use crate::nn::{ClipLayer, Layers};

/// Builds the tower: normalised `pixels` `[batch, image_size, image_size, num_channels]` to tokens
/// `[batch, 1 + patches, hidden_size]`, of which the first stands for the whole picture.
pub fn clip_vision(
    layers: &mut Layers,
    config: &ClipVisionConfig,
    pixels: Tensor,
) -> Result<Tensor> {
    let style = ClipLayer {
        heads: config.num_attention_heads,
        intermediate: config.intermediate_size,
        activation: config.hidden_act.into(),
        epsilon: config.layer_norm_eps,
        causal: false,
    };
    layers.within("vision_model", |layers| {
        let x = layers.within("embeddings", |layers| embed(layers, config, pixels))?;
        // The name is spelt so in every file.
        let mut x = layers.layer_norm("pre_layrnorm", x, config.layer_norm_eps)?;
        for i in 0..config.num_hidden_layers {
            x = layers.clip_layer(&format!("encoder.layers.{i}"), x, style)?;
        }
        Ok(x)
    })
}

/// Builds the projection of [`clip_vision`]'s tokens to the space that texts share:
/// `[batch, projection_dim]`, not normalised.
pub fn project(layers: &mut Layers, config: &ClipVisionConfig, tokens: Tensor) -> Result<Tensor> {
    let [batch, _, channels] = layers.tokens(tokens, "clip_vision")?;
    let class = layers.graph.slice(tokens, 1, 0, 1)?;
    let class = layers.graph.reshape(class, [batch, channels])?;
    let class = layers.within("vision_model", |layers| {
        layers.layer_norm("post_layernorm", class, config.layer_norm_eps)
    })?;
    layers.linear_no_bias("visual_projection", class, config.projection_dim)
}

/// Patches as tokens after the class token, with their positions.
fn embed(layers: &mut Layers, config: &ClipVisionConfig, pixels: Tensor) -> Result<Tensor> {
    let (size, patch, width) = (config.image_size, config.patch_size, config.hidden_size);
    let [batch, height, length, _] = layers.image(pixels, "clip_vision")?;
    if height != size || length != size {
        let message = format!("expected a picture of {size}x{size}, found {height}x{length}");
        return Err(layers.graph.shape_error("clip_vision", message));
    }
    let patches = (size / patch) * (size / patch);
    let weight =
        layers.parameter("patch_embedding.weight", [width, config.num_channels, patch, patch]);
    let x = layers.graph.conv2d(pixels, weight, patch)?;
    // An empty place before the patches, into which the class token is added along with the
    // positions.
    let x = layers.graph.reshape(x, [batch, 1, patches, width])?;
    let x = layers.graph.pad2d(x, [0, 0, 1, 0])?;
    let x = layers.graph.reshape(x, [batch, 1 + patches, width])?;
    let class = layers.parameter("class_embedding", [width]);
    let class = layers.graph.reshape(class, [1, 1, 1, width])?;
    let class = layers.graph.pad2d(class, [0, 0, 0, patches])?;
    let class = layers.graph.reshape(class, [1 + patches, width])?;
    let positions = layers.parameter("position_embedding.weight", [1 + patches, width]);
    let positions = layers.graph.add(positions, class)?;
    layers.graph.add(x, positions)
}
