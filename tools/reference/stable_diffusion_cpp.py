"""Whether stable-diffusion.cpp reads what `mos convert --quantize` writes, and makes the picture of it that `mos` makes.

    python -m pip install cyllama==0.2.18 pillow numpy
    mos convert MODEL model.gguf --quantize q8_0
    python tools/reference/stable_diffusion_cpp.py MOS model.gguf [pixels]

MOS is the program, model.gguf of Stable Diffusion 1.x or XL (made-up weights will do). Told are the types that it found, and how alike the pictures are.
"""

import pathlib
import subprocess
import sys
import tempfile

import cyllama.sd as sd
import numpy
from PIL import Image

PROMPT = "a red cat in the snow"


def pixels(path):
    return numpy.asarray(Image.open(path).convert("RGB")).astype(float)


def main():
    mos, model = sys.argv[1:3]
    side = int(sys.argv[3]) if len(sys.argv) > 3 else 128
    found = ("Version", "type stat", "not in", "unknown", "error")
    tell = lambda _, text: print(text.strip()) if any(f in text for f in found) else None
    sd.set_log_callback(tell)
    sd.set_progress_callback(lambda *_: None)
    with tempfile.TemporaryDirectory() as folder:
        theirs, ours = (pathlib.Path(folder) / f"{who}.png" for who in ("theirs", "ours"))
        made = sd.text_to_image(
            model,
            PROMPT,
            width=side,
            height=side,
            seed=1,
            sample_steps=2,
            cfg_scale=1.0,
            n_threads=1,
            sample_method=sd.SampleMethod.EULER,
        )
        made.save(str(theirs))
        # Its random numbers are those of torch on CUDA, its steps evenly spaced from the last one on.
        line = "--rng philox --sampler euler --schedule linspace --steps 2 --guidance 1 --seed 1"
        size = ["--width", str(side), "--height", str(side)]
        subprocess.run(
            [mos, "generate", "-m", model, "-p", PROMPT, *line.split(), *size, "-o", ours],
            check=True,
        )
        error = ((pixels(theirs) - pixels(ours)) ** 2).mean()
        print(f"{10 * numpy.log10(255**2 / max(error, 1e-9)):.1f} dB")


if __name__ == "__main__":
    main()
