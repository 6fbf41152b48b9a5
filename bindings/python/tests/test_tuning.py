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


def test_scores(model, concept):
    shown = sorted((ROOT / "models/concepts/zorp").glob("*.png"))[:2]
    found = ms.scores(
        model, shown, texts=["a man"] * 2, trained_on=shown, others=list(reversed(shown))
    )
    assert set(found) == {"text", "image", "likeness", "pixels"}
    assert found["image"] > 0.5
    with pytest.raises(ms.PipelineError, match="texts"):
        ms.scores(model, shown, texts=["a man"])
    found, pictures = ms.evaluate(
        model, [concept], ["a photo of <TOK>"], class_word="a man", seeds=[1, 2],
        trained_on=shown, **QUICK,
    )  # fmt: skip
    assert set(found) == {"text", "image"} and len(pictures) == 2
    [alone] = model.generate("a photo of <zorp1> <zorp2>", seed=2, concepts=[concept], **QUICK)
    assert alone.tobytes() == pictures[1].tobytes()
