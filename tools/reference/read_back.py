"""Reads the files that `mos convert --quantize` writes with the programs that they are for, and
compares them.

    pip install gguf
    mos convert tiny FOLDER/tiny-q8_0.gguf --quantize q8_0       # and so on: q4_0, q4_k, f16, and
tiny.safetensors of f16
    python tools/reference/read_back.py FOLDER

The gguf package reads every file; Q8_0, Q5_0 and Q4_0 are, byte for byte, what it makes of the same
weights itself. diffusers loads the
safetensors file and the GGUF files' UNet.
"""

import sys
from pathlib import Path

import gguf
import numpy as np
import torch
from diffusers import AutoencoderKL, GGUFQuantizationConfig, UNet2DConditionModel
from gguf.quants import dequantize, quantize
from safetensors.torch import load_file

TINY = Path(__file__).resolve().parents[2] / "models/tiny"


def main():
    folder = Path(sys.argv[1])
    exact = load_file(folder / "tiny.safetensors")
    for name in ("q8_0", "q4_0", "q4_k", "f16"):
        reader = gguf.GGUFReader(folder / f"tiny-{name}.gguf")
        fields = [reader.get_field(key) for key in ("general.architecture", "general.file_type")]
        kinds, worst = {}, 0.0
        for tensor in reader.tensors:
            kinds[tensor.tensor_type.name] = kinds.get(tensor.tensor_type.name, 0) + 1
            whole = exact[tensor.name].float().numpy()
            assert list(tensor.shape)[::-1] == list(whole.shape), tensor.name
            found = dequantize(tensor.data, tensor.tensor_type).reshape(whole.shape)
            size = np.sqrt((whole**2).mean()) or 1
            worst = max(worst, np.sqrt(((found - whole) ** 2).mean()) / size)
            if tensor.tensor_type.name in ("Q8_0", "Q5_0", "Q4_0"):
                assert np.array_equal(quantize(whole, tensor.tensor_type), tensor.data), tensor.name
        print(name, [f.contents() for f in fields], kinds, f"worst error {worst:.4f}")
    unet = UNet2DConditionModel.from_pretrained(TINY / "unet").state_dict()
    vae = AutoencoderKL.from_pretrained(TINY / "vae").state_dict()
    options = {"config": str(TINY), "local_files_only": True}
    file = str(folder / "tiny.safetensors")
    for cls, sub, state in (
        (UNet2DConditionModel, "unet", unet),
        (AutoencoderKL, "vae", vae),
    ):
        loaded = cls.from_single_file(file, subfolder=sub, **options).state_dict()
        worst = max((loaded[k].float() - v.float()).abs().max().item() for k, v in state.items())
        print("diffusers", sub, "differs by up to", worst)
    for name in ("q8_0", "q4_k"):
        loaded = UNet2DConditionModel.from_single_file(
            str(folder / f"tiny-{name}.gguf"),
            subfolder="unet",
            quantization_config=GGUFQuantizationConfig(compute_dtype=torch.float32),
            torch_dtype=torch.float32,
            **options,
        )
        shape = (1, 4, 16, 16)
        with torch.no_grad():
            print(name, loaded(torch.randn(shape), 500, torch.randn(1, 77, 128)).sample.std())


if __name__ == "__main__":
    main()
