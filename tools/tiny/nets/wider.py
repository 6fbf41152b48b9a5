"""Weights of a network carried over to the same network with more channels.

Every channel of the wider network is a copy of one of the narrower's (Net2Net, Chen et al. 2016),
and what reads the copies shares the old weight between them, unevenly, so that they part company
when trained. Channels are spread in order, so that copies stay in the group (of a norm), the head
(of an attention) and the half (of a gate) of their original. Where all are copied equally often the
network computes what it did; where not, norms see slightly other means, which a few steps of
training mend. Beginning anew would cost the millions of samples behind the old weights.
"""

import torch

from .unet import timestep_embedding


def _copied(old, new):
    """Which old channel each new one is a copy of."""
    return torch.arange(new) * old // new


def _shares(origin, generator):
    """How much of the old weight each copy has: those of one original sum to 1."""
    raw = 0.5 + torch.rand(len(origin), generator=generator)
    total = torch.zeros(int(origin.max()) + 1).index_add_(0, origin, raw)
    return raw / total[origin]


def _joined(old_parts, new_parts):
    """`_copied` where a map is several, one after the other."""
    found, before = [], 0
    for old, new in zip(old_parts, new_parts):
        found.append(_copied(old, new) + before)
        before += old
    return torch.cat(found)


def _joints(settings):
    """The two parts of what each residual layer of the up blocks reads: {(block, layer): (from
    below, skip)}."""
    widths, layers = settings["block_out_channels"], settings["layers_per_block"]
    skips = [widths[0]]
    for i, width in enumerate(widths):
        skips += [width] * (layers + (i + 1 < len(widths)))
    joints, below = {}, widths[-1]
    for block, width in enumerate(reversed(widths)):
        for layer in range(layers + 1):
            joints[block, layer] = (below, skips.pop())
            below = width
    return joints


def widened(state, module, old, new, seed=0):
    """The `state` of a network of settings `old` for `module`, which has the settings `new`."""
    generator = torch.Generator().manual_seed(seed)
    target = module.state_dict()
    is_unet = "attention_head_dim" in new
    before, after = (_joints(s) if is_unet else {} for s in (old, new))
    found = {}
    for name, fresh in target.items():
        tensor, steps = state[name].float(), name.split(".")
        joint = None
        if is_unet and steps[0] == "up_blocks" and steps[2] == "resnets":
            if steps[4] in ("norm1", "conv1", "conv_shortcut"):
                joint = (int(steps[1]), int(steps[3]))
        inward = joint is not None and steps[4] == "norm1"
        if name == "time_embedding.linear_1.weight":
            tensor = _refitted(tensor, fresh.shape[1])
        origin = _copied(tensor.shape[0], fresh.shape[0])
        if inward:
            origin = _joined(before[joint], after[joint])
        tensor = tensor[origin]
        if steps[-2] == "to_q" and fresh.shape[0] != len(state[name]):
            # a product of queries and keys counts copies twice, and is divided by the root of the
            # head's width
            counts = torch.bincount(origin)[origin].float()
            factor = (fresh.shape[0] / len(state[name])) ** 0.5 / counts
            tensor = tensor * factor.view(-1, *[1] * (tensor.ndim - 1))
        if tensor.ndim > 1 and fresh.shape[1] != tensor.shape[1]:
            origin = _copied(tensor.shape[1], fresh.shape[1])
            if joint is not None:
                origin = _joined(before[joint], after[joint])
            shares = _shares(origin, generator).view(1, -1, *[1] * (tensor.ndim - 2))
            tensor = tensor[:, origin] * shares
        assert tensor.shape == fresh.shape, name
        found[name] = tensor.contiguous()
    return found


def _refitted(weight, width):
    """The time embedding's first matrix for more waves: what comes nearest to the old products over
    all timesteps."""
    steps = torch.arange(1000)
    old = timestep_embedding(steps, weight.shape[1]).double()
    new = timestep_embedding(steps, width).double()
    ridge = 1e-3 * torch.eye(width, dtype=torch.float64)
    solved = torch.linalg.solve(new.T @ new + ridge, new.T @ (old @ weight.double().T))
    return solved.T.float()
