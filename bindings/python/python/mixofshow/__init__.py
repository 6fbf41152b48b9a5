"""Mix-of-Show on any graphics card, or on none.

Teach Stable Diffusion concepts from a handful of pictures, fuse many of them into one model, and
place each in its own region of a picture::

    import mixofshow as ms

    model = ms.load()                                   # the very small model that ships
    [cat] = model.generate("a red cat in the snow", seed=1)
    ms.save(cat, "cat.png")                             # with its settings, as `mos generate` does
"""

from ._evaluation import Evaluation, evaluate, merge, scores, trial
from ._model import Model, load, save
from ._native import (
    BackendError,
    Cancelled,
    CheckpointError,
    Concept,
    ConceptError,
    Error,
    FusionError,
    MetricsError,
    PictureError,
    PipelineError,
    RegionError,
    TrainingError,
    __version__,
    devices,
)
from ._request import Control, Hires, Region
from ._settings import FusionSettings, TrainingSettings
from ._tuning import Fused, Taught, Update, fuse, record, train

__all__ = [
    "BackendError",
    "Cancelled",
    "CheckpointError",
    "Concept",
    "ConceptError",
    "Control",
    "Error",
    "Evaluation",
    "Fused",
    "FusionError",
    "FusionSettings",
    "Hires",
    "MetricsError",
    "Model",
    "PictureError",
    "PipelineError",
    "Region",
    "RegionError",
    "Taught",
    "TrainingError",
    "TrainingSettings",
    "Update",
    "__version__",
    "devices",
    "evaluate",
    "fuse",
    "load",
    "merge",
    "record",
    "save",
    "scores",
    "train",
    "trial",
]
