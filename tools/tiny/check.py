"""Checks this folder's networks, tokenizer and sampler against diffusers and transformers: `python -m tools.tiny.check`.

Needs those two libraries besides requirements.txt (diffusers 0.42, transformers 5). Compares fresh random weights, so
that it says something about the code and nothing about the model; ends with an error if anything disagrees.
"""

import sys
from pathlib import Path

import diffusers
import torch
import transformers

from . import diffusion
from .nets import clip, config, t2i_adapter, unet, vae
from .vocabulary import Vocabulary
from .stages.towers import text_config

_TEXTS = (
    "A photo of a close-up red Cat, on the left zebra!",
    "pixel art of a man waving, it's 22 & <a1>",
    "",
)


def _settings(settings):
    return {
        k: v for k, v in settings.items() if k not in ("_class_name", "architectures", "model_type")
    }


def _compare(name, ours, theirs):
    error = ((ours - theirs).abs().max() / theirs.abs().max()).item()
    print(f"{name:28} relative error {error:.1e}")
    return error < 1e-4


@torch.no_grad()
def main():
    torch.manual_seed(0)
    pictures, latents, context = (
        torch.randn(2, 3, 128, 128),
        torch.randn(2, 4, 32, 32),
        torch.randn(2, 77, config.TEXT_WIDTH),
    )
    tokenizer = Path(__file__).resolve().parents[2] / "models" / "tiny" / "tokenizer"
    words, theirs = Vocabulary(tokenizer), transformers.CLIPTokenizer.from_pretrained(tokenizer)
    fine = [
        words.encode(t, 77) == theirs(t, padding="max_length", max_length=77).input_ids
        for t in _TEXTS
    ]
    print("tokens agree" if all(fine) else "tokens differ")

    ours, other = vae.AutoencoderKL(config.VAE), diffusers.AutoencoderKL(**_settings(config.VAE))
    other.load_state_dict(ours.state_dict())
    fine.append(
        _compare("VAE encoder", ours.encode(pictures)[0], other.encode(pictures).latent_dist.mean)
    )
    fine.append(_compare("VAE decoder", ours.decode(latents), other.decode(latents).sample))

    ours, other = (
        unet.UNet2DConditionModel(config.UNET),
        diffusers.UNet2DConditionModel(**_settings(config.UNET)),
    )
    other.load_state_dict(ours.state_dict())
    control, steering = (
        t2i_adapter.T2IAdapter(config.ADAPTER),
        diffusers.T2IAdapter(**_settings(config.ADAPTER)),
    )
    steering.load_state_dict(control.state_dict())
    steps, condition = torch.tensor([3, 700]), torch.rand(2, 1, 128, 128)
    fine.append(
        _compare("UNet", ours(latents, steps, context), other(latents, steps, context).sample)
    )
    led = other(
        latents,
        steps,
        context,
        down_intrablock_additional_residuals=[f.clone() for f in steering(condition)],
    ).sample
    fine.append(
        _compare("UNet with adapter", ours(latents, steps, context, control(condition)), led)
    )

    solver = diffusers.DPMSolverMultistepScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear"
    )
    solver.set_timesteps(10)
    x = latents.clone()
    for t in solver.timesteps:
        plain, told = (ours(x, t.expand(2), c) for c in (context * 0, context))
        x = solver.step(plain + 5 * (told - plain), t, x).prev_sample
    fine.append(
        _compare(
            "sampler, 10 steps",
            diffusion.sample(ours, context, context[:1] * 0, latents, 10, 5.0),
            x,
        )
    )

    settings = text_config(words)
    ours, other = (
        clip.CLIPTextModel(settings),
        transformers.CLIPTextModel(transformers.CLIPTextConfig(**_settings(settings))).eval(),
    )
    tensors = ours.state_dict()
    if not next(iter(other.state_dict())).startswith(
        "text_model."
    ):  # transformers 5 drops the prefix
        tensors = {k.removeprefix("text_model."): v for k, v in tensors.items()}
    other.load_state_dict(tensors)
    tokens = torch.tensor([words.encode(t, 77) for t in _TEXTS])
    fine.append(_compare("text tower", ours(tokens), other(tokens).last_hidden_state))
    ours = clip.CLIPVisionModelWithProjection(config.VISION)
    other = transformers.CLIPVisionModelWithProjection(
        transformers.CLIPVisionConfig(**_settings(config.VISION))
    ).eval()
    other.load_state_dict(ours.state_dict())
    fine.append(_compare("vision tower", ours(pictures), other(pixel_values=pictures).image_embeds))
    sys.exit(0 if all(fine) else "something disagrees")


if __name__ == "__main__":
    main()
