"""Numbers that Python and Rust can both make without a file: a tensor is a function of its name and its shape.

u(name, i) = splitmix64(fnv1a64(name) + i) mapped to [-1, 1) in steps of 2^-23; element i counts in C order of the shape.
    two or more dimensions    u * sqrt(3 / fan_in), fan_in the product of all dimensions but the first
    one dimension, "*.weight" 1 + 0.1 u     (norms)
    one dimension, otherwise  0.1 u         (biases, class embeddings)
    names "input:*"           u
Computed in f64 and rounded once to f32, so that both sides get the same bits. The same in Rust is `tests/common/hashed.rs`.
"""

import math

import numpy as np
import torch


def fnv1a64(text):
    h = 0xCBF29CE484222325
    for byte in text.encode():
        h = ((h ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return h


def uniform(name, count):
    """`count` numbers in [-1, 1) as f64."""
    with np.errstate(over="ignore"):
        z = (
            np.arange(count, dtype=np.uint64)
            + np.uint64(fnv1a64(name))
            + np.uint64(0x9E3779B97F4A7C15)
        )
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(40)).astype(np.float64) / 2.0**24 * 2.0 - 1.0


def tensor(name, shape):
    """The f32 tensor that `name` and `shape` stand for."""
    count = math.prod(shape)
    u = uniform(name, count)
    if name.startswith("input:"):
        values = u
    elif len(shape) >= 2:
        values = u * math.sqrt(3.0 / (count // shape[0]))
    elif name.endswith(".weight"):
        values = 1.0 + 0.1 * u
    else:
        values = 0.1 * u
    return torch.from_numpy(values.astype(np.float32).reshape(shape))


def picture(name, batch, height, width, channels):
    """An input counted in [batch, height, width, channels] order, as the [batch, channels, height, width] torch wants."""
    return tensor(name, (batch, height, width, channels)).permute(0, 3, 1, 2).contiguous()


def fill(module):
    """Gives every parameter of a torch module its hashed values."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(tensor(name, tuple(parameter.shape)))
    return module.eval()
