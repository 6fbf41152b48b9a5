//! Defaults, quirks and refusals of configurations.
use super::*;
use serde_json::{Value, json};
use std::path::Path;

fn unet(config: Value) -> Result<UNetConfig, String> {
    UNetConfig::from_json(&config, Path::new("unet/config.json")).map_err(|e| e.to_string())
}

fn vae(config: Value) -> Result<VaeConfig, String> {
    VaeConfig::from_json(&config, Path::new("vae/config.json")).map_err(|e| e.to_string())
}

fn text(config: Value) -> Result<ClipTextConfig, String> {
    ClipTextConfig::from_json(&config, Path::new("text_encoder/config.json"))
        .map_err(|e| e.to_string())
}

fn vision(config: Value) -> Result<ClipVisionConfig, String> {
    ClipVisionConfig::from_json(&config, Path::new("image_encoder/config.json"))
        .map_err(|e| e.to_string())
}

#[test]
fn an_empty_unet_configuration_is_sd1_with_a_wider_text() {
    let c = unet(json!({})).unwrap();
    assert_eq!(c.block_out_channels, [320, 640, 1280, 1280]);
    assert_eq!(c.cross_attention_dim, 1280);
    assert_eq!(c.time_embedding_dim, 1280);
    assert_eq!(c.sample_size, None);
    assert_eq!((c.norm_num_groups, c.norm_eps), (32, 1e-5));
    assert!(c.flip_sin_to_cos && !c.center_input_sample && !c.use_linear_projection);
    let down: Vec<_> =
        c.down.iter().map(|b| (b.channels, b.attention, b.layers, b.heads, b.resample)).collect();
    assert_eq!(
        down,
        [
            (320, true, 2, 8, true),
            (640, true, 2, 8, true),
            (1280, true, 2, 8, true),
            (1280, false, 2, 8, false)
        ]
    );
    let up: Vec<_> = c.up.iter().map(|b| (b.channels, b.attention, b.layers, b.resample)).collect();
    assert_eq!(
        up,
        [
            (1280, false, 3, true),
            (1280, true, 3, true),
            (640, true, 3, true),
            (320, true, 3, false)
        ]
    );
    let mid = c.mid.as_ref().unwrap();
    assert_eq!((mid.channels, mid.attention, mid.heads), (1280, true, 8));
    assert_eq!((c.cross_attention_layers(), c.size_multiple()), (16, 8));
}

#[test]
fn sd2_heads_are_a_list_under_a_misleading_name() {
    let c = unet(json!({ "attention_head_dim": [5, 10, 20, 20], "num_attention_heads": null,
    "use_linear_projection": true }))
    .unwrap();
    assert_eq!(c.down.iter().map(|b| b.heads).collect::<Vec<_>>(), [5, 10, 20, 20]);
    assert_eq!(c.up.iter().map(|b| b.heads).collect::<Vec<_>>(), [20, 20, 10, 5]);
    assert_eq!(c.mid.unwrap().heads, 20);
    let c = unet(json!({ "attention_head_dim": 64, "num_attention_heads": 4 })).unwrap();
    assert!(c.down.iter().all(|b| b.heads == 4));
}

#[test]
fn per_block_settings_are_mirrored_in_the_up_blocks() {
    let c = unet(json!({
        "layers_per_block": [1, 2, 3, 4], "transformer_layers_per_block": [1, 2, 10, 3],
        "only_cross_attention": [true, false, false, false], "mid_block_type": null,
        "time_embedding_dim": 99,
    }))
    .unwrap();
    assert_eq!(c.up.iter().map(|b| b.layers).collect::<Vec<_>>(), [5, 4, 3, 2]);
    assert_eq!(c.up.iter().map(|b| b.transformer_layers).collect::<Vec<_>>(), [3, 10, 2, 1]);
    assert_eq!(
        c.up.iter().map(|b| b.only_cross_attention).collect::<Vec<_>>(),
        [false, false, false, true]
    );
    assert_eq!((c.mid, c.time_embedding_dim), (None, 99));
}

#[test]
fn sdxl_is_told_sizes_and_a_summary_of_the_prompt() {
    let c = unet(json!({
        "addition_embed_type": "text_time", "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816, "block_out_channels": [320, 640, 1280],
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
        "transformer_layers_per_block": [1, 2, 10], "attention_head_dim": [5, 10, 20],
        "cross_attention_dim": 2048, "use_linear_projection": true,
    }))
    .unwrap();
    let addition = c.addition.unwrap();
    assert_eq!((addition.text, addition.width()), (1280, 2816));
    assert_eq!((c.cross_attention_layers(), c.size_multiple()), (70, 4));
    let narrow = json!({ "addition_embed_type": "text_time", "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 1536 });
    assert!(unet(narrow).unwrap_err().contains("more than 6 numbers of 256 each"));
}

#[test]
fn what_a_unet_cannot_be_is_refused_by_key_and_value() {
    for (key, value, supported) in [
        ("class_embed_type", json!("projection"), "null"),
        ("addition_embed_type", json!("text_image"), "text_time, null"),
        ("encoder_hid_dim_type", json!("text_proj"), "null"),
        ("dual_cross_attention", json!(true), "false"),
        ("resnet_time_scale_shift", json!("scale_shift"), "\"default\""),
        ("mid_block_scale_factor", json!(2), "1"),
        ("conv_in_kernel", json!(1), "3"),
        ("_class_name", json!("UNet3DConditionModel"), "\"UNet2DConditionModel\""),
        ("act_fn", json!("mish"), "silu"),
        (
            "mid_block_type",
            json!("UNetMidBlock2DSimpleCrossAttn"),
            "UNetMidBlock2DCrossAttn, UNetMidBlock2D, null",
        ),
        ("norm_num_groups", json!(null), "a number of groups"),
        ("downsample_padding", json!(3), "0 or 1"),
        ("cross_attention_dim", json!([1, 2, 3, 4]), "the same width in every block"),
    ] {
        let error = unet(json!({ key: value })).unwrap_err();
        assert_eq!(
            error,
            format!(
                "unet/config.json: `{key}` = {value} is not supported (supported: {supported})"
            )
        );
    }
    let types = json!({ "down_block_types": ["AttnDownBlock2D", "DownBlock2D", "DownBlock2D",
    "DownBlock2D"] });
    assert!(unet(types).unwrap_err().ends_with("(supported: CrossAttnDownBlock2D, DownBlock2D)"));
}

#[test]
fn contradictions_in_a_unet_are_named() {
    for (config, expected) in [
        (json!([1]), "expected a JSON object, found a list"),
        (json!({ "in_channels": 0 }), "`in_channels` is 0, expected a positive whole number"),
        (json!({ "in_channels": "4" }), "`in_channels` is \"4\", expected a positive whole number"),
        (
            json!({ "in_channels": 1e300 }),
            "`in_channels` is 1e+300, expected a positive whole number",
        ),
        (json!({ "norm_eps": 0 }), "`norm_eps` is 0, expected a number above zero"),
        (
            json!({ "block_out_channels": [] }),
            "`block_out_channels` is [], expected a list of 1 to 16 positive whole numbers",
        ),
        (
            json!({ "block_out_channels": [48, 96, 96, 96] }),
            "`norm_num_groups` is absent, expected a number of groups that divides 48 channels",
        ),
        (
            json!({ "block_out_channels": [32, 64] }),
            "`down_block_types` is absent, expected a list of 2 block types, as many as \
                `block_out_channels`",
        ),
        (
            json!({ "attention_head_dim": 7 }),
            "`attention_head_dim` is 7, expected a number of heads that divides the block's 320 \
                channels",
        ),
        (
            json!({ "attention_head_dim": [8, 8] }),
            "`attention_head_dim` is [8,8], expected one number, or a list of 4, one per block",
        ),
        (
            json!({ "use_linear_projection": 1 }),
            "`use_linear_projection` is 1, expected true or false",
        ),
        (
            json!({ "down_block_types": ["DownBlock2D"] }),
            "`down_block_types` is [\"DownBlock2D\"], expected 4 block types, as many as \
                `block_out_channels`",
        ),
    ] {
        assert_eq!(unet(config).unwrap_err(), format!("unet/config.json: {expected}"));
    }
}

#[test]
fn the_autoencoder_has_diffusers_defaults() {
    let c =
        vae(json!({ "block_out_channels": [128, 256, 512, 512], "layers_per_block": 2 })).unwrap();
    assert_eq!((c.latent_channels, c.scaling_factor, c.downscale()), (4, 0.18215, 8));
    assert_eq!((c.in_channels, c.norm_num_groups, c.shift_factor), (3, 32, None));
    assert!(c.use_quant_conv && c.use_post_quant_conv && c.mid_block_add_attention);
    let c =
        vae(json!({ "use_quant_conv": false, "shift_factor": 0.1159, "scaling_factor": 0.3611 }))
            .unwrap();
    assert_eq!((c.use_quant_conv, c.shift_factor, c.scaling_factor), (false, Some(0.1159), 0.3611));
    for (config, expected) in [
        (
            json!({ "_class_name": "VQModel" }),
            "`_class_name` = \"VQModel\" is not supported (supported: \"AutoencoderKL\")",
        ),
        (
            json!({ "latents_mean": [0.0] }),
            "`latents_mean` = [0.0] is not supported (supported: null)",
        ),
        (
            json!({ "down_block_types": ["AttnDownEncoderBlock2D"] }),
            "`down_block_types` = [\"AttnDownEncoderBlock2D\"] is not supported (supported: \
                DownEncoderBlock2D)",
        ),
        (json!({ "scaling_factor": -1 }), "`scaling_factor` is -1, expected a number above zero"),
        (
            json!({ "norm_num_groups": 48 }),
            "`norm_num_groups` is 48, expected a number of groups that divides 64 channels",
        ),
    ] {
        assert_eq!(vae(config).unwrap_err(), format!("vae/config.json: {expected}"));
    }
}

#[test]
fn the_towers_have_transformers_defaults() {
    let c = text(json!({})).unwrap();
    assert_eq!(
        (c.vocab_size, c.hidden_size, c.intermediate_size, c.num_hidden_layers),
        (49408, 512, 2048, 12)
    );
    assert_eq!((c.num_attention_heads, c.max_position_embeddings, c.projection_dim), (8, 77, 512));
    assert_eq!(
        (c.hidden_act, c.layer_norm_eps, c.eos_token_id),
        (Activation::QuickGelu, 1e-5, None)
    );
    let c = vision(json!({})).unwrap();
    assert_eq!(
        (c.hidden_size, c.num_attention_heads, c.image_size, c.patch_size),
        (768, 12, 224, 32)
    );

    let whole = json!({ "model_type": "clip", "text_config": { "hidden_size": 64 },
    "vision_config": { "hidden_size": 96 } });
    assert_eq!(text(whole.clone()).unwrap().hidden_size, 64);
    assert_eq!(vision(whole).unwrap().hidden_size, 96);
    for (config, expected) in [
        (
            json!({ "model_type": "t5" }),
            "`model_type` = \"t5\" is not supported (supported: clip_text_model, clip)",
        ),
        (
            json!({ "hidden_act": "relu" }),
            "`hidden_act` = \"relu\" is not supported (supported: quick_gelu, gelu)",
        ),
        (
            json!({ "num_attention_heads": 7 }),
            "`num_attention_heads` is 7, expected a number that divides `hidden_size`, 512",
        ),
        (
            json!({ "text_config": { "hidden_size": -1 } }),
            "`text_config.hidden_size` is -1, expected a positive whole number",
        ),
    ] {
        assert_eq!(text(config).unwrap_err(), format!("text_encoder/config.json: {expected}"));
    }
    let error = vision(json!({ "image_size": 100 })).unwrap_err();
    assert_eq!(
        error,
        "image_encoder/config.json: `patch_size` is absent, expected a number that divides \
            `image_size`, 100"
    );
}
