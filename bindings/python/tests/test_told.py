"""What the README and the notebook tell runs."""

import json
import pathlib
import re

from conftest import ROOT

HERE = pathlib.Path(__file__).parents[1]


def run(text, name):
    exec(compile(text, name, "exec"), {"__name__": "__main__"})


def test_the_readme_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MOS_ADAPTER", "cpu")
    [first, *_] = re.findall(r"```python\n(.*?)```", (HERE / "README.md").read_text(), re.S)
    run(first, "README.md")
    assert (tmp_path / "cat.png").exists() and (tmp_path / "two.png").exists()


def test_the_notebook_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MOS_ADAPTER", "cpu")
    notebook = json.loads((HERE / "examples/tour.ipynb").read_text())
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    text = "\n".join(cells)
    for found, quick in [
        ('"../../../models/concepts"', repr(str(ROOT / "models/concepts"))),
        ("steps, updates = 20, 320", "steps, updates = 2, 1"),
        ("replace=True)", "replace=True, distillation=0, keep=[])"),
    ]:
        assert found in text
        text = text.replace(found, quick)
    run(text, "tour.ipynb")
    assert (tmp_path / "tour/both").is_dir()
