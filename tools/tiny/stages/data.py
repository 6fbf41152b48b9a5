"""Rendering the world: blocks of pictures with their captions' tokens, labels and figures, written once and kept on disk."""

import multiprocessing
import os
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from ..nets.config import TOKENS
from ..vocabulary import Vocabulary
from ..world import scenes
from ..world.subjects import KINDS

BLOCK = 1024
CAPTIONS = 4
VALIDATION = 512
MOST_BESIDE = 64 * BLOCK  # that each of several processes on one GPU keeps there: 3.2 GB
FIGURES = 16  # figures are kept as shares of squares: so many to a side


def _render(job):
    path, tokenizer, first, count, captions = job
    started = time.process_time()
    vocabulary = Vocabulary(tokenizer)
    pictures = np.empty((count, 128, 128, 3), np.uint8)
    tokens = np.empty((count, captions, TOKENS), np.int16)
    labels = np.empty((count, 7), np.uint8)
    figures = np.empty((count, FIGURES, FIGURES), np.uint8)
    for i in range(count):
        scene, rng = scenes.example(first + i)
        picture, masks = scenes.render(scene)
        pictures[i] = np.asarray(picture)
        figures[i] = covered(masks)
        tokens[i] = [
            vocabulary.encode(scenes.caption(scene, rng)[0], TOKENS) for _ in range(captions)
        ]
        labels[i] = scenes.labels(scene)
    temporary = path + ".tmp"
    with open(temporary, "wb") as file:
        np.savez(file, pictures=pictures, tokens=tokens, labels=labels, figures=figures)
    os.replace(temporary, path)
    return time.process_time() - started


def covered(masks):
    """How much of each of `FIGURES` x `FIGURES` squares is covered by any of the masks, 0..255."""
    union = np.max([np.asarray(mask, np.float32) for mask in masks], axis=0)
    side = union.shape[0] // FIGURES
    return union.reshape(FIGURES, side, FIGURES, side).mean((1, 3)).round().astype(np.uint8)


def run(session, tokenizer, processes=None, most=160 * BLOCK):
    """Renders blocks until the stage's time is up or there are `most` pictures; at least one block
    and the validation.

    What counts is the time that the processes computed: they may have to wait for others.
    """
    folder = session.work / "data"
    folder.mkdir(exist_ok=True)
    finished = folder / "finished"  # later stages rely on the number of pictures
    if finished.exists():
        return
    size = 64 if session.small else BLOCK
    jobs = [
        (
            str(folder / "validation.npz"),
            str(tokenizer),
            scenes.VALIDATION,
            64 if session.small else VALIDATION,
            1,
        )
    ]
    for block in range(max(1, most // size)):
        jobs.append(
            (
                str(folder / f"train{block:04}.npz"),
                str(tokenizer),
                scenes.TRAIN + block * BLOCK,
                size,
                CAPTIONS,
            )
        )
    missing = [job for job in jobs if not Path(job[0]).exists()]
    spent = 0.0
    processes = processes or os.cpu_count()
    context = multiprocessing.get_context("spawn")
    with context.Pool(processes) as pool:
        for start in range(0, len(missing), processes):
            times = pool.map(_render, missing[start : start + processes], chunksize=1)
            spent += max(times)
            enough = Path(jobs[1][0]).exists()
            if enough and (spent > session.budget("data") or session.out_of_time()):
                break
    finished.touch()
    session.say(f"data: {len(list(folder.glob('train*.npz')))} blocks of {size} pictures")


def signed(pictures):
    """Bytes [b, h, w, 3] as [b, 3, h, w] in -1..1."""
    return pictures.permute(0, 3, 1, 2).float() / 127.5 - 1


class Pictures:
    """Rendered pictures with tokens and labels, on the device as bytes."""

    _KEYS = ("pictures", "tokens", "labels", "figures")

    def __init__(self, session, validation=False, keep=True):
        self.session, self._keep, self._read, self._looked = session, keep, set(), time.monotonic()
        self._pattern = "validation.npz" if validation else "train*.npz"
        self.pictures = self.tokens = self.labels = self._figures = None
        if keep and self.more(MOST_BESIDE if session.to_deadline else None) is None:
            raise SystemExit(f"no pictures in {session.work / 'data'}: run the stage 'data' first")

    def more(self, most=None):
        """Reads the blocks that were written since the last time, until there are `most` pictures: the new ones [n, 128, 128, 3], or None.

        Without `keep` they are kept nowhere else: only their captions, labels and figures are. Nothing is read before this is called.
        """
        parts = []
        names = sorted((self.session.work / "data").glob(self._pattern))
        if len(names) >= self.session.workers > 1:  # those that train together share them out
            names = names[self.session.rank :: self.session.workers]
        for name in names:
            known = (0 if self.tokens is None else len(self)) + sum(
                len(part["tokens"]) for part in parts
            )
            if name in self._read or (most and known >= most):
                continue
            with np.load(name) as block:
                if not set(self._KEYS) <= set(block.files):
                    raise SystemExit(
                        f"{name} is of an older version: remove {name.parent} and run the stage 'data' again"
                    )
                parts.append({k: torch.from_numpy(block[k]) for k in self._KEYS})
            self._read.add(name)
        if not parts:
            return None
        new = {k: torch.cat([part[k] for part in parts]) for k in self._KEYS}
        for key, name in zip(self._KEYS, ("pictures", "tokens", "labels", "_figures")):
            if key == "pictures" and not self._keep:
                continue
            before, now = getattr(self, name), new[key].to(self.session.device)
            setattr(self, name, now if before is None else torch.cat([before, now]))
        return new["pictures"]

    def keep_up(self, most=MOST_BESIDE, every=15.0):
        """On a GPU, where rendering goes on beside training: takes in what is new, now and then."""
        if not self.session.to_deadline or time.monotonic() < self._looked + every:
            return
        self.more(most)
        self._looked = time.monotonic()

    @classmethod
    def of(cls, session, validation=False):
        """The session's pictures, read once."""
        key = "validation" if validation else "train"
        if key not in session.kept:
            session.kept[key] = cls(session, validation)
        return session.kept[key]

    def __len__(self):
        return len(self.tokens)

    def draw(self, count):
        """Random indices."""
        return torch.randint(len(self), (count,), device=self.session.device)

    def rates(self, indices):
        """How often to draw each of these pictures so that all kinds of subjects come alike: the world has many more people than chairs.

        A picture's rate is the mean of its subjects' inverse frequencies. Those without labels come
        as often as the mean.
        """
        kinds = self.labels[indices][:, 1::2].long()
        kinds = kinds.where(kinds != scenes.UNKNOWN, 0)
        frequencies = torch.bincount(kinds.flatten(), minlength=len(KINDS) + 1).clamp(min=1)
        inverse = (1 / frequencies).where(
            torch.arange(len(frequencies), device=kinds.device) > 0, 0.0
        )
        found = (kinds > 0).sum(1)
        rates = inverse[kinds].sum(1) / found.clamp(min=1)
        return rates.where(found > 0, rates.sum() / (found > 0).sum().clamp(min=1))

    def images(self, indices, crop=None):
        """[b, 3, s, s] in -1..1; with `crop`, the same random square of that size of each, rather low: subjects stand there."""
        return self.squares(indices, crop or 128)[0]

    def squares(self, indices, side):
        """`images`, and how much of each pixel's surroundings figures cover [b, 1, side, side]."""
        y, x = np.random.randint(0, 129 - side, 2).max(), np.random.randint(0, 129 - side)
        chosen = self.pictures[:, y : y + side, x : x + side] if side < 128 else self.pictures
        figures = F.interpolate(self.figures(indices), 128, mode="bilinear")
        return signed(chosen[indices]), figures[:, :, y : y + side, x : x + side]

    def figures(self, indices, size=FIGURES):
        """What share of each square of a picture figures cover: [b, 1, size, size] in 0..1."""
        return F.adaptive_avg_pool2d(self._figures[indices, None].float() / 255, size)

    def captions(self, indices):
        """One of each picture's captions at random: [b, 77] token numbers."""
        which = torch.randint(self.tokens.shape[1], (len(indices),), device=indices.device)
        return self.tokens[indices, which].long()
