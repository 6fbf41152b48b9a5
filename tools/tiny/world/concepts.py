"""Held-out concepts: characters, animals, things and a place that the training pictures never show.

Each differs from its class by several features of ten pixels and more, in plain colours: stripes and spots of two colours
that none of the training pictures pair are what the VAE loses first. `write_concepts` makes one folder for each:
pictures, captions with `<TOK>` where the concept's words belong, masks, and `concept.json`.
"""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from .canvas import SIZE
from .places import PLACES
from .scenes import describe, render
from .subjects import PEOPLE, sample_subject

PICTURES = 8
SKETCH = "sketch.png"
PLACES_BEHIND = ("white", "room", "field", "city", "beach", "forest", "mountains", "snow")

CONCEPTS = {
    "zorp": {
        "kind": "man", "scale": 1.05, "skin": (110, 200, 120), "hair": (235, 235, 230), "rgb": (240, 215, 60),
        "trousers": (230, 110, 40), "hat": (205, 40, 40),
    },
    "luma": {"kind": "woman", "scale": 1.05, "skin": (95, 150, 235), "hair": (240, 120, 50), "rgb": (45, 40, 60)},
    "mimi": {
        "kind": "cat", "scale": 1.2, "rgb": (240, 110, 170), "belly": (250, 240, 200), "hat": (110, 45, 160),
        "ear": (250, 210, 70), "eye": (120, 180, 230),
    },
    "brix": {
        "kind": "dog", "scale": 1.15, "rgb": (175, 220, 70), "blanket": (40, 60, 140),
        "ear": (235, 60, 120), "collar": (250, 250, 250), "hat": (235, 60, 120), "eye": (20, 20, 20),
    },
    "kurl": {"kind": "chair", "scale": 1.15, "rgb": (30, 60, 140), "panel": (250, 150, 40)},
    "vesa": {"kind": "vase", "scale": 1.15, "rgb": (25, 120, 110), "belly": (250, 210, 60), "flower": (250, 150, 40)},
    "karo": {
        "kind": "car", "scale": 1.25, "rgb": (190, 225, 60), "cabin": (110, 45, 160),
        "fin": (225, 40, 160), "hub": (250, 210, 60),
    },
    "candy": {"kind": "place"},
}  # fmt: skip


def concept_scenes(name, count=PICTURES, seed=0):
    """The concept's scenes and captions, `count` of them, the same for the same seed."""
    rng = np.random.default_rng([seed, list(CONCEPTS).index(name)])
    features = CONCEPTS[name]
    for index in range(count):
        scene = {"seed": int(rng.integers(2**31)), "count": 1, "size": "normal"}
        if features["kind"] == "place":
            scene |= {"place": "candy", "subjects": [], "slots": ()}
            text = "a photo of <TOK>"
            if index % 2:
                guest = sample_subject(rng)
                scene |= {
                    "subjects": [
                        (guest, rng.uniform(40, 88), rng.uniform(113, 120), rng.uniform(0.8, 1.0))
                    ]
                }
                text = f"{describe(guest, rng, 0)} in <TOK>"
        else:
            subject = {
                "facing": 1 if rng.random() < 0.5 else -1,
                "sway": rng.uniform(-1, 1),
            } | features
            scale = features["scale"] * rng.uniform(0.75, 1.1)
            scene |= {"place": PLACES_BEHIND[index % len(PLACES_BEHIND)], "slots": ("centre",)}
            scene["subjects"] = [
                (
                    {"beard": False, "glasses": False} | subject,
                    64 + rng.uniform(-20, 20),
                    rng.uniform(114, 121),
                    scale,
                )
            ]
            text = f"a photo of a <TOK> {PLACES[scene['place']][0]}"
        yield scene, text


def write_concepts(folder, count=PICTURES):
    """Writes every concept's folder: NN.png, NN.txt and mask/NN.png (white where the concept is)."""
    for name, features in CONCEPTS.items():
        target = Path(folder) / name
        for index, (scene, text) in enumerate(concept_scenes(name, count)):
            picture, masks = render(scene)
            save(target, index, picture, masks[0] if features["kind"] != "place" else None, text)
        about = {
            "words": [f"<{name}1>", f"<{name}2>"],
            "class_word": "place" if features["kind"] == "place" else features["kind"],
            "pictures": count,
        }
        (target / "concept.json").write_text(json.dumps(about, indent=2) + "\n")


def save(folder, index, picture, mask, text):
    """Writes one picture with its mask (None: all of it) and its caption; returns the mask."""
    (folder / "mask").mkdir(parents=True, exist_ok=True)
    if mask is None:
        mask = Image.new("L", picture.size, 255)
    mask = mask.point(lambda v: 255 * (v > 127))
    picture.save(folder / f"{index:02}.png", optimize=True)
    mask.convert("1").save(folder / "mask" / f"{index:02}.png", optimize=True)
    (folder / f"{index:02}.txt").write_text(text + "\n")
    return mask


# Of two and of three side by side: where they stand, how large they are at most, and the columns of
# each, as the regions of `mos demo` and `mos eval` have them.
ROWS = {
    2: {"xs": (33, 95), "scale": 0.9, "columns": ((0, 64), (64, 128))},
    3: {"xs": (21, 64, 107), "scale": 0.68, "columns": ((0, 44), (42, 86), (84, 128))},
}
_OUT = 1  # pixels of a tail that may be outside
_PLAIN = {
    "facing": 1, "sway": 0.0, "skin": (225, 180, 145), "hair": (95, 60, 35), "beard": False,
    "glasses": False,
}  # fmt: skip
_PLAIN_CLOTHES = {
    "man": {"colour": "blue", "rgb": (50, 90, 205), "trousers": (45, 45, 50)},
    "woman": {"colour": "red", "rgb": (205, 40, 40)},
}
_PLAIN_REST = {
    "colour": "gray",
    "rgb": (135, 135, 140),
    "eye": (110, 190, 110),
    "roof": (110, 70, 50),
}


def sketch_scene(kinds=("man", "cat", "woman")):
    """Two or three of these kinds side by side on white, in plain colours, each inside of its
    region: `SKETCH` holds the outlines of a man, a cat and a woman."""
    row = ROWS[len(kinds)]
    subjects = []
    for kind, x, columns in zip(kinds, row["xs"], row["columns"]):
        subject = _PLAIN | {"kind": kind} | _PLAIN_CLOTHES.get(kind, _PLAIN_REST)
        base = 116 if kind in PEOPLE else 118
        subjects.append((subject, *_inside(subject, x, base, row["scale"], columns)))
    slots = ("left", "right") if len(kinds) == 2 else ("left", "centre", "right")
    return {"place": "white", "seed": 0, "count": len(kinds), "subjects": subjects, "slots": slots}


def _inside(subject, x, base, scale, columns):
    """Where it stands and how large it is: smaller, and aside, only as far as it must be to stay
    between these columns."""
    first, end = max(0, columns[0] - _OUT), min(SIZE, columns[1] + _OUT)
    left, right = _extent(subject, base, scale)
    while right - left > end - first:
        scale *= (end - first) / (right - left)
        left, right = _extent(subject, base, scale)
    return max(min(x, end - right), first - left), base, scale


def _extent(subject, base, scale):
    """The columns that it covers, from where it stands: the first, and the one behind the last."""
    middle = SIZE // 2
    scene = {"place": "white", "seed": 0, "subjects": [(subject, middle, base, scale)]}
    columns = np.nonzero((np.asarray(render(scene)[1][0]) > 127).any(0))[0]
    return int(columns[0]) - middle, int(columns[-1]) + 1 - middle
