"""Training the control: outlines of a picture to feature maps that steer the (frozen) UNet towards it."""

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from .. import diffusion
from ..nets import config
from ..nets.t2i_adapter import T2IAdapter
from ..runtime import Trainer, final_weights, learning_rate
from ..world import scenes
from . import unet as denoiser
from .data import Pictures
from .latents import Latents

THRESHOLD = 0.12


def outlines(pictures):
    """[b, 3, s, s] in -1..1 to [b, 1, s, s] of 0 and 1.

    A pixel is on an outline where, in a picture of 0..1 softened by the binomial 1-2-1 in both directions, the length
    of the gradient (central differences) in any of the three colour channels is at least `THRESHOLD`.
    """
    x = F.pad((pictures + 1) / 2, (2, 2, 2, 2), mode="replicate")
    x = (x[..., :-2] + 2 * x[..., 1:-1] + x[..., 2:]) / 4
    x = (x[..., :-2, :] + 2 * x[..., 1:-1, :] + x[..., 2:, :]) / 4
    across = (x[..., 1:-1, 2:] - x[..., 1:-1, :-2]) / 2
    down = (x[..., 2:, 1:-1] - x[..., :-2, 1:-1]) / 2
    return ((across.square() + down.square()).amax(1, keepdim=True) >= THRESHOLD**2).float()


def write_sketch(path, scene):
    """Writes the scene's outlines as a black and white picture."""
    picture = np.asarray(scenes.render(scene)[0], np.float32) / 127.5 - 1
    lines = outlines(torch.from_numpy(picture).permute(2, 0, 1)[None])[0, 0]
    lines = Image.fromarray((lines.numpy() * 255).astype(np.uint8)).convert("1")
    lines.save(path, format="PNG", optimize=True)


def outline_iou(a, b):
    """Mean intersection over union of two batches of outlines, each thickened by a pixel all around."""
    a, b = (F.max_pool2d(x, 3, 1, 1) for x in (a, b))
    return ((a * b).sum((1, 2, 3)) / torch.maximum(a, b).sum((1, 2, 3)).clamp(min=1)).mean().item()


def run(session, vocabulary):
    adapter = session.place(T2IAdapter(config.ADAPTER))
    trainer = Trainer(
        session, "adapter", {"adapter": adapter}, [(list(adapter.parameters()), 1.0)], 1e-3, 0.998
    )
    if trainer.done:
        return True
    unet, text = denoiser.load(session, vocabulary)
    data = Pictures.of(session)
    latents = Latents(
        session, data, most=None if session.cuda or session.small else denoiser.MOST_ON_CPU
    )
    device, batch = session.device, session.batch(256, 8)
    alphas = diffusion.alphas_cumulative(device)
    weights = diffusion.min_snr_weights(alphas)
    empty = denoiser.empty_prompt(session, vocabulary)

    def loss_of(z, noise, steps, captions, conditions):
        with session.autocast():
            with torch.no_grad():
                context = text(captions)
            predicted = unet(
                diffusion.noised(z, noise, steps, alphas), steps, context, adapter(conditions)
            )
        squared = (predicted.float() - noise).pow(2).mean((1, 2, 3))
        return (squared * weights[steps]).mean(), {"squared": squared.detach().mean()}

    for progress in trainer.steps():
        z, indices = latents.draw(batch)
        captions = data.captions(indices)
        captions = torch.where(torch.rand(batch, 1, device=device) < 0.3, empty, captions)
        steps = diffusion.spread_steps(batch, device)
        steps = (
            (diffusion.STEPS * (1 - (steps / diffusion.STEPS) ** 3))
            .long()
            .clamp(0, diffusion.STEPS - 1)
        )  # shape is decided early
        inputs = [z, torch.randn_like(z), steps, captions, _erased(outlines(data.images(indices)))]
        trainer.report(
            **trainer.repeat(
                loss_of, inputs, batch, learning_rate(progress, trainer.iteration, 100)
            )
        )
    return trainer.done


def _erased(condition):
    """In a quarter of the batch, one half of the condition wiped out: partial drawings must work too."""
    middle, quarter = condition.shape[-1] // 2, max(1, len(condition) // 4)
    every, first, second = slice(None), slice(0, middle), slice(middle, None)
    rows, columns = ((first, every), (second, every), (every, first), (every, second))[
        int(torch.randint(4, ()))
    ]
    condition = condition.clone()
    condition[:quarter, :, rows, columns] = 0
    return condition


def load(session):
    adapter = T2IAdapter(config.ADAPTER)
    adapter.load_state_dict(final_weights(session, "adapter", "adapter"))
    return session.place(adapter).eval().requires_grad_(False)
