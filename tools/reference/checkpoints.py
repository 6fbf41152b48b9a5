"""Makes tests/fixtures/checkpoint: very small models of Stable Diffusion's family in the layouts that checkpoints come in.

    python tools/reference/checkpoints.py

- folder/            an SD 1.x-like model as diffusers and transformers save it (the VAE as a sharded fp16 variant)
- sd1.safetensors    the same weights as a single file with CompVis's names
- sd2.safetensors    an SD 2.x-like model (linear projections, OpenCLIP text tower) as a single file
- sd2.json           what diffusers' own converter makes of it: canonical name -> [shape, first 16 digits of the sha256 of the f16 bytes]

The names of the single files are derived here from diffusers' names; before anything is written, diffusers' converters must
turn them back into the very tensors they came from.
"""

import hashlib
import json
import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel
from diffusers.loaders import single_file_utils as convert
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel

OUT = Path(__file__).resolve().parents[2] / "tests/fixtures/checkpoint"


def unet(linear: bool) -> UNet2DConditionModel:
    attended = 1 if linear else 2
    return UNet2DConditionModel(
        sample_size=64,
        block_out_channels=(8,) * attended + (16,),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D",) * attended + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * attended,
        cross_attention_dim=8,
        norm_num_groups=8,
        attention_head_dim=(1, 1) if linear else 8,
        use_linear_projection=linear,
    )


def vae() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        layers_per_block=1,
        norm_num_groups=8,
        sample_size=512,
    )


def text(act: str) -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=24,
            hidden_size=8,
            intermediate_size=16,
            num_hidden_layers=2,
            num_attention_heads=1,
            max_position_embeddings=12,
            hidden_act=act,
            bos_token_id=22,
            eos_token_id=23,
            projection_dim=8,
        )
    )


def randomised(model):
    """Norms and biases start at constants, in which a mix-up would not show."""
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return model.half().eval()


# --- diffusers' names, reversed
# -----------------------------------------------------------------------------------------

RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}


def unet_to_ldm(state, config):
    layers, blocks = config.layers_per_block, len(config.block_out_channels)
    out = {}
    for name, tensor in state.items():
        p = name.split(".")
        if p[0] in ("down_blocks", "up_blocks"):
            block, kind, layer, rest = int(p[1]), p[2], int(p[3]), p[4:]
            per_block = layers + 1
            if p[0] == "down_blocks":
                number = 1 + block * per_block + (layers if kind == "downsamplers" else layer)
                stage = "input_blocks"
            else:
                number = block * per_block + (layers if kind == "upsamplers" else layer)
                stage = "output_blocks"
            attended = f"{p[0]}.{block}.attentions.0.norm.weight" in state
            module = {"resnets": 0, "attentions": 1, "downsamplers": 0, "upsamplers": 1 + attended}[
                kind
            ]
            if kind == "resnets":
                rest = [RESNET[rest[0]]] + rest[1:]
            if kind == "downsamplers":
                rest = ["op"] + rest[1:]
            new = f"{stage}.{number}.{module}." + ".".join(rest)
        elif p[0] == "mid_block":
            module = {"resnets": 2 * int(p[2]), "attentions": 1}[p[1]]
            rest = [RESNET[p[3]]] + p[4:] if p[1] == "resnets" else p[3:]
            new = f"middle_block.{module}." + ".".join(rest)
        else:
            heads = {
                "conv_in": "input_blocks.0.0",
                "conv_norm_out": "out.0",
                "conv_out": "out.2",
                "time_embedding.linear_1": "time_embed.0",
                "time_embedding.linear_2": "time_embed.2",
            }
            old = next(h for h in heads if name.startswith(h + "."))
            new = heads[old] + name[len(old) :]
        out["model.diffusion_model." + new] = tensor
    return out


def vae_to_ldm(state, config):
    levels = len(config.block_out_channels)
    out = {}
    for name, tensor in state.items():
        new = name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
        new = new.replace("mid_block.resnets.0", "mid.block_1").replace(
            "mid_block.resnets.1", "mid.block_2"
        )
        if "mid_block.attentions.0" in new:
            new = (
                new.replace("mid_block.attentions.0", "mid.attn_1")
                .replace("group_norm", "norm")
                .replace("to_out.0", "proj_out")
            )
            for letter in "qkv":
                new = new.replace(f"to_{letter}.", f"{letter}.")
            if tensor.ndim == 2:
                tensor = tensor[:, :, None, None]
        p = new.split(".")
        if len(p) > 2 and p[1] in ("down_blocks", "up_blocks"):
            level = int(p[2]) if p[1] == "down_blocks" else levels - 1 - int(p[2])
            kind = {
                "resnets": f"block.{p[4]}",
                "downsamplers": "downsample",
                "upsamplers": "upsample",
            }[p[3]]
            new = ".".join([p[0], p[1].split("_")[0], str(level), kind] + p[5:])
        out["first_stage_model." + new] = tensor
    return out


def text_to_openclip(state, layers, width):
    names = {
        "layer_norm1": "ln_1",
        "layer_norm2": "ln_2",
        "self_attn.out_proj": "attn.out_proj",
        "mlp.fc1": "mlp.c_fc",
        "mlp.fc2": "mlp.c_proj",
    }
    out = {
        "token_embedding.weight": state["embeddings.token_embedding.weight"],
        "positional_embedding": state["embeddings.position_embedding.weight"],
        "ln_final.weight": state["final_layer_norm.weight"],
        "ln_final.bias": state["final_layer_norm.bias"],
        "text_projection": torch.randn(width, width).half(),
        "logit_scale": torch.tensor(4.6).half(),
    }
    for i in range(layers):
        for kind in ("weight", "bias"):
            for old, new in names.items():
                out[f"transformer.resblocks.{i}.{new}.{kind}"] = state[
                    f"encoder.layers.{i}.{old}.{kind}"
                ]
            out[f"transformer.resblocks.{i}.attn.in_proj_{kind}"] = torch.cat(
                [state[f"encoder.layers.{i}.self_attn.{p}_proj.{kind}"] for p in "qkv"]
            )
    return {"cond_stage_model.model." + k: v for k, v in out.items()}


def same(a, b):
    assert a.keys() == b.keys(), sorted(a.keys() ^ b.keys())
    for name in a:
        assert torch.equal(a[name].reshape(b[name].shape), b[name]), name


def bare(state):
    """A text tower's names as transformers 5 has them."""
    return {k.removeprefix("text_model."): v for k, v in state.items()}


def contiguous(state):
    return {k: v.clone().contiguous() for k, v in state.items()}


def main():
    torch.manual_seed(0)
    shutil.rmtree(OUT, ignore_errors=True)
    folder = OUT / "folder"

    u, v, t = randomised(unet(False)), randomised(vae()), randomised(text("quick_gelu"))
    u.save_pretrained(folder / "unet")
    v.save_pretrained(folder / "vae", variant="fp16", max_shard_size="20KB")
    t.save_pretrained(folder / "text_encoder")
    PNDMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        skip_prk_steps=True,
        steps_offset=1,
    ).save_pretrained(folder / "scheduler")
    (folder / "tokenizer").mkdir()
    (folder / "tokenizer/vocab.json").write_text('{"<|startoftext|>": 22, "<|endoftext|>": 23}\n')
    (folder / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}\n')
    single = unet_to_ldm(u.state_dict(), u.config) | vae_to_ldm(v.state_dict(), v.config)
    single |= {
        "cond_stage_model.transformer.text_model." + k: x for k, x in bare(t.state_dict()).items()
    }
    same(convert.convert_ldm_unet_checkpoint(dict(single), u.config), u.state_dict())
    same(convert.convert_ldm_vae_checkpoint(dict(single), v.config), v.state_dict())
    # What real files carry besides.
    single["cond_stage_model.transformer.text_model.embeddings.position_ids"] = torch.arange(12)[
        None
    ]
    single["model_ema.decay"] = torch.tensor(0.9999)
    single["alphas_cumprod"] = torch.linspace(1, 0, 1000)
    save_file(contiguous(single), OUT / "sd1.safetensors")

    u, t = randomised(unet(True)), randomised(text("gelu"))
    single = unet_to_ldm(u.state_dict(), u.config) | vae_to_ldm(v.state_dict(), v.config)
    single |= text_to_openclip(bare(t.state_dict()), 2, 8)
    same(convert.convert_ldm_unet_checkpoint(dict(single), u.config), u.state_dict())
    towers = convert.convert_open_clip_checkpoint(t, dict(single))
    expected_text = {k: x for k, x in towers.items() if "logit_scale" not in k}
    same(
        {k: x for k, x in bare(expected_text).items() if k != "text_projection.weight"},
        bare(t.state_dict()),
    )
    # diffusers leaves the projection out, since nothing in these models uses it; it is transposed
    # as for other towers.
    expected_text["text_projection.weight"] = single["cond_stage_model.model.text_projection"].T
    save_file(
        contiguous(single), OUT / "sd2.safetensors", metadata={"modelspec.prediction_type": "v"}
    )
    digest = lambda x: [
        list(x.shape),
        hashlib.sha256(x.contiguous().numpy().tobytes()).hexdigest()[:16],
    ]
    expected = {
        "unet": {k: digest(x) for k, x in u.state_dict().items()},
        "vae": {k: digest(x) for k, x in v.state_dict().items()},
        "text_encoder": {
            (k if k.startswith("text_") else "text_model." + k): digest(x)
            for k, x in sorted(expected_text.items())
        },
    }
    lines = [
        f'"{part}": {{\n'
        + ",\n".join(f'"{k}": {json.dumps(d)}' for k, d in sorted(x.items()))
        + "\n}"
        for part, x in expected.items()
    ]
    (OUT / "sd2.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")

    for path in OUT.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)


if __name__ == "__main__":
    main()
