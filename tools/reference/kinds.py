"""Makes tests/fixtures/kinds: changes that are no LoRA, by LyCORIS' and PEFT's own modules, and the
weights that they come to.

    pip install lycoris-lora peft
    python tools/reference/kinds.py

For the random model in tests/fixtures/checkpoint/folder:

- <kind>.safetensors            as LyCORIS writes them, with kohya's names
- peft-<kind>/                  as PEFT saves them, with its settings
- expected.safetensors          `<kind>/<strength>/<network>.<parameter>`: the weights and biases as
                                those modules compute with them

The weights are caught where a module's forward computes with them: some of LyCORIS' functions for
merging apply alpha twice.
A DoRA of strength 0.7 is seven tenths of the way to the changed weight here, as in web UIs.
"""

import json
import shutil
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from lycoris.modules import full, ia3, locon, loha, lokr, norms
from peft import IA3Config, LoHaConfig, LoKrConfig, LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel

ROOT = Path(__file__).resolve().parents[2] / "tests/fixtures"
MODEL, OUT = ROOT / "checkpoint/folder", ROOT / "kinds"

LINEAR = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
WIDE = "mid_block.attentions.0.transformer_blocks.0.ff.net.2"
CONV = "down_blocks.2.resnets.0.conv1"
POINT = "mid_block.attentions.0.proj_in"
TEXT = "encoder.layers.0.mlp.fc1"
NORM, TEXT_NORM = "down_blocks.1.resnets.0.norm1", "encoder.layers.1.layer_norm2"


def networks():
    unet = UNet2DConditionModel.from_pretrained(MODEL / "unet", torch_dtype=torch.float32).eval()
    text = CLIPTextModel.from_pretrained(MODEL / "text_encoder", torch_dtype=torch.float32).eval()
    return {"unet": unet, "text_encoder": text}


def module_of(models, layer):
    text = layer.startswith("encoder.")
    network = "text_encoder" if text else "unet"
    found = dict(models[network].named_modules())
    return network, found.get(layer, found.get(f"text_model.{layer}"))


def caught(module, x, multiplier):
    """What the module's forward adds to weight and bias."""
    found = {}
    op, module.multiplier = module.op, multiplier

    def catch(x, weight=None, bias=None, **_):
        found["weight"], found["bias"] = weight, bias
        return 0

    module.op = catch
    with torch.no_grad():
        module.forward(x)
    module.op = op
    return found


def lycoris(models, kind, parts, expected):
    """parts: layer -> (class, settings)."""
    state = {}
    for layer, (cls, settings) in parts.items():
        network, org = module_of(models, layer)
        module = cls("name", org, 1.0, **settings)
        for name, parameter in module.named_parameters():
            if name == "dora_scale":
                parameter.data *= 1 + 0.3 * torch.rand_like(parameter)
            else:
                torch.nn.init.normal_(parameter, std=0.4)
        held = {which: getattr(org, which) for which in ("weight", "bias")}
        before = {w: held[w].detach().clone() for w in held if held[w] is not None}
        absolute = cls is full.FullModule
        if absolute:
            # As it is while it is trained; what it saves is the difference.
            module.apply_to()
        prefix = "lora_te_text_model_" if network == "text_encoder" else "lora_unet_"
        for name, tensor in module.state_dict().items():
            key = prefix + layer.replace(".", "_") + "." + name
            state[key] = tensor.detach().contiguous().clone()
        shape = before["weight"].shape
        wide = shape[1] if len(shape) > 1 else shape[0]
        x = torch.randn(1, wide, 5, 5) if "onv" in type(org).__name__ else torch.randn(1, wide)
        x = torch.randn(1, wide, 2, 2) if isinstance(org, torch.nn.GroupNorm) else x
        whole = caught(module, x, 1.0)
        part = caught(module, x, 0.7)
        if getattr(module, "wd", False):
            part = {k: v if v is None else v * 0.7 for k, v in whole.items()}
        name = f"text_model.{layer}" if network == "text_encoder" else layer
        for strength, change in (("1", whole), ("0.7", part)):
            for which in ("weight", "bias"):
                if change[which] is not None:
                    value = change[which].detach() + (0 if absolute else before[which])
                    key = f"{kind}/{strength}/{network}.{name}.{which}"
                    expected[key] = value.reshape(before[which].shape).clone()
        if absolute:
            module.restore()
    save_file(state, OUT / f"{kind}.safetensors", metadata={"ss_network_module": "lycoris.kohya"})


def peft(kind, config, expected):
    unet = networks()["unet"]
    before = {k: v.clone() for k, v in unet.state_dict().items()}
    model = get_peft_model(unet, config)
    for name, parameter in model.named_parameters():
        if any(p in name for p in ("lora_A", "lora_B", "hada_", "lokr_")):
            torch.nn.init.normal_(parameter, std=0.4)
        elif "ia3_l" in name or "magnitude" in name:
            parameter.data *= 1 + 0.3 * torch.rand_like(parameter)
    folder = OUT / f"peft-{kind}"
    model.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    settings = json.loads((folder / "adapter_config.json").read_text())
    settings["base_model_name_or_path"] = None
    for key, value in settings.items():
        if isinstance(value, list):
            settings[key] = sorted(value)
    (folder / "adapter_config.json").write_text(json.dumps(settings, indent=1) + "\n")
    after = model.merge_and_unload().state_dict()
    for key, value in after.items():
        if not torch.equal(value, before[key]):
            expected[f"peft-{kind}/1/unet.{key}"] = value


def main():
    torch.manual_seed(0)
    torch.set_num_threads(1)
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    models, expected = networks(), {}
    low = {"lora_dim": 2, "alpha": 1.5}
    tucker = {**low, "use_tucker": True}
    hada, kron, con = loha.LohaModule, lokr.LokrModule, locon.LoConModule
    lycoris(
        models,
        "loha",
        {
            LINEAR: (hada, low),
            WIDE: (hada, {**low, "rs_lora": True}),
            CONV: (hada, low),
            "down_blocks.2.resnets.0.conv2": (hada, tucker),
            POINT: (hada, low),
            TEXT: (hada, {"lora_dim": 3, "alpha": 1}),
            "encoder.layers.0.mlp.fc2": (hada, {**low, "weight_decompose": True}),
        },
        expected,
    )
    lycoris(
        models,
        "lokr",
        {
            # A whole left side and a right side of low rank; both of low rank; both whole.
            WIDE: (kron, {**low, "factor": 4}),
            "mid_block.attentions.0.transformer_blocks.0.ff.net.0.proj": (
                kron,
                {"lora_dim": 1, "alpha": 3, "factor": 8, "decompose_both": True},
            ),
            LINEAR: (kron, {**low, "full_matrix": True}),
            CONV: (kron, {"lora_dim": 1, "alpha": 2, "factor": 2}),
            "down_blocks.2.resnets.0.conv2": (kron, {**tucker, "factor": 2}),
            "mid_block.resnets.0.conv1": (kron, {**low, "full_matrix": True}),
            POINT: (kron, {**low, "factor": 2}),
            TEXT: (kron, {"lora_dim": 1, "alpha": 1, "factor": 2, "weight_decompose": True}),
        },
        expected,
    )
    dora = {**low, "weight_decompose": True}
    lycoris(
        models,
        "dora",
        {
            LINEAR: (con, dora),
            WIDE: (con, {**dora, "wd_on_out": False}),
            CONV: (con, dora),
            "down_blocks.2.resnets.0.conv2": (con, {**dora, "wd_on_out": False}),
            POINT: (con, dora),
            TEXT: (con, {**dora, "wd_on_out": False}),
        },
        expected,
    )
    lycoris(
        models,
        "locon",
        {LINEAR: (con, low), CONV: (con, tucker), POINT: (con, low), TEXT: (con, low)},
        expected,
    )
    lycoris(
        models,
        "full",
        {
            LINEAR: (full.FullModule, {}),
            CONV: (full.FullModule, {}),
            TEXT: (full.FullModule, {}),
            NORM: (norms.NormModule, {}),
            TEXT_NORM: (norms.NormModule, {}),
        },
        expected,
    )
    scale = ia3.IA3Module
    lycoris(
        models,
        "ia3",
        {
            LINEAR: (scale, {}),
            WIDE: (scale, {"train_on_input": True}),
            CONV: (scale, {}),
            "down_blocks.2.resnets.0.conv2": (scale, {"train_on_input": True}),
            TEXT: (scale, {"train_on_input": True}),
        },
        expected,
    )
    middle = "mid_block.attentions.0.transformer_blocks.0."
    linear = [middle + name for name in ("attn1.to_q", "ff.net.2", "attn2.to_k")]
    convs = [CONV, POINT]
    peft("loha", LoHaConfig(r=2, alpha=3, target_modules=linear + convs), expected)
    effective = {"use_effective_conv2d": True, "alpha_pattern": {"conv1": 1.5}}
    peft("loha-tucker", LoHaConfig(r=2, alpha=3, target_modules=convs, **effective), expected)
    factor = {"decompose_factor": 4, "rank_pattern": {"attn2.to_k": 8}}
    peft("lokr", LoKrConfig(r=2, alpha=3, target_modules=linear + convs, **factor), expected)
    config = IA3Config(target_modules=linear + convs, feedforward_modules=[linear[1], CONV])
    peft("ia3", config, expected)
    peft("dora", LoraConfig(r=2, lora_alpha=3, target_modules=linear, use_dora=True), expected)
    save_file({k: v.contiguous() for k, v in expected.items()}, OUT / "expected.safetensors")
    for path in OUT.rglob("*.safetensors"):
        path.chmod(0o644)
        print(path.relative_to(OUT), path.stat().st_size, sorted(load_file(path))[:3])


if __name__ == "__main__":
    main()
