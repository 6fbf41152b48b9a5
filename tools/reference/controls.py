"""Reference passes of a UNet with regions, with a ControlNet and with T2I-Adapters, computed by diffusers.

    python tools/reference/controls.py

Writes tests/fixtures/models/controls.safetensors, in the form of models.py. Regions are computed by the published procedure (Mix-of-Show,
section 3.4): in every cross-attention the context prompt's result stands, replaced within each box (ceil(start) .. floor(end) at the
feature map's size) by the mean over the covering regions.
"""

import math

import torch
from diffusers import ControlNetModel, T2IAdapter, UNet2DConditionModel

import hashed
from models import CROSS, CROSS_UP, PLAIN, PLAIN_UP, nhwc, parameters, probe, write

UNET = dict(
    in_channels=4,
    out_channels=4,
    layers_per_block=2,
    block_out_channels=[32, 48, 64, 64],
    norm_num_groups=16,
    attention_head_dim=4,
    cross_attention_dim=40,
    down_block_types=[CROSS, CROSS, CROSS, PLAIN],
    up_block_types=[PLAIN_UP, CROSS_UP, CROSS_UP, CROSS_UP],
)
CONTROL = {k: v for k, v in UNET.items() if k not in ("out_channels", "up_block_types")}
CONTROL["conditioning_embedding_out_channels"] = [8, 12, 16, 24]
FULL = dict(
    in_channels=3,
    channels=[32, 48, 64, 64],
    num_res_blocks=2,
    downscale_factor=8,
    adapter_type="full_adapter",
)
LIGHT = dict(
    in_channels=1,
    channels=[32, 48, 64],
    num_res_blocks=3,
    downscale_factor=8,
    adapter_type="light_adapter",
)
# Top, left, bottom, right in pixels of a picture of 96 x 160: overlapping, at edges, at places that
# no feature map divides.
BOXES = [[0, 0, 96, 70], [20, 50, 96, 160], [0, 100, 50, 160]]
INPUTS = dict(
    batch=2, height=12, width=20, tokens=9, timesteps=[701.0, 701.0], boxes=BOXES, weight=0.7
)


class Regional:
    """An attention processor by the published procedure."""

    def __init__(self, texts, height, width):
        self.texts, self.size = texts, (height, width)

    def __call__(self, attn, x, encoder_hidden_states=None, **_):
        text = x if encoder_hidden_states is None else encoder_hidden_states
        query = attn.to_q(x)

        def attend(q, text):
            heads = [
                t.unflatten(-1, (attn.heads, -1)).transpose(1, 2)
                for t in (q, attn.to_k(text), attn.to_v(text))
            ]
            return (
                torch.nn.functional.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(-2)
            )

        y = attend(query, text)
        if encoder_hidden_states is not None:
            height, width = self.size
            down = next(
                d
                for d in (1, 2, 4, 8)
                if math.ceil(height / 8 / d) * math.ceil(width / 8 / d) == x.shape[1]
            )
            h, w = math.ceil(height / 8 / down), math.ceil(width / 8 / down)
            q, out = query.unflatten(1, (h, w)), y.unflatten(1, (h, w))
            total, count = torch.zeros_like(out), torch.zeros(1, h, w, 1)
            for (top, left, bottom, right), text in zip(BOXES, self.texts):
                top, bottom = math.ceil(top / height * h), math.floor(bottom / height * h)
                left, right = math.ceil(left / width * w), math.floor(right / width * w)
                assert top < bottom and left < right
                part = q[:, top:bottom, left:right]
                shape = part.shape
                total[:, top:bottom, left:right] += attend(part.flatten(1, 2), text).reshape(shape)
                count[:, top:bottom, left:right] += 1
            y = torch.where(count > 0, total / count.clamp(min=1), out).flatten(1, 2)
        return attn.to_out[1](attn.to_out[0](y))


def main():
    unet, net = hashed.fill(UNet2DConditionModel(**UNET)), hashed.fill(ControlNetModel(**CONTROL))
    case = dict(
        kind="controls",
        config=UNET,
        control=CONTROL,
        full=FULL,
        light=LIGHT,
        inputs=INPUTS,
        parameters=parameters(unet),
        probes={},
    )
    case["control_parameters"] = parameters(net)
    b, h, w, n = (INPUTS[k] for k in ("batch", "height", "width", "tokens"))
    sample = hashed.picture("input:sample", b, h, w, 4)
    text = hashed.tensor("input:text", (b, n, 40))
    timesteps = torch.tensor(INPUTS["timesteps"])
    tensors = {"sample": nhwc(unet(sample, timesteps, text).sample)}

    pixels = hashed.picture("input:condition", 1, 8 * h, 8 * w, 3)
    skips, middle = net(
        sample,
        timesteps,
        text,
        pixels.repeat(b, 1, 1, 1),
        conditioning_scale=INPUTS["weight"],
        return_dict=False,
    )
    probe(case, tensors, "skip", skips[4])
    probe(case, tensors, "middle", middle)
    out = unet(
        sample,
        timesteps,
        text,
        down_block_additional_residuals=skips,
        mid_block_additional_residual=middle,
    )
    tensors["sample.controlnet"] = nhwc(out.sample)

    for name, config in (("full", FULL), ("light", LIGHT)):
        adapter = hashed.fill(T2IAdapter(**config))
        case[f"{name}_parameters"] = parameters(adapter)
        features = adapter(
            hashed.picture("input:condition", 1, 8 * h, 8 * w, config["in_channels"])
        )
        for i, feature in enumerate(features):
            probe(case, tensors, f"{name}.{i}", feature)
        both = [INPUTS["weight"] * f.repeat(b, 1, 1, 1) for f in features]
        out = unet(sample, timesteps, text, down_intrablock_additional_residuals=both)
        tensors[f"sample.{name}"] = nhwc(out.sample)

    regional = Regional(
        [hashed.tensor(f"input:text.{i}", (b, n, 40)) for i in range(len(BOXES))], 8 * h, 8 * w
    )
    for module in unet.modules():
        if hasattr(module, "set_processor"):
            module.set_processor(regional)
    tensors["sample.regions"] = nhwc(unet(sample, timesteps, text).sample)
    write("controls", case, tensors)


if __name__ == "__main__":
    main()
