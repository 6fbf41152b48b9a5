"""What stands in a picture: people, animals and things, each drawn with a `Pen` in units of its own height.

A subject is a dict made by `sample_subject`: `kind`, `facing`, `rgb` and the names that its caption needs; what a
kind does not draw is ignored. Concepts (see `concepts`) are the same dicts with features that no sample has.
"""

from .canvas import COLOUR_NAMES, COLOURS, Pattern, Pen, jitter, mixed, scaled, shade

PEOPLE = ("man", "woman", "robot")
ANIMALS = ("cat", "dog", "rabbit", "bird", "fish")
THINGS = ("chair", "vase", "car", "house", "ball", "table", "tree", "lamp", "cup")
KINDS = PEOPLE + ANIMALS + THINGS
# How often each is drawn. Kinds without a weight are drawn only when asked for: two processor cores
# cannot learn all.
_WEIGHTS = {
    "man": 0.17, "woman": 0.17, "robot": 0.05, "cat": 0.11, "dog": 0.11, "rabbit": 0.06, "bird": 0.05,
    "chair": 0.06, "vase": 0.06, "car": 0.06, "house": 0.04, "ball": 0.03, "tree": 0.03,
}  # fmt: skip

HAIR = {
    "black": (30, 28, 30),
    "brown": (95, 60, 35),
    "blonde": (230, 200, 110),
    "red": (175, 65, 35),
    "gray": (150, 150, 150),
    "white": (235, 235, 230),
}
SKIN = [(245, 210, 180), (225, 180, 145), (190, 135, 95), (140, 95, 65), (100, 65, 45)]
PATTERNS = {"striped": ("rows", "columns"), "spotted": ("spots",), "checkered": ("checks",)}
_PATTERNED = {
    "man",
    "woman",
    "cat",
    "dog",
    "rabbit",
    "fish",
    "chair",
    "vase",
    "ball",
    "cup",
    "lamp",
}
_HATTED = {"man", "woman", "cat", "dog", "rabbit"}

# height in pixels at scale 1, and the drawing's own height in units
HEIGHT = {
    "man": 92, "woman": 92, "robot": 86, "cat": 68, "dog": 60, "rabbit": 68, "bird": 54, "fish": 42,
    "chair": 62, "vase": 60, "car": 42, "house": 70, "ball": 42, "table": 44, "tree": 86, "lamp": 74, "cup": 44,
}  # fmt: skip
_UNITS = {
    "man": 100, "woman": 100, "robot": 100, "cat": 60, "dog": 60, "rabbit": 60, "bird": 60, "fish": 40,
    "chair": 60, "vase": 60, "car": 40, "house": 60, "ball": 45, "table": 40, "tree": 100, "lamp": 80, "cup": 40,
}  # fmt: skip
WIDE = {"dog", "car", "house", "table", "fish"}


def _pick(rng, options):
    return options[rng.integers(len(options))]


def sample_subject(rng, kind=None):
    """A random subject of the training world."""
    kind = kind or list(_WEIGHTS)[rng.choice(len(_WEIGHTS), p=list(_WEIGHTS.values()))]
    s = {
        "kind": kind,
        "facing": 1 if rng.random() < 0.5 else -1,
        "colour": _pick(rng, COLOUR_NAMES),
    }
    if kind in ("man", "woman"):
        s["hair_name"] = _pick(rng, list(HAIR))
        s["hair"] = jitter(rng, HAIR[s["hair_name"]], 8)
        s["skin"] = jitter(rng, _pick(rng, SKIN), 6)
        s["trousers"] = jitter(
            rng, _pick(rng, [(50, 60, 110), (45, 45, 50), (130, 110, 80), (90, 90, 95)]), 8
        )
        s["beard"] = kind == "man" and rng.random() < 0.15
        s["glasses"] = rng.random() < 0.15
    if kind in PEOPLE:
        s["sway"] = rng.uniform(-1, 1)
        s["arms"] = ("down", "raised", "waving")[rng.choice(3, p=[0.9, 0.05, 0.05])]
    if kind in ANIMALS:
        if kind != "fish" and rng.random() < 0.5:
            s["colour"] = _pick(rng, ["black", "white", "gray", "orange", "brown"])
        s["eye"] = _pick(rng, [(200, 210, 70), (110, 190, 110), (120, 180, 230)])
    if kind == "vase" and rng.random() < 0.5:
        s["flower_name"] = _pick(rng, ["red", "yellow", "pink", "white", "purple"])
        s["flower"] = jitter(rng, COLOURS[s["flower_name"]])
    if kind == "house":
        s["roof"] = jitter(rng, _pick(rng, [(150, 70, 50), (90, 90, 100), (110, 70, 50)]))
    if kind == "tree" and rng.random() < 0.5:
        s["colour"] = "green"
    s["rgb"] = jitter(rng, COLOURS[s["colour"]])
    if kind in _HATTED and rng.random() < 0.12:
        s["hat_name"] = _pick(rng, COLOUR_NAMES)
        s["hat"] = jitter(rng, COLOURS[s["hat_name"]])
    if kind in _PATTERNED and rng.random() < 0.15:
        s["pattern_name"] = list(PATTERNS)[rng.choice(3, p=[0.45, 0.4, 0.15])]
        second = (245, 245, 242) if s["colour"] not in ("white", "yellow") else (40, 40, 45)
        s["pattern"] = Pattern(_pick(rng, PATTERNS[s["pattern_name"]]), second, rng.uniform(11, 14))
    return s


def draw_subject(canvas, subject, x, base, height):
    """Draws the subject standing at (x, base), `height` pixels tall without hats, ears and antennae."""
    kind = subject["kind"]
    _DRAW[kind](Pen(canvas, x, base, height / _UNITS[kind], subject["facing"]), subject)


def _hat(p, s, x, y, r, unit=1.0):
    if s.get("hat"):
        p.box(x - r * 0.62, y - unit, x + r * 0.62, y + 13 * unit, s["hat"], radius=2.5 * unit)
        p.ellipse(x, y - unit, r * 1.15, 3.2 * unit, scaled(s["hat"], 0.85))


def _eye(p, x, y, r, white, pupil):
    """An eye of half-width `r`: what a picture of a face is told by, so it is never small."""
    p.ellipse(x, y, r, r * 1.15, white)
    p.ellipse(x, y - 0.08 * r, r * 0.66, r * 0.8, pupil)


def _arms(p, s, sleeve, hand, shoulder=51):
    pose, sway = s.get("arms", "down"), s.get("sway", 0.0)
    for side in (-1, 1):
        if pose == "raised" or (pose == "waving" and side > 0):
            elbow, palm = (
                (side * 26, shoulder + 3 + 2 * sway),
                (side * 29, shoulder + 17 + 2 * sway),
            )
        else:
            elbow, palm = (side * 18, shoulder - 10), (side * 22, shoulder - 21 - side * sway * 6)
        p.line([(side * 12, shoulder), elbow, palm], sleeve, 8)
        p.ellipse(*palm, 5, 5, hand)


def _person(p, s):
    skin, hair, cloth, pattern = s["skin"], s["hair"], s["rgb"], s.get("pattern")
    woman, head, r = s["kind"] == "woman", 74, 20
    if woman:
        p.box(-24, head - 30, 24, head + 19, hair, radius=15)
    for side in (-1, 1):
        if woman:
            p.box(side * 7 - 3.4, 2, side * 7 + 3.4, 22, skin)
            p.ellipse(side * 8, 2.5, 6, 3.2, s.get("shoes", (60, 40, 40)))
        else:
            p.box(side * 7 - 5.6, 2, side * 7 + 5.6, 28, s["trousers"])
            p.ellipse(side * 8.5, 3, 7.4, 3.8, s.get("shoes", (45, 40, 40)))
    _arms(p, s, s.get("sleeves", shade(cloth, 0.86)), skin)
    if woman:
        p.polygon([(-11, 56), (11, 56), (12, 40), (23, 14), (-23, 14), (-12, 40)], cloth, pattern)
    else:
        p.box(-15, 24, 15, 56, cloth, pattern, radius=6)
    p.ellipse(0, head, r, r * 1.02, skin)
    p.pie(0, head + 4, r + 1.5, r * 0.95, 180, 360, hair)
    if woman:
        for side in (-1, 1):
            p.box(side * 20.5 - 3.5, head - 20, side * 20.5 + 3.5, head + 5, hair)
    if s.get("beard"):
        p.pie(0, head - 4, r + 0.5, r * 0.95, 0, 180, hair)
    for side in (-1, 1):
        _eye(p, side * 8, head - 1, 4.8, (255, 255, 255), (40, 30, 30))
    p.box(
        -5,
        head - 13.5,
        5,
        head - 10.5,
        (200, 90, 90) if s.get("beard") or woman else scaled(skin, 0.6),
        radius=1.4,
    )
    if s.get("glasses"):
        for side in (-1, 1):
            p.ring(side * 8, head - 1, 7.6, 7.6, (20, 20, 25), 2.4)
    _hat(p, s, 0, head + r * 0.8, 22)


def _robot(p, s):
    body, dark = s["rgb"], s.get("limbs", shade(s["rgb"], 0.7))
    for side in (-1, 1):
        p.box(side * 8 - 4.5, 4, side * 8 + 4.5, 26, dark)
        p.box(side * 9 - 8, 0, side * 9 + 8, 7, shade(dark, 0.8), radius=3)
    _arms(p, s, dark, (205, 205, 212), 49)
    p.box(-17, 22, 17, 56, body, radius=3)
    p.box(-11, 30, 11, 48, s.get("panel", mixed(body, (255, 255, 255), 0.45)), radius=2)
    p.box(-5, 54, 5, 62, dark)
    p.box(-21, 60, 21, 92, body, radius=5)
    for side in (-1, 1):
        _eye(p, side * 9, 79, 5.6, (250, 250, 210), (30, 30, 40))
    p.box(-10, 65, 10, 69, shade(dark, 0.7))
    p.line([(0, 92), (0, 101)], dark, 3)
    p.ellipse(0, 103, 4.6, 4.6, (230, 70, 60))


def _cat(p, s):
    fur, dark, pattern, head = s["rgb"], shade(s["rgb"], 0.8), s.get("pattern"), 38
    p.line([(12, 4), (24, 7), (27, 20), (22, 28)], dark, 5)
    p.ellipse(0, 14, 15.5, 15, fur, pattern)
    if s.get("belly"):
        p.ellipse(0, 13, 10, 10, s["belly"])
    for side in (-1, 1):
        p.ellipse(side * 6.5, 2.8, 5.4, 3.6, dark)
        p.polygon([(side * 16.5, head + 3), (side * 15, head + 22), (side * 2, head + 12)], fur)
        p.polygon(
            [(side * 13.2, head + 8), (side * 13, head + 17), (side * 6, head + 12)],
            s.get("ear", (240, 170, 170)),
        )
    p.ellipse(0, head, 18, 15, fur)
    if s.get("collar"):
        p.box(-10, 20, 10, 26.5, s["collar"], radius=3)
    for side in (-1, 1):
        p.ellipse(side * 7.5, head + 1, 4.8, 5, s["eye"])
        p.ellipse(side * 7.5, head + 1, 2.4, 4.2, (15, 15, 15))
    p.polygon([(-3.2, head - 5), (3.2, head - 5), (0, head - 9)], (230, 120, 130))
    _hat(p, s, 0, head + 12, 14, 0.9)


def _dog(p, s):
    fur, dark, pattern = s["rgb"], shade(s["rgb"], 0.72), s.get("pattern")
    p.line([(-22, 28), (-30, 40)], fur, 5)
    for x, tone in ((-19, fur), (-10, dark), (7, dark), (16, fur)):
        p.box(x - 3.6, 0, x + 3.6, 18, tone, radius=2)
    p.box(-25, 12, 22, 34, fur, pattern, radius=9)
    if s.get("blanket"):
        p.box(-18, 14, 4, 35, s["blanket"], radius=3)
    x, head = 19, 43
    p.ellipse(x, head, 15.5, 14.5, fur)
    p.ellipse(x + 12, head - 5, 9, 6.8, s.get("muzzle", mixed(fur, (255, 255, 255), 0.25)))
    p.ellipse(x + 19, head - 2.5, 3.6, 3.1, (25, 20, 20))
    p.ellipse(x - 10, head - 2, 5.6, 12, s.get("ear", dark))
    _eye(p, x + 5, head + 4, 4.2, (255, 255, 255), (20, 15, 15))
    if s.get("collar"):
        p.line([(x - 11, head - 11), (x + 4, head - 15)], s["collar"], 5)
    _hat(p, s, x, head + 11.5, 13, 0.9)


def _rabbit(p, s):
    fur, dark, pattern, head = s["rgb"], shade(s["rgb"], 0.82), s.get("pattern"), 32
    p.ellipse(15, 9, 5.5, 5.5, s.get("tail", mixed(fur, (255, 255, 255), 0.5)))
    for side in (-1, 1):
        p.ellipse(side * 7, 55, 5, 15, fur)
        p.ellipse(side * 7, 54, 2.6, 11, s.get("ear", (240, 175, 180)))
    p.ellipse(0, 12, 14, 13, fur, pattern)
    if s.get("belly"):
        p.ellipse(0, 11, 9, 9, s["belly"])
    for side in (-1, 1):
        p.ellipse(side * 9, 3, 7.5, 3.8, dark)
    p.ellipse(0, head, 16, 14, fur)
    for side in (-1, 1):
        p.ellipse(side * 7, head + 2, 3.8, 4.6, (30, 25, 30))
        p.ellipse(side * 6.4, head + 3.4, 1.5, 1.5, (255, 255, 255))
    p.ellipse(0, head - 4.5, 3, 2.2, (230, 120, 140))
    _hat(p, s, 0, head + 11, 10, 0.8)


def _bird(p, s):
    body, dark = s["rgb"], shade(s["rgb"], 0.75)
    for x in (-4, 6):
        p.line([(x, 14), (x, 2), (x + 5, 1.6)], (225, 150, 50), 3)
    p.polygon([(-15, 28), (-33, 22), (-32, 36)], dark)
    p.ellipse(0, 26, 19, 16, body)
    p.ellipse(5, 20, 11, 8, s.get("belly", mixed(body, (255, 255, 255), 0.45)))
    p.ellipse(-6, 28, 11, 7.5, s.get("wing", dark))
    p.ellipse(11, 44, 14, 13, body)
    p.polygon([(22, 48), (22, 39), (35, 43)], s.get("beak", (245, 165, 45)))
    _eye(p, 15, 47, 4.4, (255, 255, 255), (20, 20, 25))


def _fish(p, s):
    body, dark = s["rgb"], shade(s["rgb"], 0.78)
    p.polygon([(-16, 20), (-36, 36), (-31, 20), (-36, 4)], dark)
    p.polygon([(-6, 33), (6, 34), (-10, 43)], dark)
    p.ellipse(2, 20, 23, 15, body, s.get("pattern"))
    p.polygon([(2, 20), (-8, 12), (-6, 22)], dark)
    p.ellipse(14, 24, 4, 4, (255, 255, 255))
    p.ellipse(15, 24, 2.1, 2.1, (20, 20, 25))
    p.line([(19, 14), (23, 15)], shade(body, 0.5), 1.4)


def _chair(p, s):
    c, dark, pattern = s["rgb"], s.get("legs", shade(s["rgb"], 0.72)), s.get("pattern")
    for side in (-1, 1):
        p.box(side * 17 - 2.4, 0, side * 17 + 2.4, 26, dark)
        p.box(side * 10 - 1.8, 6, side * 10 + 1.8, 26, scaled(dark, 0.8))
    p.box(-18, 28, 18, 62, c, pattern, radius=5)
    if not pattern:
        p.box(-11, 36, 11, 55, s.get("panel", scaled(c, 0.84)), radius=3)
    p.box(-21, 22, 21, 31, s.get("seat", scaled(c, 0.92)), radius=3)


def _vase(p, s):
    c, pattern = s["rgb"], s.get("pattern")
    if s.get("flower"):
        for dx, y in ((-9, 70), (0, 77), (9, 71)):
            p.line([(0, 50), (dx, y)], (60, 130, 60), 1.8)
            p.ellipse(dx, y, 5.5, 5.5, s["flower"])
            p.ellipse(dx, y, 2, 2, (250, 220, 90))
    p.box(-6, 36, 6, 52, s.get("neck", scaled(c, 0.9)))
    p.ellipse(0, 22, 18, 20, c, pattern)
    if s.get("belly"):
        p.ellipse(0, 22, 11, 12, s["belly"])
    p.ellipse(0, 52, 9, 3, scaled(c, 1.1))
    p.box(-10, 0, 10, 5, scaled(c, 0.8), radius=2)
    if not pattern and not s.get("belly"):
        p.ellipse(-7, 27, 3, 7, mixed(c, (255, 255, 255), 0.4))


def _car(p, s):
    c = s["rgb"]
    if s.get("fin"):
        p.polygon([(-20, 20), (-34, 40), (-34, 18)], s["fin"])
    p.polygon([(-18, 18), (-11, 34), (9, 34), (18, 18)], s.get("cabin", scaled(c, 0.9)))
    p.polygon([(-14, 19), (-9, 31), (-1, 31), (-1, 19)], (175, 215, 235))
    p.polygon([(2, 19), (2, 31), (8, 31), (14, 19)], (175, 215, 235))
    p.box(-32, 6, 32, 21, c, s.get("pattern"), radius=5)
    p.ellipse(30, 15, 2.6, 2.6, (255, 240, 160))
    for side in (-1, 1):
        p.ellipse(side * 18, 6.5, 7, 7, (30, 30, 32))
        p.ellipse(side * 18, 6.5, 3.4, 3.4, s.get("hub", (190, 190, 195)))


def _house(p, s):
    p.box(-23, 0, 23, 36, s["rgb"], s.get("pattern"))
    p.polygon([(-29, 36), (0, 62), (29, 36)], s["roof"])
    p.box(-5, 0, 5, 18, s.get("door", (95, 60, 40)))
    for side in (-1, 1):
        p.box(side * 14 - 4.4, 19, side * 14 + 4.4, 28, (250, 250, 250))
        p.box(side * 14 - 3.4, 20, side * 14 + 3.4, 27, (150, 200, 235))


def _ball(p, s):
    c, r, pattern = s["rgb"], 22.5, s.get("pattern")
    p.ellipse(0, r, r, r, c, pattern)
    if not pattern:
        p.ellipse(-2, r * 1.1, r * 0.78, r * 0.78, mixed(c, (255, 255, 255), 0.14))
        p.ellipse(-7, r * 1.35, r * 0.28, r * 0.24, mixed(c, (255, 255, 255), 0.6))
    if s.get("band"):
        p.ellipse(0, r, r * 0.98, r * 0.34, s["band"])


def _table(p, s):
    c = s["rgb"]
    for side in (-1, 1):
        p.box(side * 22 - 2.5, 0, side * 22 + 2.5, 34, shade(c, 0.75))
        p.box(side * 14 - 2, 6, side * 14 + 2, 34, shade(c, 0.6))
    p.polygon([(-26, 40), (26, 40), (31, 33), (-31, 33)], c)
    p.box(-31, 29, 31, 33, shade(c, 0.82))


def _tree(p, s):
    c = s["rgb"]
    p.polygon([(-6, 0), (6, 0), (3.5, 46), (-3.5, 46)], s.get("trunk", (110, 75, 45)))
    for x, y, r, tone in (
        (-15, 52, 16, 0.86),
        (15, 54, 16, 0.92),
        (0, 74, 20, 1.0),
        (-3, 58, 17, 1.08),
    ):
        p.ellipse(x, y, r, r * 0.94, scaled(c, tone))


def _lamp(p, s):
    c = s["rgb"]
    p.box(-14, 0, 14, 5, (85, 80, 85), radius=2)
    p.box(-2, 4, 2, 50, (115, 110, 115))
    p.polygon([(-11, 78), (11, 78), (21, 46), (-21, 46)], c, s.get("pattern"))
    p.ellipse(0, 46, 21, 3.2, (255, 245, 190))


def _cup(p, s):
    c = s["rgb"]
    p.ring(20, 20, 10, 11, shade(c, 0.82), 4.2)
    p.polygon([(-20, 38), (20, 38), (15, 2), (-15, 2)], c, s.get("pattern"))
    p.box(-15, 0, 15, 4, shade(c, 0.85), radius=1.5)
    p.ellipse(0, 38, 20, 4.4, shade(c, 0.7))


_DRAW = {
    "man": _person, "woman": _person, "robot": _robot, "cat": _cat, "dog": _dog, "rabbit": _rabbit, "bird": _bird,
    "fish": _fish, "chair": _chair, "vase": _vase, "car": _car, "house": _house, "ball": _ball, "table": _table,
    "tree": _tree, "lamp": _lamp, "cup": _cup,
}  # fmt: skip
