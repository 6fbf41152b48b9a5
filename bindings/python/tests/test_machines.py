"""The example for many machines, on a Ray cluster of two nodes of which a worker is killed."""

import json
import subprocess
import sys

import mixofshow as ms
import pytest
from conftest import ROOT
from test_told import HERE

#: Runs the example on a cluster of its own, and kills the first worker that teaches.
CLUSTER = """
import os, runpy, sys, threading, time
import psutil
from ray.cluster_utils import Cluster

# As small as they can be: a processor each, no workers before there is work.
node = {"num_cpus": 1, "object_store_memory": 80 << 20}
cluster = Cluster(initialize_head=True, head_node_args={"include_dashboard": False, **node})
cluster.add_node(**node)
cluster.wait_for_nodes(timeout=600)
os.environ["RAY_ADDRESS"] = cluster.address

def at_work():
    for process in psutil.Process().children(recursive=True):
        try:
            if "".join(process.cmdline()).startswith("ray::teach"):
                yield process
        except psutil.Error:
            pass

def kill(after):
    for _ in range(12000):
        for process in at_work():
            # In the midst of its work, by the processor's time that it has had.
            try:
                begun = process.cpu_times().user
                while process.cpu_times().user < begun + after:
                    time.sleep(0.02)
                process.kill()
            except psutil.Error:
                continue
            print("killed", flush=True)
            return
        time.sleep(0.05)

after, sys.argv = float(sys.argv[1]), sys.argv[2:]
threading.Thread(target=kill, args=(after,), daemon=True).start()
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    import ray
    ray.shutdown()
    cluster.shutdown()
"""

#: So that a cluster comes up on a machine that has other things to do too.
PATIENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_prestart_worker_first_driver": "0",
    "RAY_enable_worker_prestart": "0",
    "RAY_worker_register_timeout_seconds": "900",
    "RAY_raylet_start_wait_time_s": "600",
    "RAY_health_check_initial_delay_ms": "60000",
    "RAY_health_check_timeout_ms": "120000",
    "RAY_health_check_period_ms": "30000",
    "RAY_health_check_failure_threshold": "20",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "600",
    "RAY_gcs_server_request_timeout_seconds": "300",
    "RAY_grpc_client_keepalive_time_ms": "300000",
    "RAY_grpc_client_keepalive_timeout_ms": "600000",
    "RAY_enable_metrics_collection": "0",
}


def contents(folder):
    """All files but the report, which tells how long it took."""
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file() and "report" not in file.parts
    }


def test_the_example_for_many_machines_runs(tmp_path, monkeypatch):
    pytest.importorskip("psutil")
    needed = "import ray.data, pyarrow"
    if subprocess.run([sys.executable, "-c", needed], capture_output=True).returncode:
        pytest.skip("ray[data] is not installed")
    monkeypatch.setenv("MOS_ADAPTER", "cpu")
    for name, value in PATIENT.items():
        monkeypatch.setenv(name, value)
    settings = {"batch": 1, "accumulate": 1, "size": "64x64"}
    quick = {"steps": 1, "distillation": 0, "keep": [], "prompts": ["a {}"], "size": [64, 64]}
    looked = {"prompts": ["a photo of <TOK>"], "size": [64, 64], "steps": 2}
    example = HERE / "examples/many_machines.py"
    done = subprocess.run(
        [
            *[sys.executable, "-c", CLUSTER, "0.4", example, ROOT / "models/concepts", tmp_path],
            *["zorp=man", "luma=woman", "--steps", "8", "--settings", json.dumps(settings)],
            *["--fuse", json.dumps(quick), "--evaluate", json.dumps(looked)],
        ],
        capture_output=True,
        text=True,
        timeout=3000,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "killed" in done.stdout, done.stdout
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert set(scores) == {"zorp", "luma"}
    # The same bytes on this machine alone.
    alone = tmp_path / "alone"
    alone.mkdir()
    monkeypatch.chdir(alone)
    files = []
    for name, class_word in [("zorp", "man"), ("luma", "woman")]:
        (alone / "pictures").unlink(missing_ok=True)
        (alone / "pictures").symlink_to(ROOT / "models/concepts" / name)
        made = ms.train(
            {"words": f"<{name}1> <{name}2>", "class_word": class_word, "steps": 8, **settings},
            name=name, sheet_every=0, pictures="pictures", output=f"{name}.safetensors",
        )  # fmt: skip
        files.append(made.path)
        there = (tmp_path / f"{name}.safetensors").read_bytes()
        assert made.path.read_bytes() == there
        found, _ = ms.trial(
            ms.load(), [made.concept()], class_word=f"a {class_word}",
            **{**looked, "size": (64, 64)},
        )  # fmt: skip
        assert found == scores[name]
    monkeypatch.chdir(tmp_path)
    # From the same paths, which the model's note names.
    files = [tmp_path / f"{name}.safetensors" for name in ["zorp", "luma"]]
    fused = ms.fuse(files, alone / "model", **{**quick, "size": (64, 64)})
    assert contents(fused.path) == contents(tmp_path / "model")
