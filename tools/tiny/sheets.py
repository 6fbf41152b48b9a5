"""Sheets to look at: reconstructions, samples, the control at work, the concepts."""

import numpy as np
import torch
from PIL import Image

from .score import held_out
from .stages.adapter import outlines
from .world.concepts import CONCEPTS, concept_scenes
from .world.scenes import render

_GAP = 4
SHOWCASE = [
    "a photo of an orange cat in the snow", "a red robot in a city at night", "a woman with red hair in a blue dress on the beach",
    "a brown dog wearing a green hat in a garden", "a yellow bird on the moon", "a purple fish under the sea",
    "a man with black hair in a striped red shirt on the left and a white rabbit on the right in a forest",
    "a green car in front of a castle",
]  # fmt: skip


def sheet(rows):
    """Rows of pictures ([n, 3, s, s] in -1..1) on a gray ground."""
    size = rows[0].shape[-1] + _GAP
    canvas = Image.new(
        "RGB", (size * max(len(r) for r in rows) + _GAP, size * len(rows) + _GAP), (90, 90, 90)
    )
    for y, row in enumerate(rows):
        for x, picture in enumerate(row):
            pixels = (
                ((picture.float().cpu().permute(1, 2, 0).numpy() + 1) * 127.5)
                .round()
                .clip(0, 255)
                .astype(np.uint8)
            )
            canvas.paste(Image.fromarray(pixels), (_GAP + x * size, _GAP + y * size))
    return canvas


def reconstructions(model, count=8):
    """Held-out pictures above what the VAE makes of them."""
    _, _, _, real = held_out(2 * count)
    made = model.reconstruct(real.to(model.device)).cpu()
    return sheet([real[:count], made[:count], real[count:], made[count:]])


def samples(pictures, across=8):
    """The first 64 samples of the held-out prompts."""
    return sheet(list(pictures[:64].split(across)))


def showcase(model, seed=7, steps=25, guidance=3.0):
    """`SHOWCASE`'s prompts, three seeds each, one column a prompt."""
    return sheet([model.sample(SHOWCASE, seed + k, steps, guidance) for k in range(3)])


def control(model, count=8, steps=25, guidance=3.0):
    """Conditions; samples without and with them; and with them under another prompt."""
    _, captions, _, real = held_out(64)
    real, captions = real[24 : 24 + count], captions[24 : 24 + count]
    conditions = outlines(real)
    drawn = (1 - conditions).expand(-1, 3, -1, -1) * 2 - 1
    free = model.sample(captions, 3, steps, guidance)
    led = model.sample(captions, 3, steps, guidance, conditions)
    other = model.sample(["a photo at sunset"] * count, 3, steps, guidance, conditions)
    return sheet([real, drawn, free, led, other])


def concepts():
    """Every held-out concept's pictures, a row each."""
    rows = []
    for name in CONCEPTS:
        pictures = [
            np.asarray(render(scene)[0], np.float32) / 127.5 - 1
            for scene, _ in concept_scenes(name)
        ]
        rows.append(torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2))
    return sheet(rows)
