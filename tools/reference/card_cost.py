"""What Stable Diffusion 1.5 costs in PyTorch on a graphics card: made-up weights, f16, seconds of elapsed time.

    python tools/reference/card_cost.py [folder]

As `mos bench unet --size 512 --batch 2` and `mos bench vae --size 512`, eagerly and, for the UNet, as a recorded CUDA graph; and diffusers'
pipeline as `mos generate -m FOLDER --width 512 --height 512 --steps 20 --sampler dpmpp-2m --guidance 7.5 --batch 1` (and 4). With a folder,
the model is saved there, so that mos can be run on the same one.
"""

import sys
import time
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    DPMSolverMultistepScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

TOKENIZER = Path(__file__).resolve().parents[2] / "models/tiny/tokenizer"
torch.set_grad_enabled(False)
torch.manual_seed(0)


def fastest(run, count=4, calls=1):
    """Seconds of a call, the fastest of `count` measurements after a first that warms up."""
    seconds = []
    for _ in range(count + 1):
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(calls):
            run()
        torch.cuda.synchronize()
        seconds.append((time.perf_counter() - start) / calls)
    return min(seconds[1:])


def recorded(run):
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):
            run()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay


def networks():
    with torch.device("cuda"):
        unet = UNet2DConditionModel(cross_attention_dim=768, attention_head_dim=8, sample_size=64)
        blocks = dict(
            down_block_types=["DownEncoderBlock2D"] * 4, up_block_types=["UpDecoderBlock2D"] * 4
        )
        vae = AutoencoderKL(
            block_out_channels=[128, 256, 512, 512],
            layers_per_block=2,
            latent_channels=4,
            sample_size=512,
            **blocks,
        )
        settings = dict(
            hidden_size=768,
            intermediate_size=3072,
            num_hidden_layers=12,
            num_attention_heads=12,
            projection_dim=768,
        )
        text = CLIPTextModel(
            CLIPTextConfig(vocab_size=49408, bos_token_id=0, eos_token_id=2, **settings)
        )
    return [network.eval().half() for network in (unet, vae, text)]


def main():
    unet, vae, text = networks()
    print(torch.__version__, torch.cuda.get_device_name())
    half = dict(device="cuda", dtype=torch.float16)
    for batch in (1, 2, 8):
        given = (
            torch.randn(batch, 4, 64, 64, **half),
            torch.tensor([500.0] * batch, device="cuda"),
            torch.randn(batch, 77, 768, **half),
        )
        eager, graph = (
            fastest(lambda: unet(*given), calls=10),
            fastest(recorded(lambda: unet(*given)), calls=10),
        )
        print(f"UNet, batch {batch}: {eager:.4f} s a pass, {graph:.4f} s as a graph", flush=True)
    latents, ids = (
        torch.randn(1, 4, 64, 64, **half),
        torch.randint(0, 49000, (1, 77), device="cuda"),
    )
    print(f"VAE decode: {fastest(lambda: vae.decode(latents)):.4f} s a pass")
    print(f"text: {fastest(lambda: text(ids)):.4f} s a pass")

    scheduler = DPMSolverMultistepScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, steps_offset=1
    )
    parts = dict(
        vae=vae,
        unet=unet,
        text_encoder=text,
        tokenizer=CLIPTokenizer.from_pretrained(TOKENIZER),
        scheduler=scheduler,
    )
    pipeline = StableDiffusionPipeline(
        **parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False
    )
    pipeline.set_progress_bar_config(disable=True)
    if len(sys.argv) > 1:
        pipeline.save_pretrained(sys.argv[1])
        print(f"saved {sys.argv[1]}", flush=True)
    for batch in (1, 4):
        settings = dict(
            num_inference_steps=20, guidance_scale=7.5, height=512, width=512, output_type="np"
        )
        print(
            f"pipeline, batch {batch}: {fastest(lambda: pipeline(['a photo of a cat'] * batch, **settings), 2):.3f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
