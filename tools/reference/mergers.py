"""Merged changes by peft's own functions, for the tests of src/fusion/solve/merge.rs.

    python tools/reference/mergers.py

Takes peft==0.21.2. Writes tests/fixtures/mergers.json: low-rank changes of three concepts, which of their numbers are kept at random,
and what sums, TIES and DARE make of them.
"""

import json
import pathlib

import torch
from peft.utils import merge_utils

OUT = pathlib.Path(__file__).resolve().parents[2] / "tests/fixtures/mergers.json"
DENSITY = 0.4


def main():
    generator = torch.Generator().manual_seed(3)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)
    ups, downs = [draw(6, 2) for _ in range(3)], [draw(2, 5) for _ in range(3)]
    weights = torch.tensor([1.0, 2.0, 1.0], dtype=torch.float64)
    changes = [up @ down for up, down in zip(ups, downs)]
    kept = [(torch.rand(6, 5, generator=generator) < DENSITY).double() for _ in changes]
    drawn = iter(kept)
    torch.bernoulli = lambda _: next(drawn)
    found = dict(
        sum=merge_utils.task_arithmetic(changes, weights),
        ties=merge_utils.ties(changes, weights, DENSITY),
        dare=merge_utils.dare_linear(changes, weights, DENSITY),
    )
    lists = lambda tensors: [tensor.tolist() for tensor in tensors]
    case = dict(
        density=DENSITY,
        weights=weights.tolist(),
        up=lists(ups),
        down=lists(downs),
        kept=lists(kept),
        **{name: value.tolist() for name, value in found.items()},
    )
    OUT.write_text(json.dumps(case, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
