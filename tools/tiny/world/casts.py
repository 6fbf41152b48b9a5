"""Random casts: eight strangers of a seed, which no training picture shows and nobody chose.

Two people, two animals, three things and a place, every part in a colour of its own from a
continuous range. Each folder is as those of `concepts`, and says besides what colours the parts
have (`concept.json`) and where they are (`parts/`), so that a picture drawn by a model can be
measured part by part.
"""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from . import lands, parts
from .canvas import Paint
from .colours import any_colour
from .concepts import PICTURES, PLACES_BEHIND, save
from .places import PLACES
from .scenes import describe, render
from .strangers import PARTS
from .subjects import sample_subject

_PEOPLE, _ANIMALS = ("man", "woman"), ("cat", "dog", "rabbit", "bird")
_THINGS = ("chair", "vase", "car", "house")
SCALES = {"man": 1.05, "woman": 1.05, "cat": 1.2, "dog": 1.15, "rabbit": 1.15, "bird": 1.25,
          "chair": 1.15, "vase": 1.15, "car": 1.3, "house": 1.1}  # fmt: skip
_FEATURES = (
    2,
    4,
)  # parts that not all of a kind have: at least and at most so many, as far as there are
_APART = 70  # of any two parts of a subject, in the channel that differs most, to be told apart
_TRIES = 400
_OWN = 900_000  # added to the seed: casts share no random numbers with scenes


def draw_cast(seed):
    """The cast of a seed: {name: features}."""
    rng = np.random.default_rng([_OWN, seed])
    kinds = [*_PEOPLE, *rng.permutation(_ANIMALS)[:2], *rng.permutation(_THINGS)[:3], "place"]
    cast = {}
    for kind in map(str, kinds):
        name = _name(rng, cast)
        cast[name] = _place(rng) if kind == "place" else draw_stranger(rng, kind)
    return cast


def _noun(kind, key):
    """What captions call a part."""
    nouns = dict(lands.PARTS) if kind == "place" else {k: noun for k, noun, _ in PARTS[kind]}
    return nouns.get(key, "other plants") or "body"


def _name(rng, taken):
    """Two syllables, which are no word of anything."""
    while True:
        letters = [("bdfgklmnprstvz", "aeiou")[i % 2] for i in range(4)]
        name = (
            "".join(group[rng.integers(len(group))] for group in letters) + "qxj"[rng.integers(3)]
        )
        if name not in taken:
            return name


def _colours(rng, count):
    """So many colours, far from each other."""
    for _ in range(_TRIES):
        found = []
        while len(found) < count:
            for _ in range(_TRIES):
                colour = any_colour(rng)
                if all(max(abs(a - b) for a, b in zip(colour, other)) >= _APART for other in found):
                    found.append(colour)
                    break
            else:
                break
        if len(found) == count:
            return found
    raise ValueError(f"no {count} colours that far apart")


def draw_stranger(rng, kind):
    """A subject's features: every part in a colour of its own."""
    own = [key for key, _, given in PARTS[kind] if given == 1]
    extra = [key for key, _, given in PARTS[kind] if given < 1]
    most = min(_FEATURES[1], len(extra))
    count = int(rng.integers(min(_FEATURES[0], most), most + 1))
    chosen = {extra[i] for i in rng.permutation(len(extra))[:count]}
    keys = [key for key, _, _ in PARTS[kind] if key in own or key in chosen]
    features = {"kind": kind, "scale": SCALES[kind]}
    return features | dict(zip(keys, _colours(rng, len(keys))))


def _place(rng):
    while True:
        look = lands.sample_look(rng)
        if look["plants"] != "none" and look["suns"]:
            break
    keys = [key for key, _ in lands.PARTS] + ["other"]
    look |= dict(zip(keys, _colours(rng, len(keys))))
    return {"kind": "place", "look": look | {"haze": look["sky"]}}


def cast_scenes(features, seed, index, count=PICTURES):
    """The scenes and captions of a member of a cast; `seed` and `index` say which. As
    `concepts.concept_scenes` has them."""
    rng = np.random.default_rng([_OWN, seed, index])
    for at in range(count):
        scene = {"seed": int(rng.integers(2**31)), "count": 1, "size": "normal"}
        if features["kind"] == "place":
            scene |= {"place": "land", "look": features["look"], "subjects": [], "slots": ()}
            text = "a photo of <TOK>"
            if at % 2:
                guest, x, base = sample_subject(rng), rng.uniform(40, 88), rng.uniform(113, 120)
                scene["subjects"] = [(guest, x, base, rng.uniform(0.8, 1.0))]
                text = f"{describe(guest, rng, 0)} in <TOK>"
        else:
            facing, sway = 1 if rng.random() < 0.5 else -1, rng.uniform(-1, 1)
            subject = {"facing": facing, "sway": sway, "beard": False, "glasses": False} | features
            scale = features["scale"] * rng.uniform(0.75, 1.1)
            x, base = 64 + rng.uniform(-20, 20), rng.uniform(114, 121)
            scene |= {"place": PLACES_BEHIND[at % len(PLACES_BEHIND)], "slots": ("centre",)}
            scene["subjects"] = [(subject, x, base, scale)]
            text = f"a photo of a <TOK> {PLACES[scene['place']][0]}"
        yield scene, text


def numbered(features, scene):
    """The scene with the parts of `features` numbered from 1, and {number: (name, colour)}."""
    if features["kind"] != "place":
        ((subject, *where),) = scene["subjects"]
        subject, colours = parts.number(subject)
        return scene | {"subjects": [(subject, *where)]}, colours
    look, colours = dict(features["look"]), {}
    for key in [key for key, _ in lands.PARTS] + ["other"]:
        colours[len(colours) + 1] = (key, look[key])
        look[key] = Paint(look[key], len(colours))
    return scene | {"look": look | {"haze": look["sky"]}}, colours


def write_cast(folder, seed, count=PICTURES):
    """Writes the eight folders of a cast, and `cast.json` with their names."""
    cast = draw_cast(seed)
    for index, (name, features) in enumerate(cast.items()):
        target = Path(folder) / name
        (target / "parts").mkdir(parents=True, exist_ok=True)
        shares = []
        for at, (scene, text) in enumerate(cast_scenes(features, seed, index, count)):
            scene, colours = numbered(features, scene)
            picture, masks, where = render(scene, parts=True)
            mask = masks[0] if features["kind"] != "place" else None
            mask = save(target, at, picture, mask, text)
            Image.fromarray(where).save(target / "parts" / f"{at:02}.png", optimize=True)
            pixels = np.asarray(mask) > 127
            shares.append([(where[pixels] == part).mean() for part in colours])
        kind = features["kind"]
        words = [f"<{name}1>", f"<{name}2>"]
        about = {"words": words, "class_word": kind, "pictures": count, "parts": [
            {"number": part, "name": _noun(kind, key), "colour": list(colour),
             "share": round(float(share), 4)}
            for (part, (key, colour)), share in zip(colours.items(), np.mean(shares, axis=0))
        ]}  # fmt: skip
        (target / "concept.json").write_text(json.dumps(about, indent=2) + "\n")
    names = {"seed": seed, "concepts": list(cast)}
    (Path(folder) / "cast.json").write_text(json.dumps(names, indent=2) + "\n")
