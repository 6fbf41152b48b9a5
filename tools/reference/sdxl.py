"""A very small Stable Diffusion XL with hashed weights, and what diffusers makes of it.

    python tools/reference/sdxl.py

Writes tests/fixtures/sdxl/cases.json (configurations, names and shapes of all weights, how a single file names them, settings of
every case) and tests/fixtures/sdxl/expected.safetensors (final latents [batch, height, width, channels] of every case, and some
pictures). No weights: those are hashed.tensor("<network>/<name>", shape), on both sides.
"""

import json
import os
import pathlib
import warnings

import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    ControlNetModel,
    DDIMScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    StableDiffusionXLAdapterPipeline,
    StableDiffusionXLControlNetPipeline,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLInpaintPipeline,
    StableDiffusionXLPipeline,
    T2IAdapter,
    UNet2DConditionModel,
)
from diffusers.loaders import single_file_utils as convert
from PIL import Image
from safetensors.torch import save_file
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
)

import hashed
from checkpoints import unet_to_ldm, vae_to_ldm
from pictures_sd import mask, original

warnings.filterwarnings("ignore")
torch.set_num_threads(1)
torch.set_grad_enabled(False)

ROOT = pathlib.Path(__file__).resolve().parents[2]
FIXTURES = ROOT / "tests" / "fixtures" / "sdxl"
TOKENIZER = ROOT / "models" / "tiny" / "tokenizer"

CROSS, PLAIN = "CrossAttnDownBlock2D", "DownBlock2D"
CROSS_UP, PLAIN_UP = "CrossAttnUpBlock2D", "UpBlock2D"
# Heads and groups as they are inferred from a single file.
UNET = dict(
    sample_size=12,
    in_channels=4,
    out_channels=4,
    layers_per_block=2,
    block_out_channels=[32, 64, 64],
    norm_num_groups=32,
    attention_head_dim=[1, 1, 1],
    cross_attention_dim=80,
    use_linear_projection=True,
    transformer_layers_per_block=[1, 2, 2],
    addition_embed_type="text_time",
    addition_time_embed_dim=8,
    projection_class_embeddings_input_dim=40 + 6 * 8,
    down_block_types=[PLAIN, CROSS, CROSS],
    up_block_types=[CROSS_UP, CROSS_UP, PLAIN_UP],
)
VAE = dict(
    in_channels=3,
    out_channels=3,
    latent_channels=4,
    layers_per_block=1,
    block_out_channels=[16, 16, 32, 32],
    norm_num_groups=16,
    down_block_types=["DownEncoderBlock2D"] * 4,
    up_block_types=["UpDecoderBlock2D"] * 4,
    sample_size=96,
    scaling_factor=0.13025,
)
TEXT = dict(
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=3,
    num_attention_heads=1,
    max_position_embeddings=77,
    hidden_act="quick_gelu",
    projection_dim=32,
)
TEXT_2 = dict(
    hidden_size=48,
    intermediate_size=96,
    num_hidden_layers=4,
    num_attention_heads=1,
    max_position_embeddings=77,
    hidden_act="gelu",
    projection_dim=40,
)
SCHEDULER = dict(
    beta_start=0.00085,
    beta_end=0.012,
    beta_schedule="scaled_linear",
    steps_offset=1,
    timestep_spacing="leading",
)
CONTROL = {k: v for k, v in UNET.items() if k not in ("sample_size", "out_channels", "up_block_types")}
CONTROL["conditioning_embedding_out_channels"] = [8, 12, 16, 24]
ADAPTER = dict(
    in_channels=3,
    channels=[32, 64, 64, 64],
    num_res_blocks=1,
    downscale_factor=16,
    adapter_type="full_adapter_xl",
)


def canonical(network, name):
    """transformers 5 leaves `text_model.` out of a plain encoder's names."""
    bare = name.startswith(("text_model.", "text_projection."))
    return name if not network.startswith("text_encoder") or bare else f"text_model.{name}"


def fill(network, module):
    for name, parameter in module.named_parameters():
        full = f"{network}/{canonical(network, name)}"
        parameter.copy_(hashed.tensor(full, tuple(parameter.shape)))
    return module.eval()


def shapes(network, module):
    return {canonical(network, n): list(p.shape) for n, p in module.named_parameters()}


def openclip(state, layers):
    """OpenCLIP's names of the second encoder, each with the canonical ones that it is made of."""
    inner = {
        "layer_norm1": "ln_1",
        "layer_norm2": "ln_2",
        "self_attn.out_proj": "attn.out_proj",
        "mlp.fc1": "mlp.c_fc",
        "mlp.fc2": "mlp.c_proj",
    }
    out = {
        "token_embedding.weight": ["text_model.embeddings.token_embedding.weight"],
        "positional_embedding": ["text_model.embeddings.position_embedding.weight"],
        "ln_final.weight": ["text_model.final_layer_norm.weight"],
        "ln_final.bias": ["text_model.final_layer_norm.bias"],
        "text_projection": ["text_projection.weight"],
    }
    for i in range(layers):
        for kind in ("weight", "bias"):
            layer = f"text_model.encoder.layers.{i}"
            for old, new in inner.items():
                out[f"transformer.resblocks.{i}.{new}.{kind}"] = [f"{layer}.{old}.{kind}"]
            out[f"transformer.resblocks.{i}.attn.in_proj_{kind}"] = [
                f"{layer}.self_attn.{p}_proj.{kind}" for p in "qkv"
            ]
    assert sorted(sum(out.values(), [])) == sorted(state), "not every tensor has a name"
    return {"conditioner.embedders.1.model." + k: v for k, v in out.items()}


def single_file(parts):
    """Names of a single file: {name: [network, [canonical names, one below the other]]}."""
    names = {}
    unet, vae = parts["unet"], parts["vae"]
    # The converters look at tensors; a name each stands for them.
    for network, module, to_ldm in (("unet", unet, unet_to_ldm), ("vae", vae, vae_to_ldm)):
        state = module.state_dict()
        ldm = to_ldm({k: v for k, v in state.items() if "add_embedding" not in k}, module.config)
        back = {v.data_ptr(): k for k, v in state.items()}
        names |= {name: [network, [back[tensor.data_ptr()]]] for name, tensor in ldm.items()}
    for i, number in ((1, 0), (2, 2)):
        for kind in ("weight", "bias"):
            name = f"model.diffusion_model.label_emb.0.{number}.{kind}"
            names[name] = ["unet", [f"add_embedding.linear_{i}.{kind}"]]
    for name in shapes("text_encoder", parts["text_encoder"]):
        names[f"conditioner.embedders.0.transformer.{name}"] = ["text_encoder", [name]]
    second = shapes("text_encoder_2", parts["text_encoder_2"])
    layers = TEXT_2["num_hidden_layers"]
    names |= {k: ["text_encoder_2", v] for k, v in openclip(second, layers).items()}
    check_single_file(parts, names)
    return names


def check_single_file(parts, names):
    """diffusers' converters make the very tensors of it again."""
    states = {
        network: {canonical(network, n): p for n, p in parts[network].named_parameters()}
        for network in ("unet", "vae", "text_encoder", "text_encoder_2")
    }
    single = {}
    for name, (network, own) in names.items():
        tensor = torch.cat([states[network][n] for n in own])
        tensor = tensor.T if name.endswith(".text_projection") else tensor
        window = name.startswith("first_stage_model.") and ".attn_1." in name and tensor.ndim == 2
        single[name] = (tensor[:, :, None, None] if window else tensor).contiguous()

    def same(found, expected):
        for name, tensor in expected.items():
            assert torch.equal(found[name].reshape(tensor.shape), tensor), name

    unet = parts["unet"]
    same(convert.convert_ldm_unet_checkpoint(dict(single), unet.config), unet.state_dict())
    vae = parts["vae"]
    same(convert.convert_ldm_vae_checkpoint(dict(single), vae.config), vae.state_dict())
    prefix = "conditioner.embedders.1.model."
    second = convert.convert_open_clip_checkpoint(
        parts["text_encoder_2"], dict(single), prefix=prefix
    )
    same(second, {k: v for k, v in states["text_encoder_2"].items() if k in second})


def scheduler(name, **more):
    kinds = dict(
        euler=EulerDiscreteScheduler, ddim=DDIMScheduler, ancestral=EulerAncestralDiscreteScheduler
    )
    options = SCHEDULER | more
    if name == "ddim":
        options |= dict(clip_sample=False, set_alpha_to_one=False)
    return kinds[name](**options)


# --- Cases
# -----------------------------------------------------------------------------------------------------------------

DEFAULTS = dict(
    kind="text",
    prompt="a red cat in the snow",
    negative_prompt=None,
    sampler="euler",
    trailing=False,
    steps=3,
    guidance=5.0,
    width=96,
    height=64,
    seed=1,
    clip_skip=0,
    strength=0.6,
    original_size=None,
    crop=None,
    lora=None,
    words=False,
)

CASES = {
    "plain": {},
    "negative": dict(negative_prompt="blurry!", prompt="a photo of a blue house by the sea!!", seed=2),
    "sizes": dict(original_size=[512, 256], crop=[12, 34]),
    "unguided": dict(guidance=1.0, sampler="ddim", prompt="two yellow flowers"),
    "turbo": dict(guidance=1.0, sampler="ancestral", trailing=True, steps=2),
    "clip-skip": dict(clip_skip=1, negative_prompt="blurry"),
    "image": dict(kind="image", width=128, height=128, sampler="ancestral", steps=4),
    "inpaint": dict(kind="inpaint", width=128, height=128, steps=4, strength=0.8),
    "weighted": dict(
        kind="weighted",
        prompt="a (red:1.4) cat in the (snow:0.6) " + "with trees and houses, " * 14 + "(sun:1.2)",
        negative_prompt="(blurry:1.3), grey",
    ),
    "kohya": dict(lora="kohya"),
    "peft": dict(lora="peft"),
    "words": dict(words=True, prompt="a <ink> cat", negative_prompt="a dog"),
    "control": dict(kind="control"),
    "adapter": dict(kind="adapter"),
}
PICTURES = ["plain", "image", "inpaint"]


# --- LoRAs
# -----------------------------------------------------------------------------------------------------------------


def ldm_numbered(layer):
    """A layer's name with LDM's numbers, as kohya has them for Stable Diffusion XL."""
    parts = layer.split(".")
    if parts[0] == "mid_block":
        return ".".join(["middle_block.1", *parts[3:]])
    block, number = int(parts[1]), int(parts[3])
    if parts[0] == "down_blocks":
        return ".".join([f"input_blocks.{1 + 3 * block + number}.1", *parts[4:]])
    return ".".join([f"output_blocks.{3 * block + number}.1", *parts[4:]])


def lora(dialect, parts):
    """Names and shapes of a LoRA's tensors in a dialect; alphas are numbers."""
    tensors = {}
    rank = 2
    chosen = {
        "unet": lambda n: ".attn" in n and "to_" in n or n.endswith((".proj_in", ".ff.net.0.proj")),
        "text_encoder": lambda n: ".self_attn." in n or ".mlp.fc1" in n,
        "text_encoder_2": lambda n: ".self_attn." in n or ".mlp.fc2" in n,
    }
    prefixes = dict(unet="lora_unet_", text_encoder="lora_te1_", text_encoder_2="lora_te2_")
    for network, wanted in chosen.items():
        for name, module in parts[network].named_modules():
            if not isinstance(module, torch.nn.Linear):
                continue
            layer = canonical(network, name)
            if not wanted(layer):
                continue
            out, into = module.weight.shape
            if dialect == "kohya":
                own = ldm_numbered(layer) if network == "unet" else layer
                key = prefixes[network] + own.replace(".", "_")
                tensors[f"{key}.lora_down.weight"] = [rank, into]
                tensors[f"{key}.lora_up.weight"] = [out, rank]
                tensors[f"{key}.alpha"] = 1.0
            else:
                tensors[f"{network}.{layer}.lora_A.weight"] = [rank, into]
                tensors[f"{network}.{layer}.lora_B.weight"] = [out, rank]
    return tensors


def lora_state(tensors):
    def value(name, shape):
        if not isinstance(shape, list):
            return torch.tensor(shape)
        return hashed.tensor(f"lora/{name}", shape)

    return {name: value(name, shape) for name, shape in tensors.items()}


# --- Runs
# -----------------------------------------------------------------------------------------------------------------


def tokenizers():
    first = CLIPTokenizer.from_pretrained(TOKENIZER)
    second = CLIPTokenizer.from_pretrained(TOKENIZER, pad_token="!")
    assert first.pad_token_id != second.pad_token_id
    return first, second


def build():
    first, second = tokenizers()
    ends = dict(
        vocab_size=len(first),
        bos_token_id=first.bos_token_id,
        eos_token_id=first.eos_token_id,
    )
    TEXT.update(ends, pad_token_id=first.pad_token_id)
    TEXT_2.update(ends, pad_token_id=second.pad_token_id)
    return dict(
        unet=fill("unet", UNet2DConditionModel(**UNET)),
        vae=fill("vae", AutoencoderKL(**VAE)),
        text_encoder=fill("text_encoder", CLIPTextModel(CLIPTextConfig(**TEXT))),
        text_encoder_2=fill(
            "text_encoder_2", CLIPTextModelWithProjection(CLIPTextConfig(**TEXT_2))
        ),
        tokenizer=first,
        tokenizer_2=second,
    )


def weighted(parts, prompt, negative):
    """Embeddings of a weighted prompt of several chunks, as web UIs make them: each encoder's by itself, with its own mean."""
    import re

    def pieces(text):
        out, at = [], 0
        for found in re.finditer(r"\(([^:()]+):([0-9.]+)\)", text):
            out += [(text[at : found.start()], 1.0), (found.group(1), float(found.group(2)))]
            at = found.end()
        return out + [(text[at:], 1.0)]

    def chunks(tokenizer, text):
        room = tokenizer.model_max_length - 2
        comma = tokenizer.convert_tokens_to_ids(",</w>")
        all_chunks, now, last = [], [], None
        for words, weight in pieces(text):
            for id in tokenizer(words, add_special_tokens=False).input_ids:
                if id == comma:
                    last = len(now)
                elif len(now) == room and last is not None and len(now) - last <= 20:
                    all_chunks.append(now[: last + 1])
                    now, last = now[last + 1 :], None
                if len(now) == room:
                    all_chunks.append(now)
                    now, last = [], None
                now.append((id, weight))
        return all_chunks + [now]

    def encode(count, text, which):
        tokenizer, encoder = [
            (parts["tokenizer"], parts["text_encoder"]),
            (parts["tokenizer_2"], parts["text_encoder_2"]),
        ][which]
        found = chunks(tokenizer, text)
        found += [[]] * (count - len(found))
        hidden, pooled = [], None
        for chunk in found:
            ids = [tokenizer.bos_token_id, *(i for i, _ in chunk), tokenizer.eos_token_id]
            ids += [tokenizer.pad_token_id] * (tokenizer.model_max_length - len(ids))
            weights = [1.0, *(w for _, w in chunk)]
            weights += [1.0] * (len(ids) - len(weights))
            out = encoder(torch.tensor([ids]), output_hidden_states=True)
            if which == 1 and pooled is None:
                pooled = out.text_embeds
            state = out.hidden_states[-2]
            scaled = state * torch.tensor(weights)[None, :, None]
            hidden.append(scaled * (state.double().sum() / scaled.double().sum()).float())
        return torch.cat(hidden, 1), pooled

    count = max(len(chunks(parts[t], p)) for t in ("tokenizer", "tokenizer_2") for p in (prompt, negative))
    embeds = {}
    for name, text in (("", prompt), ("negative_", negative)):
        (one, _), (two, pooled) = encode(count, text, 0), encode(count, text, 1)
        embeds[f"{name}prompt_embeds"] = torch.cat([one, two], -1)
        embeds[f"{name}pooled_prompt_embeds"] = pooled
    return embeds


def condition(width, height):
    return Image.fromarray((hashed.uniform("input:condition", height * width * 3).reshape(height, width, 3) * 127 + 128).astype(np.uint8))


def run(parts, case, extra):
    more = {"timestep_spacing": "trailing"} if case["trailing"] else {}
    shared = dict(parts, scheduler=scheduler(case["sampler"], **more))
    kinds = dict(
        text=StableDiffusionXLPipeline,
        weighted=StableDiffusionXLPipeline,
        image=StableDiffusionXLImg2ImgPipeline,
        inpaint=StableDiffusionXLInpaintPipeline,
        control=StableDiffusionXLControlNetPipeline,
        adapter=StableDiffusionXLAdapterPipeline,
    )
    if case["kind"] == "control":
        shared["controlnet"] = extra["control"]
    if case["kind"] == "adapter":
        shared["adapter"] = extra["adapter"]
    if case["kind"] != "adapter":
        shared["add_watermarker"] = False
    pipe = kinds[case["kind"]](**shared)
    pipe.set_progress_bar_config(disable=True)
    if case["lora"]:
        pipe.load_lora_weights(lora_state(extra["lora"][case["lora"]]))
    if case["words"]:
        rows = {k: hashed.tensor(f"words/{k}", s) for k, s in extra["words"].items()}
        for key, n in (("clip_l", ""), ("clip_g", "_2")):
            pipe.load_textual_inversion(
                rows[key],
                token="<ink>",
                text_encoder=parts[f"text_encoder{n}"],
                tokenizer=parts[f"tokenizer{n}"],
            )
    arguments = dict(
        num_inference_steps=case["steps"],
        guidance_scale=case["guidance"],
        generator=torch.Generator("cpu").manual_seed(case["seed"]),
    )
    if case["kind"] == "weighted":
        arguments |= weighted(parts, case["prompt"], case["negative_prompt"])
    else:
        arguments |= dict(
            prompt=case["prompt"],
            negative_prompt=case["negative_prompt"],
            clip_skip=case["clip_skip"] or None,
        )
    if case["original_size"]:
        width, height = case["original_size"]
        left, top = case["crop"]
        arguments |= dict(original_size=(height, width), crops_coords_top_left=(top, left))
    size = dict(width=case["width"], height=case["height"])
    if case["kind"] in ("image", "inpaint"):
        arguments |= dict(image=original(), strength=case["strength"])
    if case["kind"] == "inpaint":
        arguments |= dict(mask_image=mask(), **size)
    if case["kind"] in ("text", "weighted"):
        arguments |= size
    if case["kind"] == "control":
        arguments |= dict(
            image=condition(**size), controlnet_conditioning_scale=0.7, **size
        )
    if case["kind"] == "adapter":
        arguments |= dict(image=condition(**size), adapter_conditioning_scale=0.7, **size)
    latents = pipe(**arguments, output_type="latent").images
    picture = pipe.vae.decode(latents / pipe.vae.config.scaling_factor).sample
    picture = ((picture[0] / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)
    if case["lora"]:
        pipe.unload_lora_weights()
    return latents.permute(0, 2, 3, 1).contiguous(), picture.permute(1, 2, 0).contiguous()


def main():
    parts = build()
    networks = ("unet", "vae", "text_encoder", "text_encoder_2")
    extra = dict(
        lora={dialect: lora(dialect, parts) for dialect in ("kohya", "peft")},
        words=dict(clip_l=[2, TEXT["hidden_size"]], clip_g=[2, TEXT_2["hidden_size"]]),
        control=fill("control", ControlNetModel(**CONTROL)),
        adapter=fill("adapter", T2IAdapter(**ADAPTER)),
    )
    written = dict(
        configs=dict(
            unet=UNET | {"_class_name": "UNet2DConditionModel"},
            vae=VAE | {"_class_name": "AutoencoderKL"},
            text_encoder=TEXT | {"model_type": "clip_text_model"},
            text_encoder_2=TEXT_2 | {"model_type": "clip_text_model"},
            control=CONTROL | {"_class_name": "ControlNetModel"},
            adapter=ADAPTER | {"_class_name": "T2IAdapter"},
            scheduler=SCHEDULER
            | dict(_class_name="EulerDiscreteScheduler", set_alpha_to_one=False, clip_sample=False),
        ),
        parameters={n: shapes(n, parts[n]) for n in networks}
        | {n: shapes(n, extra[n]) for n in ("control", "adapter")},
        single=single_file(parts),
        lora=extra["lora"],
        words=extra["words"],
        cases={},
    )
    tensors = {}
    for name, settings in CASES.items():
        case = DEFAULTS | settings
        written["cases"][name] = case
        # Words are added to the encoders: they come to fresh ones.
        latents, picture = run(build() if case["words"] or case["lora"] else parts, case, extra)
        tensors[name] = latents
        if name in PICTURES:
            tensors[f"{name}.picture"] = picture
        print(name, list(latents.shape), f"latents {latents.std():.3f}, picture {picture.float().std():.1f}", flush=True)
    plain = tensors["plain"]
    for name in ("negative", "sizes", "weighted", "kohya", "peft", "words", "control", "adapter"):
        assert (tensors[name] - plain).abs().max() > 1e-2, f"{name} changes nothing"
    FIXTURES.mkdir(parents=True, exist_ok=True)
    tensors["condition"] = torch.from_numpy(np.asarray(condition(96, 64)).copy())
    save_file(tensors, FIXTURES / "expected.safetensors")
    part = FIXTURES / "cases.json.part"
    part.write_text(json.dumps(written, separators=(",", ":"), sort_keys=True) + "\n")
    os.replace(part, FIXTURES / "cases.json")
    for path in FIXTURES.iterdir():
        print(path.name, path.stat().st_size)


if __name__ == "__main__":
    main()
