"""Pictures and numbers between Python and the library.

Arrays are whatever has a buffer: numpy's, the standard library's, a `memoryview`. Neither numpy nor
Pillow is needed to import this; Pillow is where pictures come out.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Optional, Union

if TYPE_CHECKING:
    from PIL.Image import Image

    if sys.version_info >= (3, 12):
        from collections.abc import Buffer as Buffer
    else:
        from typing_extensions import Buffer as Buffer

#: A picture: a file's path, a `PIL.Image.Image`, or an array `[height, width, 3]` of uint8.
PictureLike = Union[str, "os.PathLike[str]", "Image", "Buffer"]
#: A mask: a file's path, a `PIL.Image.Image`, or an array `[height, width]`, white inside.
MaskLike = PictureLike


class Elements:
    """The elements of an array in C order, with their format and shape."""

    __slots__ = ("bytes", "format", "shape")

    def __init__(self, format: str, shape: Sequence[int], data: bytes) -> None:
        self.format = format
        self.shape = tuple(shape)
        self.bytes = data


def elements(array: Any, what: str) -> Elements:
    """The elements of anything with a buffer."""
    try:
        view = memoryview(array)
    except TypeError as error:
        raise TypeError(
            f"{what} is {type(array).__name__}: expected a path, a PIL image or an array "
            "(an object with a buffer, such as numpy's)"
        ) from error
    return Elements(view.format, view.shape or (), view.tobytes())


def is_path(given: object) -> bool:
    return isinstance(given, (str, os.PathLike))


def _is_image(given: object) -> bool:
    # Without importing Pillow: who has one of its pictures has imported it.
    module = sys.modules.get("PIL.Image")
    return module is not None and isinstance(given, module.Image)


def picture(given: Optional[PictureLike], what: str) -> Any:
    """A picture as the library takes it. Transparency is dropped, as it is for files."""
    if given is None or is_path(given):
        return given
    if _is_image(given):
        image: Any = given
        image = image.convert("RGB")
        return Elements("B", (image.height, image.width, 3), image.tobytes())
    return elements(given, what)


def mask(given: Optional[MaskLike], what: str) -> Any:
    """A mask as the library takes it."""
    if given is None or is_path(given):
        return given
    if _is_image(given):
        image: Any = given
        image = image.convert("L")
        return Elements("B", (image.height, image.width), image.tobytes())
    return elements(given, what)


def array(data: bytes, shape: Sequence[int]) -> memoryview[float]:
    """An array of float32 that anybody with buffers can take: `numpy.asarray(array)`."""
    return memoryview(bytearray(data)).cast("B").cast("f", tuple(shape))


def image(width: int, height: int, rgb: bytes, info: Optional[dict[str, str]] = None) -> Image:
    """A PIL image of these pixels."""
    try:
        from PIL import Image as pillow
    except ImportError as error:
        raise ImportError(
            "pictures are Pillow's, which is not installed: pip install pillow"
        ) from error
    made = pillow.frombytes("RGB", (width, height), rgb)
    made.info.update(info or {})
    return made
