"""What Stable Diffusion 1.5 costs in stable-diffusion.cpp's CPU back end: made-up weights in f16, one thread, its own log and CPU seconds.

    python -m pip install cyllama==0.2.18
    python tools/reference/stable_diffusion_cpp_cost.py [pixels]

The text encoder and the VAE's decoder stand in its log, the UNet in the times between its four steps (guidance 1, so a pass each).
"""

import pathlib
import sys
import tempfile
import time

import cyllama.sd as sd
from cyllama.utils import validation
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel


def make(folder):
    """A model in diffusers' layout, with the names of text encoders that older versions wrote."""
    UNet2DConditionModel(cross_attention_dim=768, attention_head_dim=8).half().save_pretrained(
        folder / "unet"
    )
    blocks = dict(
        down_block_types=["DownEncoderBlock2D"] * 4, up_block_types=["UpDecoderBlock2D"] * 4
    )
    vae = AutoencoderKL(
        block_out_channels=[128, 256, 512, 512], layers_per_block=2, latent_channels=4, **blocks
    )
    vae.half().save_pretrained(folder / "vae")
    widths = dict(
        hidden_size=768,
        intermediate_size=3072,
        num_hidden_layers=12,
        num_attention_heads=12,
        projection_dim=768,
    )
    CLIPTextModel(CLIPTextConfig(vocab_size=49408, **widths)).half().save_pretrained(
        folder / "text_encoder"
    )
    weights = folder / "text_encoder" / "model.safetensors"
    named = {
        name if name.startswith("text_model.") else f"text_model.{name}": w
        for name, w in load_file(weights).items()
    }
    save_file(named, weights)


def main():
    side = int(sys.argv[1]) if len(sys.argv) > 1 else 256
    # The binding wants a file, the program behind it takes a folder as well.
    validation.validate_model_file = lambda path, *_, **__: path
    sd.set_log_callback(lambda _, text: print(text.strip()) if "taking" in text else None)
    sd.set_progress_callback(
        lambda step, steps, *_: print(f"{time.process_time():.2f} CPU s: {step} of {steps}")
    )
    with tempfile.TemporaryDirectory() as folder:
        make(pathlib.Path(folder))
        sd.text_to_image(
            folder,
            "a red cat in the snow",
            width=side,
            height=side,
            seed=1,
            sample_steps=4,
            cfg_scale=1.0,
            n_threads=1,
        )


if __name__ == "__main__":
    main()
