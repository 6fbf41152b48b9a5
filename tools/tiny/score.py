"""The scores of a model folder: a table for people, JSON for machines."""

import json
import math

import numpy as np
import torch
import torch.nn.functional as F

from .stages import judge as judging
from .stages.adapter import outline_iou, outlines
from .stages.vae import part_errors
from .world import scenes
from .world.canvas import COLOUR_NAMES
from .world.places import PLACES
from .world.subjects import KINDS

ROWS = [  # key, what it says, unit, what is wanted
    ("vae_psnr", "VAE: PSNR of held-out pictures", "dB", 27.0),
    ("vae_parts", "VAE: colours of parts in strange pictures, median distance of 255", "", None),
    ("retrieval", "Towers: own caption first among 64", "%", 90.0),
    ("alignment_real", "Text alignment of real pictures (cosine)", "", None),
    ("alignment", "Text alignment of samples (cosine)", "", None),
    ("alignment_share", "Alignment of samples, share of the real pictures'", "%", 90.0),
    ("kind", "Subject's class recognised", "%", 90.0),
    ("colour", "Subject's colour recognised", "%", 85.0),
    ("place", "Place recognised", "%", 95.0),
    ("side", "Left/right as told", "%", 80.0),
    ("strange_kind", "Strange prompts: subject's class recognised", "%", 90.0),
    ("strange_colour", "Strange prompts: subject's colour recognised", "%", 85.0),
    ("strange_place", "Strange prompts: place recognised", "%", 90.0),
    ("strange_side", "Strange prompts: left/right as told", "%", 80.0),
    ("control_iou", "Outlines with the control: IoU with the condition", "", 0.6),
    ("free_iou", "Outlines without it: IoU with the same condition", "", None),
]
_MARKS = ("<!-- scores -->", "<!-- /scores -->")


def held_out(count, first=scenes.PROMPTS):
    """`count` held-out prompts: scenes, captions, whether the caption tells sides, and the real pictures in -1..1."""
    found = []
    for seed in range(first, first + count):
        scene, rng = scenes.example(seed)
        caption, sided = scenes.caption(scene, rng)
        picture = np.asarray(scenes.render(scene)[0], np.float32) / 127.5 - 1
        found.append((scene, caption, sided, torch.from_numpy(picture).permute(2, 0, 1)))
    chosen, captions, sided, pictures = zip(*found)
    return chosen, list(captions), sided, torch.stack(pictures)


def score(model, judge, prompts=256, steps=25, guidance=3.0, batch=64):
    """Everything `ROWS` names, as far as the folder has the parts for it; also the samples themselves."""
    chosen, captions, sided, real = held_out(prompts)
    real = real.to(model.device)
    error = F.mse_loss(model.reconstruct(real), real, reduction="none").mean().item()
    result = {
        "vae_psnr": 10 * math.log10(4 / error),
        "prompts": prompts,
        "steps": steps,
        "guidance": guidance,
    }
    result["vae_parts"] = float(np.median(part_errors(model.vae, max(1, prompts // 4))))
    samples = model.sample(captions, 1, steps, guidance, batch=batch)
    if model.vision is not None:
        text, seen, made = (
            model.embed_text(captions),
            model.embed_pictures(real),
            model.embed_pictures(samples),
        )
        hits = [
            (seen[i : i + 64] @ text[i : i + 64].T).argmax(1).cpu()
            == torch.arange(len(seen[i : i + 64]))
            for i in range(0, prompts, 64)
        ]
        result["retrieval"] = 100 * torch.cat(hits).float().mean().item()
        result["alignment_real"], result["alignment"] = (
            (seen * text).sum(1).mean().item(),
            (made * text).sum(1).mean().item(),
        )
        result["alignment_share"] = 100 * result["alignment"] / result["alignment_real"]
    if judge is not None:
        result |= _judged(judge, samples, chosen, captions, sided)
        result |= {f"real_{k}": v for k, v in _judged(judge, real, chosen, captions, sided).items()}
        result |= _strange(model, judge, prompts // 2, steps, guidance, batch)
    if model.adapter is not None:
        conditions = outlines(real)
        led = model.sample(captions, 2, steps, guidance, conditions, batch)
        result["control_iou"] = outline_iou(outlines(led), conditions)
        result["free_iou"] = outline_iou(outlines(samples), conditions)
    return result, samples


def _strange(model, judge, prompts, steps, guidance, batch):
    """The same of prompts in any colours."""
    chosen, captions, sided, real = held_out(prompts, scenes.STRANGE_PROMPTS)
    samples = model.sample(captions, 1, steps, guidance, batch=batch)
    made = _judged(judge, samples, chosen, captions, sided)
    seen = _judged(judge, real.to(model.device), chosen, captions, sided)
    found = {f"strange_{k}": v for k, v in made.items()}
    return found | {f"real_strange_{k}": v for k, v in seen.items()}


@torch.no_grad()
def _judged(judge, pictures, chosen, captions, sided):
    """Percentages of what the classifier finds of what the captions asked for.

    One subject: whichever slot looks most occupied is taken for it. Two: the left and the right slot, in either order
    if the caption told no sides. Places, colours and sides count only where the caption tells them, colours where the class is right as well.
    """
    outputs = [
        torch.cat(part).float().softmax(1).cpu()
        for part in zip(*(judge(x) for x in pictures.split(64)))
    ]
    tally = {"kind": [], "colour": [], "place": [], "side": []}
    for i, (scene, caption, told) in enumerate(zip(chosen, captions, sided)):
        truth = scenes.labels(scene)
        if any(words in caption for words in PLACES[scene["place"]]):
            tally["place"].append(outputs[0][i].argmax().item() == truth[0])
        if scene["count"] > 2:
            continue
        wanted = [(truth[1 + 2 * s], truth[2 + 2 * s], s) for s in range(3) if truth[1 + 2 * s]]
        slots = (
            [0, 2]
            if len(wanted) == 2
            else [min(range(3), key=lambda s: outputs[1 + 2 * s][i, 0].item())]
        )
        seen = [
            (
                outputs[1 + 2 * s][i, 1:].argmax().item() + 1,
                outputs[2 + 2 * s][i].argmax().item(),
                s,
            )
            for s in slots
        ]
        if (
            len(wanted) == 2
            and [w[0] for w in wanted] != [s[0] for s in seen]
            and sorted(w[0] for w in wanted) == sorted(s[0] for s in seen)
        ):
            seen = seen[::-1]  # the right two in the other order
        for want, see in zip(wanted, seen):
            tally["kind"].append(want[0] == see[0])
            known = want[1] != scenes.UNKNOWN
            told_colour = known and _tells_colour(
                caption, KINDS[want[0] - 1], COLOUR_NAMES[want[1]]
            )
            if told_colour and want[0] == see[0]:
                tally["colour"].append(want[1] == see[1])
            if told and want[0] == see[0] and want[2] != 1:
                tally["side"].append(want[2] == see[2])
    return {k: 100 * float(np.mean(v)) if v else float("nan") for k, v in tally.items()}


def _tells_colour(caption, kind, colour):
    return any(
        f"{colour} {what}" in caption
        for what in ({"man": ["shirt"], "woman": ["dress"]}.get(kind, [kind]))
    )


def table(result):
    """The scores as a Markdown table."""
    lines = ["| what | reached | on real pictures | wanted |", "|---|---|---|---|"]
    for key, what, unit, wanted in ROWS:
        if key in result:
            digits = 3 if unit == "" else 1
            real = f"{result['real_' + key]:.1f} {unit}" if "real_" + key in result else ""
            aim = f"at least {wanted:g} {unit}".strip() if wanted else ""
            lines.append(
                f"| {what} | {result[key]:.{digits}f} {unit} | {real} | {aim} |".replace("  ", " ")
            )
    lines.append(
        f"\n{result['prompts']} held-out prompts, {result['steps']} steps, guidance {result['guidance']:g}."
    )
    return "\n".join(lines)


def write(result, folder, card):
    """`scores.json` into `folder`, and the table between the card's marks if it has them."""
    (folder / "scores.json").write_text(json.dumps(result, indent=2) + "\n")
    text = card.read_text(encoding="utf-8") if card.exists() else ""
    if all(mark in text for mark in _MARKS):
        before, rest = text.split(_MARKS[0], 1)
        after = rest.split(_MARKS[1], 1)[1]
        card.write_text(
            f"{before}{_MARKS[0]}\n{table(result)}\n{_MARKS[1]}{after}", encoding="utf-8"
        )
