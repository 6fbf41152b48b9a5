//! Configurations of files that bring none, inferred from canonical names and shapes into the keys
//! that diffusers writes.
//!
//! Most follows from the weights. What does not (heads, groups of the norms) is what Stable
//! Diffusion 1.x, 2.x and XL use.
use super::component::Component;
use serde_json::{Value, json};

/// Says what is missing: a tensor that the inference cannot do without.
pub(super) type Missing = String;

/// Group norms have 32 groups in Stable Diffusion; fewer only where 32 does not divide the
/// channels.
fn groups(channels: &[usize]) -> usize {
    channels.iter().fold(32, |a, &b| gcd(a, b))
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// The number of `{before}{i}{after}` for i = 0, 1, 2, ... that are there.
fn count(c: &Component, before: &str, after: &str) -> usize {
    (0..).take_while(|i| c.contains(&format!("{before}{i}{after}"))).count()
}

fn dim(c: &Component, name: &str, axis: usize) -> Result<usize, Missing> {
    c.shape(name).and_then(|s| s.get(axis)).copied().ok_or_else(|| name.to_string())
}

/// One value if all are equal, else the list: the two ways diffusers writes per-block settings.
fn one_or_list(values: &[usize]) -> Value {
    match values {
        [first, rest @ ..] if rest.iter().all(|v| v == first) => json!(first),
        _ => json!(values),
    }
}

/// `unet/config.json` for a UNet of Stable Diffusion's kind.
pub(super) fn unet(c: &Component) -> Result<Value, Missing> {
    denoiser(c, Some(dim(c, "conv_out.weight", 0)?))
}

/// A ControlNet's `config.json`: that of the UNet's half, and the encoder of pictures.
pub(super) fn control_net(c: &Component) -> Result<Value, Missing> {
    let mut config = denoiser(c, None)?;
    let embedding =
        |name: &str, axis| dim(c, &format!("controlnet_cond_embedding.{name}.weight"), axis);
    let mut channels = vec![embedding("conv_in", 0)?];
    let last = count(c, "controlnet_cond_embedding.blocks.", ".weight");
    for i in (1..last).step_by(2) {
        channels.push(embedding(&format!("blocks.{i}"), 0)?);
    }
    config["_class_name"] = json!("ControlNetModel");
    config["conditioning_channels"] = json!(embedding("conv_in", 1)?);
    config["conditioning_embedding_out_channels"] = json!(channels);
    Ok(config)
}

fn denoiser(c: &Component, out_channels: Option<usize>) -> Result<Value, Missing> {
    let blocks = count(c, "down_blocks.", ".resnets.0.conv1.weight");
    let mut channels = Vec::new();
    for i in 0..blocks {
        channels.push(dim(c, &format!("down_blocks.{i}.resnets.0.conv1.weight"), 0)?);
    }
    let first =
        *channels.first().ok_or_else(|| "down_blocks.0.resnets.0.conv1.weight".to_string())?;
    let layers: Vec<_> = (0..blocks)
        .map(|i| count(c, &format!("down_blocks.{i}.resnets."), ".conv1.weight"))
        .collect();
    let depth = |block: &str| {
        count(c, &format!("{block}.attentions.0.transformer_blocks."), ".attn1.to_q.weight")
    };
    let down: Vec<_> = (0..blocks).map(|i| depth(&format!("down_blocks.{i}"))).collect();
    let up: Vec<_> = (0..blocks).map(|i| depth(&format!("up_blocks.{i}"))).collect();
    let types = |depths: &[usize], cross: &str, plain: &str| -> Vec<Value> {
        depths.iter().map(|&d| json!(if d > 0 { cross } else { plain })).collect()
    };
    let mid = match (c.contains("mid_block.resnets.0.conv1.weight"), depth("mid_block")) {
        (false, _) => Value::Null,
        (true, 0) => json!("UNetMidBlock2D"),
        (true, _) => json!("UNetMidBlock2DCrossAttn"),
    };
    // A block without attention has no depth of its own; it takes the middle's or else one.
    let depths: Vec<_> =
        down.iter().map(|&d| if d > 0 { d } else { depth("mid_block").max(1) }).collect();
    let attention = c.names().find(|n| n.ends_with(".attn2.to_k.weight"));
    let linear = c
        .names()
        .find(|n| n.ends_with(".proj_in.weight"))
        .and_then(|n| c.shape(n))
        .is_some_and(|s| s.len() == 2);
    let mut config = json!({
        "_class_name": "UNet2DConditionModel",
        "act_fn": "silu",
        // Stable Diffusion 1.x has 8 heads everywhere; 2.x has heads of 64 channels.
        "attention_head_dim": if linear {
            json!(channels.iter().map(|c| heads_of_64(*c)).collect::<Vec<_>>())
        } else {
            json!(8)
        },
        "block_out_channels": channels,
        "center_input_sample": false,
        "cross_attention_dim": attention.map_or(Ok(1280), |n| dim(c, n, 1))?,
        "down_block_types": types(&down, "CrossAttnDownBlock2D", "DownBlock2D"),
        "downsample_padding": 1,
        "dual_cross_attention": false,
        "flip_sin_to_cos": true,
        "freq_shift": 0,
        "in_channels": dim(c, "conv_in.weight", 1)?,
        "layers_per_block": one_or_list(&layers),
        "mid_block_type": mid,
        "norm_eps": 1e-5,
        "norm_num_groups": groups(&channels),
        "num_class_embeds": null,
        "only_cross_attention": false,
        "out_channels": out_channels.unwrap_or(4),
        "sample_size": 64,
        "transformer_layers_per_block": one_or_list(&depths),
        "up_block_types": types(&up, "CrossAttnUpBlock2D", "UpBlock2D"),
        "upcast_attention": false,
        "use_linear_projection": linear,
    });
    let time = dim(c, "time_embedding.linear_1.weight", 0)?;
    if time != 4 * first {
        config["time_embedding_dim"] = json!(time);
    }
    if let Some(shape) = c.shape("time_embedding.cond_proj.weight") {
        config["time_cond_proj_dim"] = json!(shape.get(1));
    }
    if let Some(shape) = c.shape("class_embedding.weight") {
        config["num_class_embeds"] = json!(shape.first());
    }
    if let Some(shape) = c.shape("add_embedding.linear_1.weight") {
        config["addition_embed_type"] = json!("text_time");
        config["addition_time_embed_dim"] = json!(xl_number_width(shape.get(1).copied()));
        config["projection_class_embeddings_input_dim"] = json!(shape.get(1));
        config["sample_size"] = json!(128);
    }
    if let Some(shape) = c.shape("class_embedding.linear_1.weight") {
        config["class_embed_type"] = json!("projection");
        config["projection_class_embeddings_input_dim"] = json!(shape.get(1));
    }
    Ok(config)
}

/// Width of the sinusoids of each of the six numbers that Stable Diffusion XL is told: 256, but in
/// very small models.
fn xl_number_width(all: Option<usize>) -> usize {
    let fits = |width: &usize| all.is_none_or(|all| 6 * width < all);
    [256, 32, 8].into_iter().find(fits).unwrap_or(1)
}

pub(super) fn heads_of_64(width: usize) -> usize {
    if width.is_multiple_of(64) { width / 64 } else { 1 }
}

/// `vae/config.json` for an autoencoder of Stable Diffusion's kind.
pub(super) fn vae(c: &Component) -> Result<Value, Missing> {
    let levels = count(c, "encoder.down_blocks.", ".resnets.0.conv1.weight");
    let mut channels = Vec::new();
    for i in 0..levels {
        channels.push(dim(c, &format!("encoder.down_blocks.{i}.resnets.0.conv1.weight"), 0)?);
    }
    let types = |side: &str, attended: &str, plain: &str| -> Vec<Value> {
        let has = |i| c.contains(&format!("{side}_blocks.{i}.attentions.0.to_q.weight"));
        (0..levels).map(|i| json!(if has(i) { attended } else { plain })).collect()
    };
    Ok(json!({
        "_class_name": "AutoencoderKL",
        "act_fn": "silu",
        "block_out_channels": channels,
        "down_block_types": types("encoder.down", "AttnDownEncoderBlock2D", "DownEncoderBlock2D"),
        "force_upcast": true,
        "in_channels": dim(c, "encoder.conv_in.weight", 1)?,
        "latent_channels": dim(c, "decoder.conv_in.weight", 1)?,
        "layers_per_block": count(c, "encoder.down_blocks.0.resnets.", ".conv1.weight"),
        "mid_block_add_attention": c.contains("encoder.mid_block.attentions.0.to_q.weight"),
        "norm_num_groups": groups(&channels),
        "out_channels": dim(c, "decoder.conv_out.weight", 0)?,
        "sample_size": 512,
        "scaling_factor": 0.18215,
        "up_block_types": types("decoder.up", "AttnUpDecoderBlock2D", "UpDecoderBlock2D"),
        "use_post_quant_conv": c.contains("post_quant_conv.weight"),
        "use_quant_conv": c.contains("quant_conv.weight"),
    }))
}

/// As [`vae`], for Stable Diffusion XL's, whose latents are of another scale.
pub(super) fn xl_vae(c: &Component) -> Result<Value, Missing> {
    let mut config = vae(c)?;
    config["sample_size"] = json!(1024);
    config["scaling_factor"] = json!(0.13025);
    Ok(config)
}

/// `text_encoder/config.json` for CLIP's text encoder. `open_clip`: it came under OpenCLIP's names.
pub(super) fn text(c: &Component, open_clip: bool) -> Result<Value, Missing> {
    let tokens = "text_model.embeddings.token_embedding.weight";
    let (vocabulary, width) = (dim(c, tokens, 0)?, dim(c, tokens, 1)?);
    let projection = c.shape("text_projection.weight").and_then(|s| s.first()).copied();
    // OpenCLIP's ViT-H (1024 wide), the tower of 2.x, can be stored under Hugging Face's names too;
    // CLIP's own is 768 wide.
    let gelu = open_clip || width == 1024;
    Ok(json!({
        "architectures": ["CLIPTextModel"],
        "bos_token_id": vocabulary.saturating_sub(2),
        "eos_token_id": vocabulary.saturating_sub(1),
        "hidden_act": if gelu { "gelu" } else { "quick_gelu" },
        "hidden_size": width,
        "intermediate_size": dim(c, "text_model.encoder.layers.0.mlp.fc1.weight", 0)?,
        "layer_norm_eps": 1e-5,
        "max_position_embeddings": dim(c, "text_model.embeddings.position_embedding.weight", 0)?,
        "model_type": "clip_text_model",
        "num_attention_heads": heads_of_64(width),
        "num_hidden_layers": count(c, "text_model.encoder.layers.", ".mlp.fc1.weight"),
        "projection_dim": projection.unwrap_or(width),
        "vocab_size": vocabulary,
    }))
}
