"""Teaching concepts, fusing them, and measuring what came of it."""

from __future__ import annotations

import json
import os
import pathlib
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Optional, Union

from . import _native
from ._arrays import PictureLike, image, picture
from ._model import Model, Progress
from ._native import Concept
from ._request import Path, Plain, request

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Update:
    """An update of the weights while a concept is taught."""

    #: Updates done, of `of`.
    done: int
    of: int
    loss: float
    #: Mean norm of the words' embeddings.
    norm: float


@dataclass(frozen=True)
class Taught:
    """What teaching came to."""

    #: The concept's file, for `Concept`.
    path: pathlib.Path
    #: The picture of the loss.
    curve: pathlib.Path
    #: Pictures by the concept; None where the settings want none.
    sheet: Optional[pathlib.Path]
    #: Mean loss of the first and of the last tenth of the run.
    losses: tuple[float, float]
    #: Mean norm of the words' embeddings.
    norm: float
    #: Updates that this call made.
    updates: int

    def concept(self, scale: float = 1.0) -> Concept:
        """The concept, to be used."""
        return Concept(self.path, scale)


@dataclass(frozen=True)
class Fused:
    """A fused model."""

    #: Its folder, for `load`.
    path: pathlib.Path
    #: What went in and what was lost, as `mos fuse --json` tells it.
    report: dict[str, Any]
    #: The same as a text.
    markdown: str


def _warn(told: Iterable[str]) -> None:
    for warning in told:
        warnings.warn(warning, stacklevel=3)


def train(
    settings: Union[Path, Mapping[str, Any], None] = None,
    *,
    device: Optional[str] = None,
    resume: bool = False,
    restart: bool = False,
    progress: Optional[Progress] = None,
    update: Optional[Callable[[Update], object]] = None,
    **more: Any,
) -> Taught:
    """Teaches a concept: an ED-LoRA, a LoRA, or words alone, from a few pictures.

    `settings` is a file as `mos train` takes it (TOML, JSON, the method's YAML) or a mapping of the
    same keys; keywords come before it: `train("zorp.toml", steps=100)`. A run that was ended, by
    Ctrl-C or by `progress`, is saved and goes on with `resume=True` to the same bytes.
    """
    if settings is None or isinstance(settings, Mapping):
        file, over = None, {**(settings or {}), **more}
    else:
        file, over = os.fspath(settings), more
    wanted = Plain(
        file=file,
        over=json.dumps(over, default=os.fspath),
        resume=resume,
        restart=restart,
        device=device,
        progress=progress,
        update=None if update is None else lambda *at: update(Update(*at)),
    )
    path, curve, sheet, losses, norm, updates, told = _native.train(wanted)
    _warn(told)
    return Taught(path, curve, sheet, (losses[0], losses[1]), norm, updates)


def _to_fuse(given: Any) -> tuple[Concept, Optional[str]]:
    concept, prompt = given if isinstance(given, tuple) else (given, None)
    return (concept if isinstance(concept, Concept) else Concept(concept)), prompt


def fuse(
    concepts: Iterable[Union[Concept, Path, tuple[Union[Concept, Path], str]]],
    output: Path,
    *,
    model: Optional[Path] = None,
    device: Optional[str] = None,
    precision: Optional[str] = None,
    replace: bool = False,
    statistics: Optional[Path] = None,
    solver: Optional[str] = None,
    steps: Optional[int] = None,
    guidance: Optional[float] = None,
    size: Optional[tuple[int, int]] = None,
    samples: Optional[int] = None,
    seed: Optional[int] = None,
    prompts: Optional[Sequence[str]] = None,
    keep: Optional[Sequence[str]] = None,
    distillation: Optional[int] = None,
    rename: bool = False,
    progress: Optional[Progress] = None,
) -> Fused:
    """Fuses concepts into one model, a folder at `output` that knows all their words.

    A concept without words of its own comes with a prompt: `("ink.safetensors", "an ink drawing")`.
    What is None is as in `mos fuse`. The stages of `progress` name the concept that is worked on.
    A fusion that was ended goes on where it was when it is called again.
    """
    wanted = Plain(
        concepts=[_to_fuse(given) for given in concepts],
        output=os.fspath(output),
        model=None if model is None else os.fspath(model),
        device=device,
        precision=precision,
        replace=replace,
        statistics=None if statistics is None else os.fspath(statistics),
        solver=solver,
        steps=steps,
        guidance=guidance,
        size=size,
        samples=samples,
        seed=seed,
        prompts=None if prompts is None else list(prompts),
        keep=None if keep is None else list(keep),
        distillation=distillation,
        rename=rename,
        progress=progress,
    )
    path, report, markdown, told = _native.fuse(wanted)
    _warn(told)
    return Fused(path, json.loads(report), markdown)


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


def evaluate(
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
    """Makes pictures with a concept and scores them, as Mix-of-Show does (section 4.1).

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
    found, made = _native.evaluate(model._native, wanted, asked)
    return dict(found), [image(*pixels) for pixels in made]
