"""Sizes of every part, in the words of the `config.json` files that ship with the weights.

Why these sizes. The model must be made, tuned and tried on two processor cores, so the VAE has factor 8 as Stable Diffusion's
own: latents are 4x16x16, and the world is drawn with nothing that is much smaller than 4 pixels. (Factor 4 keeps more, but its UNet
costs three to four times as much, in training, tuning and use.) The UNet keeps Stable Diffusion 1.x's topology (three
cross-attention blocks and a plain one, two layers each, 16 cross-attention layers). What a pass of one sample forward costs,
and a training sample on one Sapphire Rapids core in f32 (other work went on beside: the best of five):

| widths            | parameters (f16) | GFLOP | ms a training sample |
|-------------------|------------------|-------|------|
| 40, 80, 96, 128   | 15.7 MB          | 0.64  | 47 | <- before parts had colours of their own
| 48, 96, 144, 192  | 31.1 MB          | 0.99  | 55 |
| 64, 96, 128, 192  | 30.3 MB          | 1.19  | 59 | <- chosen
| 64, 96, 160, 256  | 45.5 MB          | 1.32  | 65 |
| 64, 128, 192, 256 | 54.8 MB          | 1.68  | 93 |

Colours of parts are settled where the parts are told apart, on the 16x16 level: so that one grew most, by as much as users'
time allows. Heads are few, because many narrow ones cost exponentials. Norm groups are few as well. The VAE of 32, 64, 96, 128
channels costs three times as much as that of half of them (2.1 and 6.6 GFLOP, there and back), which for a picture is what
seven passes of the UNet cost; the narrow one put parts of strange subjects 9 of 255 beside their
colours (median), where they have to be met within 3.
"""

LATENT_SCALE = 0.18215
TEXT_WIDTH = 128
TOKENS = 77

VAE = {
    "_class_name": "AutoencoderKL",
    "act_fn": "silu",
    "block_out_channels": [32, 64, 96, 128],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "force_upcast": False,
    "in_channels": 3,
    "latent_channels": 4,
    "layers_per_block": 1,
    "mid_block_add_attention": True,
    "norm_num_groups": 4,
    "out_channels": 3,
    "sample_size": 128,
    "scaling_factor": LATENT_SCALE,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "use_post_quant_conv": True,
    "use_quant_conv": True,
}

UNET = {
    "_class_name": "UNet2DConditionModel",
    "act_fn": "silu",
    "attention_head_dim": [2, 2, 4, 4],  # in diffusers' files this is the number of heads
    "block_out_channels": [64, 96, 128, 192],
    "center_input_sample": False,
    "cross_attention_dim": TEXT_WIDTH,
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
    "downsample_padding": 1,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "in_channels": 4,
    "layers_per_block": 2,
    "mid_block_scale_factor": 1,
    "norm_eps": 1e-05,
    "norm_num_groups": 8,
    "out_channels": 4,
    "sample_size": 16,
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
    "use_linear_projection": False,
}

TEXT = {
    "architectures": ["CLIPTextModel"],
    "attention_dropout": 0.0,
    # Without it transformers loads the file's half precision, where diffusers loads the other
    # networks in single.
    "dtype": "float32",
    "hidden_act": "quick_gelu",
    "hidden_size": TEXT_WIDTH,
    "initializer_factor": 1.0,
    "initializer_range": 0.02,
    "intermediate_size": 512,
    "layer_norm_eps": 1e-05,
    "max_position_embeddings": TOKENS,
    "model_type": "clip_text_model",
    "num_attention_heads": 4,
    "num_hidden_layers": 4,
    "projection_dim": 128,
}  # vocabulary size and the special tokens' numbers are added from the vocabulary

VISION = {
    "architectures": ["CLIPVisionModelWithProjection"],
    "attention_dropout": 0.0,
    "hidden_act": "quick_gelu",
    "hidden_size": 128,
    "image_size": 128,
    "initializer_factor": 1.0,
    "initializer_range": 0.02,
    "intermediate_size": 512,
    "layer_norm_eps": 1e-05,
    "model_type": "clip_vision_model",
    "num_attention_heads": 4,
    "num_channels": 3,
    "num_hidden_layers": 4,
    "patch_size": 16,
    "projection_dim": 128,
}

PREPROCESSOR = {  # how pictures go into the vision tower: plain -1..1, not the original CLIP's means and deviations
    "crop_size": {"height": 128, "width": 128},
    "do_center_crop": True,
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_processor_type": "CLIPImageProcessor",
    "image_std": [0.5, 0.5, 0.5],
    "resample": 3,
    "rescale_factor": 1 / 255,
    "size": {"shortest_edge": 128},
}

ADAPTER = {
    "_class_name": "T2IAdapter",
    "adapter_type": "full_adapter",
    "channels": UNET["block_out_channels"],
    "downscale_factor": 8,
    "in_channels": 1,
    "num_res_blocks": 2,
}

SCHEDULER = {
    "_class_name": "PNDMScheduler",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "timestep_spacing": "leading",
    "trained_betas": None,
}

GENERATION = {"guidance_scale": 3.0}  # higher ones burn colours in

MODEL_INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "_diffusers_version": "0.42.1",
    "feature_extractor": [None, None],
    "image_encoder": [None, None],
    "requires_safety_checker": False,
    "safety_checker": [None, None],
    "scheduler": ["diffusers", "PNDMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}
