"""Long calls: progress, their end, Ctrl-C, threads; and what goes wrong."""

import _thread
import signal
import subprocess
import sys
import threading
import time
import warnings

import mixofshow as ms
import numpy as np
import pytest
from conftest import QUICK


def test_progress_is_told_of_every_stage(model):
    told = []
    model.generate("a cat", seed=1, progress=lambda *at: told.append(at), **QUICK)
    stages = [stage for stage, _, _ in told]
    assert list(dict.fromkeys(stages)) == ["text", "prepare", "sample", "decode"]
    assert ("sample", 2, 2) in told or ("sample", 1, 2) in told


def test_false_ends_a_call_and_the_model_works_on(model):
    told = []

    def progress(stage, done, of):
        told.append(stage)
        return stage != "sample"

    with pytest.raises(ms.Cancelled, match="cancelled"):
        model.generate("a cat", seed=1, progress=progress, **QUICK)
    assert told[-1] == "sample" and "decode" not in told
    model.generate("a cat", seed=1, progress=lambda *at: None, **QUICK)


def test_what_a_callback_raises_comes_back(model):
    class Mine(Exception):
        pass

    def progress(stage, done, of):
        raise Mine("enough")

    with pytest.raises(Mine, match="enough"):
        model.generate("a cat", seed=1, progress=progress, **QUICK)


def test_ctrl_c_is_an_interrupt(model):
    def progress(stage, done, of):
        if stage == "sample":
            _thread.interrupt_main()

    with pytest.raises(KeyboardInterrupt):
        model.generate("a cat", seed=1, steps=50, progress=progress)


@pytest.mark.skipif(sys.platform == "win32", reason="a console has no SIGINT for one process")
def test_ctrl_c_ends_a_process_without_a_callback():
    program = (
        "import mixofshow as ms\n"
        "model = ms.load(device='cpu')\n"
        "print('ready', flush=True)\n"
        "model.generate('a cat', batch=500, steps=900)\n"
    )
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.readline().strip() == b"ready"
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=120)
    assert b"KeyboardInterrupt" in told


def test_other_threads_run_while_it_computes(model):
    counted, stop = [0], threading.Event()

    def count():
        while not stop.is_set():
            counted[0] += 1
            time.sleep(0.001)

    thread = threading.Thread(target=count)
    thread.start()
    model.generate("a cat", seed=1, steps=4)
    stop.set()
    thread.join()
    assert counted[0] > 5


def test_threads_wait_for_each_other_and_get_the_same(model):
    [alone] = model.generate("a cat", seed=1, **QUICK)
    made = []
    threads = [
        threading.Thread(target=lambda: made.extend(model.generate("a cat", seed=1, **QUICK)))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [picture.tobytes() for picture in made] == [alone.tobytes()] * 3


def test_a_callback_cannot_use_the_model_that_calls_it(model):
    def progress(stage, done, of):
        model.generate("a dog", **QUICK)

    with pytest.raises(ms.PipelineError, match="callback"):
        model.generate("a cat", seed=1, progress=progress, **QUICK)


def test_errors_have_the_words_of_the_program(model, mos, tmp_path):
    def theirs(*arguments):
        told = mos(*arguments, "-o", tmp_path / "a.png", fails=True)
        return told.removeprefix("error: ").strip()

    with pytest.raises(ms.CheckpointError) as raised:
        ms.load(tmp_path / "none.safetensors")
    error = theirs("generate", "-p", "a cat", "-m", tmp_path / "none.safetensors")
    assert " ".join(str(raised.value).split()) == " ".join(error.split())
    with pytest.raises(ms.PipelineError) as raised:
        model.generate("a cat", size=(60, 64))
    error = theirs("generate", "-p", "a cat", "--size", "60x64")
    assert " ".join(str(raised.value).split()) == " ".join(error.split())
    with pytest.raises(ms.RegionError, match="region `1`: box"):
        model.generate("a cat", regions=[ms.Region("a dog", box=(0.5, 0, 0.4, 1))], **QUICK)
    with pytest.raises(ms.ConceptError if False else ms.Error):
        ms.Concept(tmp_path / "none.safetensors")
    with pytest.raises(ms.PictureError, match=r"none\.png"):
        model.generate("a cat", init_image=tmp_path / "none.png")
    with pytest.raises(ms.BackendError, match="no such card"):
        ms.load(device="no such card")
    assert issubclass(ms.RegionError, ms.Error) and issubclass(ms.Cancelled, ms.Error)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"sampler": "none"}, ms.PipelineError, "none"),
        ({"rng": "none"}, ms.PipelineError, "none"),
        ({"prompt_syntax": "none"}, ms.PipelineError, "auto, on or off"),
        ({"batch": 0}, ms.PipelineError, "batch is 0"),
        ({"strength": 0.5}, ms.PipelineError, "init_image"),
        ({"mask": np.ones((64, 64), "uint8")}, ms.PipelineError, "initial picture"),
        ({"isolate": True}, ms.PipelineError, "regions"),
        ({"init_image": np.zeros((4, 4))}, ms.PipelineError, "init_image"),
        ({"init_image": 5}, TypeError, "init_image is int"),
        ({"noise": np.zeros((1, 4, 3, 3), "int64")}, ms.PipelineError, "float32"),
        ({"noise": np.zeros((1, 4, 3, 3), "float32")}, ms.PipelineError, "latents"),
        ({"seed": -1}, Exception, "seed"),
        ({"steps": "many"}, TypeError, "steps"),
    ],
)
def test_wrong_options_are_named(model, options, error, words):
    with pytest.raises(error, match=words) as raised:
        model.generate("a cat", **{**QUICK, **options})
    assert "panic" not in str(raised.value).lower()


def test_odd_requests_are_warned_of(model):
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        model.generate("cat " * 90, seed=1, **QUICK)
    assert any("cut" in str(warning.message) or "77" in str(warning.message) for warning in told)
    assert told[0].filename == __file__


def test_devices_end_in_the_processor():
    assert ms.devices()[-1] == "cpu"
