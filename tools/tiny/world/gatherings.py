"""One to four strangers anywhere: the scenes that make up most of the training world, and their
captions.

Stable Diffusion has seen everything on everything. So here subjects come in any colours
(`strangers`), larger than those of plain scenes, up to four together, in the world's places and in
such as are nowhere (`lands`).
"""

from . import lands
from .places import PLACES, TAUGHT_PLACES
from .strangers import describe, sample_stranger
from .subjects import HEIGHT, WIDE, sample_subject

_ROWS = {  # by how many there are: where they stand, how far apart in depth, how large
    2: ((33, 95), (112, 123), (0.8, 1.08), 4),
    3: ((21, 64, 107), (110, 121), (0.58, 0.76), 2),
    4: ((16, 48, 80, 112), (108, 120), (0.47, 0.6), 2),
}
_TOLD = {1: 6, 2: 3, 3: 2, 4: 1}  # parts that a caption names of each: what fits into 77 tokens
SIDES = ("on the left", "in the center", "on the right")


def sample_one(rng):
    """A subject, strange or now and then plain."""
    return sample_subject(rng) if rng.random() < 0.2 else sample_stranger(rng)


def sample(rng):
    """A scene as those of `scenes`, `strange`."""
    count = int(rng.choice([1, 2, 3, 4], p=[0.5, 0.32, 0.11, 0.07]))
    scene = {"strange": True, "seed": int(rng.integers(2**31)), "count": count}
    if rng.random() < 0.15:
        scene |= {"place": "land", "look": lands.sample_look(rng)}
    else:
        scene["place"] = TAUGHT_PLACES[rng.integers(len(TAUGHT_PLACES))]
    if count == 1:
        return scene | _single(rng)
    xs, depth, sizes, move = _ROWS[count]
    scene["subjects"] = []
    for x in xs:
        subject, scale = sample_one(rng), rng.uniform(*sizes)
        if HEIGHT[subject["kind"]] < 75 and subject["kind"] not in WIDE:
            scale *= rng.uniform(1.0, 1.25)
        place = (x + rng.uniform(-move, move), rng.uniform(*depth), scale)
        scene["subjects"].append((subject, *place))
    scene["slots"] = {2: ("left", "right"), 3: ("left", "centre", "right"), 4: ()}[count]
    return scene


def _single(rng):
    subject = sample_one(rng)
    slot = ("left", "centre", "right")[rng.choice(3, p=[0.25, 0.5, 0.25])]
    size = ("normal", "big", "small")[rng.choice(3, p=[0.72, 0.2, 0.08])]
    x = {"centre": 64, "left": 34, "right": 94}[slot] + rng.uniform(-8, 8)
    wide = subject["kind"] in WIDE
    if size == "small":
        scale, base = rng.uniform(0.5, 0.65), rng.uniform(104, 116)
    elif size == "normal":
        scale, base = rng.uniform(0.9, 1.2), rng.uniform(112, 123)
        scale *= rng.uniform(1.0, 1.3) if HEIGHT[subject["kind"]] < 75 else 1.0
        x = 64 + (x - 64) * (0.65 if wide else 0.9)
    else:
        scale = rng.uniform(1.4, 1.8)
        topped = subject.get("hat") or subject.get("flower")
        height = HEIGHT[subject["kind"]] * scale * (1.12 if topped else 1)
        slot, x = "centre", 64 + (x - 64) * (0.1 if wide else 0.25)
        base = max(rng.uniform(116, 128), height + rng.uniform(3, 10))
    return {"subjects": [(subject, x, base, scale)], "slots": (slot,), "size": size}


def caption(scene, rng, plain):
    """As `scenes.caption`; `plain` describes the subjects that are not strange."""
    count = scene["count"]
    phrases = []
    for subject, *_ in scene["subjects"]:
        if subject.get("strange"):
            phrases.append(describe(subject, rng, _TOLD[count]))
        elif count > 2:
            phrases.append(plain(subject, rng, 0.6))
        else:
            phrases.append(plain(subject, rng))
    sided = False
    if count == 1:
        text, size, slot = phrases[0], scene["size"], scene["slots"][0]
        if size == "big" and rng.random() < 0.7:
            text = "a close-up of " + text
        elif size == "small":
            text = ("a small ", "a tiny ")[rng.integers(2)] + text.split(" ", 1)[1]
        if slot != "centre" and rng.random() < 0.8:
            text, sided = text + (f" on the {slot}", f" on the {slot} side")[rng.integers(2)], True
        elif size == "normal" and slot == "centre" and rng.random() < 0.15:
            text, sided = text + " in the center", True
    elif count in (2, 3) and rng.random() < 0.6:
        sides = SIDES if count == 3 else SIDES[::2]
        order = rng.permutation(count) if rng.random() < 0.3 else range(count)
        parts = [f"{phrases[i]} {sides[i]}" for i in order]
        text, sided = ", ".join(parts[:-1]) + " and " + parts[-1], True
    elif count == 2 and rng.random() < 0.4:
        text = f"{phrases[0]} next to {phrases[1]}"
    else:
        text = ", ".join(phrases[:-1]) + " and " + phrases[-1]
    place = ""
    if rng.random() > 0.08:
        if scene["place"] == "land":
            place = lands.describe(scene["look"], rng)
        else:
            place = PLACES[scene["place"]][rng.integers(len(PLACES[scene["place"]]))]
    prefix = ("", "a photo of ", "a picture of ", "an image of ")[
        rng.choice(4, p=[0.35, 0.4, 0.15, 0.1])
    ]
    return f"{prefix}{text} {place}".strip(), sided
