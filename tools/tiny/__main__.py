"""The command line: `python -m tools.tiny COMMAND`, from the repository's root.

all        every stage, then export, score and sheets; run the same command again to go on where it stopped
plan       how `all` would divide its time, and what is done already
data vae towers identity unet adapter judge   one stage
export     write the model folder
score      the table of scores, into the card too
sheets     pictures to look at
concepts   write the held-out concepts' folders; with --cast SEED eight strangers', into --out
sketch     draw outlines of --classes side by side, for the adapter to follow, into --out
pack       write the stages' weights alone, as a start for training on another machine (its `--work`)
adopt      take the weights of a model folder as where training goes on from (vae and towers count as finished)
vocabulary make vocab.json and merges.txt anew from CLIP's merges
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as processes

from . import model as folders
from . import score as scoring
from . import sheets, vocabulary
from .runtime import Session
from .stages import adapter, data, identity, judge, towers, unet, vae
from .world import casts, concepts, scenes
from .world.subjects import KINDS

ROOT = Path(__file__).resolve().parents[2]
STAGES = ("data", "vae", "towers", "identity", "unet", "adapter", "judge")
AFTER = ("export", "score", "sheets")
DRAWN = ("concepts", "sketch")


def seconds(text):
    """A duration: 90, 90s, 25m or 1.5h."""
    unit = {"s": 1, "m": 60, "h": 3600}.get(text[-1:])
    try:
        return float(text[:-1]) * unit if unit else float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected a duration such as 90s, 25m or 1.5h, got '{text}'"
        ) from None


def arguments():
    parser = argparse.ArgumentParser(
        "python -m tools.tiny",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "command",
        choices=("all", "plan", *STAGES, *AFTER, *DRAWN, "pack", "adopt", "vocabulary"),
    )
    add = parser.add_argument
    add(
        "--work",
        type=Path,
        default=ROOT / "work" / "tiny",
        help="pictures, states and logs (git ignores it)",
    )
    add(
        "--out",
        type=Path,
        default=ROOT / "models" / "tiny",
        help="the model folder to write, score and show",
    )
    add(
        "--sheets",
        type=Path,
        default=ROOT / "docs" / "tiny",
        help="where pictures to look at go: the program compiles the model folder in",
    )
    add(
        "--tokenizer",
        type=Path,
        default=ROOT / "models" / "tiny" / "tokenizer",
        help="folder with vocab.json and merges.txt",
    )
    add(
        "--total",
        type=seconds,
        default=1500.0,
        help="time to divide over the stages, over all runs (default 25m)",
    )
    add("--limit", type=seconds, default=float("inf"), help="time that this run may take at most")
    add(
        "--until",
        type=float,
        help="one stage alone: it lasts until this time (seconds since 1970) instead of its share of the total",
    )
    add("--device", choices=("cuda", "cpu"), help="default: a GPU if there is one")
    add(
        "--compile",
        choices=("auto", "yes", "no"),
        default="auto",
        help="torch.compile (auto: on a GPU)",
    )
    add("--threads", type=int, help="threads of PyTorch on a CPU, in all")
    add(
        "--workers",
        type=int,
        help="processes that train together on a CPU (default: one a core, four at most)",
    )
    add("--processes", type=int, help="processes that render")
    add("--pictures", type=int, default=48 * data.BLOCK, help="how many pictures to render at most")
    add("--prompts", type=int, default=256, help="how many held-out prompts to score")
    add("--steps", type=int, default=25)
    add("--guidance", type=float, default=3.0)
    add(
        "--device-test",
        action="store_true",
        help="every stage for seconds, on little data, in a folder of its own",
    )
    add("--cast", type=int, metavar="SEED", help="concepts: eight strangers of this seed instead")
    add("--classes", metavar="A,B,C", help="sketch: two or three kinds, from left to right")
    add(
        "--clip-merges",
        type=Path,
        help="vocabulary: CLIP's own merges (merges.txt or bpe_simple_vocab_16e6.txt)",
    )
    return parser.parse_args()


def run_stage(name, session, options):
    """Runs one stage as far as time allows; True when it is finished."""
    if name == "data":
        data.run(session, options.tokenizer, options.processes, options.pictures)
        return True
    words = vocabulary.Vocabulary(options.tokenizer)
    runs = {
        "vae": lambda: vae.run(session),
        "towers": lambda: towers.run(session, words),
        "unet": lambda: unet.run(session, words),
        "adapter": lambda: adapter.run(session, words),
        "judge": lambda: judge.run(session),
        "identity": lambda: identity.run(session, towers.load(session, words).vision.state_dict()),
    }
    return runs[name]()


def train_together(name, session, options):
    """Runs one stage in several processes of a thread each, which is faster on a CPU than one of several threads."""
    with tempfile.TemporaryDirectory() as meeting:
        left = session.deadline - time.monotonic()
        processes.start_processes(
            _worker,
            (name, options, left, f"file://{meeting}/point"),
            options.workers,
            start_method="fork",
        )
    path = session.work / f"{name}.pt"
    return torch.load(path, map_location="cpu", weights_only=True)["done"]


def _worker(rank, name, options, limit, meeting):
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=options.workers)
    threads = max(1, (options.threads or os.cpu_count()) // options.workers)
    session = Session(
        options.work,
        options.total,
        limit,
        "cpu",
        options.compile,
        threads,
        options.device_test,
        rank,
        options.workers,
    )
    run_stage(name, session, options)
    dist.destroy_process_group()


def export(session, options):
    words = vocabulary.Vocabulary(options.tokenizer)
    predictor, text = unet.load(session, words)
    control = adapter.load(session) if (session.work / "adapter.pt").exists() else None
    pair = towers.load(session, words)
    sizes = folders.write_folder(
        options.out,
        options.tokenizer,
        vae.load(session),
        predictor,
        text,
        towers.text_config(words),
        pair,
        control,
    )
    total = sum(size for name, size in sizes.items() if name != "t2i_adapter")
    if (session.work / "identity.pt").exists():
        folders.write_tower(session.work / "identity", identity.load(session))
    session.say(
        f"wrote {options.out}: {total / 1e6:.1f} MB and the adapter, "
        + ", ".join(f"{k} {v / 1e6:.2f}" for k, v in sizes.items())
    )


def score(session, options):
    model = folders.Model(options.out, session.device)
    classifier = judge.load(session) if (session.work / "judge.pt").exists() else None
    result, pictures = scoring.score(
        model,
        classifier,
        options.prompts,
        options.steps,
        options.guidance,
        64 if session.cuda else 16,
    )
    result |= history(session)
    scoring.write(result, session.work, options.out / "README.md")
    torch.save((pictures[:64] * 127).round().to("cpu", torch.int8), session.work / "samples.pt")
    print(scoring.table(result))


def show(session, options):
    model = folders.Model(options.out, session.device)
    target = options.sheets
    target.mkdir(parents=True, exist_ok=True)
    pages = {
        "vae": sheets.reconstructions(model),
        "showcase": sheets.showcase(model, steps=options.steps, guidance=options.guidance),
    }
    if (session.work / "samples.pt").exists():
        pages["samples"] = sheets.samples(
            torch.load(session.work / "samples.pt", weights_only=True).float() / 127
        )
    if model.adapter is not None:
        pages["control"] = sheets.control(model, steps=options.steps, guidance=options.guidance)
    pages["concepts"] = sheets.concepts()
    for name, page in pages.items():
        page.save(target / f"{name}.png", optimize=True)
    session.say(f"sheets in {target}: {', '.join(pages)}")


def history(session):
    """Seconds and samples that each stage has had."""
    spent = {}
    for name in STAGES[1:]:
        path = session.work / f"{name}.pt"
        if path.exists():
            state = torch.load(path, map_location="cpu", weights_only=True)
            spent[name] = {
                "seconds": round(state["spent"]),
                "samples": state["samples"],
                "done": state["done"],
            }
    return {"stages": spent}


def adopt(session, options):
    for stage, (modules, done) in folders.states_of(options.out).items():
        start = {
            "iteration": 0,
            "spent": 0.0,
            "samples": 0,
            "done": done,
            "note": {"adopted": True},
            "average": None,
        }
        torch.save({"modules": modules, "final": modules} | start, session.work / f"{stage}.pt")
    for stale in session.work.glob("latents*.pt"):
        stale.unlink(missing_ok=True)
    session.say(f"took {options.out} as a start: run the stages unet and later")


def pack(session, options):
    """In f16; and of the way that the next training goes, the part that these weights have behind them."""
    options.out.mkdir(parents=True, exist_ok=True)
    behind = {"vae": 0.45, "towers": 0.3, "judge": 0.2, "identity": 0.0, "unet": 0.0}
    for stage, gone in (behind | {"adapter": 0.0}).items():
        if not (session.work / f"{stage}.pt").exists():
            continue
        state = torch.load(session.work / f"{stage}.pt", map_location="cpu", weights_only=True)
        weights = {
            name: {k: v.half() for k, v in module.items()}
            for name, module in state["final"].items()
        }
        note = {"gone": gone} | {k: True for k in ("adopted",) if state["note"].get(k)}
        start = {"iteration": 0, "spent": 0.0, "samples": state["samples"], "done": False}
        start |= {"note": note, "average": None}
        torch.save({"modules": weights, "final": weights} | start, options.out / f"{stage}.pt")


def write_concepts(folder):
    concepts.write_concepts(folder)
    adapter.write_sketch(folder / concepts.SKETCH, concepts.sketch_scene())


def write_sketch(options):
    if options.classes is None or options.out == ROOT / "models" / "tiny":
        raise SystemExit("sketch needs --classes A,B,C and --out FILE")
    kinds = [kind.strip() for kind in options.classes.split(",")]
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown:
        raise SystemExit(f"--classes: '{unknown[0]}' is none of {', '.join(KINDS)}")
    if len(kinds) not in concepts.ROWS:
        raise SystemExit(f"--classes: expected two or three, got {len(kinds)}")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    adapter.write_sketch(options.out, concepts.sketch_scene(kinds))


def plan(session, options):
    done = history(session)["stages"]
    for name in STAGES:
        print(f"{name:8} {session.budget(name):8.0f} s   {done.get(name, '')}")


def make_vocabulary(options):
    if options.clip_merges is None:
        raise SystemExit("vocabulary needs --clip-merges")
    if options.tokenizer.resolve() == (ROOT / "models" / "tiny" / "tokenizer").resolve():
        raise SystemExit(
            "vocabulary needs --tokenizer DIR: the shipped one's numbers are part of the trained model"
        )
    words = set(vocabulary.EXTRA_WORDS)
    for seed in range(scenes.TRAIN, scenes.TRAIN + 20000):
        scene, rng = scenes.example(seed)
        words |= set(scenes.caption(scene, rng)[0].replace(",", " ").replace("-", " ").split())
    print(
        vocabulary.build_vocabulary(options.clip_merges, sorted(words), options.tokenizer),
        "entries",
    )


def main():
    options = arguments()
    if options.device_test:
        options.work = options.work / "device-test"
        options.out, options.sheets = options.work / "model", options.work / "sheets"
        options.total, options.pictures, options.prompts, options.steps = (
            min(options.total, 60.0),
            128,
            4,
            4,
        )
    session = Session(
        options.work,
        options.total,
        options.limit,
        options.device,
        options.compile,
        options.threads,
        options.device_test,
    )
    if options.until:
        session.deadline, session.to_deadline = session.started + options.until - time.time(), True
    options.workers = 1 if session.cuda else options.workers or min(4, os.cpu_count())
    command = options.command
    if command == "plan":
        return plan(session, options)
    if command == "concepts":
        shipped = ROOT / "models" / "concepts"
        if options.cast is None:
            return write_concepts(options.out if options.out.name == "concepts" else shipped)
        if options.out == ROOT / "models" / "tiny":
            raise SystemExit("concepts --cast needs --out DIR")
        return casts.write_cast(options.out, options.cast)
    if command == "sketch":
        return write_sketch(options)
    if command == "pack":
        return pack(session, options)
    if command == "adopt":
        return adopt(session, options)
    if command == "vocabulary":
        return make_vocabulary(options)
    session.say(
        f"PyTorch {torch.__version__} on {torch.cuda.get_device_name() if session.cuda else 'the CPU'}"
    )
    afterwards = {"export": export, "score": score, "sheets": show}
    for name in (*STAGES, *AFTER) if command == "all" else (command,):
        if name in afterwards:
            afterwards[name](session, options)
            continue
        together = options.workers > 1 and name != "data"
        if (
            not (train_together if together else run_stage)(name, session, options)
            and command == "all"
        ):
            session.say(f"stopped in the stage '{name}': run the same command again to go on")
            return sys.exit(3)


if __name__ == "__main__":
    main()
