"""Muon (Jordan et al. 2024): steps for matrices; all else is AdamW's.

A matrix's step is its gradient's momentum made orthogonal, scaled to the size that AdamW's steps have (0.2 an element,
Liu et al. 2025), so that one learning rate serves both. Convolutions are matrices of [out, in * height * width].
"""

from collections import defaultdict

import torch

_NEWTON_SCHULZ = (
    (4.0848, -6.8946, 2.9270),
    (3.9505, -6.3029, 2.6377),
    (3.7418, -5.5913, 2.3037),
    (2.8769, -3.1427, 1.2046),
    (2.8366, -3.0525, 1.2012),
)
_SMALLEST = 16


def is_matrix(parameter):
    """Whether the parameter's gradient is worth making orthogonal."""
    return parameter.ndim >= 2 and min(parameter.shape[0], parameter[0].numel()) >= _SMALLEST


def orthogonal(g):
    """The nearest semi-orthogonal matrices to those of `g` [..., rows, columns], about: five steps of a quintic Newton-Schulz iteration.

    All steps are polynomials of g g^T, so they are taken on that small square and applied to `g` once.
    """
    if g.shape[-2] > g.shape[-1]:
        return orthogonal(g.mT).mT
    g = g / (g.norm(dim=(-2, -1), keepdim=True) + 1e-12)
    square = g @ g.mT
    whole = None
    for a, b, c in _NEWTON_SCHULZ:
        q = b * square + c * (square @ square)
        q.diagonal(dim1=-2, dim2=-1).add_(a)
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
        taken = [
            (p, group) for group in self.param_groups for p in group["params"] if p.grad is not None
        ]
        if not taken:
            return
        steps = (self._alike_at_once if taken[0][0].is_cuda else self._shared_out)(taken)
        torch._foreach_mul_(
            [p for p, _ in taken], [1 - group["lr"] * group["weight_decay"] for _, group in taken]
        )
        torch._foreach_mul_(
            steps,
            [-group["lr"] * 0.2 * max(step.shape) ** 0.5 for (_, group), step in zip(taken, steps)],
        )
        torch._foreach_add_(
            [p for p, _ in taken], [step.view_as(p) for (p, _), step in zip(taken, steps)]
        )

    def _ahead(self, taken):
        """Gradients with momentum, looking one step ahead, as matrices."""
        velocities = []
        for p, _ in taken:
            state = self.state[p]
            if not state:
                state["momentum"] = torch.zeros_like(p)
            velocities.append(state["momentum"])
        gradients = [p.grad for p, _ in taken]
        momentum = taken[0][1]["momentum"]
        torch._foreach_lerp_(velocities, gradients, 1 - momentum)
        return [g.reshape(len(g), -1) for g in torch._foreach_lerp(gradients, velocities, momentum)]

    def _alike_at_once(self, taken):
        """For GPUs, where hundreds of small products would cost more in launching than in arithmetic. PyTorch multiplies in full f32
        unless told otherwise, and must: steps that square a matrix five times turn the rounding of TF32 into numbers without end."""
        ahead = self._ahead(taken)
        alike = defaultdict(list)
        for i, g in enumerate(ahead):
            alike[g.shape].append(i)
        steps = [None] * len(ahead)
        for members in alike.values():
            for i, step in zip(members, orthogonal(torch.stack([ahead[i] for i in members]))):
                steps[i] = step
        return steps

    def _shared_out(self, taken):
        """By cost, dearest first, dealt out to the processes in turn: every process finds the same order."""
        steps = [torch.zeros_like(p).flatten(1) for p, _ in taken]
        order = sorted(
            range(len(taken)), key=lambda i: (-min(steps[i].shape), -steps[i].numel(), i)
        )
        mine = order[self.rank :: self.workers]
        for i, ahead in zip(mine, self._ahead([taken[i] for i in mine])):
            steps[i] = orthogonal(ahead)
        if self.workers > 1:
            flat = torch.cat([s.flatten() for s in steps])
            self.add_up(flat)
            steps = [
                part.view_as(s) for part, s in zip(flat.split([s.numel() for s in steps]), steps)
            ]
        return steps
