"""A model, loaded: pictures, latents, and files of pictures."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Literal, Optional, Union, overload

from . import _native
from ._arrays import MaskLike, PictureLike, array, elements, image, picture
from ._native import Concept
from ._request import Control, Hires, Path, Region, request

if TYPE_CHECKING:
    from PIL.Image import Image

    from ._arrays import Buffer

#: Told of the stage, of how much of it is done, and of how much there is. Returning False ends the
#: call with `Cancelled`; raising ends it with that exception.
Progress = Callable[[str, int, int], object]

#: Shown what pictures will be while they are sampled, small and rough, with the calls of the model
#: that are done and all of them. Raising ends the call.
Shown = Callable[["list[Image]", int, int], object]


def _show(shown: Optional[Shown]) -> Optional[Callable[[list[tuple[int, int, bytes]], int, int], object]]:
    if shown is None:
        return None
    see = shown
    return lambda pictures, done, of: see([image(*pixels) for pixels in pictures], done, of)


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
        guidance_from: Optional[float] = ...,
        guidance_until: Optional[float] = ...,
        cache: Optional[int] = ...,
        hires: Union[float, Hires, None] = ...,
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
        memory: Optional[int] = ...,
        preview: Optional[int] = ...,
        shown: Optional[Shown] = ...,
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
        guidance_from: Optional[float] = ...,
        guidance_until: Optional[float] = ...,
        cache: Optional[int] = ...,
        hires: Union[float, Hires, None] = ...,
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
        memory: Optional[int] = ...,
        preview: Optional[int] = ...,
        shown: Optional[Shown] = ...,
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
        mask: Optional[MaskLike] = None,
        noise: Optional[Union[Path, Buffer]] = None,
        tile: Optional[int] = None,
        memory: Optional[int] = None,
        preview: Optional[int] = None,
        shown: Optional[Shown] = None,
        progress: Optional[Progress] = None,
        latents: bool = False,
    ) -> Union[list[Image], tuple[list[Image], memoryview[float]]]:
        """Pictures of `prompt`, the same as `mos generate` makes with the same options.

        Each has its settings in `.info`, as the program's PNG files do; `mixofshow.save` writes
        such a file. What is None is as in the program: `size`, `guidance` and `sampler` are the
        model's, `seed` is drawn. With `latents=True` the final latents come too: an array of
        float32, `[batch, channels, height, width]`, which `numpy.asarray` takes as it is.
        `original_size` (width, height) and `crop` (left, top) are what Stable Diffusion XL is told.

        `guidance_from` and `guidance_until`, 0 to 1, are the part of the steps in which guidance
        acts; `cache=2` runs the UNet's deep layers in every other step only; `hires` makes a larger
        picture of the first, by a factor or a `Hires`; `memory` is a budget in bytes of the device.
        `shown` is called with what the pictures will be, every `preview` calls of the model.

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
            guidance_from=guidance_from,
            guidance_until=guidance_until,
            cache=cache,
            hires=hires,
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
            memory=memory,
            # Each call of the model, unless it is said how often.
            preview=preview if shown is None else preview or 1,
        )
        made, data, shape, told = self._native.generate(asked, progress, _show(shown))
        for warning in told:
            warnings.warn(warning, stacklevel=2)
        pictures = [
            image(*pixels, {"parameters": text, "mos": own}) for pixels, text, own in made
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
    vae: Optional[Path] = None,
) -> Model:
    """Loads a model: a diffusers folder or a safetensors file, or a name in `MOS_MODELS`' folder.

    Without a name, the very small one that ships. `device` is `cpu`, a number or a part of a name
    of those in `mixofshow.devices()`; without it the best graphics card, else the processor.
    `precision` is `as-stored`, `f16`, `f32`, `q8_0` or `q4_0`. `vae` is a small autoencoder (TAESD)
    that decodes in place of the model's own.
    """
    path, small = (None if given is None else os.fspath(given) for given in (model, vae))
    return Model(_native.load(path, device, precision, small))


def save(picture_: PictureLike, path: Path) -> None:
    """Writes a PNG that carries its settings, byte for byte as `mos generate` does.

    They are those of `.info`; `mos generate --like` makes the picture again from them. The file
    appears whole or not at all.
    """
    info = getattr(picture_, "info", None) or {}
    text, own = info.get("parameters"), info.get("mos")
    told = (text, own) if isinstance(text, str) and isinstance(own, str) else None
    _native.save(picture(picture_, "picture"), os.fspath(path), told)
