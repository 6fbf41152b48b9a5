"""Evaluations: the files of `mos eval`, whole, in parts, and gone on with."""

import mixofshow as ms
import pytest
from conftest import ROOT

ZORP = ROOT / "models/concepts/zorp"
FLAGS = ["--count", "1", "--together", "0", "--size", "64x64", "--steps", "2", "--class-word", "man"]
OPTIONS = {"count": 1, "together": 0, "size": (64, 64), "steps": 2, "class_words": ["man"]}
PROMPTS = ["a photo of <TOK>", "<TOK> in the snow"]


def contents(folder):
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file()
    }


def test_the_files_are_those_of_the_program(model, concept, mos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS))
    mos(
        *["eval", "-c", concept.path, "--pictures", ZORP, *FLAGS, "--prompts", "prompts.txt"],
        *["-o", "theirs"],
    )
    stages = []

    def once(stage, done, of):
        stages.append((stage, done, of))
        return done < 1

    asked = {"pictures": [ZORP], "prompts": PROMPTS, "model": model, **OPTIONS}
    # Ended after the first picture, and gone on with.
    with pytest.raises(ms.Cancelled):
        ms.evaluate([concept], output="ours", progress=once, **asked)
    assert ("pictures", 0, 2) in stages
    made = ms.evaluate([concept], output="ours", **asked)
    assert (made.made, made.scored, made.missing) == (1, 1, 0)
    assert contents(made.path) == contents(tmp_path / "theirs")
    assert made.results["alone"]["pictures"] == 2
    scores = made.results["concepts"][0]["scores"]
    assert set(scores) == {"text", "image"} and scores["image"]["mean"] > 0
    assert "zorp" in made.table
    again = ms.evaluate([concept], output="ours", **asked)
    assert (again.made, again.scored, again.results) == (0, 0, made.results)
    # In two parts, by two runs.
    for part in ["1/2", "2/2"]:
        some = ms.evaluate([concept], output=f"part-{part[0]}", part=part, **asked)
        assert (some.made, some.missing, some.results) == (1, 1, None)
    merged = ms.merge(["part-2", "part-1"], "merged")
    assert contents(merged.path) == contents(made.path)
    assert merged.results == made.results


def test_what_does_not_go_together_is_refused(model, concept, tmp_path):
    asked = {"pictures": [ZORP], "prompts": PROMPTS, "model": model, "output": tmp_path / "no"}
    with pytest.raises(ms.MetricsError, match="class-word"):
        ms.evaluate([concept], **{**asked, "class_words": ["man", "dog"]})
    with pytest.raises(ms.MetricsError, match="--dino"):
        ms.evaluate([concept], judge="dino", **asked, **OPTIONS)
    with pytest.raises(ms.MetricsError, match="TOK"):
        ms.evaluate([concept], **{**asked, "prompts": ["a photo"]}, **OPTIONS)
    with pytest.raises(ms.PipelineError, match="3/2"):
        ms.evaluate([concept], part="3/2", **asked, **OPTIONS)
    sketch = ms.Control("t2i_adapter", ROOT / "models/concepts/sketch.png")
    with pytest.raises(ms.MetricsError, match="fewer than three"):
        ms.evaluate([concept], controls=[sketch], **asked, **OPTIONS)
    with pytest.raises(ms.PipelineError, match="two controls are called `t2i_adapter`"):
        ms.evaluate([concept], controls=[sketch, sketch], **asked, **OPTIONS)
    with pytest.raises(ms.MetricsError, match="nothing to evaluate"):
        ms.evaluate(**asked, **OPTIONS)
    with pytest.raises(TypeError, match="loaded"):
        ms.evaluate([concept], device="cpu", **asked, **OPTIONS)
    with pytest.raises(ms.MetricsError, match=r"none\.json|settings\.json|none"):
        ms.merge([tmp_path / "none"], tmp_path / "no")
    assert not (tmp_path / "no").exists()
