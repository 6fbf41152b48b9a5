"""Colours from a continuous range, and the names that captions give them."""

import colorsys

import numpy as np

from .canvas import COLOURS, jitter, mixed, scaled

# Finer names than those of `COLOURS`: what is near one of them may be called so.
FINER = {
    "teal": (30, 130, 130), "magenta": (220, 40, 150), "cyan": (80, 205, 225),
    "lime": (170, 220, 60), "beige": (228, 208, 168), "gold": (215, 165, 45),
    "silver": (190, 192, 198), "violet": (95, 60, 150),
}  # fmt: skip
_TONED = ("red", "orange", "green", "blue", "purple", "pink", "brown", "gray")
_LIGHT = {f"light {name}": mixed(COLOURS[name], (255, 255, 255), 0.48) for name in _TONED}
_DARK = {f"dark {name}": scaled(COLOURS[name], 0.52) for name in _TONED}
_NEAR = 0.085  # in OKLab: the farthest that a colour may be from the one that a name stands for
_NEAR_PLAIN = 0.13  # for the plain names of `COLOURS`, which mean more


def oklab(colours):
    """RGB of 0..255 [..., 3] in OKLab (Ottosson 2020), where distances are about those that eyes
    see."""
    rgb = np.asarray(colours, np.float64) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    cones = linear @ np.array(
        [[0.4122214708, 0.2119034982, 0.0883024619],
         [0.5363325363, 0.6806995451, 0.2817188376],
         [0.0514459929, 0.1073969566, 0.6299787005]]
    )  # fmt: skip
    return np.cbrt(cones) @ np.array(
        [[0.2104542553, 1.9779984951, 0.0259040371],
         [0.7936177850, -2.4285922050, 0.7827717662],
         [-0.0040720468, 0.4505937099, -0.8086757660]]
    )  # fmt: skip


_PLAIN_AT = oklab(list(COLOURS.values()))
_FINE = COLOURS | FINER | _LIGHT | _DARK
_FINE_AT = oklab(list(_FINE.values()))


def any_colour(rng):
    """Any colour: strong ones more often than greys, for there are many more greys than eyes tell
    apart."""
    kind = rng.random()
    if kind < 0.2:
        return jitter(rng, list(COLOURS.values())[rng.integers(len(COLOURS))])
    if kind < 0.4:
        return tuple(int(c) for c in rng.integers(12, 250, 3))
    strength, light = 1 - 0.7 * rng.random() ** 1.3, 0.3 + 0.7 * rng.random() ** 0.7
    return tuple(int(250 * c) for c in colorsys.hsv_to_rgb(rng.random(), strength, light))


def plain_name(colour):
    """Which of `COLOURS` the colour is near to, or None."""
    distances = np.linalg.norm(_PLAIN_AT - oklab(colour), axis=1)
    nearest = int(distances.argmin())
    return list(COLOURS)[nearest] if distances[nearest] < _NEAR_PLAIN else None


def name_of(colour, rng):
    """What a caption may call the colour: a plain name or a finer one; None where none of them
    fits."""
    plain = plain_name(colour)
    if plain and rng.random() < 0.5:
        return plain
    distances = np.linalg.norm(_FINE_AT - oklab(colour), axis=1)
    nearest = int(distances.argmin())
    return list(_FINE)[nearest] if distances[nearest] < _NEAR else plain
