"""The example for many machines, on a Ray cluster of two nodes of which one worker is killed."""

import json
import subprocess
import sys

import mixofshow as ms
import pytest
from conftest import ROOT
from test_told import HERE

#: Runs the example on a cluster of its own, and kills the first worker that teaches.
CLUSTER = """
import os, runpy, signal, sys, threading, time
import psutil
from ray.cluster_utils import Cluster

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
cluster.add_node(num_cpus=1)
cluster.wait_for_nodes()
os.environ["RAY_ADDRESS"] = cluster.address

def kill():
    for _ in range(3000):
        for process in psutil.Process().children(recursive=True):
            try:
                if process.name().startswith("ray::teach"):
                    time.sleep(0.5)
                    process.kill()
                    print("killed", flush=True)
                    return
            except psutil.Error:
                pass
        time.sleep(0.05)

threading.Thread(target=kill, daemon=True).start()
sys.argv = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    import ray
    ray.shutdown()
    cluster.shutdown()
"""


def test_the_example_for_many_machines_runs(tmp_path, monkeypatch):
    pytest.importorskip("psutil")
    if subprocess.run([sys.executable, "-c", "import ray"], capture_output=True).returncode:
        pytest.skip("ray is not installed")
    monkeypatch.setenv("MOS_ADAPTER", "cpu")
    settings = {"batch": 1, "accumulate": 1, "size": "64x64"}
    quick = {"steps": 1, "distillation": 0, "keep": [], "prompts": ["a {}"], "size": [64, 64]}
    looked = {"prompts": ["a photo of <TOK>"], "size": [64, 64], "steps": 2}
    example = HERE / "examples/many_machines.py"
    done = subprocess.run(
        [
            *[sys.executable, "-c", CLUSTER, example, ROOT / "models/concepts", tmp_path],
            *["zorp=man", "luma=woman", "--steps", "4", "--settings", json.dumps(settings)],
            *["--fuse", json.dumps(quick), "--evaluate", json.dumps(looked)],
        ],
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert done.returncode == 0, done.stderr
    assert "killed" in done.stdout, done.stdout
    assert set(json.loads((tmp_path / "scores.json").read_text())) == {"zorp", "luma"}
    assert ms.load(tmp_path / "model", device="cpu").size
    # The same bytes on this machine alone.
    (tmp_path / "alone").mkdir()
    (tmp_path / "alone/pictures").symlink_to(ROOT / "models/concepts/zorp")
    monkeypatch.chdir(tmp_path / "alone")
    alone = ms.train(
        {"words": "<zorp1> <zorp2>", "class_word": "man", "steps": 4, **settings},
        name="zorp", sheet_every=0, pictures="pictures", output="zorp.safetensors",
    )  # fmt: skip
    assert alone.path.read_bytes() == (tmp_path / "zorp.safetensors").read_bytes()
