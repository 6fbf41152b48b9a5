"""The control (diffusers' T2IAdapter, `full_adapter`): a condition picture to one feature map for each down block."""

import torch.nn.functional as F
from torch import nn


class _Resnet(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.block1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.block2 = nn.Conv2d(channels, channels, 1)

    def forward(self, x):
        return x + self.block2(F.relu(self.block1(x)))


class _Block(nn.Module):
    def __init__(self, channels, out, layers, down):
        super().__init__()
        self.down = down
        self.in_conv = nn.Conv2d(channels, out, 1) if channels != out else None
        self.resnets = nn.Sequential(*(_Resnet(out) for _ in range(layers)))

    def forward(self, x):
        if self.down:
            x = F.avg_pool2d(x, 2, ceil_mode=True)
        return self.resnets(x if self.in_conv is None else self.in_conv(x))


class _Body(nn.Module):
    def __init__(self, config):
        super().__init__()
        widths, factor, layers = (
            config["channels"],
            config["downscale_factor"],
            config["num_res_blocks"],
        )
        self.factor = factor
        self.conv_in = nn.Conv2d(config["in_channels"] * factor**2, widths[0], 3, padding=1)
        self.body = nn.ModuleList(
            _Block(widths[max(0, i - 1)], width, layers, i > 0) for i, width in enumerate(widths)
        )

    def forward(self, x):
        x = self.conv_in(F.pixel_unshuffle(x, self.factor))
        features = []
        for block in self.body:
            x = block(x)
            features.append(x)
        return features


class T2IAdapter(nn.Module):
    """Condition [b, 1, s, s] in 0..1 to feature maps of s/8, s/16, s/32 and s/64."""

    def __init__(self, config):
        super().__init__()
        self.adapter = _Body(config)

    def forward(self, condition):
        return self.adapter(condition)


def strengthened(state, factor):
    """The weights of an adapter whose features are `factor` times as large (all else in it is linear or a ReLU)."""
    grows = lambda name: name.endswith(".bias") or name == "adapter.conv_in.weight"
    return {name: tensor * factor if grows(name) else tensor for name, tensor in state.items()}
