"""What the tests share: the shipped model, and the program to compare with."""

import os
import pathlib
import subprocess

import mixofshow as ms
import pytest

#: The repository: models and concepts to test with.
ROOT = pathlib.Path(os.environ.get("MOS_ROOT") or pathlib.Path(__file__).resolve().parents[3])
#: Of all requests, so that they are quick.
QUICK = {"size": (64, 64), "steps": 2, "sampler": "ddim"}
QUICK_FLAGS = ["--size", "64x64", "--steps", "2", "--sampler", "ddim"]


@pytest.fixture(scope="session")
def model():
    return ms.load(device="cpu")


@pytest.fixture(scope="session")
def mos():
    """Runs the program `mos`, which `MOS` names or cargo has built."""
    places = [os.environ.get("MOS"), ROOT / "target/debug/mos", ROOT / "target/release/mos"]
    found = [place for place in places if place and os.path.exists(place)]
    if not found:
        pytest.skip("there is no `mos` to compare with: cargo build, or MOS=...")

    def run(*arguments, fails=False):
        command = [str(found[0]), *map(str, arguments), "--adapter", "cpu"]
        done = subprocess.run(command, capture_output=True, text=True)
        assert (done.returncode != 0) == fails, done.stderr
        return done.stderr if fails else done.stdout

    return run


@pytest.fixture(scope="session")
def concept(tmp_path_factory):
    """A concept, barely taught."""
    folder = tmp_path_factory.mktemp("concept")
    return taught(folder, "zorp", "man").concept()


def taught(folder, name, class_word, steps=2, **more):
    return ms.train(
        ROOT / "models/concepts/settings.toml",
        device="cpu",
        name=name,
        words=f"<{name}1> <{name}2>",
        class_word=class_word,
        pictures=ROOT / "models/concepts" / name,
        output=folder / f"{name}.safetensors",
        steps=steps,
        batch=1,
        sheet_every=0,
        size="64x64",
        **more,
    )
