"""Makes tests/fixtures/files: models and numbers as other programs store them.

    pip install gguf
    python tools/reference/files.py

- blocks.safetensors     for each of GGUF's types `<type>.blocks`, random bytes, and
                         `<type>.values`, what the gguf package reads
                         in them; `values` and `<type>.made`, what it makes of them
- sd1.ckpt               the model tests/fixtures/checkpoint/sd1.safetensors as a trainer saves it:
                         in a `state_dict`, with the states of
                         helpers, NumPy's numbers and an eighth of its tensors in f32
- sd1.gguf               the same as stable-diffusion.cpp writes it, and `gguf.<tensor>` in
                         blocks.safetensors: what it means
- unet.bin, text.bin     networks of tests/fixtures/checkpoint/folder as diffusers and transformers
                         saved them once; the latter in the
                         format before torch 1.6
"""

import sys
import types
from pathlib import Path

import gguf
import numpy as np
import torch
from gguf.quants import dequantize, quantize
from safetensors.torch import load_file, save_file

ROOT = Path(__file__).resolve().parents[2] / "tests/fixtures"
MODEL, OUT = ROOT / "checkpoint", ROOT / "files"
TYPES = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K"]
BLOCKS = 40


def blocks(random, name):
    """Random bytes, but for the factors, which are numbers."""
    kind = gguf.GGMLQuantizationType[name]
    elements, size = gguf.GGML_QUANT_SIZES[kind]
    count = BLOCKS if elements == 32 else BLOCKS // 4
    data = random.integers(0, 256, (count, size), dtype=np.uint8)
    places = {"Q6_K": [208]}.get(name, [0, 2] if name.endswith(("_1", "_K")) else [0])
    for place in places:
        factors = (random.standard_normal(count) * 0.1).astype(np.float16)
        data[:, place : place + 2] = factors.view(np.uint8).reshape(count, 2)
    return data, dequantize(data.reshape(-1), kind).reshape(-1)


def values(random):
    rows = [random.standard_normal((24, 256)) * s for s in (1.0, 0.02, 30.0)]
    rows.append(random.standard_normal((4, 256)) ** 5)
    rows.append(np.abs(random.standard_normal((2, 256))))
    rows.append(np.zeros((1, 256)))
    rows.append(np.round(random.standard_normal((2, 256)) * 2) / 2)
    return np.concatenate(rows).astype(np.float32)


def checkpoint():
    helper = types.ModuleType("pytorch_lightning.callbacks.model_checkpoint")
    helper.ModelCheckpoint = type("ModelCheckpoint", (), {"__module__": helper.__name__})
    parents = ["pytorch_lightning", "pytorch_lightning.callbacks"]
    sys.modules.update({name: types.ModuleType(name) for name in parents})
    sys.modules[helper.__name__] = helper
    state = load_file(MODEL / "sd1.safetensors")
    for i, name in enumerate(sorted(state)):
        if state[name].dtype == torch.float16:
            state[name] = state[name].to([torch.float16, torch.float32][i % 8 == 0])
    table = state["cond_stage_model.transformer.text_model.embeddings.token_embedding.weight"]
    # One that lies the other way around in its storage.
    name = "cond_stage_model.transformer.text_model.encoder.layers.0.mlp.fc1.weight"
    state[name] = state[name].t().contiguous().t()
    saved = {
        "epoch": 3,
        "global_step": 7,
        "pytorch-lightning_version": "1.4.2",
        "state_dict": {**state, "model_ema.decay": torch.tensor(0.9), "shared": table},
        "callbacks": {
            helper.ModelCheckpoint: {
                "monitor": "val",
                "best_model_score": np.float64(0.25),
                "helper": helper.ModelCheckpoint(),
            }
        },
        "lr_schedulers": [{"last_epoch": 3, "_last_lr": [np.float64(1e-4)]}],
    }
    torch.save(saved, OUT / "sd1.ckpt")


def model():
    writer = gguf.GGUFWriter(OUT / "sd1.gguf", "sd1", use_temp_file=False)
    writer.add_string("modelspec.prediction_type", "epsilon")
    writer.add_array("some.list", ["a", "b"])
    expected = {}
    for i, (name, tensor) in enumerate(sorted(load_file(MODEL / "sd1.safetensors").items())):
        if not tensor.is_floating_point():
            continue
        array = tensor.float().numpy()
        kind = gguf.GGMLQuantizationType.F16
        if array.ndim == 2 and array.shape[1] % 32 == 0:
            kind = gguf.GGMLQuantizationType[["Q8_0", "Q4_0", "Q5_1"][i % 3]]
        elif array.ndim == 1:
            # stable-diffusion.cpp quantises norms, too.
            kind = gguf.GGMLQuantizationType.Q8_0 if len(array) % 32 == 0 else kind
        data = quantize(array, kind)
        writer.add_tensor(name, data, raw_dtype=kind)
        if kind != gguf.GGMLQuantizationType.F16:
            expected[f"gguf.{name}"] = dequantize(data, kind).reshape(array.shape)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return expected


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    found = {}
    for name in TYPES:
        data, read = blocks(random, name)
        found[f"{name}.blocks"], found[f"{name}.values"] = data.reshape(-1), read
    made = values(random)
    found["values"] = made
    for name in ("Q8_0", "Q4_0", "Q5_0"):
        found[f"{name}.made"] = quantize(made, gguf.GGMLQuantizationType[name]).reshape(-1)
    checkpoint()
    found |= model()
    save_file({k: torch.from_numpy(v.copy()) for k, v in found.items()}, OUT / "blocks.safetensors")
    folder = MODEL / "folder"
    torch.save(load_file(folder / "unet/diffusion_pytorch_model.safetensors"), OUT / "unet.bin")
    torch.save(
        load_file(folder / "text_encoder/model.safetensors"),
        OUT / "text.bin",
        _use_new_zipfile_serialization=False,
    )
    for path in OUT.iterdir():
        path.chmod(0o644)
        print(path.name, path.stat().st_size)


if __name__ == "__main__":
    main()
