"""The noise predictor (diffusers' UNet2DConditionModel in Stable Diffusion 1.x's topology)."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from .blocks import Downsample2D, ResnetBlock2D, Transformer2DModel, Upsample2D


def timestep_embedding(steps, width):
    """[b] timesteps to [b, width]: cosines, then sines, of geometrically falling frequencies."""
    half = width // 2
    frequencies = torch.exp(
        -math.log(10000) / half * torch.arange(half, device=steps.device, dtype=torch.float32)
    )
    angles = steps.float()[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], 1)


class _TimeEmbedding(nn.Module):
    def __init__(self, width, out):
        super().__init__()
        self.linear_1, self.linear_2 = nn.Linear(width, out), nn.Linear(out, out)

    def forward(self, x):
        return self.linear_2(F.silu(self.linear_1(x)))


class _Down(nn.Module):
    def __init__(self, channels, out, config, heads, cross, last):
        super().__init__()
        groups, time = config["norm_num_groups"], 4 * config["block_out_channels"][0]
        layers = range(config["layers_per_block"])
        context = config["cross_attention_dim"]
        self.resnets = nn.ModuleList(
            ResnetBlock2D(channels if i == 0 else out, out, groups, config["norm_eps"], time)
            for i in layers
        )
        self.attentions = (
            nn.ModuleList(Transformer2DModel(out, heads, context, groups) for _ in layers)
            if cross
            else None
        )
        self.downsamplers = None if last else nn.ModuleList([Downsample2D(out, 1)])

    def forward(self, x, time, context, feature):
        skips = []
        for i, resnet in enumerate(self.resnets):
            x = resnet(x, time)
            if self.attentions is not None:
                x = self.attentions[i](x, context)
            if feature is not None and i + 1 == len(self.resnets):
                x = x + feature  # so the skip carries it too
            skips.append(x)
        if self.downsamplers is not None:
            x = self.downsamplers[0](x)
            skips.append(x)
        return x, skips


class _Mid(nn.Module):
    def __init__(self, channels, config):
        super().__init__()
        groups, time = config["norm_num_groups"], 4 * config["block_out_channels"][0]
        heads, context = config["attention_head_dim"][-1], config["cross_attention_dim"]
        self.attentions = nn.ModuleList([Transformer2DModel(channels, heads, context, groups)])
        self.resnets = nn.ModuleList(
            ResnetBlock2D(channels, channels, groups, config["norm_eps"], time) for _ in range(2)
        )

    def forward(self, x, time, context):
        return self.resnets[1](self.attentions[0](self.resnets[0](x, time), context), time)


class _Up(nn.Module):
    def __init__(self, channels, skips, out, config, heads, cross, last):
        super().__init__()
        groups, time = config["norm_num_groups"], 4 * config["block_out_channels"][0]
        context = config["cross_attention_dim"]
        self.resnets = nn.ModuleList(
            ResnetBlock2D(
                (channels if i == 0 else out) + skip, out, groups, config["norm_eps"], time
            )
            for i, skip in enumerate(skips)
        )
        self.attentions = (
            nn.ModuleList(Transformer2DModel(out, heads, context, groups) for _ in skips)
            if cross
            else None
        )
        self.upsamplers = None if last else nn.ModuleList([Upsample2D(out)])

    def forward(self, x, skips, time, context):
        for i, resnet in enumerate(self.resnets):
            x = resnet(torch.cat([x, skips.pop()], 1), time)
            if self.attentions is not None:
                x = self.attentions[i](x, context)
        return x if self.upsamplers is None else self.upsamplers[0](x)


class UNet2DConditionModel(nn.Module):
    def __init__(self, config):
        super().__init__()
        widths, layers, heads = (
            config["block_out_channels"],
            config["layers_per_block"],
            config["attention_head_dim"],
        )
        self.time_width = widths[0]
        self.conv_in = nn.Conv2d(config["in_channels"], widths[0], 3, padding=1)
        self.time_embedding = _TimeEmbedding(widths[0], 4 * widths[0])
        self.down_blocks, self.up_blocks = nn.ModuleList(), nn.ModuleList()
        skips = [widths[0]]
        for i, width in enumerate(widths):
            last = i + 1 == len(widths)
            cross = config["down_block_types"][i].startswith("CrossAttn")
            self.down_blocks.append(
                _Down(widths[max(0, i - 1)], width, config, heads[i], cross, last)
            )
            skips += [width] * (layers + (not last))
        self.mid_block = _Mid(widths[-1], config)
        below = widths[-1]
        for i, width in enumerate(reversed(widths)):
            cross = config["up_block_types"][i].startswith("CrossAttn")
            taken = [skips.pop() for _ in range(layers + 1)]
            self.up_blocks.append(
                _Up(below, taken, width, config, heads[-1 - i], cross, i + 1 == len(widths))
            )
            below = width
        self.conv_norm_out = nn.GroupNorm(config["norm_num_groups"], widths[0], config["norm_eps"])
        self.conv_out = nn.Conv2d(widths[0], config["out_channels"], 3, padding=1)

    def forward(self, latents, steps, context, features=None):
        """Predicted noise, shaped as `latents`; `features` of an adapter are added at the end of each down block."""
        time = F.silu(self.time_embedding(timestep_embedding(steps, self.time_width)))
        x = self.conv_in(latents)
        skips = [x]
        for i, block in enumerate(self.down_blocks):
            x, more = block(x, time, context, None if features is None else features[i])
            skips += more
        x = self.mid_block(x, time, context)
        for block in self.up_blocks:
            x = block(x, skips, time, context)
        return self.conv_out(F.silu(self.conv_norm_out(x)))
