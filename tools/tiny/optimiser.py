"""Muon (Jordan et al. 2024): steps for matrices; all else is AdamW's.

A matrix's step is its gradient's momentum made orthogonal, scaled to the size that AdamW's steps have (0.2 an element,
Liu et al. 2025), so that one learning rate serves both. Convolutions are matrices of [out, in * height * width].
"""

import torch

_NEWTON_SCHULZ = ((4.0848, -6.8946, 2.9270), (3.9505, -6.3029, 2.6377), (3.7418, -5.5913, 2.3037), (2.8769, -3.1427, 1.2046), (2.8366, -3.0525, 1.2012))
_SMALLEST = 16


def is_matrix(parameter):
    """Whether the parameter's gradient is worth making orthogonal."""
    return parameter.ndim >= 2 and min(parameter.shape[0], parameter[0].numel()) >= _SMALLEST


def orthogonal(g):
    """The nearest semi-orthogonal matrix to `g`, about: five steps of a quintic Newton-Schulz iteration.

    All steps are polynomials of g g^T, so they are taken on that small square and applied to `g` once.
    """
    if g.shape[0] > g.shape[1]:
        return orthogonal(g.T).T
    g = g / (g.norm() + 1e-12)
    square = g @ g.T
    whole = None
    for a, b, c in _NEWTON_SCHULZ:
        q = b * square + c * (square @ square)
        q.diagonal().add_(a)
        whole = q if whole is None else q @ whole
        square = q @ square @ q
    return whole @ g


class Muon(torch.optim.Optimizer):
    """Steps for parameters that are matrices. Processes that train one model share the work: each makes the steps of its
    own part of the matrices, and `add_up` gives all of them the sums of a tensor over the processes."""

    def __init__(self, groups, lr, momentum=0.95, weight_decay=0.0, rank=0, workers=1, add_up=None):
        super().__init__(groups, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.rank, self.workers, self.add_up = rank, workers, add_up

    @torch.no_grad()
    def step(self):
        taken = [(p, group) for group in self.param_groups for p in group["params"] if p.grad is not None]
        steps = [torch.zeros_like(p).flatten(1) for p, _ in taken]
        # by cost, dearest first, dealt out in turn: every process finds the same order
        order = sorted(range(len(taken)), key=lambda i: (-min(steps[i].shape), -steps[i].numel(), i))
        for i in order[self.rank :: self.workers]:
            p, group = taken[i]
            state = self.state[p]
            if not state:
                state["momentum"] = torch.zeros_like(p)
            velocity = state["momentum"]
            velocity.lerp_(p.grad, 1 - group["momentum"])
            steps[i] = orthogonal(p.grad.lerp(velocity, group["momentum"]).flatten(1))
        if self.workers > 1:
            flat = torch.cat([s.flatten() for s in steps])
            self.add_up(flat)
            steps = [part.view_as(s) for part, s in zip(flat.split([s.numel() for s in steps]), steps)]
        for (p, group), step in zip(taken, steps):
            p.mul_(1 - group["lr"] * group["weight_decay"])
            p.add_(step.view_as(p), alpha=-group["lr"] * 0.2 * max(step.shape) ** 0.5)
