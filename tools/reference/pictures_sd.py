"""Whole pictures made by diffusers with models/tiny, to compare this program's with.

    python tools/reference/pictures_sd.py

Writes tests/fixtures/generated/cases.json (settings of every picture, hash of the weights) and one lossless WebP for each case.
To be run again whenever the weights in models/tiny change; everything is computed in f32 on the CPU.
"""

import hashlib
import json
import os
import pathlib
import warnings

import numpy as np
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
    TCDScheduler,
    UniPCMultistepScheduler,
)
from PIL import Image

warnings.filterwarnings("ignore")
torch.set_num_threads(1)
torch.set_grad_enabled(False)

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODEL = ROOT / "models" / "tiny"
FIXTURES = ROOT / "tests" / "fixtures" / "generated"
WEIGHTS = [
    "text_encoder/model.safetensors",
    "unet/diffusion_pytorch_model.safetensors",
    "vae/diffusion_pytorch_model.safetensors",
]

PROMPTS = [
    "a red cat in the snow",
    "a photo of a blue house by the sea",
    "a green bird on a branch, watercolor",
    "two yellow flowers",
    "",
    "a man with a hat; portrait, 1920s",
]
SCHEDULERS = {
    "ddim": (DDIMScheduler, {"clip_sample": False}),
    "pndm": (PNDMScheduler, {}),
    "euler": (EulerDiscreteScheduler, {}),
    "euler-ancestral": (EulerAncestralDiscreteScheduler, {}),
    "dpmpp-2m": (DPMSolverMultistepScheduler, {}),
    "unipc": (UniPCMultistepScheduler, {}),
    "tcd": (TCDScheduler, {}),
}
DEFAULTS = {
    "kind": "text",
    "prompt": "a red cat in the snow",
    "negative_prompt": "",
    "sampler": "pndm",
    "karras": False,
    "guidance_rescale": 0.0,
    "steps": 6,
    "guidance": 7.5,
    "width": 128,
    "height": 128,
    "seed": 1,
    "clip_skip": 0,
    "strength": 0.8,
}


def cases():
    for i, prompt in enumerate(PROMPTS):
        for sampler in ["ddim", "pndm", "euler-ancestral"]:
            yield (
                f"{sampler}-{i}",
                {
                    "prompt": prompt,
                    "sampler": sampler,
                    "seed": 100 + i,
                    "negative_prompt": "blurry" if i == 1 else "",
                },
            )
    yield "karras", {"sampler": "dpmpp-2m", "karras": True, "seed": 3, "steps": 12}
    yield (
        "wide",
        {
            "width": 160,
            "height": 96,
            "sampler": "euler",
            "prompt": "a landscape with a river",
            "seed": 7,
        },
    )
    yield "rescaled", {"guidance_rescale": 0.7, "sampler": "euler", "seed": 5}
    yield "unipc", {"sampler": "unipc", "seed": 6, "steps": 9}
    yield "tcd", {"sampler": "tcd", "seed": 8, "guidance": 1.0, "steps": 4}
    yield (
        "hires",
        {"kind": "hires", "sampler": "euler-ancestral", "seed": 13, "strength": 0.6, "steps": 8},
    )
    yield "unguided", {"guidance": 1.0, "prompt": "a dog", "sampler": "ddim"}
    yield "clip-skip", {"clip_skip": 1, "prompt": "a dog", "sampler": "euler"}
    yield (
        "image",
        {
            "kind": "image",
            "strength": 0.6,
            "sampler": "euler-ancestral",
            "prompt": "a house",
            "seed": 11,
        },
    )
    yield (
        "inpaint",
        {
            "kind": "inpaint",
            "strength": 0.8,
            "sampler": "euler-ancestral",
            "prompt": "a sun",
            "seed": 12,
        },
    )


def original():
    """Something to start from: a sky over a field, with a disc."""
    y, x = np.mgrid[0:128, 0:128].astype(np.float32) / 127
    sky = np.stack([0.3 + 0.4 * y, 0.5 + 0.3 * y, 0.9 - 0.2 * y], -1)
    field = np.stack([0.2 + 0.3 * x, 0.55 - 0.2 * x, 0.15 + 0 * x], -1)
    picture = np.where((y > 0.6)[..., None], field, sky)
    disc = ((x - 0.7) ** 2 + (y - 0.25) ** 2 < 0.02)[..., None]
    return Image.fromarray(
        (np.where(disc, np.float32([0.95, 0.85, 0.3]), picture) * 255).round().astype(np.uint8)
    )


def mask():
    """White where to paint: the left part of the sky, not on the grid of latents."""
    values = np.zeros((128, 128), np.uint8)
    values[10:70, 5:61] = 255
    return Image.fromarray(values)


def pipeline(base, kind, name, karras):
    scheduler_class, options = SCHEDULERS[name]
    extra = {"use_karras_sigmas": True} if karras else {}
    scheduler = scheduler_class.from_config(base.scheduler.config, **options, **extra)
    parts = {k: v for k, v in base.components.items() if k != "scheduler"}
    made = {
        "text": StableDiffusionPipeline,
        "image": StableDiffusionImg2ImgPipeline,
        "inpaint": StableDiffusionInpaintPipeline,
    }[kind]
    pipe = made(**parts, scheduler=scheduler, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def generate(base, case):
    pipe = pipeline(base, case["kind"], case["sampler"], case["karras"])
    arguments = {
        "prompt": case["prompt"],
        "negative_prompt": case["negative_prompt"],
        "num_inference_steps": case["steps"],
        "guidance_scale": case["guidance"],
        "generator": torch.Generator("cpu").manual_seed(case["seed"]),
        "clip_skip": case["clip_skip"] or None,
    }
    if case["kind"] == "text":
        arguments["guidance_rescale"] = case["guidance_rescale"]
    if case["sampler"] == "tcd":
        # The scheduler's own, which the pipeline sets to 0.
        arguments["eta"] = 0.3
    if case["kind"] == "text":
        arguments |= {"width": case["width"], "height": case["height"]}
    else:
        arguments |= {"image": original(), "strength": case["strength"]}
    if case["kind"] == "inpaint":
        arguments |= {"mask_image": mask(), "width": 128, "height": 128}
    return pipe(**arguments).images[0]


def hires(base, case):
    """Two passes: latents are enlarged by half, and image to image goes on from them."""
    first = pipeline(base, "text", case["sampler"], case["karras"])
    arguments = {
        "prompt": case["prompt"],
        "negative_prompt": case["negative_prompt"],
        "num_inference_steps": case["steps"],
        "guidance_scale": case["guidance"],
    }
    seeded = lambda: torch.Generator("cpu").manual_seed(case["seed"])  # noqa: E731
    size = {"width": case["width"], "height": case["height"]}
    latents = first(**arguments, **size, generator=seeded(), output_type="latent").images
    larger = torch.nn.functional.interpolate(
        latents, size=[latents.shape[2] * 3 // 2, latents.shape[3] * 3 // 2], mode="bilinear"
    )
    second = pipeline(base, "image", case["sampler"], case["karras"])
    arguments |= {"image": larger, "strength": case["strength"]}
    return second(**arguments, generator=seeded()).images[0]


def main():
    FIXTURES.mkdir(parents=True, exist_ok=True)
    base = StableDiffusionPipeline.from_pretrained(
        MODEL, torch_dtype=torch.float32, safety_checker=None
    )
    # What transformers 5 left out and diffusers' clip_skip looks for; set so that it isn't
    # registered as a submodule of itself.
    if not hasattr(base.text_encoder, "text_model"):
        object.__setattr__(base.text_encoder, "text_model", base.text_encoder)
    hashes = hashlib.sha256()
    for name in WEIGHTS:
        hashes.update((MODEL / name).read_bytes())
    for old in FIXTURES.glob("*.webp"):
        old.unlink()
    original().save(FIXTURES / "original.webp", lossless=True, method=6)
    mask().save(FIXTURES / "mask.png")
    written = {}
    for name, settings in cases():
        case = DEFAULTS | settings
        written[name] = case
        picture = hires(base, case) if case["kind"] == "hires" else generate(base, case)
        picture.save(FIXTURES / f"{name}.webp", lossless=True, quality=100, method=6)
        print(
            name,
            picture.size,
            f"{np.asarray(picture).std():.1f}",
            (FIXTURES / f"{name}.webp").stat().st_size,
            flush=True,
        )
    part = FIXTURES / "cases.json.part"
    part.write_text(json.dumps({"weights": hashes.hexdigest(), "cases": written}, indent=1) + "\n")
    os.replace(part, FIXTURES / "cases.json")


if __name__ == "__main__":
    main()
