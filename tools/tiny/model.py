"""A model folder in the diffusers layout: writing one from trained weights, and reading one to sample with.

Beside what diffusers knows, a folder may hold `clip_vision/` (the vision tower, and in the same file
`text_projection.weight`, both under the names of transformers' CLIPModel), `t2i_adapter/`, and `known_words.txt` (what captions are
made of, for the warning about other words; `tests` holds it to the captions).
"""

import json
import os
import shutil
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from . import diffusion
from .nets import config
from .nets.clip import CLIPTextModel, CLIPVisionModelWithProjection
from .nets.t2i_adapter import T2IAdapter, strengthened
from .nets.unet import UNet2DConditionModel
from .nets.vae import AutoencoderKL
from .nets.wider import widened
from .vocabulary import Vocabulary

KNOWN_WORDS = Path(__file__).resolve().parents[2] / "models" / "tiny" / "known_words.txt"
DIFFUSERS_WEIGHTS, TRANSFORMERS_WEIGHTS = "diffusion_pytorch_model.safetensors", "model.safetensors"
# How much stronger the shipped adapter is than the trained one: what predicts noise best follows
# outlines too loosely when pictures are sampled. (IoU with the condition on 64 prompts that are not
# scored: 0.587 at 1, 0.604 at 1.25, 0.611 at 1.5.)
STRENGTH = 1.5


def _write_json(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def _write_part(folder, name, settings, weights, tensors):
    """One part's config and weights in f16."""
    _write_json(folder / name / "config.json", settings)
    halves = {k: v.detach().to("cpu", torch.float16).contiguous() for k, v in tensors.items()}
    worst = max(v.float().abs().max().item() for v in halves.values())
    if not worst < 65504:
        raise SystemExit(f"{name}: a weight does not fit into f16 ({worst})")
    path = folder / name / weights
    temporary = path.with_suffix(".tmp")
    save_file(halves, temporary, metadata={"format": "pt"})
    os.replace(temporary, path)
    return path.stat().st_size


def write_folder(folder, tokenizer, vae, unet, text, text_settings, towers, adapter=None):
    """Writes the whole model folder; returns the sizes of its weights in bytes."""
    folder, tokenizer = Path(folder), Path(tokenizer)
    sizes = {
        "vae": _write_part(folder, "vae", config.VAE, DIFFUSERS_WEIGHTS, vae.state_dict()),
        "unet": _write_part(folder, "unet", config.UNET, DIFFUSERS_WEIGHTS, unet.state_dict()),
        "text_encoder": _write_part(
            folder, "text_encoder", text_settings, TRANSFORMERS_WEIGHTS, text.state_dict()
        ),
    }
    tower = towers.vision.state_dict() | {"text_projection.weight": towers.text_projection.weight}
    sizes["clip_vision"] = _write_part(
        folder, "clip_vision", config.VISION, TRANSFORMERS_WEIGHTS, tower
    )
    _write_json(folder / "clip_vision" / "preprocessor_config.json", config.PREPROCESSOR)
    if adapter is not None:
        sizes["t2i_adapter"] = _write_part(
            folder,
            "t2i_adapter",
            config.ADAPTER,
            DIFFUSERS_WEIGHTS,
            strengthened(adapter.state_dict(), STRENGTH),
        )
    _write_json(folder / "scheduler" / "scheduler_config.json", config.SCHEDULER)
    _write_json(folder / "model_index.json", config.MODEL_INDEX)
    _write_json(folder / "generation_config.json", config.GENERATION)
    if folder.resolve() != KNOWN_WORDS.parent:
        shutil.copy(KNOWN_WORDS, folder / KNOWN_WORDS.name)
    if tokenizer.resolve() != (folder / "tokenizer").resolve():
        shutil.copytree(tokenizer, folder / "tokenizer", dirs_exist_ok=True)
    return sizes


def write_tower(folder, vision):
    """A vision tower alone, as a folder in transformers' layout."""
    folder = Path(folder)
    tensors = vision.state_dict()
    _write_part(folder.parent, folder.name, config.VISION, TRANSFORMERS_WEIGHTS, tensors)
    _write_json(folder / "preprocessor_config.json", config.PREPROCESSOR)


def _read_part(folder, name, build, weights, device, partial=False):
    path = folder / name
    if not (path / "config.json").exists():
        return None, {}
    settings = json.loads((path / "config.json").read_text(encoding="utf-8"))
    module = build(settings)
    tensors = load_file(path / weights)
    module.load_state_dict(
        {k: v.float() for k, v in tensors.items() if not partial or k in module.state_dict()}
    )
    return module.to(device).eval().requires_grad_(False), tensors


class Model:
    """A model folder ready to sample and to measure with; parts that the folder lacks are None."""

    def __init__(self, folder, device="cpu"):
        folder, self.device = Path(folder), torch.device(device)
        self.vocabulary = Vocabulary(folder / "tokenizer")
        self.vae, _ = _read_part(folder, "vae", AutoencoderKL, DIFFUSERS_WEIGHTS, device)
        self.unet, _ = _read_part(folder, "unet", UNet2DConditionModel, DIFFUSERS_WEIGHTS, device)
        self.text, _ = _read_part(
            folder, "text_encoder", CLIPTextModel, TRANSFORMERS_WEIGHTS, device
        )
        self.vision, tower = _read_part(
            folder,
            "clip_vision",
            CLIPVisionModelWithProjection,
            TRANSFORMERS_WEIGHTS,
            device,
            partial=True,
        )
        self.projection = tower["text_projection.weight"].float().to(device) if tower else None
        self.adapter, _ = _read_part(folder, "t2i_adapter", T2IAdapter, DIFFUSERS_WEIGHTS, device)
        if self.vae is None or self.unet is None or self.text is None:
            raise SystemExit(f"{folder} is no model folder: vae, unet or text_encoder is missing")
        self.factor = 2 ** (len(self.vae.encoder.down_blocks) - 1)
        if self.device.type == "cuda":
            self.unet = self.unet.to(memory_format=torch.channels_last)

    def tokens(self, texts):
        return torch.tensor(
            [self.vocabulary.encode(t, config.TOKENS) for t in texts], device=self.device
        )

    @torch.no_grad()
    def sample(self, captions, seed=0, steps=25, guidance=3.0, conditions=None, batch=64):
        """Pictures [n, 3, 128, 128] in -1..1 for the captions; `conditions` [n, 1, 128, 128] go to the adapter."""
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(
            len(captions), 4, 128 // self.factor, 128 // self.factor, generator=generator
        )
        pictures = []
        for start in range(0, len(captions), batch):
            part = slice(start, start + batch)
            features = (
                None if conditions is None else self.adapter(conditions[part].to(self.device))
            )
            context, empty = self.text(self.tokens(captions[part])), self.text(self.tokens([""]))
            latents = diffusion.sample(
                self.unet, context, empty, noise[part].to(self.device), steps, guidance, features
            )
            pictures.append(self.vae.decode(latents / config.LATENT_SCALE).clamp(-1, 1))
        return torch.cat(pictures)

    @torch.no_grad()
    def embed_text(self, captions):
        tokens = self.tokens(captions)
        return F.normalize(self.text.pooled(tokens, self.text(tokens)) @ self.projection.T, dim=-1)

    @torch.no_grad()
    def embed_pictures(self, pictures, batch=128):
        return torch.cat([F.normalize(self.vision(x), dim=-1) for x in pictures.split(batch)])

    @torch.no_grad()
    def reconstruct(self, pictures, batch=32):
        return torch.cat(
            [self.vae.decode(self.vae.encode(x)[0]).clamp(-1, 1) for x in pictures.split(batch)]
        )


def _fitting(folder, build, wanted):
    """A part's weights as wide as `wanted` says, and whether they were narrower."""
    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    state = load_file(folder / DIFFUSERS_WEIGHTS)
    key = "block_out_channels" if "block_out_channels" in wanted else "channels"
    if settings[key] == wanted[key]:
        return state, False
    return widened(state, build(wanted), settings, wanted), True


def states_of(folder):
    """The weights of a model folder as states that training goes on from: stage to (modules, done).

    Networks that `config` has made wider since start as wide as it says, doing what they did; they
    are not finished then.
    """
    folder = Path(folder)
    text = load_file(folder / "text_encoder" / TRANSFORMERS_WEIGHTS)
    tower = load_file(folder / "clip_vision" / TRANSFORMERS_WEIGHTS)
    projection = tower.pop("text_projection.weight")
    towers = {f"text.{k}": v for k, v in text.items()} | {
        f"vision.{k}": v for k, v in tower.items()
    }
    towers |= {"text_projection.weight": projection, "logit_scale": torch.tensor(4.0)}
    vae, vae_grew = _fitting(folder / "vae", AutoencoderKL, config.VAE)
    states = {
        "vae": ({"vae": vae}, not vae_grew),
        "towers": ({"towers": towers}, not vae_grew),
        "unet": ({"unet": _fitting(folder / "unet", UNet2DConditionModel, config.UNET)[0]}, False),
    }
    if (folder / "t2i_adapter").exists():
        shipped, _ = _fitting(folder / "t2i_adapter", T2IAdapter, config.ADAPTER)
        states["adapter"] = ({"adapter": strengthened(shipped, 1 / STRENGTH)}, False)
    return {
        stage: ({n: {k: v.float() for k, v in m.items()} for n, m in modules.items()}, done)
        for stage, (modules, done) in states.items()
    }
