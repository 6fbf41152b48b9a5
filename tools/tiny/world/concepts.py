"""Held-out concepts: characters, animals, things and a place that the training pictures never show.

Each differs from its class by several features of ten pixels and more, in plain colours: stripes and spots of two colours
that none of the training pictures pair are what the VAE loses first. `write_concepts` makes one folder for each:
pictures, captions with `<TOK>` where the concept's words belong, masks, and `concept.json`.
"""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from .places import PLACES
from .scenes import describe, render
from .subjects import sample_subject

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


def sketch_scene():
    """A man, a cat and a woman side by side on white, as pictures of three have them: `SKETCH` holds their outlines."""
    plain = {
        "facing": 1,
        "sway": 0.0,
        "skin": (225, 180, 145),
        "hair": (95, 60, 35),
        "beard": False,
        "glasses": False,
    }
    man = plain | {"kind": "man", "colour": "blue", "rgb": (50, 90, 205), "trousers": (45, 45, 50)}
    cat = plain | {"kind": "cat", "colour": "gray", "rgb": (135, 135, 140), "eye": (110, 190, 110)}
    woman = plain | {"kind": "woman", "colour": "red", "rgb": (205, 40, 40)}
    subjects = [(man, 21, 116, 0.68), (cat, 64, 118, 0.68), (woman, 107, 116, 0.68)]
    return {
        "place": "white",
        "seed": 0,
        "count": 3,
        "subjects": subjects,
        "slots": ("left", "centre", "right"),
    }
