"""How long (processor time) the published solver takes for 14 concepts at Stable Diffusion 1.5's attention shapes, on the statistics' own size.

    python tools/reference/fusion_speed.py FOLDER [threads]

Makes one problem for each shape in FOLDER (sums of outer products of made-up inputs whose spectrum falls off, updates of rank 4), solves it
with torch's L-BFGS as published, and prints time and residual for each layer, and the time for all layers of that shape.
`tests/fusion/speed.rs` solves the same files directly.
"""

import pathlib
import sys
import time

import torch
from safetensors.torch import save_file

CONCEPTS, RANK = 14, 4
# name: inputs, outputs of each layer, iterations, how many such groups of layers the model has
SHAPES = {
    "text-qkv-768": (768, [768] * 3, 500, 12),
    "cross-kv-1280": (768, [1280] * 2, 500, 6),
    "spatial-qkv-320": (320, [320] * 3, 50, 5),
    "spatial-qkv-640": (640, [640] * 3, 50, 5),
    "spatial-qkv-1280": (1280, [1280] * 3, 50, 6),
    "spatial-out-1280": (1280, [1280], 50, 18),
}


def make(path, width, outs):
    generator = torch.Generator().manual_seed(width)
    normal = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)
    common, tensors = torch.linalg.qr(normal(width, width))[0], {}
    for i in range(CONCEPTS):
        # A spectrum like that of features: each concept has directions of its own within the common
        # ones.
        inputs = (
            normal(2 * width, width)
            * torch.arange(1, width + 1, dtype=torch.float64) ** -1.0
            @ (common + 0.3 * normal(width, width) / width**0.5)
        )
        tensors[f"gram.{i}"] = inputs.T @ inputs
        for layer, out in enumerate(outs):
            tensors[f"layer.{layer}.down.{i}"] = normal(RANK, width) / width**0.5
            tensors[f"layer.{layer}.up.{i}"] = normal(out, RANK) * 0.1
    save_file(tensors, path)
    return tensors


def published(gram, target, energy, count, iterations, dtype):
    gram, target = gram.to(dtype), target.to(dtype)
    change = torch.zeros_like(target).requires_grad_(True)
    optimiser = torch.optim.LBFGS(
        [change],
        lr=1,
        max_iter=iterations,
        history_size=25,
        line_search_fn="strong_wolfe",
        tolerance_grad=1e-16,
        tolerance_change=1e-16,
    )
    best = [float("inf"), None]

    def closure():
        optimiser.zero_grad()
        loss = (((change @ gram - 2 * target) * change).sum() + energy) / count
        if loss.item() < best[0]:
            best[:] = [loss.item(), change.detach().clone()]
        loss.backward()
        return loss

    start = time.process_time()
    optimiser.step(closure)
    return time.process_time() - start, best[1].double()


def main():
    folder, threads = pathlib.Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 2
    only = sys.argv[3:] or list(SHAPES)
    torch.set_num_threads(threads)
    folder.mkdir(parents=True, exist_ok=True)
    total = 0.0
    for name in only:
        width, outs, iterations, groups = SHAPES[name]
        tensors = make(folder / f"{name}.safetensors", width, outs)
        grams = [tensors[f"gram.{i}"] for i in range(CONCEPTS)]
        gram, seconds = sum(grams), 0.0
        for layer, out in enumerate(outs):
            changes = [
                tensors[f"layer.{layer}.up.{i}"] @ tensors[f"layer.{layer}.down.{i}"]
                for i in range(CONCEPTS)
            ]
            target = sum(c @ g for c, g in zip(changes, grams))
            energy = sum(((c @ g) * c).sum() for c, g in zip(changes, grams)).item()
            count = CONCEPTS * 2 * width * out
            if layer == 0:
                took, found = published(gram, target, energy, count, iterations, torch.float32)
                left = (((found @ gram - 2 * target) * found).sum().item() + energy) / energy
                print(f"{name}.{layer}: f32 {took:.2f} s, residual {left:.6e}", flush=True)
                double, found = published(gram, target, energy, count, iterations, torch.float64)
                left = (((found @ gram - 2 * target) * found).sum().item() + energy) / energy
                print(f"{name}.{layer}: f64 {double:.2f} s, residual {left:.6e}", flush=True)
            seconds += took
        print(
            f"{name}: {seconds:.1f} s (f32) for its {len(outs)} layers, {seconds * groups:.0f} s for all {groups} such groups",
            flush=True,
        )
        total += seconds * groups
    print(f"all: {total:.0f} s")


if __name__ == "__main__":
    main()
