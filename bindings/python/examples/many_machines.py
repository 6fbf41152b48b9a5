"""Concepts taught and evaluated side by side on a Ray cluster, then fused.

    pip install "ray[data]"
    python many_machines.py PICTURES OUTPUT zorp=man luma=woman mimi=cat --steps 320

PICTURES holds a folder of each name. Nothing is shared but what Ray carries: tasks return the bytes
of their concept files, actors of Ray Data get them. What a machine that dies was doing is done
again elsewhere, to the same bytes. Without a cluster (`ray start`, RAY_ADDRESS) it runs on this
machine.
"""

import argparse
import json
import os
import pathlib
import tempfile

import mixofshow as ms
import ray
import ray.data


@ray.remote(num_cpus=1, max_retries=5)
def teach(name: str, class_word: str, pictures: dict[str, bytes], settings: dict) -> bytes:
    """The bytes of a concept's file."""
    with tempfile.TemporaryDirectory() as folder:
        here = pathlib.Path(folder)
        for file, content in pictures.items():
            (here / "pictures" / file).parent.mkdir(parents=True, exist_ok=True)
            (here / "pictures" / file).write_bytes(content)
        # Paths in the file's own settings are relative, so that all machines make the same bytes.
        os.chdir(here)
        taught = ms.train(
            {"words": f"<{name}1> <{name}2>", "class_word": class_word, **settings},
            name=name,
            pictures="pictures",
            output=f"{name}.safetensors",
        )
        content = taught.path.read_bytes()
        os.chdir("/")
        return content


class Evaluator:
    """A loaded model, which makes concepts' pictures and scores them: an actor."""

    def __init__(self, model: str | None, options: dict) -> None:
        self.model, self.options = ms.load(model), options

    def __call__(self, rows: dict) -> dict:
        """Of rows with a name, a class word and a concept's file: the name and its scores."""
        scores = [self.scores(*row) for row in zip(rows["name"], rows["class_word"], rows["concept"])]
        return {"name": rows["name"], "scores": [json.dumps(found) for found in scores]}

    def scores(self, name: str, class_word: str, concept: bytes) -> dict[str, float]:
        with tempfile.TemporaryDirectory() as folder:
            file = pathlib.Path(folder) / f"{name}.safetensors"
            file.write_bytes(concept)
            found, _ = ms.trial(
                self.model, [ms.Concept(file)], class_word=f"a {class_word}", **self.options
            )
            return found


def options(text: str) -> dict:
    """Options as JSON, which has no tuples."""
    found = json.loads(text)
    return {key: tuple(value) if key == "size" else value for key, value in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("pictures", type=pathlib.Path)
    parser.add_argument("output", type=pathlib.Path)
    parser.add_argument("concepts", nargs="+", metavar="NAME=CLASS")
    parser.add_argument("--model")
    parser.add_argument("--steps", type=int, default=320)
    parser.add_argument("--settings", type=json.loads, default={}, help="more, as JSON")
    parser.add_argument("--evaluate", type=options, help="options of `evaluate`, as JSON")
    parser.add_argument("--fuse", type=options, default={}, help="options of `fuse`, as JSON")
    given = parser.parse_args()
    concepts = dict(concept.split("=") for concept in given.concepts)
    settings = {"steps": given.steps, "sheet_every": 0, **given.settings}
    if given.model:
        settings["model"] = given.model
    evaluate = given.evaluate or {"prompts": ["a photo of <TOK> on the beach"], "seeds": [0, 1]}

    ray.init(ignore_reinit_error=True)
    tasks = {}
    for name, class_word in concepts.items():
        folder = given.pictures / name
        # Captions, and masks in a folder of their own, too.
        files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
        pictures = {str(file.relative_to(folder)): file.read_bytes() for file in files}
        tasks[name] = teach.remote(name, class_word, pictures, settings)

    given.output.mkdir(parents=True, exist_ok=True)
    taught = {name: ray.get(task) for name, task in tasks.items()}
    for name, content in taught.items():
        (given.output / f"{name}.safetensors").write_bytes(content)

    # Actors keep their processor, so they come when nothing has to be taught any more.
    count = min(len(concepts), max(1, int(ray.cluster_resources().get("CPU", 1))))
    rows = [
        {"name": name, "class_word": concepts[name], "concept": content}
        for name, content in taught.items()
    ]
    ray.data.DataContext.get_current().enable_progress_bars = False
    scored = ray.data.from_items(rows).map_batches(
        Evaluator,
        fn_constructor_args=(given.model, evaluate),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=count),
        num_cpus=1,
    )
    found = {row["name"]: json.loads(row["scores"]) for row in scored.take_all()}
    files = [given.output / f"{name}.safetensors" for name in concepts]
    fused = ms.fuse(files, given.output / "model", model=given.model, **given.fuse)
    told = {name: found[name] for name in taught}
    (given.output / "scores.json").write_text(json.dumps(told, indent=2))
    print(fused.path)


if __name__ == "__main__":
    main()
