"""Settings by name, for editors and type checkers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict

from ._request import Path


class TrainingSettings(TypedDict, total=False):
    """Settings of `train`, as `mos train` has them: what is left out is as there."""

    kind: str
    method: str
    words: str
    class_word: str
    initializers: str
    name: str
    output: Path
    pictures: Path
    captions: Path
    masks: Path
    caption: str
    templates: str
    template_sentences: bool
    shuffle_tags: bool
    keep_tags: int
    size: str
    crop: float
    scale_min: float
    scale_max: float
    variants: int
    model: str
    precision: str
    clip_skip: int
    text_layers: str
    unet_layers: str
    text_rank: int
    unet_rank: int
    alpha: float
    steps: int
    batch: int
    accumulate: int
    words_lr: float
    text_lr: float
    unet_lr: float
    decay: str
    weight_decay: float
    lora_weight_decay: float
    lora_dropout: float
    rank_dropout: float
    words_first: int
    beta1: float
    beta2: float
    norm_stop: float
    noise_offset: float
    min_snr: float
    mask_loss: bool
    unmasked_weight: float
    attention_weight: float
    full_identity: bool
    prior_pictures: int
    prior_folder: Path
    class_prompt: str
    prior_weight: float
    prior_target: str
    prior_steps: int
    seed: int
    checkpointing: bool
    save_every: int
    sheet_every: int
    sheet_steps: int
    sheet_guidance: float
    prompts: Sequence[str]
    sheet_scales: Sequence[float]
    folders: Sequence[Mapping[str, Any]]


class FusionSettings(TypedDict, total=False):
    """Settings of `fuse`, as `mos fuse` has them: what is left out is as there."""

    #: How weights are found.
    solver: Literal["exact", "lbfgs", "average", "sum", "ties", "dare"]
    #: Of the exact solver, in parts of the inputs' mean square; else chosen by measurement.
    ridge: float
    #: What the ridge pulls to.
    towards: Literal["base", "average"]
    #: The part of each change's numbers that ties and dare keep.
    density: float
    #: Prompts on which the model should not change; [] for none.
    keep: Sequence[str]
    #: How much they weigh, all together, in concepts.
    keep_weight: float
    #: Pictures of each prompt by each concept's own model, whose predictions the fused UNet learns.
    distillation: int
    #: Learning rate of that.
    distillation_rate: float
    #: Rank of the updates that learn it.
    distillation_rank: int
    #: Pictures of each prompt of each scene that it learns too, two and three concepts in regions; 0:
    #: none.
    scenes: int
    #: Strength of a concept's own file in its region of a scene, times its own.
    scene_strength: float
    #: Of so many pictures of each prompt of each scene, what is predicted in regions is learnt with
    #: one prompt for the whole picture too; 0: none.
    one_prompt: int
    #: What is recorded of the concepts.
    record: Literal["usual", "published"]
    #: Prompts with {} for a concept's words.
    prompts: Sequence[str]
    #: Others to sample pictures from.
    sampled_prompts: Sequence[str]
    #: Prompts that are recorded from other seeds, to choose the ridge and to measure with; [] for
    #: none.
    held_out: Sequence[str]
    #: What keys and values are fitted to.
    fit: Literal["prompts", "words"]
    #: Pictures that are sampled for each prompt.
    samples: int
    #: Sampling steps.
    steps: int
    guidance: float
    #: Width and height of the sampled pictures.
    size: tuple[int, int]
    seed: int
    precision: str
