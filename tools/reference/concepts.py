"""Makes tests/fixtures/concepts: LoRAs and concepts as other programs write them, and what diffusers computes with them.

    python tools/reference/concepts.py

For the random model in tests/fixtures/checkpoint/folder:

- kohya.safetensors, peft.safetensors   a LoRA with convolutions, and one that PEFT and diffusers saved; loaded here by diffusers
- mix-of-show.pth, .legacy.pth          a concept as Mix-of-Show's code saves it, in both of torch's formats
- inversion.pt, inversion.bin           textual inversions, as a web UI and as diffusers save them
- expected.safetensors                  inputs, and outputs of both networks without and with each of them; words bound per layer
- evil.pth, module.pth                  pickles that would run code, or that name a class
"""

import os
import shutil
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from diffusers.models.attention_processor import Attention, AttnProcessor
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file
from transformers import CLIPTextModel

ROOT = Path(__file__).resolve().parents[2] / "tests/fixtures"
MODEL, OUT = ROOT / "checkpoint/folder", ROOT / "concepts"
WORDS, RANK = 2, 2


def networks():
    unet = UNet2DConditionModel.from_pretrained(MODEL / "unet", torch_dtype=torch.float32).eval()
    text = CLIPTextModel.from_pretrained(MODEL / "text_encoder", torch_dtype=torch.float32).eval()
    return unet, text


def random(*shape):
    return torch.randn(*shape) * 0.8


class Bound(AttnProcessor):
    """A cross-attention that reads its own copy of the prompt."""

    def __init__(self, copy):
        super().__init__()
        self.copy = copy

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, **kwargs):
        return super().__call__(attn, hidden_states, encoder_hidden_states[:, self.copy], **kwargs)


def cross_attentions(unet):
    """In the order down, middle, up."""
    parts = [*unet.down_blocks, unet.mid_block, *unet.up_blocks]
    modules = [
        m
        for part in parts
        for name, m in part.named_modules()
        if isinstance(m, Attention) and name.endswith("attn2")
    ]
    return modules


def outputs(unet, text, given):
    with torch.no_grad():
        encoding = text(given["ids"].long()).last_hidden_state
        return {
            "text": encoding,
            "unet": unet(given["sample"].permute(0, 3, 1, 2), given["time"], encoding)
            .sample.permute(0, 2, 3, 1)
            .contiguous(),
        }


def kohya(unet, text):
    """As kohya's scripts write a LoCon: linear layers, 1x1 and 3x3 convolutions, one of these with a middle part."""
    state = {}

    def add(prefix, name, module):
        key = prefix + name.replace(".", "_")
        if isinstance(module, torch.nn.Conv2d):
            size = module.kernel_size
            if name.endswith("conv1") and size == (3, 3):
                state[f"{key}.lora_down.weight"] = random(RANK, module.in_channels, 3, 3)
                state[f"{key}.lora_up.weight"] = random(module.out_channels, RANK, 1, 1)
            elif size == (1, 1):
                state[f"{key}.lora_down.weight"] = random(RANK, module.in_channels, 1, 1)
                state[f"{key}.lora_up.weight"] = random(module.out_channels, RANK, 1, 1)
            else:
                return
        else:
            state[f"{key}.lora_down.weight"] = random(RANK, module.in_features)
            state[f"{key}.lora_up.weight"] = random(module.out_features, RANK)
        state[f"{key}.alpha"] = torch.tensor(1.5)

    for name, module in unet.named_modules():
        if ("attentions" in name or "resnets" in name) and isinstance(
            module, (torch.nn.Linear, torch.nn.Conv2d)
        ):
            add("lora_unet_", name, module)
    for name, module in text.named_modules():
        if isinstance(module, torch.nn.Linear) and ("self_attn" in name or "mlp" in name):
            add("lora_te_text_model_", name.removeprefix("text_model."), module)
    return state


def peft(unet, text):
    def lora(module, targets):
        module.add_adapter(
            LoraConfig(r=3, lora_alpha=2, target_modules=targets, init_lora_weights=False)
        )
        for name, parameter in module.named_parameters():
            if "lora_" in name:
                torch.nn.init.normal_(parameter, std=0.8)
        config = module.peft_config["default"].to_dict()
        config["target_modules"] = sorted(config["target_modules"])
        return get_peft_model_state_dict(module), {
            k: config[k] for k in ("r", "lora_alpha", "target_modules")
        }

    layers, config = lora(unet, ["to_q", "to_k", "to_v", "to_out.0", "proj_in", "ff.net.2"])
    text_layers, text_config = lora(text, ["q_proj", "v_proj", "fc1"])
    StableDiffusionPipeline.save_lora_weights(
        OUT,
        unet_lora_layers=layers,
        text_encoder_lora_layers=text_layers,
        weight_name="peft.safetensors",
        unet_lora_adapter_metadata=config,
        text_encoder_lora_adapter_metadata=text_config,
    )


def load(path):
    unet, text = networks()
    loader = StableDiffusionPipeline
    state, alphas, *metadata = loader.lora_state_dict(
        path, unet_config=unet.config, return_lora_metadata=True
    )
    metadata = metadata[0] if metadata else None
    loader.load_lora_into_unet(state, alphas, unet, metadata=metadata)
    loader.load_lora_into_text_encoder(state, alphas, text, metadata=metadata)
    assert any("lora_" in name for name, _ in unet.named_parameters()), path
    assert any("lora_" in name for name, _ in text.named_parameters()), path
    return unet, text


def mix_of_show(unet, text):
    """A concept as Mix-of-Show's code saves it."""

    def layers(module, ends, prefix=""):
        found = {}
        for name, part in module.named_modules():
            if isinstance(part, torch.nn.Linear) and name.endswith(ends):
                found[f"{prefix}{name}.lora_down.weight"] = random(RANK, part.in_features)
                found[f"{prefix}{name}.lora_up.weight"] = random(part.out_features, RANK)
        return found

    rows = len(cross_attentions(unet))
    return {
        "params": {
            "new_concept_embedding": {
                f"<zorp{i + 1}>": torch.randn(rows, 8) * 0.1 for i in range(WORDS)
            },
            "text_encoder": layers(
                text,
                ("q_proj", "k_proj", "v_proj", "out_proj"),
                "" if hasattr(text, "text_model") else "text_model.",
            ),
            "unet": layers(unet, ("to_q", "to_k", "to_v", "to_out.0")),
        }
    }


def merged(module, layers):
    state = module.state_dict()
    for key in [k for k in layers if k.endswith("lora_up.weight")]:
        down = layers[key.replace("lora_up", "lora_down")]
        name = key.removesuffix(".lora_up.weight") + ".weight"
        name = name if name in state else name.removeprefix("text_model.")
        state[name] += layers[key] @ down
    module.load_state_dict(state)
    return module


def bound(concept, given):
    """The method: a copy of the prompt for each cross-attention, in which words are that layer's rows."""
    unet, text = networks()
    params = concept["params"]
    merged(unet, params["unet"])
    merged(text, params["text_encoder"])
    attentions = cross_attentions(unet)
    vocabulary = text.config.vocab_size
    rows = [params["new_concept_embedding"][f"<zorp{i + 1}>"] for i in range(WORDS)]
    table = text.get_input_embeddings()
    table.weight = torch.nn.Parameter(torch.cat([table.weight.data, *rows]))
    copies = []
    for layer, attention in enumerate(attentions):
        ids = given["ids"].long().clone()
        for word in range(WORDS):
            ids[0, 3 + word] = vocabulary + word * len(attentions) + layer
        copies.append(ids)
        attention.set_processor(Bound(layer))
    with torch.no_grad():
        encodings = torch.cat([text(ids).last_hidden_state for ids in copies])
        sample = unet(given["sample"].permute(0, 3, 1, 2), given["time"], encodings[None]).sample
    return {
        "bound.ids": torch.cat(copies).int(),
        "bound.text": encodings,
        "bound.unet": sample.permute(0, 2, 3, 1).contiguous(),
    }


class Evil:
    def __reduce__(self):
        return os.system, ("echo executed",)


def main():
    torch.manual_seed(0)
    torch.set_num_threads(1)
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    unet, text = networks()
    given = {
        "sample": torch.randn(1, 8, 8, 4),
        "time": torch.tensor([371.0]),
        "ids": torch.tensor([[22, 4, 9, 2, 7, 23, 1, 1, 1, 1, 1, 1]]).int(),
    }
    expected = {**given, **{f"plain.{k}": v for k, v in outputs(unet, text, given).items()}}

    save_file(
        kohya(unet, text),
        OUT / "kohya.safetensors",
        metadata={"ss_network_dim": "2", "ss_network_alpha": "1.5"},
    )
    peft(*networks())
    for name in ("kohya", "peft"):
        found = outputs(*load(OUT / f"{name}.safetensors"), given)
        for key, value in found.items():
            difference = (value - expected[f"plain.{key}"]).abs().max()
            print(name, key, f"changes by up to {difference:.3f}")
            expected[f"{name}.{key}"] = value

    concept = mix_of_show(unet, text)
    torch.save(concept, OUT / "mix-of-show.pth")
    torch.save(concept, OUT / "mix-of-show.legacy.pth", _use_new_zipfile_serialization=False)
    expected |= bound(concept, given)
    # A view that is not contiguous, f16, and a web UI's settings.
    vectors = torch.randn(8, 3).half().T
    torch.save(
        {
            "string_to_token": {"*": 265},
            "string_to_param": {"*": vectors},
            "name": "ink",
            "step": 7,
        },
        OUT / "inversion.pt",
    )
    torch.save({"<ink>": torch.nn.Parameter(torch.randn(8))}, OUT / "inversion.bin")
    expected["inversion"] = vectors.float().contiguous()
    torch.save({"params": {"unet": Evil()}}, OUT / "evil.pth")
    torch.save(torch.nn.Linear(2, 2), OUT / "module.pth")
    save_file({k: v.contiguous() for k, v in expected.items()}, OUT / "expected.safetensors")
    for path in OUT.iterdir():
        path.chmod(0o644)


if __name__ == "__main__":
    main()
