"""Picture files by Pillow and numbers by torch and numpy, for the tests of src/picture.

Run from the root of the repository: python tools/reference/pictures.py
Writes tests/fixtures/pictures/: pictures of 6 x 4 with text in each kind of PNG chunk and with each EXIF orientation, as PNG,
JPEG and WebP; numbers.json with masks resized by torch and decoder values rounded by numpy.
"""

import json
import pathlib
import zlib

import numpy as np
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

OUT = pathlib.Path(__file__).resolve().parents[2] / "tests/fixtures/pictures"
LATIN = "caf\u00e9, (a red cat:1.2)\nNegative prompt: blurry\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 6x4"
UNICODE = "\u7ea2\u732b \U0001f431\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 2, Size: 6x4"


def picture(width=6, height=4):
    """Four quarters: red, green over blue, white."""
    a = np.zeros((height, width, 3), np.uint8)
    a[: height // 2, : width // 2] = [255, 0, 0]
    a[: height // 2, width // 2 :] = [0, 255, 0]
    a[height // 2 :, : width // 2] = [0, 0, 255]
    a[height // 2 :, width // 2 :] = [255, 255, 255]
    return Image.fromarray(a)


def save_text(name, chunk):
    info = PngInfo()
    chunk(info)
    picture().save(OUT / name, pnginfo=info)


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    save_text("text.png", lambda i: i.add_text("parameters", LATIN))
    save_text("compressed.png", lambda i: i.add_text("parameters", LATIN, zip=True))
    save_text("unicode.png", lambda i: i.add_text("parameters", UNICODE))
    save_text(
        "unicode_compressed.png", lambda i: i.add_itxt("parameters", UNICODE, "en", "x", zip=True)
    )
    save_text(
        "after.png",
        lambda i: i.add(b"tEXt", b"parameters\0" + LATIN.encode("latin-1"), after_idat=True),
    )
    save_text(
        "bomb.png",
        lambda i: i.add(b"zTXt", b"parameters\0\0" + zlib.compress(b"a" * (20 << 20), 9)),
    )
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        big = picture(48, 32)
        big.save(OUT / f"exif{orientation}.jpg", exif=exif, quality=90)
        if orientation == 6:
            big.save(OUT / "exif6.webp", exif=exif, lossless=True)
            big.save(OUT / "exif6.png", exif=exif)
    picture().convert("L").save(OUT / "grey.png")
    picture().convert("P", palette=Image.Palette.ADAPTIVE).save(OUT / "palette.png")
    with_alpha = picture().convert("RGBA")
    with_alpha.putalpha(100)
    with_alpha.save(OUT / "alpha.png")

    generator = torch.Generator().manual_seed(0)
    mask = torch.rand(1, 1, 7, 10, generator=generator)
    resized = []
    for height, width in [(7, 10), (3, 4), (1, 1), (14, 20), (5, 9)]:
        for mode in ["nearest", "area"]:
            out = torch.nn.functional.interpolate(mask, size=(height, width), mode=mode)
            resized.append(
                {"mode": mode, "height": height, "width": width, "values": out.flatten().tolist()}
            )
    values = torch.cat([torch.linspace(-1.5, 1.5, 61), (torch.arange(0, 510) / 255 - 1)])[
        :570
    ].reshape(10, 19, 3)
    rounded = ((values / 2 + 0.5).clamp(0, 1).numpy() * 255).round().astype("uint8")
    numbers = {
        "mask": mask.flatten().tolist(),
        "resized": resized,
        "values": values.flatten().tolist(),
        "rounded": rounded.flatten().tolist(),
        "latin": LATIN,
        "unicode": UNICODE,
    }
    (OUT / "numbers.json").write_text(json.dumps(numbers, separators=(",", ":")) + "\n")


main()
