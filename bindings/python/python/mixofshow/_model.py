"""A model, loaded: pictures, latents, and files of pictures."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Literal, Optional, Union, overload

from . import _native
from ._arrays import MaskLike, PictureLike, array, elements, image, picture
from ._native import Concept
from ._request import Control, Path, Region, request

if TYPE_CHECKING:
    from PIL.Image import Image

    from ._arrays import Buffer

#: Told of the stage, of how much of it is done, and of how much there is. Returning False ends the
#: call with `Cancelled`; raising ends it with that exception.
Progress = Callable[[str, int, int], object]


class Model:
    """A model on a device, from `load`. Threads may share it: their calls wait for each other."""

    def __init__(self, native: _native.Model) -> None:
        self._native = native

    @property
    def name(self) -> str:
        """As it was asked for."""
        return self._native.name

    @property
    def device(self) -> str:
        """The name of the device that it is on."""
        return self._native.device

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels that it was trained at."""
        return self._native.size

    @property
    def guidance(self) -> float:
        """The guidance that suits it."""
        return self._native.guidance

    @property
    def sampler(self) -> str:
        """The sampler that its files name."""
        return self._native.sampler

    @property
    def factor(self) -> int:
        """Pixels per latent, along one side."""
        return self._native.factor

    @property
    def controls(self) -> list[str]:
        """Networks inside of the model that steer pictures, for `Control(network=...)`."""
        return self._native.controls

    @property
    def notes(self) -> list[str]:
        """What was assumed of its files."""
        return self._native.notes

    @property
    def hash(self) -> str:
        """SHA-256 of its weights, as the settings of pictures name it."""
        return self._native.hash

    def __repr__(self) -> str:
        return repr(self._native)

    @overload
    def generate(
        self,
        prompt: Optional[str] = ...,
        *,
        negative: Optional[str] = ...,
        seed: Any = ...,
        size: Optional[tuple[int, int]] = ...,
        steps: Optional[int] = ...,
        guidance: Optional[float] = ...,
        batch: Optional[int] = ...,
        sampler: Optional[str] = ...,
        schedule: Optional[str] = ...,
        karras: bool = ...,
        eta: Optional[float] = ...,
        guidance_rescale: Optional[float] = ...,
        original_size: Optional[tuple[int, int]] = ...,
        crop: Optional[tuple[int, int]] = ...,
        rng: Optional[str] = ...,
        clip_skip: Optional[int] = ...,
        long_prompt: bool = ...,
        prompt_syntax: Optional[str] = ...,
        concepts: Iterable[Union[Concept, Path]] = ...,
        force_base: bool = ...,
        regions: Iterable[Region] = ...,
        layout: Optional[Path] = ...,
        isolate: bool = ...,
        stack: bool = ...,
        controls: Iterable[Control] = ...,
        init_image: Optional[PictureLike] = ...,
        strength: Optional[float] = ...,
        mask: Optional[MaskLike] = ...,
        noise: Optional[Union[Path, Buffer]] = ...,
        tile: Optional[int] = ...,
        progress: Optional[Progress] = ...,
        latents: Literal[False] = ...,
    ) -> list[Image]: ...

    @overload
    def generate(
        self,
        prompt: Optional[str] = ...,
        *,
        negative: Optional[str] = ...,
        seed: Any = ...,
        size: Optional[tuple[int, int]] = ...,
        steps: Optional[int] = ...,
        guidance: Optional[float] = ...,
        batch: Optional[int] = ...,
        sampler: Optional[str] = ...,
        schedule: Optional[str] = ...,
        karras: bool = ...,
        eta: Optional[float] = ...,
        guidance_rescale: Optional[float] = ...,
        original_size: Optional[tuple[int, int]] = ...,
        crop: Optional[tuple[int, int]] = ...,
        rng: Optional[str] = ...,
        clip_skip: Optional[int] = ...,
        long_prompt: bool = ...,
        prompt_syntax: Optional[str] = ...,
        concepts: Iterable[Union[Concept, Path]] = ...,
        force_base: bool = ...,
        regions: Iterable[Region] = ...,
        layout: Optional[Path] = ...,
        isolate: bool = ...,
        stack: bool = ...,
        controls: Iterable[Control] = ...,
        init_image: Optional[PictureLike] = ...,
        strength: Optional[float] = ...,
        mask: Optional[MaskLike] = ...,
        noise: Optional[Union[Path, Buffer]] = ...,
        tile: Optional[int] = ...,
        progress: Optional[Progress] = ...,
        latents: Literal[True],
    ) -> tuple[list[Image], memoryview[float]]: ...

    def generate(
        self,
        prompt: Optional[str] = None,
        *,
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
        mask: Optional[MaskLike] = None,
        noise: Optional[Union[Path, Buffer]] = None,
        tile: Optional[int] = None,
        progress: Optional[Progress] = None,
        latents: bool = False,
    ) -> Union[list[Image], tuple[list[Image], memoryview[float]]]:
        """Pictures of `prompt`, the same as `mos generate` makes with the same options.

        Each has its settings in `.info`, as the program's PNG files do; `mixofshow.save` writes
        such a file. What is None is as in the program: `size`, `guidance` and `sampler` are the
        model's, `seed` is drawn. With `latents=True` the final latents come too: an array of
        float32, `[batch, channels, height, width]`, which `numpy.asarray` takes as it is.
        `original_size` (width, height) and `crop` (left, top) are what Stable Diffusion XL is told.

        Odd requests (a prompt that is cut, a stretched picture) are told by `warnings`.
        """
        if prompt is None and layout is None:
            raise TypeError("generate() needs a prompt, or a layout that has one")
        asked = request(
            prompt=prompt,
            negative=negative,
            seed=seed,
            size=size,
            steps=steps,
            guidance=guidance,
            batch=batch,
            sampler=sampler,
            schedule=schedule,
            karras=karras,
            eta=eta,
            guidance_rescale=guidance_rescale,
            original_size=original_size,
            crop=crop,
            rng=rng,
            clip_skip=clip_skip,
            long_prompt=long_prompt,
            prompt_syntax=prompt_syntax,
            concepts=concepts,
            force_base=force_base,
            regions=regions,
            layout=layout,
            isolate=isolate,
            stack=stack,
            controls=controls,
            init_image=init_image,
            strength=strength,
            mask_image=mask,
            noise=noise,
            tile=tile,
        )
        shown, data, shape, told = self._native.generate(asked, progress)
        for warning in told:
            warnings.warn(warning, stacklevel=2)
        pictures = [
            image(*pixels, {"parameters": text, "mos": own}) for pixels, text, own in shown
        ]
        return (pictures, array(data, shape)) if latents else pictures

    def encode(self, picture_: PictureLike, *, tile: Optional[int] = None) -> memoryview[float]:
        """The latents of a picture, `[1, channels, height, width]`: the mean of what it may be."""
        data, shape = self._native.encode(picture(picture_, "picture"), tile)
        return array(data, shape)

    def decode(self, latents: Buffer, *, tile: Optional[int] = None) -> list[Image]:
        """The pictures of latents `[batch, channels, height, width]`."""
        made = self._native.decode(elements(latents, "latents"), tile)
        return [image(*pixels) for pixels in made]


def load(
    model: Optional[Path] = None,
    *,
    device: Optional[str] = None,
    precision: Optional[str] = None,
) -> Model:
    """Loads a model: a diffusers folder or a safetensors file, or a name in `MOS_MODELS`' folder.

    Without a name, the very small one that ships. `device` is `cpu`, a number or a part of a name
    of those in `mixofshow.devices()`; without it the best graphics card, else the processor.
    `precision` is `as-stored`, `f16`, `f32`, `q8_0` or `q4_0`.
    """
    return Model(_native.load(None if model is None else os.fspath(model), device, precision))


def save(picture_: PictureLike, path: Path) -> None:
    """Writes a PNG that carries its settings, byte for byte as `mos generate` does.

    They are those of `.info`; `mos generate --like` makes the picture again from them. The file
    appears whole or not at all.
    """
    info = getattr(picture_, "info", None) or {}
    text, own = info.get("parameters"), info.get("mos")
    told = (text, own) if isinstance(text, str) and isinstance(own, str) else None
    _native.save(picture(picture_, "picture"), os.fspath(path), told)
