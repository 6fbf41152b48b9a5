"""What pictures are asked for with: regions, controls, and all the options of a request."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Optional, Union

from ._arrays import MaskLike, PictureLike, elements, is_path, mask, picture
from ._native import Concept

#: Concepts of a region: names, `Concept`s, or names with factors of their strength.
RegionConcepts = Union[Mapping[str, float], Iterable[Union[str, Concept]]]
Path = Union[str, "os.PathLike[str]"]


@dataclass
class Region:
    """A part of the picture with a prompt of its own.

    At most one of `box`, `polygon` and `mask` says where; none of them: everywhere. Numbers that
    are all at most 1 are fractions of the picture, others pixels.
    """

    prompt: str
    #: Left, top, right, bottom.
    box: Optional[Sequence[float]] = None
    #: None: the picture's negative prompt.
    negative: Optional[str] = None
    #: Concepts that act here and in other regions that name them, nowhere else.
    concepts: RegionConcepts = ()
    #: Corners `(x, y)`.
    polygon: Optional[Sequence[Sequence[float]]] = None
    #: White inside; grey is soft. Of the picture's proportions.
    mask: Optional[MaskLike] = None
    #: For messages.
    name: Optional[str] = None
    #: Width of the edge over which it fades.
    soft: float = 0.0
    #: Its part of the mean where regions of its `order` overlap.
    weight: float = 1.0
    #: Higher ones lie over lower ones.
    order: int = 0
    #: The picture's prompt's share inside, 0 to 1.
    base: float = 0.0
    #: It holds from this part of the steps, 0 to 1.
    start: float = 0.0
    #: Where it ends.
    end: float = 1.0
    #: Factors of controls inside, by name.
    controls: Mapping[str, float] = field(default_factory=dict)


@dataclass
class Control:
    """A ControlNet or a T2I-Adapter that steers the picture."""

    #: Its folder or file, or the name of one inside of the model (`Model.controls`).
    network: Path
    #: What it follows, or anything from which `make` draws it.
    image: PictureLike
    #: `canny` or `outline`; None: the image as it is.
    make: Optional[str] = None
    #: Factor of what it adds.
    weight: float = 1.0
    #: It steers from this part of the steps, 0 to 1.
    start: float = 0.0
    #: Where it ends.
    end: float = 1.0
    #: As regions name it; None: the network's file name.
    name: Optional[str] = None


@dataclass
class Hires:
    """A second pass over a larger picture, made from the first."""

    #: How many times larger the picture becomes along each side.
    scale: float = 2.0
    #: `latent`, `latent-nearest`, `latent-nearest-exact`, `latent-bicubic`, `lanczos`, or the file
    #: of an upscaler of ESRGAN's kind.
    upscaler: Path = "latent"
    #: How much of the enlarged picture is changed, above 0 to 1.
    strength: float = 0.7
    #: Steps of its whole schedule; None: as many as the first pass has.
    steps: Optional[int] = None


class Plain:
    """Attributes, as the library reads them."""

    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)


def _factors(concepts: RegionConcepts) -> dict[str, float]:
    if isinstance(concepts, Mapping):
        return {name: float(factor) for name, factor in concepts.items()}
    if isinstance(concepts, str):
        raise TypeError("concepts of a region are a list of names or a mapping, not one name")
    return {concept.name if isinstance(concept, Concept) else concept: 1.0 for concept in concepts}


def _region(region: Region, number: int) -> Plain:
    what = f"the mask of region {number}"
    given = {name: getattr(region, name) for name in region.__dataclass_fields__}
    if region.box is not None:
        given["box"] = [float(edge) for edge in region.box]
    if region.polygon is not None:
        given["polygon"] = [[float(x) for x in corner] for corner in region.polygon]
    given["mask"] = mask(region.mask, what)
    given["concepts"] = _factors(region.concepts)
    given["controls"] = {name: float(factor) for name, factor in region.controls.items()}
    return Plain(**given)


def _control(control: Control) -> Plain:
    given = {name: getattr(control, name) for name in control.__dataclass_fields__}
    given["network"] = os.fspath(control.network)
    given["image"] = picture(control.image, "the control's image")
    return Plain(**given)


def _hires(hires: Union[float, Hires, None]) -> Optional[Plain]:
    if hires is None:
        return None
    given = hires if isinstance(hires, Hires) else Hires(scale=hires)
    # As in the program, once as large means no second pass.
    if given.scale == 1:
        return None
    return Plain(
        scale=float(given.scale),
        upscaler=os.fspath(given.upscaler),
        strength=float(given.strength),
        steps=given.steps,
    )


def _seed(seed: Any) -> Optional[int]:
    """A number, or the one that a `torch.Generator` was seeded with."""
    initial = getattr(seed, "initial_seed", None)
    return int(initial()) if callable(initial) else seed


def _concept(given: Union[Concept, Path]) -> Concept:
    return given if isinstance(given, Concept) else Concept(given)


def request(
    *,
    prompt: Optional[str] = None,
    negative: Optional[str] = None,
    seed: Any = None,
    size: Optional[tuple[int, int]] = None,
    steps: Optional[int] = None,
    guidance: Optional[float] = None,
    batch: Optional[int] = None,
    sampler: Optional[str] = None,
    schedule: Optional[str] = None,
    karras: bool = False,
    eta: Optional[float] = None,
    guidance_rescale: Optional[float] = None,
    guidance_from: Optional[float] = None,
    guidance_until: Optional[float] = None,
    cache: Optional[int] = None,
    hires: Union[float, Hires, None] = None,
    original_size: Optional[tuple[int, int]] = None,
    crop: Optional[tuple[int, int]] = None,
    rng: Optional[str] = None,
    clip_skip: Optional[int] = None,
    long_prompt: bool = False,
    prompt_syntax: Optional[str] = None,
    concepts: Iterable[Union[Concept, Path]] = (),
    force_base: bool = False,
    regions: Iterable[Region] = (),
    layout: Optional[Path] = None,
    isolate: bool = False,
    stack: bool = False,
    controls: Iterable[Control] = (),
    init_image: Optional[PictureLike] = None,
    strength: Optional[float] = None,
    mask_image: Optional[MaskLike] = None,
    noise: Any = None,
    tile: Optional[int] = None,
    memory: Optional[int] = None,
    preview: Optional[int] = None,
) -> Plain:
    """All of a request, as the library reads it."""
    regions = list(regions)
    used = [_concept(concept) for concept in concepts]
    # Concepts that regions bring along are in use too: in those regions.
    for region in regions:
        if not isinstance(region.concepts, Mapping):
            for concept in region.concepts:
                if isinstance(concept, Concept) and concept not in used:
                    used.append(concept)
    return Plain(
        prompt=prompt,
        negative=negative,
        seed=_seed(seed),
        size=size,
        steps=steps,
        guidance=guidance,
        batch=batch,
        sampler=sampler,
        schedule=schedule,
        karras=karras,
        eta=eta,
        guidance_rescale=guidance_rescale,
        guidance_from=guidance_from,
        guidance_until=guidance_until,
        cache=cache,
        hires=_hires(hires),
        original_size=original_size,
        crop=crop,
        rng=rng,
        clip_skip=clip_skip,
        long_prompt=long_prompt,
        prompt_syntax=prompt_syntax,
        concepts=used,
        force_base=force_base,
        regions=[_region(region, index + 1) for index, region in enumerate(regions)],
        layout=layout,
        isolate=isolate,
        stack=stack,
        controls=[_control(control) for control in controls],
        init_image=picture(init_image, "init_image"),
        strength=strength,
        mask=mask(mask_image, "mask"),
        noise=noise if noise is None or is_path(noise) else elements(noise, "noise"),
        tile=tile,
        memory=memory,
        preview=preview,
    )
