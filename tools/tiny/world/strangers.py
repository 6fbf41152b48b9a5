"""Subjects in any colours: every part may have one of its own.

`estrange` takes a subject of `sample_subject` and recolours its parts from a continuous range, or
gives it parts that it did not have; natural colours stay the more frequent ones. `describe` writes
what captions say of such a subject: some of its parts, never all. What is taught later (`concepts`,
`casts`) consists of the same parts, in colours of its own.
"""

from .colours import any_colour, name_of, plain_name
from .subjects import sample_subject

# What each kind can have in a colour of its own: the key that is drawn, what captions call it, and
# how often a part that a plain subject does not have is given to it (1: every subject has it, if
# only in a tone of its main colour).
PARTS = {
    "man": [("rgb", "shirt", 1), ("skin", "skin", 1), ("hair", "hair", 1),
            ("trousers", "trousers", 1), ("shoes", "shoes", 1), ("sleeves", "sleeves", 0.35),
            ("hat", "hat", 0.35)],
    "woman": [("rgb", "dress", 1), ("skin", "skin", 1), ("hair", "hair", 1), ("shoes", "shoes", 1),
              ("sleeves", "sleeves", 0.35), ("hat", "hat", 0.35)],
    "robot": [("rgb", "", 1), ("panel", "panel", 1), ("limbs", "arms", 1)],
    "cat": [("rgb", "", 1), ("belly", "belly", 0.6), ("ear", "ears", 1), ("eye", "eyes", 1),
            ("collar", "collar", 0.35), ("hat", "hat", 0.4)],
    "dog": [("rgb", "", 1), ("blanket", "blanket", 0.5), ("ear", "ears", 1), ("muzzle", "nose", 1),
            ("collar", "collar", 0.4), ("hat", "hat", 0.4)],
    "rabbit": [("rgb", "", 1), ("belly", "belly", 0.6), ("ear", "ears", 1), ("tail", "tail", 1),
               ("hat", "hat", 0.4)],
    "bird": [("rgb", "", 1), ("belly", "belly", 1), ("wing", "wings", 1), ("beak", "beak", 1)],
    "chair": [("rgb", "", 1), ("panel", "panel", 1), ("seat", "seat", 1), ("legs", "legs", 1)],
    "vase": [("rgb", "", 1), ("belly", "belly", 0.6), ("neck", "neck", 1),
             ("flower", "flowers", 0.4)],
    "car": [("rgb", "", 1), ("cabin", "cabin", 1), ("fin", "fin", 0.45), ("hub", "wheels", 1)],
    "house": [("rgb", "", 1), ("roof", "roof", 1), ("door", "door", 1)],
    "ball": [("rgb", "", 1), ("band", "band", 0.5)],
    "tree": [("rgb", "", 1), ("trunk", "trunk", 1)],
}  # fmt: skip
_PLURAL = {"skin", "hair", "trousers", "shoes", "sleeves", "arms", "ears", "eyes", "wings", "legs",
           "flowers", "wheels"}  # fmt: skip
_WORN = {"shirt", "dress", "trousers", "shoes", "sleeves", "hat"}
_STAY = {"skin": 0.7, "eye": 0.6, "trunk": 0.5, "muzzle": 0.5, "shoes": 0.6, "beak": 0.6}


def estrange(subject, rng):
    """The subject with some of its parts in any colours."""
    s = dict(subject)
    share = rng.uniform(0.35, 1.15)
    for key, _, given in PARTS[s["kind"]]:
        if key not in s and given < 1 and rng.random() > given:
            continue
        new = key not in s and given < 1
        if rng.random() < share * _STAY.get(key, 1.0) or new:
            s[key] = any_colour(rng)
    if (
        s.get("pattern") and sum(s["rgb"]) > 560
    ):  # as plain subjects: dark on light, white on all else
        s.pop("pattern"), s.pop("pattern_name")
    return s | {"strange": True, "colour": plain_name(s["rgb"])}


def sample_stranger(rng, kind=None):
    return estrange(sample_subject(rng, kind), rng)


def _article(noun):
    return ("an " if noun[0] in "aeiou" else "a ") + noun


def _listed(items):
    return ", ".join(items[:-1]) + " and " + items[-1] if len(items) > 1 else items[0]


def describe(subject, rng, most=5):
    """A noun phrase that names at most `most` parts of the subject, fewer than it has as a rule."""
    s, kind = subject, subject["kind"]
    told = rng.uniform(0.25, 1.0)
    main, features, worn = kind, [], []
    pattern = s.get("pattern_name", "")
    parts = [part for part in PARTS[kind] if s.get(part[0])]
    chosen = [parts[i] for i in sorted(rng.permutation(len(parts))[:most])]
    for key, noun, _ in chosen:
        name = name_of(s[key], rng) if rng.random() < told else None
        if name is None:
            continue
        if noun == "":
            main = f"{pattern} {name} {kind}".strip()
            continue
        if key == "rgb" and pattern:
            name = f"{pattern} {name}"
        phrase = f"{name} {noun}" if noun in _PLURAL else _article(f"{name} {noun}")
        (worn if noun in _WORN else features).append(phrase)
    if s.get("beard") and rng.random() < 0.85:
        features.append("a beard")
    if s.get("glasses") and rng.random() < 0.85:
        features.append("glasses")
    if rng.random() < 0.5:
        features.reverse()
    text = _article(main)
    text += f" with {_listed(features)}" if features else ""
    if worn:
        text += f" {('in', 'wearing')[rng.integers(2)]} {_listed(worn)}"
    if s.get("arms") == "raised":
        text += " with raised arms"
    elif s.get("arms") == "waving":
        text += " waving"
    return text
