"""Reference embeddings and scores of the towers that `mos eval` scores with, by transformers, timm and open_clip, and pictures
resized by Pillow.

    python tools/reference/towers.py

Beside requirements.txt it takes timm==1.0.31, open_clip_torch==3.3.0, torchvision and ftfy. Writes
tests/fixtures/models/tower_<case>.safetensors: the case with the names and shapes of a file in that layout, and what comes out;
weights are made again on the other side (see hashed.py). Pictures are read from models/concepts and tests/fixtures/pictures.
"""

import json
import pathlib
import tempfile

import numpy as np
import open_clip
import torch
from open_clip.model import CLIP
from PIL import Image
from safetensors.torch import load_file, save_file
from timm.models.vision_transformer import VisionTransformer
from torchvision import transforms
from transformers import (
    CLIPConfig,
    CLIPModel,
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    ViTConfig,
    ViTModel,
)

import hashed
from models import ROOT, write

CLIP_COLOURS = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
WIDE = "tests/fixtures/pictures/wide.png"
PICTURES = ["models/concepts/zorp/00.png", "models/concepts/mimi/03.png", WIDE]
TEXTS = ["A photo depicts a photo of a man on the beach", "A photo depicts a cat, in the snow!"]


def pictures(resize, colours, crop=224):
    steps = transforms.Compose(
        [
            transforms.Resize(resize, interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(crop),
            transforms.ToTensor(),
            transforms.Normalize(*colours),
        ]
    )
    return torch.stack([steps(Image.open(ROOT / path).convert("RGB")) for path in PICTURES])


def wide():
    """Smooth, with edges: 150 x 97."""
    y, x = np.mgrid[0:97, 0:150]
    noise = hashed.uniform("input:wide", 97 * 150 * 3).reshape(97, 150, 3)
    rgb = np.stack([x * 1.7, y * 2.6, 128 + 100 * np.sin(x / 7) * np.cos(y / 5)], -1)
    rgb[30:60, 40:90] = [250, 20, 60]
    Image.fromarray((rgb + 12 * noise).clip(0, 255).astype(np.uint8)).save(ROOT / WIDE)


def resized():
    """Pillow's bicubic filter up, down and both, on noise, where it is hardest."""
    case, tensors = dict(kind="resized", sizes=[], parameters={}, probes={}), {}
    for w, h, to_w, to_h in [
        (37, 23, 16, 10),
        (16, 16, 40, 40),
        (50, 20, 25, 33),
        (128, 96, 7, 96),
        (9, 9, 9, 4),
    ]:
        name = f"{w}x{h}to{to_w}x{to_h}"
        u = hashed.uniform(f"input:{name}", w * h * 3).reshape(h, w, 3)
        image = Image.fromarray(((u + 1.0) * 128.0).astype(np.uint8))
        out = np.asarray(image.resize((to_w, to_h), Image.BICUBIC)).copy()
        case["sizes"].append([w, h, to_w, to_h])
        tensors[name] = torch.from_numpy(out)
    write("tower_resized", case, tensors)


def hugging_face(name, model, config, run):
    """A folder as `save_pretrained` writes it, whose tensors are hashed under the names that stand in the file."""
    with tempfile.TemporaryDirectory() as folder:
        model(config).save_pretrained(folder)
        path = pathlib.Path(folder) / "model.safetensors"
        shapes = {key: list(value.shape) for key, value in load_file(path).items()}
        hashes = {key: hashed.tensor(key, tuple(shape)) for key, shape in shapes.items()}
        save_file(hashes, path, metadata={"format": "pt"})
        written = json.loads((pathlib.Path(folder) / "config.json").read_text())
        loaded = model.from_pretrained(folder).eval()
    case = dict(kind="tower", config=written, parameters=shapes, probes={}, texts=TEXTS)
    case["pictures"] = PICTURES
    write(f"tower_{name}", case, run(loaded))


def torch_names(name, module, run):
    module = hashed.fill(module)
    shapes = {key: list(value.shape) for key, value in module.named_parameters()}
    case = dict(kind="tower", config={}, parameters=shapes, probes={}, texts=TEXTS)
    case["pictures"] = PICTURES
    write(f"tower_{name}", case, run(module))


def first_token(model):
    return dict(pictures=model(pictures(256, IMAGENET), **more(model)).last_hidden_state[:, 0])


def more(model):
    return dict(interpolate_pos_encoding=True) if isinstance(model, ViTModel) else {}


def of_clip(pixels, encode_image, encode_text):
    seen, read = encode_image(pixels).float(), encode_text(open_clip.tokenize(TEXTS)).float()
    a, b = (x / x.norm(dim=-1, keepdim=True) for x in (seen, read))
    # Each picture beside the first text; each picture beside all pictures.
    return dict(
        pictures=seen,
        texts=read,
        text_scores=2.5 * (a @ b[0]).clamp(min=0),
        image_scores=(a @ a.T).mean(1),
    )


class StyleTower(torch.nn.Module):
    """CSD's: CLIP's vision tower without its projection, and two projections of its own."""

    def __init__(self, width, out):
        super().__init__()
        self.backbone = tiny_clip(True).visual
        self.backbone.proj = None
        self.last_layer_style = torch.nn.Parameter(torch.zeros(width, out))
        self.last_layer_content = torch.nn.Parameter(torch.zeros(width, out))

    def forward(self, pixels):
        return self.backbone(pixels) @ self.last_layer_style


def tiny_clip(quick_gelu):
    vision = dict(image_size=224, layers=2, width=64, patch_size=32)
    text = dict(context_length=77, vocab_size=49408, width=64, heads=1, layers=2)
    return CLIP(24, vision, text, quick_gelu=quick_gelu)


def main():
    torch.manual_seed(0)
    wide()
    resized()
    dims = dict(hidden_size=64, num_hidden_layers=2, num_attention_heads=4)
    vit = ViTConfig(**dims, intermediate_size=96, image_size=224, patch_size=32)
    hugging_face("vit", ViTModel, vit, first_token)
    v2 = dict(**dims, mlp_ratio=2, image_size=518, patch_size=14)
    hugging_face("dinov2", Dinov2Model, Dinov2Config(**v2), first_token)
    registers = Dinov2WithRegistersConfig(**v2, num_register_tokens=3)
    hugging_face("registers", Dinov2WithRegistersModel, registers, first_token)
    small = dict(embed_dim=64, depth=2, num_heads=1, num_classes=0)
    seen = lambda model: dict(pictures=model(pictures(256, IMAGENET)))
    torch_names("dino_timm", VisionTransformer(img_size=224, patch_size=32, **small), seen)
    v2 = dict(init_values=1e-5, reg_tokens=4, no_embed_class=True)
    torch_names("dinov2_timm", VisionTransformer(img_size=224, patch_size=14, **small, **v2), seen)

    pixels = pictures(224, CLIP_COLOURS)
    for name, quick in (("clip_openai", True), ("clip_open_clip", False)):
        run = lambda model: of_clip(pixels, model.encode_image, model.encode_text)
        torch_names(name, tiny_clip(quick), run)
    torch_names("csd", StyleTower(64, 48), lambda model: dict(pictures=model(pixels)))
    text = dict(hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4)
    vision = text | dict(image_size=224, patch_size=32)
    text |= dict(vocab_size=49408, eos_token_id=49407, bos_token_id=49406, pad_token_id=49407)
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=24)

    def both(model):
        def read(ids):
            # transformers pads with the end mark, and looks for the first one.
            ids = torch.where(ids == 0, 49407, ids)
            return model.text_projection(model.text_model(ids).pooler_output)

        def see(pixels):
            return model.visual_projection(model.vision_model(pixels).pooler_output)

        return of_clip(pixels, see, read)

    hugging_face("clip_hf", CLIPModel, config, both)


if __name__ == "__main__":
    main()
