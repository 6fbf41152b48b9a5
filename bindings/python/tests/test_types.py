"""The types, as mypy sees them from outside."""

import pathlib
import re
import subprocess
import sys

import mixofshow
import pytest

USE = '''
import mixofshow as ms
from PIL.Image import Image

model: ms.Model = ms.load("sd15.safetensors", device="cpu")
pictures: list[Image] = model.generate("a cat", seed=1, size=(128, 128), steps=20)
both: tuple[list[Image], memoryview[float]] = model.generate("a cat", latents=True, steps=3)
regions = [ms.Region("a dog", box=(0, 0, 0.5, 1), concepts=[ms.Concept("zorp.safetensors")])]
model.generate("snow", regions=regions, progress=lambda stage, done, of: done < of)
taught: ms.Taught = ms.train("zorp.toml", steps=100)
fused: ms.Fused = ms.fuse([taught.concept(), ("ink.safetensors", "ink")], "both")
ties: ms.Fused = ms.fuse(["a.safetensors"], "b", solver="ties", density=0.2, size=(64, 64))
found: ms.Evaluation = ms.evaluate(["a.safetensors"], pictures=["a"], output="out", model=model)
larger = model.generate("a cat", hires=ms.Hires(2, "lanczos"), cache=2, memory=1 << 30)
ms.train(pictures="a", words="<a1>", prior_pictures=20, size="64x64")
scores: dict[str, float] = ms.scores(model, pictures, texts=["a cat"])
'''


def mypy(folder, *arguments):
    """Run in `folder`, so that an environment below the tests' own is not taken for source files."""
    pytest.importorskip("mypy")
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", folder / "cache"]
    command = [str(part) for part in (*command, *arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_the_package_is_typed(tmp_path):
    folder = pathlib.Path(mixofshow.__file__).parent
    assert (folder / "py.typed").exists()
    done = mypy(tmp_path, "-p", "mixofshow")
    assert done.returncode == 0, done.stdout


def test_users_see_types(tmp_path):
    use = tmp_path / "use.py"
    use.write_text(USE)
    done = mypy(tmp_path, use)
    assert done.returncode == 0, done.stdout
    use.write_text(USE + "ms.train(stepz=3)\nms.fuse([], 'a', solver='none')\n")
    done = mypy(tmp_path, use)
    assert "stepz" in done.stdout and "none" in done.stdout, done.stdout
    use.write_text(USE + "model.generate('a cat', stepz=3)\nwrong: int = model.size\n")
    done = mypy(tmp_path, use)
    assert "stepz" in done.stdout or "overload" in done.stdout
    assert "Incompatible types" in done.stdout


def test_settings_are_those_of_the_library():
    from mixofshow import _native

    named = set(mixofshow.TrainingSettings.__annotations__)
    assert named == {*_native.TRAINING_SETTINGS, "folders"}


def test_the_stub_names_what_there_is():
    from mixofshow import _native

    stub = (pathlib.Path(mixofshow.__file__).parent / "_native.pyi").read_text()
    named = set(re.findall(r"^(?:class |def )?([A-Za-z]\w*)(?=[(:])", stub, re.M))
    assert {name for name in dir(_native) if not name.startswith("__")} == named
    for name in mixofshow.__all__:
        assert getattr(mixofshow, name).__doc__ or name == "__version__"

