"""Parts of subjects and their colours: where they are in a picture, and how far their colours are
from those meant.

`number` makes the colours of scenes' parts countable, `rendered` draws a scene with its map of
parts. `seen` measures a picture against a map (pictures that were taught, and what an autoencoder
makes of them); `likely` measures one that has no map, because a model drew it.
"""

import numpy as np

from .canvas import Paint
from .scenes import render
from .strangers import PARTS

SMALLEST = 64  # pixels: eight by eight; what has fewer is not measured
_FEWEST_PIXELS = 8


def number(subject, first=1):
    """The subject with its parts numbered from `first` on, and their colours by number."""
    painted, colours = dict(subject), {}
    for key, _, _ in PARTS.get(subject["kind"], ()):
        if subject.get(key) and (key != "rgb" or not subject.get("pattern")):
            colours[first + len(colours)] = (key, tuple(int(c) for c in subject[key]))
            painted[key] = Paint(subject[key], first + len(colours) - 1)
    return painted, colours


def rendered(scene):
    """The picture of a scene, the map of the parts of its subjects, and {number: colour}."""
    painted, colours = [], {}
    for subject, *where in scene["subjects"]:
        subject, more = number(subject, 1 + len(colours))
        painted.append((subject, *where))
        colours |= {n: colour for n, (_, colour) in more.items()}
    picture, _, where = render(scene | {"subjects": painted}, parts=True)
    return np.asarray(picture), where, colours


def seen(picture, where, colours):
    """{number: distance} in 0..255 of each part of `SMALLEST` pixels or more: its median colour in
    the picture against its own, the channel that differs most."""
    found = {}
    for part, colour in colours.items():
        inside = picture[where == part]
        if len(inside) >= SMALLEST:
            found[part] = float(np.abs(np.median(inside, axis=0) - colour).max())
    return found


def likely(pixels, colours, shares):
    """{name: distance} of parts that may be anywhere among `pixels` [n, 3], those of one figure and
    what is around it.

    `shares` says what part of the pixels each covered where it was taught. If a part is there in
    its own colour, then half as many pixels as it covers are near that colour: so its distance is
    that of the pixel at that place when all are sorted by distance, in the channel that differs
    most. A part that is missing, or has another colour, takes the nearest colour that there is
    enough of. Nothing has to be found or clustered, and a taught picture measures the few units
    that its edges and tones make.
    """
    found = {}
    for name, colour in colours.items():
        distances = np.sort(np.abs(pixels.astype(np.float64) - colour).max(1))
        rank = max(_FEWEST_PIXELS, round(0.5 * shares[name] * len(pixels)))
        found[name] = float(distances[min(rank, len(distances) - 1)])
    return found
