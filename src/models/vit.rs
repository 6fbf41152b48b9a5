//! Vision transformers of DINO's kind (Caron et al. 2021; Oquab et al. 2023).

use super::config::VitConfig;
use crate::graph::ops::Function;
use crate::graph::{Result, Tensor};
use crate::nn::Layers;

/// Builds the tower: normalised `pixels` `[batch, side, side, 3]` to what stands for each whole
/// picture, `[batch, hidden_size]`. `positions` `[1 + registers + patches, hidden_size]` is what is
/// added to the tokens, and all that there is of the first ones, which stand for no place.
pub fn vit(
    layers: &mut Layers,
    config: &VitConfig,
    pixels: Tensor,
    positions: Tensor,
) -> Result<Tensor> {
    let (patch, width) = (config.patch_size, config.hidden_size);
    let [batch, height, length, channels] = layers.image(pixels, "vit")?;
    let patches = (height / patch) * (length / patch);
    let placeless = 1 + config.num_registers;
    let x = layers.within("patch_embed", |layers| {
        let weight = layers.parameter("weight", [width, channels, patch, patch]);
        let bias = layers.parameter("bias", [width]);
        let x = layers.graph.conv2d(pixels, weight, patch)?;
        layers.graph.add(x, bias)
    })?;
    // Empty places before the patches, which `positions` fills.
    let x = layers.graph.reshape(x, [batch, 1, patches, width])?;
    let x = layers.graph.pad2d(x, [0, 0, placeless, 0])?;
    let x = layers.graph.reshape(x, [batch, placeless + patches, width])?;
    let mut x = layers.graph.add(x, positions)?;
    for i in 0..config.num_hidden_layers {
        x = layers.within(format!("blocks.{i}"), |layers| block(layers, config, x))?;
    }
    let first = layers.graph.slice(x, 1, 0, 1)?;
    let first = layers.graph.reshape(first, [batch, width])?;
    layers.layer_norm("norm", first, config.layer_norm_eps)
}

/// Self-attention and feed-forward, each normalised before, perhaps scaled, and added after.
fn block(layers: &mut Layers, config: &VitConfig, x: Tensor) -> Result<Tensor> {
    let width = config.hidden_size;
    let h = layers.layer_norm("norm1", x, config.layer_norm_eps)?;
    let h = layers.within("attn", |layers| {
        let (q, k) = (layers.linear("q", h, width)?, layers.linear("k", h, width)?);
        let v = layers.linear("v", h, width)?;
        let y = layers.attend(q, k, v, config.num_attention_heads, false)?;
        layers.linear("proj", y, width)
    })?;
    let h = scaled(layers, config, "ls1", h)?;
    let x = layers.graph.add(x, h)?;
    let h = layers.layer_norm("norm2", x, config.layer_norm_eps)?;
    let h = layers.within("mlp", |layers| {
        let h = layers.linear("fc1", h, config.intermediate_size)?;
        let h = layers.graph.activation(h, Function::Gelu)?;
        layers.linear("fc2", h, width)
    })?;
    let h = scaled(layers, config, "ls2", h)?;
    layers.graph.add(x, h)
}

fn scaled(layers: &mut Layers, config: &VitConfig, name: &str, x: Tensor) -> Result<Tensor> {
    if !config.layer_scale {
        return Ok(x);
    }
    let scale = layers.parameter(name, [config.hidden_size]);
    layers.graph.multiply(x, scale)
}
