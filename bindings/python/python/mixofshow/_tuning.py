"""Teaching concepts and fusing them."""

from __future__ import annotations

import json
import os
import pathlib
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Optional, Union

from . import _native
from ._model import Progress
from ._native import Concept
from ._request import Path, Plain
from ._settings import FusionSettings, TrainingSettings

if TYPE_CHECKING:
    from typing_extensions import Unpack


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
    **more: Unpack[TrainingSettings],
) -> Taught:
    """Teaches a concept: an ED-LoRA, a LoRA, or words alone, from a few pictures.

    `settings` is a file as `mos train` takes it (TOML, JSON, the method's YAML) or a mapping of the
    same keys; keywords come before it: `train("zorp.toml", steps=100)`. A run that was ended, by
    Ctrl-C or by `progress`, is saved and goes on with `resume=True` to the same bytes.
    """
    if settings is None or isinstance(settings, Mapping):
        file, over = None, {**dict(settings or {}), **more}
    else:
        file, over = os.fspath(settings), dict(more)
    wanted = Plain(
        file=file,
        over=json.dumps(over, default=_plain),
        resume=resume,
        restart=restart,
        device=device,
        progress=progress,
        update=None if update is None else lambda *at: update(Update(*at)),
    )
    path, curve, sheet, losses, norm, updates, told = _native.train(wanted)
    _warn(told)
    return Taught(path, curve, sheet, (losses[0], losses[1]), norm, updates)


def _plain(value: Any) -> Any:
    """Paths and sequences as JSON has them."""
    return os.fspath(value) if isinstance(value, os.PathLike) else list(value)


#: A concept to be fused; with a prompt, one that has no words of its own.
ToFuse = Union[Concept, Path, "tuple[Union[Concept, Path], str]"]


def _to_fuse(given: Any) -> tuple[Concept, Optional[str]]:
    concept, prompt = given if isinstance(given, tuple) else (given, None)
    return (concept if isinstance(concept, Concept) else Concept(concept)), prompt


def _fusion(given: Mapping[str, Any]) -> Plain:
    known = FusionSettings.__annotations__
    unknown = [name for name in given if name not in known]
    if unknown:
        raise TypeError(f"no setting of a fusion is called `{unknown[0]}`: {', '.join(known)} are")
    listed = {"keep", "prompts", "sampled_prompts", "held_out"}
    for name in listed & given.keys():
        if isinstance(given[name], str):
            raise TypeError(f"{name} is one text: expected a list of prompts")
    all_given = {name: given.get(name) for name in known}
    return Plain(
        **{
            name: list(value) if name in listed and value is not None else value
            for name, value in all_given.items()
        }
    )


def _order(concepts: Iterable[ToFuse], settings: Mapping[str, Any], **more: Any) -> Plain:
    order: dict[str, Any] = {
        "output": None,
        "model": None,
        "device": None,
        "replace": False,
        "statistics": None,
        "part": None,
        "rename": False,
        "to": None,
        "remove": [],
        "refresh": False,
        "progress": None,
        **more,
    }
    for name in ("output", "model", "statistics", "to"):
        order[name] = None if order[name] is None else os.fspath(order[name])
    return Plain(
        concepts=[_to_fuse(given) for given in concepts], settings=_fusion(settings), **order
    )


def fuse(
    concepts: Iterable[ToFuse],
    output: Optional[Path] = None,
    *,
    model: Optional[Path] = None,
    device: Optional[str] = None,
    replace: bool = False,
    statistics: Optional[Path] = None,
    rename: bool = False,
    to: Optional[Path] = None,
    remove: Iterable[str] = (),
    refresh: bool = False,
    progress: Optional[Progress] = None,
    **settings: Unpack[FusionSettings],
) -> Fused:
    """Fuses concepts into one model, a folder at `output` that knows all their words.

    A concept without words of its own comes with a prompt: `("ink.safetensors", "an ink drawing")`.
    What is left out of the settings is as in `mos fuse`. The stages of `progress` name the concept
    that is worked on. A fusion that was ended goes on where it was when it is called again.

    `statistics` is a folder in which what was recorded is kept. With it, `to=` names a fused model
    to change: `concepts` are added to it, those of `remove` taken out; in place without `output`.
    """
    if output is None and to is None:
        raise TypeError("fuse() needs an output, the folder of the fused model")
    if to is None and (refresh or list(remove)):
        raise TypeError("remove and refresh change a fused model: to= names it")
    wanted = _order(
        concepts,
        settings,
        output=output,
        model=model,
        device=device,
        replace=replace,
        statistics=statistics,
        rename=rename,
        to=to,
        remove=list(remove),
        refresh=refresh,
        progress=progress,
    )
    path, report, markdown, told = _native.fuse(wanted)
    _warn(told)
    return Fused(path or pathlib.Path(os.fspath(output or to or "")), json.loads(report), markdown)


def record(
    concepts: Iterable[ToFuse],
    statistics: Path,
    *,
    part: Optional[tuple[int, int]] = None,
    model: Optional[Path] = None,
    device: Optional[str] = None,
    rename: bool = False,
    progress: Optional[Progress] = None,
    **settings: Unpack[FusionSettings],
) -> dict[str, Any]:
    """Takes the statistics of a fusion into a folder and makes no model, for `fuse` to find.

    `part=(3, 14)` takes those of every 14th concept, from the third on: a share for each of many
    machines, as `mos fuse --statistics-only --part 3/14` does. The report comes back.
    """
    wanted = _order(
        concepts,
        settings,
        statistics=statistics,
        part=part,
        model=model,
        device=device,
        rename=rename,
        progress=progress,
    )
    _, report, _, told = _native.fuse(wanted)
    _warn(told)
    found: dict[str, Any] = json.loads(report)
    return found
