"""The library itself, without a Python face."""

import os
import pathlib
from collections.abc import Callable
from typing import Any, Optional, Union

_Path = Union[str, os.PathLike[str]]
_Progress = Callable[[str, int, int], object]
_Pixels = tuple[int, int, bytes]

__version__: str

#: Names of the settings of `train`.
TRAINING_SETTINGS: list[str]

class Error(Exception):
    """Anything that the library refuses or meets."""

class BackendError(Error):
    """A device that cannot be opened, or what it met."""

class Cancelled(Error):
    """The call was ended by its progress callback, which returned False."""

class CheckpointError(Error):
    """A model's files."""

class ConceptError(Error):
    """A concept or a LoRA."""

class FusionError(Error):
    """A fusion."""

class MetricsError(Error):
    """The scores of pictures."""

class PictureError(Error):
    """A picture that is read or written."""

class PipelineError(Error):
    """A request for pictures, or a model that cannot run."""

class RegionError(Error):
    """Regions of a picture."""

class TrainingError(Error):
    """The training of a concept, or its settings."""

class Concept:
    """A concept or a LoRA, in use at some strength.

    The file is one of `mos train`, of Mix-of-Show, a LoRA of kohya's, PEFT's, diffusers' or
    ComfyUI's names, or a textual inversion; or a folder that PEFT or diffusers wrote.
    """

    def __init__(
        self, path: _Path, scale: float = 1.0, *, text_scale: Optional[float] = None
    ) -> None: ...
    @property
    def path(self) -> pathlib.Path: ...
    @property
    def scale(self) -> float: ...
    @property
    def text_scale(self) -> Optional[float]: ...
    @property
    def name(self) -> str:
        """As regions name it."""

    @property
    def words(self) -> list[str]:
        """The words that stand for it in prompts, in order; a LoRA has none."""

    @property
    def base(self) -> Optional[str]:
        """The hash of the model that it was taught on, where its file says so."""

    @property
    def notes(self) -> list[str]:
        """What was left out or guessed while it was read."""

    def at(self, scale: float, *, text_scale: Optional[float] = None) -> Concept:
        """The same concept at another strength."""

class Model:
    @property
    def name(self) -> str: ...
    @property
    def device(self) -> str: ...
    @property
    def size(self) -> tuple[int, int]: ...
    @property
    def guidance(self) -> float: ...
    @property
    def sampler(self) -> str: ...
    @property
    def factor(self) -> int: ...
    @property
    def notes(self) -> list[str]: ...
    @property
    def controls(self) -> list[str]: ...
    @property
    def hash(self) -> str: ...
    def generate(
        self,
        asked: Any,
        progress: Optional[_Progress] = None,
        shown: Optional[Callable[[list[_Pixels], int, int], object]] = None,
    ) -> tuple[list[tuple[_Pixels, str, str]], bytes, list[int], list[str]]: ...
    def encode(self, picture: Any, tile: Optional[int] = None) -> tuple[bytes, list[int]]: ...
    def decode(self, latents: Any, tile: Optional[int] = None) -> list[_Pixels]: ...

def devices() -> list[str]:
    """The names of all devices, in the order of their numbers; the processor is the last."""

def load(
    model: Optional[_Path] = None,
    device: Optional[str] = None,
    precision: Optional[str] = None,
    vae: Optional[_Path] = None,
) -> Model: ...
def save(picture: Any, path: _Path, told: Optional[tuple[str, str]]) -> None: ...
def train(
    wanted: Any,
) -> tuple[
    pathlib.Path, pathlib.Path, Optional[pathlib.Path], list[float], float, int, list[str]
]: ...
def fuse(wanted: Any) -> tuple[Optional[pathlib.Path], str, str, list[str]]: ...
def scores(
    model: Model,
    pictures: list[Any],
    texts: list[str],
    trained_on: list[Any],
    others: list[Any],
    progress: Optional[_Progress] = None,
) -> list[tuple[str, float]]: ...
def trial(
    model: Model, wanted: Any, asked: Any
) -> tuple[list[tuple[str, float]], list[_Pixels]]: ...
def evaluate(
    model: Model, wanted: Any
) -> tuple[list[int], Optional[tuple[str, str]], list[str]]: ...
def merge(parts: list[str], out: str) -> tuple[str, str]: ...
