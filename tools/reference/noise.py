"""Writes tests/fixtures/noise.json: torch's CPU normal numbers and NumPy-computed Philox ones, to hold the generators against.

Every float is written as the bit pattern of its f32, so that the comparison can be exact. The checksum weighs the bit
patterns with odd numbers, so that no change of a single number goes unnoticed. Written on x86-64 with AVX2.
Philox: the counter layout is that of torch's CUDA kernel while one thread makes one number (see src/random/philox.rs).
"""

import json
import pathlib

import numpy as np
import torch

torch.set_num_threads(1)
OUT = pathlib.Path(__file__).parents[2] / "tests" / "fixtures" / "noise.json"
SIZES = [1, 2, 7, 15, 16, 17, 31, 33, 64, 4 * 16 * 16, 4 * 64 * 64 + 5]
SEEDS = [0, 1, 42, 2**31 - 1, 2**32 - 1, 2**32 + 7, 1234567890123456789]
KEPT = 40  # numbers kept at either end of a long draw


def bits(values):
    return [int(v) for v in np.asarray(values, dtype=np.float32).view(np.uint32)]


def digest(values):
    values = np.asarray(values, dtype=np.float32)
    head, tail = (
        (values, values[:0]) if len(values) <= 2 * KEPT else (values[:KEPT], values[-KEPT:])
    )
    weights = np.arange(1, len(values) + 1, dtype=np.float64) % 97
    return {
        "n": len(values),
        "head": bits(head),
        "tail": bits(tail),
        "sum": float(values.astype(np.float64).sum()),
        "weighted": float((values.astype(np.float64) * weights).sum()),
        "checksum": int(
            (
                values.view(np.uint32).astype(np.uint64)
                * (2 * np.arange(len(values), dtype=np.uint64) + 1)
            ).sum()
            % 2**32
        ),
    }


def torch_draws(seed, sizes):
    generator = torch.Generator("cpu").manual_seed(seed)
    return [digest(torch.randn(n, generator=generator).numpy()) for n in sizes]


def philox(seed, offset, n):
    """Philox4x32-10 (Salmon et al. 2011): counter (offset, 0, i, 0), key = seed; Box-Muller of the first two words."""
    counter = np.zeros((4, n), dtype=np.uint64)
    counter[0], counter[2] = offset, np.arange(n)
    key0, key1 = seed & 0xFFFFFFFF, seed >> 32
    mask = np.uint64(0xFFFFFFFF)
    for _ in range(10):
        a, b = counter[0] * np.uint64(0xD2511F53), counter[2] * np.uint64(0xCD9E8D57)
        counter = np.stack(
            [
                (b >> np.uint64(32)) ^ counter[1] ^ np.uint64(key0),
                b & mask,
                (a >> np.uint64(32)) ^ counter[3] ^ np.uint64(key1),
                a & mask,
            ]
        )
        key0, key1 = (key0 + 0x9E3779B9) & 0xFFFFFFFF, (key1 + 0xBB67AE85) & 0xFFFFFFFF
    u = counter[0].astype(np.float64) * 2.0**-32 + 2.0**-33
    v = (counter[1].astype(np.float64) * 2.0**-32 + 2.0**-33) * 2.0 * np.pi
    return (np.sqrt(-2.0 * np.log(u)) * np.sin(v)).astype(np.float32)


fixture = {
    "torch": [{"seed": str(s), "draws": torch_draws(s, [n])} for s in SEEDS for n in SIZES],
    # One generator, several draws: pairs kept from odd short draws, long draws between short ones,
    # a step's noise after the latents.
    "sequences": [
        {"seed": str(s), "draws": torch_draws(s, sizes)}
        for s in (7, 2**40 + 3)
        for sizes in (
            [1, 1, 1],
            [3, 16, 1, 2],
            [15, 17, 5, 64, 7],
            [1024, 1024, 1024],
            [5, 4 * 8 * 8, 5],
        )
    ],
    "philox": [
        {"seed": str(s), "draws": [digest(philox(s, k, n)) for k, n in enumerate(sizes)]}
        for s in (0, 1, 2**32 + 7)
        for sizes in ([12], [5, 12, 3], [4 * 64 * 64])
    ],
}
OUT.write_text(json.dumps(fixture, separators=(",", ":")) + "\n")
print(
    f"{OUT.name}: {OUT.stat().st_size} bytes; torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}"
)
