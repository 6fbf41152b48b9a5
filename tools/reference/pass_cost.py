"""What Stable Diffusion 1.5's networks cost in PyTorch: made-up weights, f32, one thread, CPU seconds
of the fastest of three passes.

    python tools/reference/pass_cost.py [pixels]

As `mos bench unet|vae|text`: the UNet and the VAE's decoder for one picture, the text encoder for
one prompt of 77 tokens.
"""

import sys
import time

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel


def unet(pixels):
    side = pixels // 8
    network = UNet2DConditionModel(
        cross_attention_dim=768, attention_head_dim=8, sample_size=side
    ).eval()
    sample, text = torch.randn(1, 4, side, side), torch.randn(1, 77, 768)
    return lambda: network(sample, torch.tensor([500.0]), text)


def vae(pixels):
    side = pixels // 8
    blocks = dict(
        down_block_types=["DownEncoderBlock2D"] * 4, up_block_types=["UpDecoderBlock2D"] * 4
    )
    network = AutoencoderKL(
        block_out_channels=[128, 256, 512, 512], layers_per_block=2, latent_channels=4, **blocks
    ).eval()
    sample = torch.randn(1, 4, side, side)
    return lambda: network.decode(sample)


def text(_pixels=None):
    config = CLIPTextConfig(
        hidden_size=768,
        intermediate_size=3072,
        num_hidden_layers=12,
        num_attention_heads=12,
        projection_dim=768,
    )
    tower = CLIPTextModel(config).eval()
    ids = torch.randint(0, 49000, (1, 77))
    return lambda: tower(ids)


NETWORKS = {"UNet": unet, "VAE decode": vae, "text": text}


def main():
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    pixels = int(sys.argv[1]) if len(sys.argv) > 1 else 256
    for what, network in NETWORKS.items():
        run = network(pixels)
        seconds = []
        for _ in range(3):
            start = time.process_time()
            run()
            seconds.append(time.process_time() - start)
        print(f"{what}: {min(seconds):.3f} s a pass", flush=True)


if __name__ == "__main__":
    main()
