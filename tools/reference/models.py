"""Reference outputs of the text tower, the vision tower, the UNet and the VAE, computed by diffusers and transformers.

    python tools/reference/models.py            # everything
    python tools/reference/models.py unet tiny  # some families: unet text vision vae tiny

Writes tests/fixtures/models/<case>.safetensors. A file holds the case (metadata "case": kind, config, inputs, the parameters'
names and shapes) and the outputs, nothing else: weights and inputs are made again on the other side (see hashed.py). Pictures are stored as [batch, height, width,
channels]; a tensor "probe.<place>" is every n-th number of an intermediate result, n from case["probes"][place].
"""

import hashlib
import json
import os
import pathlib
import sys

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import save_file
from transformers import (
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

import hashed

torch.set_num_threads(1)
torch.set_grad_enabled(False)

ROOT = pathlib.Path(__file__).resolve().parents[2]
FIXTURES = ROOT / "tests" / "fixtures" / "models"
PROBE = 256


def nhwc(x):
    return x.permute(0, 2, 3, 1).contiguous()


def probe(case, tensors, place, value):
    """Keeps about PROBE numbers of an intermediate [batch, channels, height, width] result."""
    flat = nhwc(value).flatten()
    step = max(1, flat.numel() // PROBE)
    case["probes"][place] = step
    tensors[f"probe.{place}"] = flat[::step].contiguous()


def parameters(module):
    return {name: list(p.shape) for name, p in module.named_parameters()}


def write(name, case, tensors):
    FIXTURES.mkdir(parents=True, exist_ok=True)
    path = FIXTURES / f"{name}.safetensors"
    part = path.with_suffix(".part")
    save_file(
        {k: v.float().contiguous() for k, v in tensors.items()},
        part,
        metadata={"case": json.dumps(case, sort_keys=True, separators=(",", ":"))},
    )
    os.replace(part, path)
    sizes = ", ".join(
        f"{k} {list(v.shape)} rms {v.float().pow(2).mean().sqrt():.3f}"
        for k, v in tensors.items()
        if "probe" not in k
    )
    print(f"{path.name}: {path.stat().st_size} bytes; {sizes}")


# --- UNet
# ---------------------------------------------------------------------------------------------------------------

CROSS, PLAIN = "CrossAttnDownBlock2D", "DownBlock2D"
CROSS_UP, PLAIN_UP = "CrossAttnUpBlock2D", "UpBlock2D"

UNETS = {
    # Stable Diffusion 1.x: 1x1 convolutions around the transformers; attention_head_dim is, by its
    # history, the number of heads.
    "unet_sd1": (
        dict(
            in_channels=4,
            out_channels=4,
            layers_per_block=2,
            block_out_channels=[32, 48, 64, 96],
            norm_num_groups=16,
            attention_head_dim=4,
            cross_attention_dim=40,
            down_block_types=[CROSS, CROSS, CROSS, PLAIN],
            up_block_types=[PLAIN_UP, CROSS_UP, CROSS_UP, CROSS_UP],
        ),
        dict(batch=2, height=12, width=20, tokens=9, timesteps=[961.0, 13.0]),
    ),
    # Stable Diffusion 2.x: linear projections, a number of heads for each block, wider text.
    "unet_sd2": (
        dict(
            in_channels=4,
            out_channels=4,
            layers_per_block=2,
            block_out_channels=[32, 64, 64, 64],
            norm_num_groups=32,
            attention_head_dim=[2, 4, 8, 8],
            cross_attention_dim=72,
            use_linear_projection=True,
            down_block_types=[CROSS, CROSS, CROSS, PLAIN],
            up_block_types=[PLAIN_UP, CROSS_UP, CROSS_UP, CROSS_UP],
        ),
        dict(batch=1, height=16, width=8, tokens=13, timesteps=[501.0]),
    ),
    # Stable Diffusion XL: no attention in the first block, its own depth in each other, and told of
    # sizes and of the prompt as a whole.
    "unet_sdxl": (
        dict(
            in_channels=4,
            out_channels=4,
            layers_per_block=2,
            block_out_channels=[32, 48, 64],
            norm_num_groups=16,
            attention_head_dim=[2, 3, 4],
            cross_attention_dim=40,
            use_linear_projection=True,
            transformer_layers_per_block=[1, 2, 3],
            addition_embed_type="text_time",
            addition_time_embed_dim=24,
            projection_class_embeddings_input_dim=20 + 6 * 24,
            down_block_types=[PLAIN, CROSS, CROSS],
            up_block_types=[CROSS_UP, CROSS_UP, PLAIN_UP],
        ),
        dict(
            batch=2,
            height=12,
            width=8,
            tokens=9,
            timesteps=[701.0, 33.0],
            numbers=[[1024, 768, 0, 12, 96, 64], [96, 64, 5, 0, 96, 64]],
        ),
    ),
    # Whatever else the family allows: two blocks, one layer each, two transformer layers, the
    # cross-attention at the bottom, an odd size (so that upsampling must aim at the skip's size),
    # inpainting's 9 channels, other time embedding.
    "unet_odd": (
        dict(
            in_channels=9,
            out_channels=4,
            layers_per_block=1,
            block_out_channels=[24, 40],
            norm_num_groups=8,
            attention_head_dim=[3, 5],
            cross_attention_dim=24,
            upcast_attention=True,
            transformer_layers_per_block=2,
            flip_sin_to_cos=False,
            freq_shift=1,
            norm_eps=1e-6,
            down_block_types=[PLAIN, CROSS],
            up_block_types=[CROSS_UP, PLAIN_UP],
        ),
        dict(batch=1, height=9, width=7, tokens=5, timesteps=[250.5]),
    ),
    # Upscalers: the first attention of a block reads the text too; a class (the noise level) beside
    # the timestep.
    "unet_upscaler": (
        dict(
            in_channels=7,
            out_channels=4,
            layers_per_block=1,
            block_out_channels=[32, 48],
            norm_num_groups=16,
            attention_head_dim=4,
            cross_attention_dim=24,
            only_cross_attention=[True, False],
            num_class_embeds=11,
            use_linear_projection=True,
            down_block_types=[CROSS, CROSS],
            up_block_types=[CROSS_UP, CROSS_UP],
        ),
        dict(batch=2, height=6, width=8, tokens=6, timesteps=[999.0, 1.0], classes=[10, 3]),
    ),
    # Distilled models: no middle block, and the guidance scale as a condition.
    "unet_distilled": (
        dict(
            in_channels=4,
            out_channels=4,
            layers_per_block=1,
            block_out_channels=[16, 24, 32],
            norm_num_groups=8,
            attention_head_dim=2,
            cross_attention_dim=24,
            mid_block_type=None,
            time_cond_proj_dim=20,
            time_embedding_dim=48,
            downsample_padding=0,
            down_block_types=[CROSS, CROSS, CROSS],
            up_block_types=[CROSS_UP, CROSS_UP, CROSS_UP],
        ),
        dict(batch=1, height=8, width=12, tokens=6, timesteps=[499.0]),
    ),
}


def cross_attentions(unet):
    """All attn2 in the order down -> mid -> up."""
    parts = [*unet.down_blocks, unet.mid_block, *unet.up_blocks]
    return [
        block.attn2
        for part in parts
        for t in (getattr(part, "attentions", None) or [])
        for block in t.transformer_blocks
    ]


def run_unet(name, unet, config, inputs, extras):
    case = dict(kind="unet", config=config, inputs=inputs, parameters=parameters(unet), probes={})
    tensors = {}
    b, h, w, n = (inputs[k] for k in ("batch", "height", "width", "tokens"))
    sample = hashed.picture("input:sample", b, h, w, unet.config.in_channels)
    text = hashed.tensor("input:text", (b, n, unet.config.cross_attention_dim))
    timesteps = torch.tensor(inputs["timesteps"])
    more = {}
    if "classes" in inputs:
        more["class_labels"] = torch.tensor(inputs["classes"])
    if unet.config.time_cond_proj_dim:
        more["timestep_cond"] = hashed.tensor("input:guidance", (b, unet.config.time_cond_proj_dim))

    if "numbers" in inputs:
        width = unet.config.projection_class_embeddings_input_dim
        width -= 6 * unet.config.addition_time_embed_dim
        more["added_cond_kwargs"] = dict(
            text_embeds=hashed.tensor("input:pooled", (b, width)),
            time_ids=torch.tensor(inputs["numbers"], dtype=torch.float32),
        )

    taps, residuals = {}, []
    hooks = [
        unet.conv_in.register_forward_hook(lambda _m, _i, out: taps.__setitem__("conv_in", out)),
        unet.down_blocks[0].register_forward_hook(
            lambda _m, _i, out: taps.__setitem__("down_0", out[0])
        ),
    ]
    if unet.mid_block is not None:
        hooks.append(
            unet.mid_block.register_forward_hook(lambda _m, _i, out: taps.__setitem__("mid", out))
        )
    for block in unet.down_blocks:
        hooks.append(block.register_forward_hook(lambda _m, _i, out: residuals.extend(out[1])))
    tensors["sample"] = nhwc(unet(sample, timesteps, text, **more).sample)
    for hook in hooks:
        hook.remove()
    for place, value in taps.items():
        probe(case, tensors, place, value)

    if extras:
        # ControlNet: one residual for each skip and one for the middle.
        shapes = [taps["conv_in"].shape, *(r.shape for r in residuals)]
        down = tuple(
            hashed.picture(f"input:down_residual.{i}", s[0], s[2], s[3], s[1])
            for i, s in enumerate(shapes)
        )
        s = taps["mid"].shape
        mid = hashed.picture("input:mid_residual", s[0], s[2], s[3], s[1])
        out = unet(
            sample,
            timesteps,
            text,
            down_block_additional_residuals=down,
            mid_block_additional_residual=mid,
        ).sample
        tensors["sample.controlnet"] = nhwc(out)

        # T2I-Adapter: one feature map for each down block, added before the downsampling of a block
        # with cross-attention, after that of a block without.
        sizes, ends = [], []
        for block in unet.down_blocks:
            place = block.attentions[-1] if hasattr(block, "attentions") else block
            ends.append(place.register_forward_hook(lambda _m, _i, o: sizes.append(o[0].shape)))
        unet(sample, timesteps, text)
        for hook in ends:
            hook.remove()
        features = [
            hashed.picture(f"input:adapter.{i}", s[0], s[2], s[3], s[1])
            for i, s in enumerate(sizes)
        ]
        out = unet(sample, timesteps, text, down_intrablock_additional_residuals=features).sample
        tensors["sample.adapter"] = nhwc(out)

        # Layer-wise text: cross-attention i reads its own copy.
        layers = cross_attentions(unet)
        copies = [hashed.tensor(f"input:text.{i}", tuple(text.shape)) for i in range(len(layers))]
        hooks = []
        for layer, copy in zip(layers, copies):

            def swap(_m, args, kwargs, copy=copy):
                return args, {**kwargs, "encoder_hidden_states": copy}

            hooks.append(layer.register_forward_pre_hook(swap, with_kwargs=True))
        tensors["sample.layerwise"] = nhwc(unet(sample, timesteps, text).sample)
        for hook in hooks:
            hook.remove()
        case["cross_attentions"] = len(layers)
    write(name, case, tensors)


def unets():
    for name, (config, inputs) in UNETS.items():
        run_unet(
            name,
            hashed.fill(UNet2DConditionModel(**config)),
            config,
            inputs,
            extras=name in ("unet_sd1", "unet_odd"),
        )


# --- Text tower
# ----------------------------------------------------------------------------------------------------------

TEXTS = {
    "text_quick_gelu": dict(
        vocab_size=60,
        hidden_size=48,
        intermediate_size=112,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=77,
        projection_dim=24,
        hidden_act="quick_gelu",
        bos_token_id=58,
        eos_token_id=59,
        pad_token_id=59,
    ),
    # The original files say eos_token_id 2, which means: pool at the greatest id.
    "text_gelu": dict(
        vocab_size=60,
        hidden_size=64,
        intermediate_size=256,
        num_hidden_layers=4,
        num_attention_heads=8,
        max_position_embeddings=32,
        projection_dim=40,
        hidden_act="gelu",
        bos_token_id=0,
        eos_token_id=2,
        pad_token_id=1,
        layer_norm_eps=1e-6,
    ),
}


# The second of Stable Diffusion XL, of which the last layer but one is read.
BEFORE_LAST = {
    "text_sdxl": dict(
        vocab_size=60,
        hidden_size=40,
        intermediate_size=80,
        num_hidden_layers=3,
        num_attention_heads=2,
        max_position_embeddings=77,
        projection_dim=24,
        hidden_act="gelu",
        bos_token_id=58,
        eos_token_id=59,
        pad_token_id=0,
    ),
}


def token_ids(name, batch, length, start, end):
    """Start, some words, end, padding with the end: as a tokenizer would. Each row has its own number of words."""
    rows = []
    for b in range(batch):
        words = max(1, (length - 2) // (b + 1))
        u = hashed.uniform(f"input:{name}.{length}.{b}", words)
        row = [start, *(3 + int((x + 1.0) / 2.0 * 50) for x in u), end]
        rows.append((row + [end] * length)[:length])
    return rows


def run_text(name, model, config, all_ids, outputs, before=()):
    case = dict(
        kind="text",
        config=config,
        ids={str(len(ids[0])): ids for ids in all_ids},
        parameters=parameters(model),
        probes={},
    )
    tensors = {}
    for ids in all_ids:
        out = model(torch.tensor(ids), output_hidden_states=True)
        n = len(ids[0])
        tensors[f"{n}.last"] = out.last_hidden_state
        tensors[f"{n}.projected"] = out.text_embeds
        for skip in outputs:
            # diffusers' clip_skip: that many layers fewer, then the final norm all the same.
            tensors[f"{n}.skip.{skip}"] = model.text_model.final_layer_norm(
                out.hidden_states[-(skip + 1)]
            )
        for skip in before:
            tensors[f"{n}.before.{skip}"] = out.hidden_states[-(skip + 2)]
    write(name, case, tensors)


def texts():
    for name, config in TEXTS.items():
        model = hashed.fill(CLIPTextModelWithProjection(CLIPTextConfig(**config)))
        longest = config["max_position_embeddings"]
        ids = [
            token_ids(name, b, n, config["bos_token_id"], 59)
            for b, n in ((1, longest), (2, 16), (3, 5))
        ]
        run_text(name, model, config, ids, outputs=(1, 2))
    for name, config in BEFORE_LAST.items():
        model = hashed.fill(CLIPTextModelWithProjection(CLIPTextConfig(**config)))
        ids = [token_ids(name, 2, 77, config["bos_token_id"], 59)]
        run_text(name, model, config, ids, outputs=(), before=(0, 1))


# --- Vision tower
# --------------------------------------------------------------------------------------------------------

VISIONS = {
    "vision_quick_gelu": dict(
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=4,
        projection_dim=24,
        image_size=32,
        patch_size=8,
        num_channels=3,
        hidden_act="quick_gelu",
    ),
    "vision_gelu": dict(
        hidden_size=40,
        intermediate_size=80,
        num_hidden_layers=2,
        num_attention_heads=5,
        projection_dim=16,
        image_size=28,
        patch_size=14,
        num_channels=3,
        hidden_act="gelu",
    ),
}


def visions():
    for name, config in VISIONS.items():
        model = hashed.fill(CLIPVisionModelWithProjection(CLIPVisionConfig(**config)))
        size = config["image_size"]
        out = model(hashed.picture("input:pixels", 2, size, size, 3))
        case = dict(
            kind="vision",
            config=config,
            inputs=dict(batch=2),
            parameters=parameters(model),
            probes={},
        )
        write(name, case, {"last": out.last_hidden_state, "projected": out.image_embeds})


# --- VAE
# -----------------------------------------------------------------------------------------------------------------


def vae_blocks(n):
    return dict(
        down_block_types=["DownEncoderBlock2D"] * n, up_block_types=["UpDecoderBlock2D"] * n
    )


VAES = {
    "vae_sd1": (
        dict(
            in_channels=3,
            out_channels=3,
            latent_channels=4,
            layers_per_block=2,
            block_out_channels=[16, 32, 48, 64],
            norm_num_groups=16,
            **vae_blocks(4),
        ),
        dict(batch=1, height=24, width=40),
    ),
    "vae_odd": (
        dict(
            in_channels=3,
            out_channels=3,
            latent_channels=6,
            layers_per_block=1,
            block_out_channels=[24, 40],
            norm_num_groups=8,
            use_quant_conv=False,
            use_post_quant_conv=False,
            **vae_blocks(2),
        ),
        dict(batch=2, height=10, width=14),
    ),
    "vae_plain_middle": (
        dict(
            in_channels=3,
            out_channels=3,
            latent_channels=4,
            layers_per_block=1,
            block_out_channels=[16, 16, 32],
            norm_num_groups=4,
            mid_block_add_attention=False,
            **vae_blocks(3),
        ),
        dict(batch=1, height=16, width=12),
    ),
}


def run_vae(name, vae, config, inputs):
    b, h, w = (inputs[k] for k in ("batch", "height", "width"))
    factor = 2 ** (len(vae.config.block_out_channels) - 1)
    case = dict(kind="vae", config=config, inputs=inputs, parameters=parameters(vae), probes={})
    tensors = {}
    latent = vae.encode(hashed.picture("input:pixels", b, h, w, 3)).latent_dist
    tensors["mean"], tensors["logvar"] = nhwc(latent.mean), nhwc(latent.logvar)
    latents = hashed.picture(
        "input:latents", b, h // factor, w // factor, vae.config.latent_channels
    )
    hook = vae.decoder.mid_block.register_forward_hook(
        lambda _m, _i, out: probe(case, tensors, "decoder.mid", out)
    )
    tensors["pixels"] = nhwc(vae.decode(latents).sample)
    hook.remove()
    write(name, case, tensors)


def vaes():
    for name, (config, inputs) in VAES.items():
        run_vae(name, hashed.fill(AutoencoderKL(**config)), config, inputs)


# --- The model that ships
# ------------------------------------------------------------------------------------------------


def tiny():
    """The same outputs from the weights of models/tiny; `weights` says which, so that a stale fixture names itself."""
    folder = ROOT / "models" / "tiny"

    def config(part):
        path = folder / part
        weights = next(path.glob("*.safetensors"))
        digest = hashlib.sha256(weights.read_bytes()).hexdigest()
        return dict(
            folder=f"models/tiny/{part}",
            weights=weights.name,
            sha256=digest,
            **json.loads((path / "config.json").read_text()),
        )

    unet = UNet2DConditionModel.from_pretrained(folder / "unet", torch_dtype=torch.float32).eval()
    size = unet.config.sample_size
    inputs = dict(batch=1, height=size, width=size, tokens=77, timesteps=[801.0])
    run_unet("tiny_unet", unet, config("unet"), inputs, extras=False)

    text = CLIPTextModelWithProjection.from_pretrained(
        folder / "text_encoder", torch_dtype=torch.float32
    ).eval()
    c = config("text_encoder")
    ids = [[c["bos_token_id"], *range(300, 1800, 150), c["eos_token_id"]]]
    ids[0] += [c["pad_token_id"]] * (c["max_position_embeddings"] - len(ids[0]))
    names = {f"text_model.{name}": shape for name, shape in parameters(text.text_model).items()}
    case = dict(kind="text", config=c, ids={"77": ids}, parameters=names, probes={})
    out = text.text_model(torch.tensor(ids), output_hidden_states=True)
    write(
        "tiny_text",
        case,
        {
            "77.last": out.last_hidden_state,
            "77.skip.1": text.text_model.final_layer_norm(out.hidden_states[-2]),
        },
    )

    vae = AutoencoderKL.from_pretrained(folder / "vae", torch_dtype=torch.float32).eval()
    run_vae("tiny_vae", vae, config("vae"), dict(batch=1, height=64, width=48))


FAMILIES = dict(unet=unets, text=texts, vision=visions, vae=vaes, tiny=tiny)

if __name__ == "__main__":
    chosen = sys.argv[1:] or list(FAMILIES)
    for family in chosen:
        if family not in FAMILIES:
            sys.exit(f"unknown family {family!r}; known: {', '.join(FAMILIES)}")
        FAMILIES[family]()
