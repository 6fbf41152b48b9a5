"""What the VAE and the UNet are built of. Feature maps are [batch, channels, height, width]."""

import torch
import torch.nn.functional as F
from torch import nn


def attend(q, k, v, causal=False):
    """Attention of [batch, heads, tokens, width].

    PyTorch's fused kernel takes twice to seven times as long as plain products in bf16 on a CPU,
    backwards above all.
    """
    if q.device.type != "cpu" or q.dtype != torch.bfloat16:
        return F.scaled_dot_product_attention(q, k, v, is_causal=causal)
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    if causal:
        scores = scores + torch.full(scores.shape[-2:], -1e4, dtype=q.dtype).triu(1)
    return scores.softmax(-1).to(v.dtype) @ v


class ResnetBlock2D(nn.Module):
    """norm, SiLU, conv twice around a shortcut; the time embedding, if there is one, is added in between."""

    def __init__(self, channels, out, groups, eps, time_width=None):
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, channels, eps)
        self.conv1 = nn.Conv2d(channels, out, 3, padding=1)
        if time_width:
            self.time_emb_proj = nn.Linear(time_width, out)
        self.norm2 = nn.GroupNorm(groups, out, eps)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(channels, out, 1) if channels != out else None

    def forward(self, x, time=None):
        h = self.conv1(F.silu(self.norm1(x)))
        if time is not None:
            h = h + self.time_emb_proj(time)[:, :, None, None]
        h = self.conv2(F.silu(self.norm2(h)))
        return h + (x if self.conv_shortcut is None else self.conv_shortcut(x))


class Downsample2D(nn.Module):
    """Halves a map by a strided convolution; the VAE's pads only right and below (`padding=0`)."""

    def __init__(self, channels, padding):
        super().__init__()
        self.padding = padding
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=padding)

    def forward(self, x):
        return self.conv(x if self.padding else F.pad(x, (0, 1, 0, 1)))


class Upsample2D(nn.Module):
    """Doubles a map by repetition and a convolution."""

    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x):
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Attention(nn.Module):
    """Attention over [batch, tokens, width]; to itself, or to `context` of width `context_width`."""

    def __init__(self, width, heads, context_width=None, bias=False):
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(width, width, bias=bias)
        self.to_k = nn.Linear(context_width or width, width, bias=bias)
        self.to_v = nn.Linear(context_width or width, width, bias=bias)
        self.to_out = nn.ModuleList([nn.Linear(width, width)])

    def forward(self, x, context=None):
        context = x if context is None else context
        q, k, v = (
            p(t).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for p, t in ((self.to_q, x), (self.to_k, context), (self.to_v, context))
        )
        return self.to_out[0](attend(q, k, v).transpose(1, 2).flatten(2))


class _GatedLinear(nn.Module):
    def __init__(self, width, inner):
        super().__init__()
        self.proj = nn.Linear(width, 2 * inner)

    def forward(self, x):
        x, gate = self.proj(x).chunk(2, -1)
        return x * F.gelu(gate)


class _FeedForward(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.net = nn.ModuleList(
            [_GatedLinear(width, 4 * width), nn.Identity(), nn.Linear(4 * width, width)]
        )

    def forward(self, x):
        return self.net[2](self.net[0](x))


class _TransformerBlock(nn.Module):
    def __init__(self, width, heads, context_width):
        super().__init__()
        self.norm1, self.attn1 = nn.LayerNorm(width), Attention(width, heads)
        self.norm2, self.attn2 = nn.LayerNorm(width), Attention(width, heads, context_width)
        self.norm3, self.ff = nn.LayerNorm(width), _FeedForward(width)

    def forward(self, x, context):
        x = x + self.attn1(self.norm1(x))
        x = x + self.attn2(self.norm2(x), context)
        return x + self.ff(self.norm3(x))


class Transformer2DModel(nn.Module):
    """One transformer block over the positions of a feature map, with the prompt as context."""

    def __init__(self, channels, heads, context_width, groups):
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels, 1e-6)
        self.proj_in = nn.Conv2d(channels, channels, 1)
        self.transformer_blocks = nn.ModuleList([_TransformerBlock(channels, heads, context_width)])
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x, context):
        height, width = x.shape[2:]
        h = self.proj_in(self.norm(x)).permute(0, 2, 3, 1).flatten(1, 2)
        h = self.transformer_blocks[0](h, context)
        return x + self.proj_out(h.unflatten(1, (height, width)).permute(0, 3, 1, 2))
