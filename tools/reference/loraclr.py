"""LoRACLR's contrastive objective by PyTorch, for the tests of src/fusion/solve/loraclr.rs.

    python tools/reference/loraclr.py

Writes tests/fixtures/loraclr.json: inputs and low-rank changes of three concepts, a change D, the loss there and its gradient (by
autograd, from the layers' outputs themselves), and the least loss that PyTorch's L-BFGS finds from D.
"""

import json
import pathlib

import torch

OUT = pathlib.Path(__file__).resolve().parents[2] / "tests/fixtures/loraclr.json"
ROWS, WIDTH, LAYER_OUT, RANK = [7, 9, 6], 5, 6, 1
MARGIN, DECAY = 0.9, 0.001


def loss(base, inputs, changes, weights, change):
    total = 0
    for i, x in enumerate(inputs):
        merged = x @ (base + change).T
        outputs = [x @ (base + other).T for other in changes]
        wanted = (outputs[i] - x @ base.T).norm()
        distances = [(merged - output).pow(2).sum().clamp(min=1e-12 * wanted**2).sqrt() / wanted for output in outputs]
        nearest = min(distance for j, distance in enumerate(distances) if j != i)
        total = total + weights[i] * (distances[i] ** 2 + (MARGIN - nearest).clamp(min=0) ** 2)
    return total / weights.sum() + DECAY * change.pow(2).sum()


def main():
    generator = torch.Generator().manual_seed(5)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)
    base = draw(LAYER_OUT, WIDTH)
    ups, downs = [draw(LAYER_OUT, RANK) for _ in ROWS], [draw(RANK, WIDTH) for _ in ROWS]
    # Two that want nearly the same answers: there the margin acts.
    ups[1], downs[1] = ups[0] + 0.5 * ups[1], downs[0] + 0.5 * downs[1]
    inputs = [draw(rows, WIDTH).float().double() for rows in ROWS]
    weights = torch.tensor([1.0, 2.0, 1.0], dtype=torch.float64)
    changes = [up @ down for up, down in zip(ups, downs)]
    middle = torch.cat(ups, 1) @ draw(len(ROWS) * RANK, WIDTH) * 0.4
    change = middle.clone().requires_grad_()
    value = loss(base, inputs, changes, weights, change)
    value.backward()
    free = middle.clone().requires_grad_()
    search = torch.optim.LBFGS([free], max_iter=2000, line_search_fn="strong_wolfe", tolerance_grad=1e-12, tolerance_change=1e-14)

    def closure():
        search.zero_grad()
        found = loss(base, inputs, changes, weights, free)
        found.backward()
        return found

    search.step(closure)
    lists = lambda tensors: [tensor.tolist() for tensor in tensors]
    case = dict(
        margin=MARGIN,
        decay=DECAY,
        weights=weights.tolist(),
        inputs=lists(inputs),
        up=lists(ups),
        down=lists(downs),
        change=middle.tolist(),
        loss=value.item(),
        gradient=change.grad.tolist(),
        least=closure().item(),
    )
    print(case["loss"], case["least"])
    OUT.write_text(json.dumps(case, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
