"""Pictures of models made for inpainting (UNets of nine channels), by diffusers.

    python tools/reference/inpainting.py

Two models: models/tiny, whose first convolution gets five more channels, and the very small Stable Diffusion XL of sdxl.py with
nine. The other weights are what they are there; those of the convolution are hashed.tensor("unet/conv_in.more", [out, 5, 3, 3])
beside models/tiny's own, and hashed.tensor("unet/conv_in.weight", [out, 9, 3, 3]).

Writes tests/fixtures/inpainting: cases.json (settings of every picture) and one lossless WebP for each case.
"""

import json
import pathlib
import warnings

import numpy as np
import torch
from diffusers import (
    StableDiffusionInpaintPipeline,
    StableDiffusionXLInpaintPipeline,
    UNet2DConditionModel,
)
from PIL import Image

import hashed
import sdxl
from pictures_sd import MODEL, SCHEDULERS, mask, original

warnings.filterwarnings("ignore")
torch.set_num_threads(1)
torch.set_grad_enabled(False)

ROOT = pathlib.Path(__file__).resolve().parents[2]
FIXTURES = ROOT / "tests" / "fixtures" / "inpainting"

DEFAULTS = {
    "model": "tiny",
    "prompt": "a sun",
    "negative_prompt": "",
    "sampler": "ddim",
    "steps": 4,
    "guidance": 7.5,
    "seed": 21,
    "strength": 1.0,
    "mask": True,
}
CASES = {
    "whole": {},
    "part": {"strength": 0.7, "sampler": "euler-ancestral", "seed": 22, "steps": 6},
    "unguided": {"guidance": 1.0, "prompt": "a dog", "sampler": "pndm"},
    # A white mask; here, no mask.
    "everywhere": {"mask": False, "strength": 0.8, "sampler": "euler"},
    "xl": {"model": "xl", "guidance": 5.0, "strength": 0.8, "sampler": "euler"},
    "xl-whole": {"model": "xl", "guidance": 5.0, "sampler": "euler", "negative_prompt": "blurry"},
}


def widened(unet):
    """The same UNet with nine channels in."""
    wide = UNet2DConditionModel(**{**unet.config, "in_channels": 9})
    state = unet.state_dict()
    own = state["conv_in.weight"]
    more = hashed.tensor("unet/conv_in.more", (own.shape[0], 5, 3, 3))
    wide.load_state_dict({**state, "conv_in.weight": torch.cat([own, more], 1)})
    return wide.eval()


def pipelines():
    tiny = StableDiffusionInpaintPipeline.from_pretrained(
        MODEL, torch_dtype=torch.float32, safety_checker=None, requires_safety_checker=False
    )
    tiny.register_modules(unet=widened(tiny.unet))
    sdxl.UNET["in_channels"] = 9
    xl = StableDiffusionXLInpaintPipeline(
        **sdxl.build(), scheduler=sdxl.scheduler("euler"), add_watermarker=False
    )
    return {"tiny": tiny, "xl": xl}


def generate(pipe, case):
    if case["model"] == "tiny":
        kind, options = SCHEDULERS[case["sampler"]]
        pipe.scheduler = kind.from_config(pipe.scheduler.config, **options)
    pipe.set_progress_bar_config(disable=True)
    white = Image.fromarray(np.full((128, 128), 255, np.uint8))
    found = pipe(
        prompt=case["prompt"],
        negative_prompt=case["negative_prompt"] or None,
        image=original(),
        mask_image=mask() if case["mask"] else white,
        width=128,
        height=128,
        strength=case["strength"],
        num_inference_steps=case["steps"],
        guidance_scale=case["guidance"],
        generator=torch.Generator("cpu").manual_seed(case["seed"]),
    )
    return found.images[0]


def main():
    pipes = pipelines()
    assert all(pipe.unet.config.in_channels == 9 for pipe in pipes.values())
    FIXTURES.mkdir(parents=True, exist_ok=True)
    written = {}
    for name, settings in CASES.items():
        case = written[name] = DEFAULTS | settings
        picture = generate(pipes[case["model"]], case)
        picture.save(FIXTURES / f"{name}.webp", lossless=True, quality=100, method=6)
        print(name, picture.size, np.asarray(picture).std(), flush=True)
    text = json.dumps(written, indent=1, sort_keys=True)
    (FIXTURES / "cases.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
