"""Teaching, fusing, scoring."""

import json

import mixofshow as ms
import pytest
from conftest import QUICK, ROOT, taught


def test_teaching_tells_and_goes_on_to_the_same_bytes(tmp_path):
    for name in ["whole", "parts"]:
        (tmp_path / name).mkdir()
    updates, stages = [], []
    whole = taught(
        tmp_path / "whole", "zorp", "man", steps=3,
        update=updates.append, progress=lambda *at: stages.append(at),
    )  # fmt: skip
    assert [at.done for at in updates] == [1, 2, 3] and all(at.of == 3 for at in updates)
    assert all(at.loss > 0 for at in updates) and ("train", 3, 3) in stages
    assert whole.updates == 3 and whole.curve.exists() and whole.sheet is None
    assert whole.losses == (pytest.approx(updates[0].loss), pytest.approx(updates[-1].loss))
    with pytest.raises(ms.Cancelled):
        taught(
            tmp_path / "parts", "zorp", "man", steps=3, progress=lambda stage, done, of: done < 2
        )
    assert not (tmp_path / "parts/zorp.safetensors").exists()
    parts = taught(tmp_path / "parts", "zorp", "man", steps=3, resume=True)
    assert parts.updates == 1
    assert parts.path.read_bytes() == whole.path.read_bytes()
    with pytest.raises(ms.TrainingError, match="zorp"):
        taught(tmp_path / "parts", "zorp", "man", steps=3)


def test_settings_that_are_wrong_are_named(tmp_path):
    with pytest.raises(ms.TrainingError, match="`steps`"):
        ms.train({"steps": "many"})
    with pytest.raises(ms.TrainingError, match="stepz"):
        ms.train(stepz=3)
    with pytest.raises(ms.TrainingError, match=r"none\.toml"):
        ms.train(tmp_path / "none.toml")


def test_fusing(concept, tmp_path):
    mimi = taught(tmp_path, "mimi", "cat")
    stages = []
    quick = {"steps": 1, "distillation": 0, "keep": [], "prompts": ["a {}"], "size": (64, 64)}
    fused = ms.fuse(
        [concept, mimi.path], tmp_path / "both", device="cpu",
        progress=lambda *at: stages.append(at[0]), **quick,
    )  # fmt: skip
    assert {"text zorp", "text mimi", "solve", "write"} <= set(stages)
    assert [at["name"] for at in fused.report["concepts"]] == ["mimi", "zorp"] or len(
        fused.report["concepts"]
    ) == 2
    assert "zorp" in fused.markdown and json.dumps(fused.report)
    model = ms.load(fused.path, device="cpu")
    [picture] = model.generate("a <zorp1> <zorp2> and a <mimi1> <mimi2>", seed=1, **QUICK)
    assert picture.size == (64, 64)
    with pytest.raises(ms.FusionError, match="both"):
        ms.fuse([concept], tmp_path / "both", device="cpu", **quick)
    with pytest.raises(ms.Cancelled):
        ms.fuse(
            [concept], tmp_path / "one", device="cpu",
            progress=lambda stage, done, of: stage != "solve", **quick,
        )  # fmt: skip
    assert not (tmp_path / "one").exists()
    with pytest.raises(ms.PipelineError, match="solver"):
        ms.fuse([concept], tmp_path / "one", solver="none")


def test_solvers_and_statistics_are_those_of_the_program(concept, mos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mimi = taught(tmp_path, "mimi", "cat").path
    given = ["-c", concept.path, "-c", mimi]
    mos(*["fuse", *given, "--solver", "ties", "--density", "0.3", "-o", "theirs"])
    fused = ms.fuse([concept, mimi], "ours", device="cpu", solver="ties", density=0.3)
    same_files(fused.path, tmp_path / "theirs")
    (tmp_path / "prompts.txt").write_text("a {}\n")
    (tmp_path / "aside.txt").write_text("a {} here\n")
    flags = ["--steps", "1", "--distillation", "0", "--keep", "none", "--size", "64x64"]
    flags += ["--prompts", "prompts.txt", "--held-out", "aside.txt", "--fit", "words"]
    quick = {
        "steps": 1, "distillation": 0, "keep": [], "size": (64, 64), "prompts": ["a {}"],
        "held_out": ["a {} here"], "fit": "words",
    }  # fmt: skip
    mos("fuse", *given, *flags, "-o", "exact")
    for part in [(1, 2), (2, 2)]:
        told = ms.record([concept, mimi], "sums", part=part, device="cpu", **quick)
        assert len(told["concepts"]) == 2
    fused = ms.fuse([mimi, concept], "parts", statistics="sums", device="cpu", **quick)
    same_files(fused.path, tmp_path / "exact")
    # One is taken out again, in place.
    alone = ms.fuse([], to=fused.path, remove=["mimi"], statistics="sums", device="cpu")
    assert alone.path == fused.path
    assert [at["name"] for at in alone.report["concepts"]] == ["zorp"]
    with pytest.raises(ms.PipelineError, match="no concept `luma`"):
        ms.fuse([], to=fused.path, remove=["luma"], statistics="sums", device="cpu")
    off = "scenes is of the distillation, which is off: distillation is 0"
    for wrong, words in [
        ({"solver": "sum", "density": 0.2}, None),
        ({"density": 0.2}, "density"),
        ({"distillation": 0, "scenes": 2}, off),
        ({"distillation": 0, "distillation_rate": 0.01}, "distillation_rate is of"),
        ({"scenes": 0, "scene_strength": 2.0}, "scenes is 0"),
        ({"scenes": 1, "one_prompt": 2}, "one_prompt is 2"),
        ({"distillation_rank": 2000}, "from 1 to 1024"),
    ]:
        if words:
            with pytest.raises(ms.PipelineError, match=words):
                ms.fuse([concept], "no", device="cpu", **wrong)
    with pytest.raises(TypeError, match="stepz"):
        ms.fuse([concept], "no", stepz=3)
    with pytest.raises(TypeError, match="list"):
        ms.fuse([concept], "no", prompts="a {}")


def same_files(ours, theirs):
    """All but the report, which tells how long it took."""
    names = {
        str(file.relative_to(theirs))
        for file in theirs.rglob("*")
        if file.is_file() and "report" not in file.parts
    }
    assert names
    for name in names:
        assert (ours / name).read_bytes() == (theirs / name).read_bytes(), name


def test_class_pictures_are_told_of(tmp_path):
    stages = []
    made = taught(
        tmp_path, "zorp", "man", steps=1, prior_pictures=1, prior_steps=1,
        progress=lambda *at: stages.append(at[0]),
    )  # fmt: skip
    assert made.path.exists() and "class pictures" in stages, stages


def test_scores(model, concept):
    shown = sorted((ROOT / "models/concepts/zorp").glob("*.png"))[:2]
    found = ms.scores(
        model, shown, texts=["a man"] * 2, trained_on=shown, others=list(reversed(shown))
    )
    assert set(found) == {"text", "image", "likeness", "pixels"}
    assert found["image"] > 0.5
    with pytest.raises(ms.PipelineError, match="texts"):
        ms.scores(model, shown, texts=["a man"])
    found, pictures = ms.trial(
        model, [concept], ["a photo of <TOK>"], class_word="a man", seeds=[1, 2],
        trained_on=shown, **QUICK,
    )  # fmt: skip
    assert set(found) == {"text", "image"} and len(pictures) == 2
    [alone] = model.generate("a photo of <zorp1> <zorp2>", seed=2, concepts=[concept], **QUICK)
    assert alone.tobytes() == pictures[1].tobytes()
