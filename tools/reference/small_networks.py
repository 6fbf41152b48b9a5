"""Reference outputs of the small networks beside a model: diffusers' AutoencoderTiny and ESRGAN's generator (written here in
PyTorch after its paper), and of torch's enlargement of latents.

    python tools/reference/small_networks.py

Writes tests/fixtures/models/tiny_autoencoder.safetensors, rrdbnet_x4.safetensors, rrdbnet_x2.safetensors as models.py does (weights and
inputs are made again on the other side), and tests/fixtures/enlarged.json.
"""

import json

import torch
from diffusers import AutoencoderTiny
from torch import nn
from torch.nn import functional

import hashed
from models import FIXTURES, nhwc, parameters, write


def tiny():
    config = dict(
        encoder_block_out_channels=[8, 8, 8, 8],
        decoder_block_out_channels=[8, 8, 8, 8],
        num_encoder_blocks=[1, 2, 1, 2],
        num_decoder_blocks=[2, 1, 2, 1],
    )
    vae = hashed.fill(AutoencoderTiny(**config))
    b, h, w = 1, 40, 24
    case = dict(
        kind="tiny_vae",
        config=config,
        inputs=dict(batch=b, height=h, width=w),
        parameters=parameters(vae),
        probes={},
    )
    pixels = hashed.picture("input:pixels", b, h, w, 3)
    latents = hashed.picture("input:latents", b, h // 8, w // 8, 4) * 3
    tensors = {
        "latents": nhwc(vae.encode(pixels).latents),
        "pixels": nhwc(vae.decode(latents).sample),
    }
    write("tiny_autoencoder", case, tensors)


class Dense(nn.Module):
    def __init__(self, features, growth):
        super().__init__()
        for i in range(1, 6):
            out = growth if i < 5 else features
            setattr(self, f"conv{i}", nn.Conv2d(features + (i - 1) * growth, out, 3, 1, 1))

    def forward(self, x):
        seen = [x]
        for i in range(1, 5):
            conv = getattr(self, f"conv{i}")
            seen.append(functional.leaky_relu(conv(torch.cat(seen, 1)), 0.2))
        return self.conv5(torch.cat(seen, 1)) * 0.2 + x


class Block(nn.Module):
    def __init__(self, features, growth):
        super().__init__()
        self.rdb1, self.rdb2, self.rdb3 = (Dense(features, growth) for _ in range(3))

    def forward(self, x):
        return self.rdb3(self.rdb2(self.rdb1(x))) * 0.2 + x


class RRDBNet(nn.Module):
    def __init__(self, side, features, growth, blocks, doublings=2):
        super().__init__()
        self.side, self.doublings = side, doublings
        self.conv_first = nn.Conv2d(3 * side**2, features, 3, 1, 1)
        self.body = nn.Sequential(*[Block(features, growth) for _ in range(blocks)])
        self.conv_body = nn.Conv2d(features, features, 3, 1, 1)
        for i in range(1, doublings + 1):
            setattr(self, f"conv_up{i}", nn.Conv2d(features, features, 3, 1, 1))
        self.conv_hr = nn.Conv2d(features, features, 3, 1, 1)
        self.conv_last = nn.Conv2d(features, 3, 3, 1, 1)

    def forward(self, x):
        x = functional.pixel_unshuffle(x, self.side)
        first = self.conv_first(x)
        x = first + self.conv_body(self.body(first))
        for i in range(1, self.doublings + 1):
            x = functional.interpolate(x, scale_factor=2, mode="nearest")
            x = functional.leaky_relu(getattr(self, f"conv_up{i}")(x), 0.2)
        return self.conv_last(functional.leaky_relu(self.conv_hr(x), 0.2))


def upscalers():
    for name, side, doublings in (("rrdbnet_x4", 1, 2), ("rrdbnet_x2", 2, 2), ("rrdbnet_old_x2", 1, 1)):
        network = hashed.fill(RRDBNet(side, 8, 4, 2, doublings))
        b, h, w = 1, 10, 14
        case = dict(
            kind="upscaler",
            config={},
            inputs=dict(batch=b, height=h, width=w),
            parameters=parameters(network),
            probes={},
        )
        pixels = hashed.picture("input:pixels", b, h, w, 3)
        write(name, case, {"pixels": nhwc(network(pixels))})


def enlarged():
    x = torch.tensor([[(i * 7 % 11) / 4 - 1 for i in range(3 * 5)]]).reshape(1, 1, 3, 5)
    cases = []
    for mode in ("nearest", "nearest-exact", "bilinear", "bicubic"):
        for size in ((6, 10), (5, 8), (3, 5), (7, 12)):
            y = functional.interpolate(x, size=size, mode=mode)
            cases.append(dict(mode=mode, size=size, values=y.flatten().tolist()))
    path = FIXTURES.parent / "enlarged.json"
    body = ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases)
    path.write_text(
        '{"size":[3,5],"values":' + json.dumps(x.flatten().tolist()) + ',"cases":[\n' + body + "\n]}\n"
    )
    print(f"{path.name}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    tiny()
    upscalers()
    enlarged()
