"""Places that are nowhere: sky, hills and plants in any colours and of a few shapes.

`sample_look` draws what such a place looks like, `draw_land` draws it (all else comes from the
generator), `describe` writes what captions say of it. A place that is taught later is one more
look.
"""

import math

import numpy as np

from .canvas import mixed, scaled
from .colours import any_colour, name_of

PLANTS = ("balls", "cones", "mushrooms", "cubes", "none")
PARTS = [("sky", "sky"), ("far", "hills"), ("near", "ground"), ("sun", "sun"), ("plant", "plants")]
_PLURAL = {"hills", "plants"}


def sample_look(rng):
    look = {key: any_colour(rng) for key, _ in PARTS}
    look["other"] = any_colour(rng)  # of every second plant
    look["haze"] = look["sky"] if rng.random() < 0.4 else mixed(look["sky"], any_colour(rng), 0.6)
    look["plants"] = PLANTS[rng.integers(len(PLANTS))]
    look["suns"] = int(rng.integers(0, 3))
    look["waves"] = rng.uniform(0.8, 2.6)
    return look


def draw_land(canvas, look, rng):
    """Draws the whole background; its colours and shapes are the look's."""
    size, u = canvas.size, rng.uniform
    horizon = u(60, 80)
    canvas.rectangle(0, 0, size, size, look["sky"])
    if tuple(look["haze"]) != tuple(look["sky"]):
        canvas.gradient(0, horizon + 8, look["sky"], look["haze"])
    for i in range(look["suns"]):
        x = (u(14, 40), u(80, 114))[(i + int(rng.integers(2))) % 2]
        canvas.ellipse(x, u(12, 22), 8, 8, look["sun"])
    _hills(canvas, horizon, 6, look["far"], look["waves"], u(0, 6))
    _hills(canvas, horizon + 17, 4, look["near"], 0.7 * look["waves"], u(0, 6))
    if look["plants"] == "none":
        return
    for i, x in enumerate((u(8, 22), u(44, 60), u(84, 100), u(112, 124))):
        y, tall = horizon + u(2, 8), u(26, 34)
        _plant(canvas, look["plants"], x, y, tall, look["plant"] if i % 2 == 0 else look["other"])


def _hills(canvas, top, height, colour, waves, phase):
    xs = np.linspace(0, canvas.size, 33)
    crest = [(x, top + height * math.sin(waves * 2 * math.pi * x / 128 + phase)) for x in xs]
    canvas.polygon([(0, canvas.size), *crest, (canvas.size, canvas.size)], colour)


def _plant(canvas, kind, x, y, tall, colour):
    stem = mixed(scaled(colour, 0.6), (250, 250, 250), 0.5)
    canvas.rectangle(x - 1.8, y - tall, x + 1.8, y, stem)
    if kind == "balls":
        canvas.ellipse(x, y - tall, 11, 11, colour)
    elif kind == "cones":
        canvas.polygon([(x - 11, y - 6), (x + 11, y - 6), (x, y - tall - 10)], colour)
    elif kind == "mushrooms":
        canvas.pie(x, y - tall + 8, 14, 16, 180, 360, colour)
    else:
        canvas.rectangle(x - 9, y - tall - 9, x + 9, y - tall + 9, colour)


def describe(look, rng):
    """`in a place`, and mostly a few of its parts by their colours."""
    text = ("in a place", "in a strange land", "in a land")[rng.integers(3)]
    named = []
    for key, noun in PARTS:
        missing = key == "sun" and look["suns"] == 0 or key == "plant" and look["plants"] == "none"
        if missing or key in ("sun", "plant") and rng.random() < 0.5:
            continue
        name = name_of(look[key], rng) if rng.random() < 0.55 else None
        if name:
            named.append(f"{name} {noun}" if noun in _PLURAL else f"a {name} {noun}")
    named = [n.replace("a orange", "an orange") for n in named[:3]]
    if not named:
        return text
    return text + " with " + (", ".join(named[:-1]) + " and " if len(named) > 1 else "") + named[-1]
