"""The autoencoder (diffusers' AutoencoderKL): pictures [b, 3, s, s] in -1..1 to latents [b, 4, s/8, s/8] and back."""

import torch
import torch.nn.functional as F
from torch import nn

from .blocks import Attention, Downsample2D, ResnetBlock2D, Upsample2D

_EPS = 1e-6


class _MidAttention(Attention):
    def __init__(self, channels, groups):
        super().__init__(channels, 1, bias=True)
        self.group_norm = nn.GroupNorm(groups, channels, _EPS)

    def forward(self, x):
        h = self.group_norm(x).permute(0, 2, 3, 1).flatten(1, 2)
        return x + super().forward(h).unflatten(1, x.shape[2:]).permute(0, 3, 1, 2)


class _Mid(nn.Module):
    def __init__(self, channels, groups):
        super().__init__()
        self.attentions = nn.ModuleList([_MidAttention(channels, groups)])
        self.resnets = nn.ModuleList(
            ResnetBlock2D(channels, channels, groups, _EPS) for _ in range(2)
        )

    def forward(self, x):
        return self.resnets[1](self.attentions[0](self.resnets[0](x)))


class _Block(nn.Module):
    """Residual layers, then a change of size unless it is the last block."""

    def __init__(self, channels, out, layers, groups, resample, name):
        super().__init__()
        self.resnets = nn.ModuleList(
            ResnetBlock2D(channels if i == 0 else out, out, groups, _EPS) for i in range(layers)
        )
        self.resample = name if resample is not None else None
        if resample is not None:
            setattr(self, name, nn.ModuleList([resample]))

    def forward(self, x):
        for resnet in self.resnets:
            x = resnet(x)
        return x if self.resample is None else getattr(self, self.resample)[0](x)


class Encoder(nn.Module):
    def __init__(self, config):
        super().__init__()
        widths, groups = config["block_out_channels"], config["norm_num_groups"]
        self.conv_in = nn.Conv2d(config["in_channels"], widths[0], 3, padding=1)
        self.down_blocks = nn.ModuleList()
        for i, width in enumerate(widths):
            resample = Downsample2D(width, 0) if i + 1 < len(widths) else None
            self.down_blocks.append(
                _Block(
                    widths[max(0, i - 1)],
                    width,
                    config["layers_per_block"],
                    groups,
                    resample,
                    "downsamplers",
                )
            )
        self.mid_block = _Mid(widths[-1], groups)
        self.conv_norm_out = nn.GroupNorm(groups, widths[-1], _EPS)
        self.conv_out = nn.Conv2d(widths[-1], 2 * config["latent_channels"], 3, padding=1)

    def forward(self, x):
        x = self.conv_in(x)
        for block in self.down_blocks:
            x = block(x)
        return self.conv_out(F.silu(self.conv_norm_out(self.mid_block(x))))


class Decoder(nn.Module):
    def __init__(self, config):
        super().__init__()
        widths, groups = config["block_out_channels"][::-1], config["norm_num_groups"]
        self.conv_in = nn.Conv2d(config["latent_channels"], widths[0], 3, padding=1)
        self.mid_block = _Mid(widths[0], groups)
        self.up_blocks = nn.ModuleList()
        for i, width in enumerate(widths):
            resample = Upsample2D(width) if i + 1 < len(widths) else None
            self.up_blocks.append(
                _Block(
                    widths[max(0, i - 1)],
                    width,
                    config["layers_per_block"] + 1,
                    groups,
                    resample,
                    "upsamplers",
                )
            )
        self.conv_norm_out = nn.GroupNorm(groups, widths[-1], _EPS)
        self.conv_out = nn.Conv2d(widths[-1], config["out_channels"], 3, padding=1)

    def forward(self, z):
        x = self.mid_block(self.conv_in(z))
        for block in self.up_blocks:
            x = block(x)
        return self.conv_out(F.silu(self.conv_norm_out(x)))


class AutoencoderKL(nn.Module):
    def __init__(self, config):
        super().__init__()
        channels = config["latent_channels"]
        self.encoder, self.decoder = Encoder(config), Decoder(config)
        self.quant_conv = nn.Conv2d(2 * channels, 2 * channels, 1)
        self.post_quant_conv = nn.Conv2d(channels, channels, 1)

    def encode(self, pictures):
        """Mean and log-variance of the latents (not yet times the scaling factor)."""
        mean, log_variance = self.quant_conv(self.encoder(pictures)).chunk(2, 1)
        return mean, log_variance.clamp(-30, 20)

    def decode(self, latents):
        return self.decoder(self.post_quant_conv(latents))

    def forward(self, pictures):
        """A sample of the latents decoded again: (pictures, mean, log-variance)."""
        mean, log_variance = self.encode(pictures)
        return (
            self.decode(mean + (0.5 * log_variance).exp() * torch.randn_like(mean)),
            mean,
            log_variance,
        )
