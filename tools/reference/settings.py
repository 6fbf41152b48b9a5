"""Pictures whose settings stand in EXIF, as real programs write them, for the tests of src/picture
and src/pipeline/recipe.

Run from the root of the repository: python tools/reference/settings.py (Pillow and piexif 1.1.3)
Writes tests/fixtures/pictures/settings/: pictures of 8 x 8 as JPEG and WebP, and expected.json with
the text that each holds.
"""

import io
import json
import pathlib

import piexif
import piexif.helper
from PIL import Image

OUT = pathlib.Path(__file__).resolve().parents[2] / "tests/fixtures/pictures/settings"
SETTINGS = "\nNegative prompt: blurry\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 8x8"
PLAIN = "a red cat" + SETTINGS
UNICODE = "caf\u00e9, \u7ea2\u732b" + SETTINGS
COMMENT, MAKER_NOTE, SOFTWARE, MAKE, MODEL = 0x9286, 0x927C, 0x0131, 0x010F, 0x0110
EXIF_IFD = 0x8769
FOOOCUS = json.dumps(
    {
        "prompt": "a red cat",
        "negative_prompt": "blurry",
        "full_prompt": ["a red cat"],
        "full_negative_prompt": ["blurry"],
        "steps": 20,
        "guidance_scale": 7.0,
        "sampler": "euler_ancestral",
        "scheduler": "normal",
        "seed": "1",
        "resolution": "(8, 8)",
        "base_model": "xl",
        "metadata_scheme": "fooocus",
        "version": "Fooocus v2.5.5",
    }
)
GRAPH = json.dumps(
    {
        "3": {
            "class_type": "KSampler",
            "inputs": {
                "seed": 1,
                "steps": 20,
                "cfg": 7.0,
                "sampler_name": "euler_ancestral",
                "scheduler": "normal",
                "denoise": 1.0,
                "model": ["4", 0],
                "positive": ["6", 0],
                "negative": ["7", 0],
                "latent_image": ["5", 0],
            },
        },
        "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "sd15.safetensors"}},
        "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 8, "height": 8}},
        "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a red cat", "clip": ["4", 1]}},
        "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "blurry", "clip": ["4", 1]}},
    }
)


def save(name, exif):
    picture = Image.new("RGB", (8, 8), (90, 90, 90))
    if name.endswith(".webp"):
        picture.save(OUT / name, lossless=True, exif=exif)
    else:
        picture.save(OUT / name, quality=50, optimize=True, exif=exif)


def by_piexif(name, comment, first={}):
    """As web UIs: the comment in the Exif IFD, behind which piexif writes no pointer to a next one."""
    exif = piexif.dump({"0th": first, "Exif": {COMMENT: comment}})
    if name.endswith(".webp"):
        save(name, exif)
        return
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (90, 90, 90)).save(buffer, "JPEG", quality=50, optimize=True)
    piexif.insert(exif, buffer.getvalue(), str(OUT / name))


def by_pillow(name, comment, first=True):
    """Pillow types the comment by what it is given: text as ASCII, bytes as BYTE or UNDEFINED."""
    exif = Image.Exif()
    (exif if first else exif.get_ifd(EXIF_IFD))[COMMENT] = comment
    save(name, exif)


def retyped(name, source, kind):
    """The same file with another type (1 BYTE, 2 ASCII, 7 UNDEFINED) at the comment's tag."""
    data = bytearray((OUT / source).read_bytes())
    for order in ("big", "little"):
        for old in (1, 2, 7):
            mark = COMMENT.to_bytes(2, order) + old.to_bytes(2, order)
            if (at := data.find(mark)) >= 0:
                data[at + 2 : at + 4] = kind.to_bytes(2, order)
    (OUT / name).write_bytes(data)


def fooocus(name, comment, scheme):
    exif = Image.Exif()
    exif[COMMENT] = comment
    exif[SOFTWARE] = "Fooocus v2.5.5"
    exif[MAKER_NOTE] = scheme
    save(name, exif)


def comfyui(name):
    exif = Image.Exif()
    exif[MODEL] = "prompt:" + GRAPH
    exif[MAKE] = "workflow:" + json.dumps({"nodes": [], "version": 0.4})
    save(name, exif)


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    unicode_big = piexif.helper.UserComment.dump(UNICODE, encoding="unicode")
    unicode_little = b"UNICODE\0" + UNICODE.encode("utf-16-le")
    for kind in ("jpg", "webp"):
        by_piexif(f"piexif-unicode.{kind}", unicode_big)
        by_piexif(f"piexif-unicode-little.{kind}", unicode_little)
        by_piexif(f"piexif-ascii.{kind}", piexif.helper.UserComment.dump(PLAIN, encoding="ascii"))
        by_piexif(f"piexif-bare.{kind}", UNICODE.encode())
        by_piexif(f"piexif-more.{kind}", unicode_big, {SOFTWARE: "a web UI", MAKE: "x"})
        by_pillow(f"pillow-bytes.{kind}", unicode_big, first=False)
        by_pillow(f"pillow-bytes-first.{kind}", unicode_little)
        by_pillow(f"pillow-text.{kind}", PLAIN, first=False)
        by_pillow(f"pillow-text-first.{kind}", PLAIN)
        retyped(f"byte.{kind}", f"piexif-unicode.{kind}", 1)
        retyped(f"ascii-little.{kind}", f"piexif-unicode-little.{kind}", 2)
        fooocus(f"fooocus.{kind}", FOOOCUS, "fooocus")
        fooocus(f"fooocus-a1111.{kind}", PLAIN, "a1111")
        comfyui(f"comfyui.{kind}")
    expected = {
        path.name: PLAIN
        if any(word in path.name for word in ("text", "piexif-ascii", "fooocus", "comfyui"))
        else UNICODE
        for path in sorted(OUT.iterdir())
        if path.suffix in (".jpg", ".webp")
    }
    (OUT / "expected.json").write_text(json.dumps(expected, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
