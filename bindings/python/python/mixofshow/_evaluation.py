"""Scores of pictures, and evaluations in a folder."""

from __future__ import annotations

import json
import os
import pathlib
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Optional, Union

from . import _native
from ._arrays import PictureLike, image, picture
from ._model import Model, Progress, load
from ._native import Concept
from ._request import Control, Path, Plain, _control, request

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation came to."""

    #: Its folder: pictures, `settings.json`, and `results.json`, `table.md`, `index.html` when all
    #: pictures are there.
    path: pathlib.Path
    #: Means and their errors, as `mos eval --json` tells them; None while pictures are missing.
    results: Optional[dict[str, Any]]
    #: The same as a text; None while pictures are missing.
    table: Optional[str]
    #: Pictures that this call made, and how many it scored.
    made: int
    scored: int
    #: Pictures of other parts that are not in the folder yet.
    missing: int


def scores(
    model: Model,
    pictures: Iterable[PictureLike],
    *,
    texts: Iterable[str] = (),
    trained_on: Iterable[PictureLike] = (),
    others: Iterable[PictureLike] = (),
    progress: Optional[Progress] = None,
) -> dict[str, float]:
    """Scores of pictures by name, of all metrics that there is something for.

    `text`: how well each shows its text of `texts`; `image`: how much they look like the pictures
    of `trained_on`; `likeness` and `pixels`: how close each is to its own of `others`. By the two
    CLIP towers of `model`, so scores compare within one model; fused models bring none, so theirs
    are scored by their base model.
    """
    return dict(
        _native.scores(
            model._native,
            [picture(given, "pictures") for given in pictures],
            list(texts),
            [picture(given, "trained_on") for given in trained_on],
            [picture(given, "others") for given in others],
            progress,
        )
    )


def trial(
    model: Model,
    concepts: Iterable[Union[Concept, Path]],
    prompts: Iterable[str],
    *,
    class_word: str,
    phrase: Optional[str] = None,
    seeds: Iterable[int] = (0,),
    trained_on: Iterable[PictureLike] = (),
    size: Optional[tuple[int, int]] = None,
    steps: Optional[int] = None,
    guidance: Optional[float] = None,
    sampler: Optional[str] = None,
    negative: Optional[str] = None,
    progress: Optional[Progress] = None,
) -> tuple[dict[str, float], list[Image]]:
    """Makes a few pictures with a concept and scores them at once; nothing is written.

    In `prompts`, `<TOK>` stands for the concept: `phrase` (its words, unless given) while pictures
    are made, `class_word` with its article (`a man`) where texts are scored. The pictures come by
    prompt and seed.
    """
    used = [given if isinstance(given, Concept) else Concept(given) for given in concepts]
    if phrase is None:
        phrase = " ".join(word for concept in used for word in concept.words)
    wanted = Plain(
        concepts=used,
        prompts=list(prompts),
        phrase=phrase,
        class_word=class_word,
        seeds=list(seeds),
        trained_on=[picture(given, "trained_on") for given in trained_on],
        progress=progress,
    )
    asked = request(
        negative=negative, size=size, steps=steps, guidance=guidance, sampler=sampler
    )
    found, made = _native.trial(model._native, wanted, asked)
    return dict(found), [image(*pixels) for pixels in made]


def _lines(prompts: Union[Path, Sequence[str], None]) -> dict[str, Optional[str]]:
    """A list's name, a file, or the prompts themselves."""
    if prompts is None:
        return {"list": None, "prompts_file": None, "prompts": None}
    if isinstance(prompts, str) and prompts in ("known", "general"):
        return {"list": prompts, "prompts_file": None, "prompts": None}
    if isinstance(prompts, (str, os.PathLike)):
        return {"list": None, "prompts_file": os.fspath(prompts), "prompts": None}
    return {"list": None, "prompts_file": None, "prompts": "\n".join(prompts)}


def _evaluation(output: Path, counts: Sequence[int], told: Optional[tuple[str, str]]) -> Evaluation:
    made, _, scored, _, missing = counts
    results, table = (json.loads(told[0]), told[1]) if told else (None, None)
    return Evaluation(pathlib.Path(output), results, table, made, scored, missing)


def evaluate(
    concepts: Iterable[Union[Concept, Path]] = (),
    *,
    pictures: Iterable[Path],
    output: Path,
    model: Union[Model, Path, None] = None,
    device: Optional[str] = None,
    precision: Optional[str] = None,
    prompts: Union[Path, Sequence[str], None] = None,
    count: Optional[int] = None,
    together: Optional[int] = None,
    one_prompt: Optional[int] = None,
    scene_strength: Optional[float] = None,
    controls: Iterable[Control] = (),
    place: Optional[str] = None,
    class_words: Sequence[str] = (),
    force_base: bool = False,
    classes: Sequence[str] = (),
    seed: Optional[int] = None,
    steps: Optional[int] = None,
    guidance: Optional[float] = None,
    sampler: Optional[str] = None,
    size: Optional[tuple[int, int]] = None,
    clip: Optional[Path] = None,
    dino: Optional[Path] = None,
    dinov2: Optional[Path] = None,
    csd: Optional[Path] = None,
    identity: Optional[Path] = None,
    judge: Optional[str] = None,
    as_published: bool = False,
    part: Optional[str] = None,
    renew: bool = False,
    progress: Optional[Progress] = None,
) -> Evaluation:
    """Makes pictures of concepts and scores them, as `mos eval` does: the same files.

    `pictures` are folders with what each concept was taught from; `concepts` may be left out for a
    fused `model`, which knows its own. `model` is a loaded one, or a path or a name to load on
    `device`. `prompts` are `known`, `general`, a file, or lines with `<TOK>`. `controls` steer the
    pictures of three in their regions, and no others. What is None is as in `mos eval`, `part` too:
    `"3/14"`, or what the environment of a job array says.

    What was made is kept: the same call goes on with the next picture after it was ended. A folder
    of other settings is refused, unless `renew` says to make anew what would come out otherwise.
    """
    loaded = model if isinstance(model, Model) else load(model, device=device, precision=precision)
    if isinstance(model, Model) and (device is not None or precision is not None):
        raise TypeError("the model is loaded already: device and precision are for those that are not")
    named = {"clip": clip, "dino": dino, "dinov2": dinov2, "csd": csd, "identity": identity}
    wanted = Plain(
        concepts=[given if isinstance(given, Concept) else Concept(given) for given in concepts],
        pictures=[os.fspath(folder) for folder in pictures],
        output=os.fspath(output),
        **_lines(prompts),
        count=count,
        together=together,
        one_prompt=one_prompt,
        scene_strength=scene_strength,
        controls=[_control(control) for control in controls],
        place=place,
        class_words=list(class_words),
        force_base=force_base,
        classes=list(classes),
        seed=seed,
        steps=steps,
        guidance=guidance,
        sampler=sampler,
        size=size,
        towers=[(name, os.fspath(path)) for name, path in named.items() if path is not None],
        judge=judge,
        as_published=as_published,
        part=part,
        renew=renew,
        progress=progress,
    )
    counts, told, warned = _native.evaluate(loaded._native, wanted)
    for warning in warned:
        warnings.warn(warning, stacklevel=2)
    return _evaluation(output, counts, told)


def merge(parts: Iterable[Path], output: Path) -> Evaluation:
    """Puts parts of an evaluation together, as `mos eval merge` does, in whatever order."""
    told = _native.merge([os.fspath(part) for part in parts], os.fspath(output))
    return _evaluation(output, (0, 0, 0, 0, 0), told)
