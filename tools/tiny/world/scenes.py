"""Scenes: which subjects stand where in which place, their pictures and their captions.

Everything is a function of a seed. `TRAIN`, `VALIDATION`, `PROMPTS` and `STRANGE_PROMPTS` are disjoint
ranges of seeds: pictures to learn from, pictures to measure on, and captions to sample with, of
plain scenes (natural colours, one to three subjects) and of strange ones (`gatherings`). The
pictures are of both.
"""

import numpy as np

from . import gatherings
from .canvas import COLOUR_NAMES, OVERSAMPLING, SIZE, Canvas, scaled
from .places import PLACE_NAMES, PLACES, TAUGHT_PLACES, WITHOUT_GROUND, draw_place
from .subjects import HEIGHT, KINDS, WIDE, draw_subject, sample_subject

TRAIN, VALIDATION, PROMPTS, STRANGE_PROMPTS = 10_000_000, 20_000_000, 30_000_000, 40_000_000
UNKNOWN = 255  # the label of what a classifier cannot be asked
_PLAIN = 0.3  # share of plain scenes among the pictures

PREFIXES = ("", "a photo of ", "a picture of ", "an image of ")
SLOTS = ("left", "centre", "right")


def sample_scene(rng):
    """A random plain scene: a dict with `place`, `seed`, `count` and `subjects` as (subject, x, base, scale)."""
    count = int(rng.choice([1, 2, 3], p=[0.6, 0.36, 0.04]))
    place = TAUGHT_PLACES[rng.integers(len(TAUGHT_PLACES))]
    scene = {"place": place, "seed": int(rng.integers(2**31)), "count": count}
    if count == 1:
        scene |= _single(rng)
    else:
        xs, near, far, low, high, move = (
            ((33, 95), 112, 122, 0.8, 1.0, 4)
            if count == 2
            else ((21, 64, 107), 110, 120, 0.58, 0.68, 2)
        )
        scene["subjects"] = [
            (
                sample_subject(rng),
                x + rng.uniform(-move, move),
                rng.uniform(near, far),
                rng.uniform(low, high),
            )
            for x in xs
        ]
        scene["slots"] = ("left", "right") if count == 2 else SLOTS
    return scene


def _single(rng):
    slot = SLOTS[rng.choice(3, p=[0.25, 0.5, 0.25])]
    size = ("normal", "big", "small")[rng.choice(3, p=[0.74, 0.14, 0.12])]
    x = {"centre": 64, "left": 34, "right": 94}[slot] + rng.uniform(-7, 7)
    scale = {
        "normal": rng.uniform(0.9, 1.15),
        "big": rng.uniform(1.45, 1.75),
        "small": rng.uniform(0.5, 0.62),
    }[size]
    subject = sample_subject(rng)
    base = rng.uniform(112, 122) - (8 if size == "small" else 0)
    if size == "big":
        slot, x = "centre", 64 + (x - 64) * (0.1 if subject["kind"] in WIDE else 0.25)
        height = (
            HEIGHT[subject["kind"]]
            * scale
            * (1.12 if subject.get("hat") or subject.get("flower") else 1)
        )
        base = max(rng.uniform(116, 128), height + rng.uniform(3, 10))
    elif subject["kind"] in WIDE:
        x = 64 + (x - 64) * 0.8
    return {"subjects": [(subject, x, base, scale)], "slots": (slot,), "size": size}


def render(scene, parts=False):
    """The scene's picture and the masks of its subjects (in the scene's order; what others hide stays in).

    With `parts`, a third value: the map of the parts whose colours are `Paint`s.
    """
    canvas = Canvas(SIZE)
    if parts:
        canvas.begin_parts()
    rng = np.random.default_rng(scene["seed"])
    draw_place(canvas, scene["place"], rng, scene.get("look"))
    masks = {}
    for index in sorted(range(len(scene["subjects"])), key=lambda i: scene["subjects"][i][2]):
        subject, x, base, scale = scene["subjects"][index]
        height = HEIGHT[subject["kind"]] * scale
        if scene["place"] not in WITHOUT_GROUND:
            _shadow(canvas, x, base, height)
        canvas.begin_mask()
        draw_subject(canvas, subject, x, base, height)
        masks[index] = canvas.end_mask()
    found = canvas.finished(), [masks[i] for i in range(len(masks))]
    return (*found, canvas.end_parts()) if parts else found


def _shadow(canvas, x, base, height):
    at = (int(np.clip(x, 0, SIZE - 1) * OVERSAMPLING), int(min(base, SIZE - 1) * OVERSAMPLING))
    canvas.ellipse(
        x, base, height * 0.28 + 4, 3 + height * 0.02, scaled(canvas.image.getpixel(at), 0.75)
    )


def _article(noun):
    return ("an " if noun[0] in "aeiou" else "a ") + noun


def describe(subject, rng, drop=0.1):
    """A noun phrase for the subject; each detail is left out with probability `drop`."""
    kind, pattern = subject["kind"], subject.get("pattern_name", "")
    pattern += " " if pattern else ""
    if kind in ("man", "woman"):
        text, extras = f"a {kind}", []
        if rng.random() > drop:
            text += f" with {subject['hair_name']} hair" + (
                " and a beard" if subject["beard"] else ""
            )
        if rng.random() > drop:
            verb = ("in", "wearing")[rng.integers(2)]
            text += f" {verb} {_article(pattern + subject['colour'])} {'shirt' if kind == 'man' else 'dress'}"
        if subject["glasses"]:
            extras.append("glasses")
        if subject.get("hat"):
            extras.append(f"{_article(subject['hat_name'])} hat")
        text += " with " + " and ".join(extras) if extras else ""
    else:
        colour = subject["colour"] + " " if rng.random() > drop or pattern else ""
        text = _article(pattern + colour + kind)
        if subject.get("hat"):
            text += f" wearing {_article(subject['hat_name'])} hat"
        if subject.get("flower"):
            text += f" with {subject['flower_name']} flowers"
    if subject.get("arms") == "raised":
        text += " with raised arms"
    elif subject.get("arms") == "waving":
        text += " waving"
    return text


def caption(scene, rng):
    """One of the many captions that fit the scene, and whether it says which side each subject is on."""
    if scene.get("strange"):
        return gatherings.caption(scene, rng, describe)
    phrases = [describe(s, rng) for s, *_ in scene["subjects"]]
    place = PLACES[scene["place"]]
    place = place[rng.integers(len(place))] if rng.random() > 0.08 else ""
    prefix = PREFIXES[rng.choice(4, p=[0.35, 0.4, 0.15, 0.1])]
    sided = False
    if scene["count"] == 1:
        text, size, slot = phrases[0], scene["size"], scene["slots"][0]
        if size == "big":
            prefix += "a close-up of " if not prefix or prefix.endswith("of ") else ""
        elif size == "small":
            text = ("a small ", "a tiny ")[rng.integers(2)] + text.split(" ", 1)[1]
        if slot != "centre" and rng.random() < 0.85:
            text, sided = text + (f" on the {slot}", f" on the {slot} side")[rng.integers(2)], True
        elif size == "normal" and slot == "centre" and rng.random() < 0.2:
            text, sided = text + " in the center", True
    elif scene["count"] == 2:
        form = rng.random()
        sided = form < 0.75
        if form < 0.6:
            text = f"{phrases[0]} on the left and {phrases[1]} on the right"
        elif form < 0.75:
            text = f"{phrases[1]} on the right and {phrases[0]} on the left"
        elif form < 0.88:
            text = f"{phrases[0]} and {phrases[1]}"
        else:
            text = f"{phrases[0]} next to {phrases[1]}"
    else:
        text = f"{phrases[0]}, {phrases[1]} and {phrases[2]}"
    return f"{prefix}{text} {place}".strip(), sided


def labels(scene):
    """What a classifier should see: place, then (kind + 1, colour) for left, centre and right; 0 is nobody.

    Of colours between the named ones, and of four in a row, it is asked nothing: `UNKNOWN`.
    """
    row = [PLACE_NAMES.index(scene["place"])] + [UNKNOWN if scene["count"] > 3 else 0] * 6
    for (subject, *_), slot in zip(scene["subjects"], scene["slots"]):
        at = 1 + 2 * SLOTS.index(slot)
        colour = subject["colour"]
        row[at] = KINDS.index(subject["kind"]) + 1
        row[at + 1] = COLOUR_NAMES.index(colour) if colour else UNKNOWN
    return row


def example(seed):
    """The scene of a seed together with the generator that its captions go on drawing from."""
    rng = np.random.default_rng(seed)
    plain = PROMPTS <= seed < STRANGE_PROMPTS
    if not plain and seed < STRANGE_PROMPTS:
        plain = rng.random() < _PLAIN
    return (sample_scene if plain else gatherings.sample)(rng), rng
