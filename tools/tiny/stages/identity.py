"""A judge of identity: which stranger a picture shows, whatever is behind. For scores only; not
part of the model.

A vision tower (the model's own is where it starts, and the layout that it is written in) learns as
faces are learnt: views of one stranger are pulled together against all others by an angular margin
(ArcFace, Deng et al. 2019). Strangers never run out, so there is no table of them: each is told
from the others of its batch, and half of these are look-alikes, which differ from another one in a
part or two. Views differ in side, pose, size, place, neighbours, in what of the picture is cut out,
and in what sampling does to pictures: softness, noise, colours that are a little off, the
autoencoder's round trip.
"""

import numpy as np
import torch
import torch.nn.functional as F

from ..nets import config
from ..nets.clip import CLIPVisionModelWithProjection
from ..runtime import Trainer, final_weights, learning_rate
from ..world import casts, gatherings, lands
from ..world.colours import any_colour
from ..world.places import TAUGHT_PLACES
from ..world.scenes import render
from ..world.strangers import PARTS
from ..world.subjects import HEIGHT
from . import vae

KINDS = tuple(casts.SCALES)
_MARGIN, _SCALE = 0.15, 24.0
_OFF = 9  # a part's colour in a sample may be that far off
_TOLD_APART = 45  # and this far at least in another stranger
_EMPTY = 127  # where a figure was cut out


def stranger(rng):
    return casts.draw_stranger(rng, KINDS[rng.integers(len(KINDS))])


def look_alike(features, rng):
    """The same with one or two parts in other colours."""
    keys = [key for key, _, _ in PARTS[features["kind"]] if key in features]
    other = dict(features)
    for i in rng.permutation(len(keys))[: 1 + (rng.random() < 0.5)]:
        before, colour = features[keys[i]], any_colour(rng)
        while max(abs(a - b) for a, b in zip(before, colour)) < _TOLD_APART:
            colour = any_colour(rng)
        other[keys[i]] = colour
    return other


def view(features, rng, worn=True):
    """One picture of a stranger, cut out somehow: [128, 128, 3] bytes."""
    subject = {"beard": False, "glasses": False, "sway": rng.uniform(-1, 1)} | features
    subject["facing"] = 1 if rng.random() < 0.5 else -1
    subject["arms"] = ("down", "raised", "waving")[rng.choice(3, p=[0.8, 0.1, 0.1])]
    if worn:
        for key, _, _ in PARTS[features["kind"]]:
            if key in subject:
                off = rng.integers(-_OFF, _OFF + 1, 3)
                subject[key] = tuple(int(c) for c in np.clip(subject[key] + off, 0, 255))
    scale = features["scale"] * rng.uniform(0.55, 1.15)
    x, base = 64 + rng.uniform(-22, 22), rng.uniform(110, 122)
    scene = {"seed": int(rng.integers(2**31)), "count": 1, "subjects": [(subject, x, base, scale)]}
    if rng.random() < 0.2:
        scene |= {"place": "land", "look": lands.sample_look(rng)}
    else:
        scene["place"] = TAUGHT_PLACES[rng.integers(len(TAUGHT_PLACES))]
    if rng.random() < 0.5:
        side = 1 if x < 64 else -1
        beside = (x + side * rng.uniform(46, 66), base - rng.uniform(1, 5), rng.uniform(0.6, 1.0))
        scene["subjects"].append((gatherings.sample_one(rng), *beside))
    picture, masks = render(scene)
    return cut_out(np.asarray(picture), np.asarray(masks[0]) > 127, rng)


def cut_out(picture, inside, rng=None):
    """The square around a figure, 128 pixels to a side; with a generator a little more or less, and
    now and then the figure alone."""
    rows, columns = np.nonzero(inside.any(1))[0], np.nonzero(inside.any(0))[0]
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    side = max(bottom - top, right - left) * 1.08
    y, x = (top + bottom) / 2, (left + right) / 2
    if rng is not None:
        side *= rng.uniform(0.95, 1.5)
        y, x = y + rng.uniform(-0.08, 0.08) * side, x + rng.uniform(-0.08, 0.08) * side
        if rng.random() < 0.35:
            picture = np.where(inside[..., None], picture, _EMPTY)
    return square(picture, y, x, side)


def square(picture, y, x, side):
    """A square of a picture, empty where it leaves it, brought to 128 pixels."""
    x0, y0, s = round(x - side / 2), round(y - side / 2), max(8, round(side))
    pad = max(0, -x0, -y0, x0 + s - picture.shape[1], y0 + s - picture.shape[0])
    if pad:
        picture = np.pad(picture, ((pad, pad), (pad, pad), (0, 0)), constant_values=_EMPTY)
    found = picture[y0 + pad : y0 + pad + s, x0 + pad : x0 + pad + s]
    pixels = torch.from_numpy(np.ascontiguousarray(found)).permute(2, 0, 1)[None].float()
    pixels = F.interpolate(pixels, (128, 128), mode="bilinear", align_corners=False, antialias=True)
    return pixels[0].round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()


def _batch(rng, count):
    """Two views each of `count` strangers, half of which look like the other half: [2, count, 3,
    128, 128] in -1..1."""
    known = [stranger(rng) for _ in range(count // 2)]
    known += [look_alike(features, rng) for features in known]
    views = np.stack([[view(features, rng) for features in known] for _ in range(2)])
    return torch.from_numpy(views).permute(0, 1, 4, 2, 3).float() / 127.5 - 1


@torch.no_grad()
def _worn(x, autoencoder, session):
    """Pictures [b, 3, 128, 128] as a sampler may have left them."""
    choice = torch.rand(())
    if choice < 0.25:
        x = F.interpolate(
            F.avg_pool2d(x, 2), scale_factor=2.0, mode="bilinear", align_corners=False
        )
    elif choice < 0.5:
        x = x + 0.1 * torch.rand(()).item() * torch.randn_like(x)
    elif choice < 0.75 and autoencoder is not None:
        some = slice(0, len(x) // 2)  # which costs as much as all else: not of all
        with session.autocast():
            z = autoencoder.encode(x[some])[0].float()
            noise = 0.1 * torch.rand(()).item() / config.LATENT_SCALE * torch.randn_like(z)
            y = autoencoder.decode(z + noise).float().clamp(-1, 1)
        x = torch.cat([y, x[some.stop :]])
    return x


def run(session, start=None):
    """`start`: a vision tower's weights to begin with."""
    net = session.place(CLIPVisionModelWithProjection(config.VISION))
    if start is not None:
        net.load_state_dict(start)
    groups = [(list(net.parameters()), 1.0)]
    trainer = Trainer(
        session, "identity", {"identity": net}, groups, 1e-3, 0.998, 0.02, (0.9, 0.98)
    )
    if trainer.done:
        return True
    autoencoder = session.place(vae.load(session)) if (session.work / "vae.pt").exists() else None
    rng = np.random.default_rng(torch.randint(2**31, ()).item())
    count = session.batch(64, 24)
    target = torch.arange(count, device=session.device)
    for progress in trainer.steps():
        x = _batch(rng, count).to(session.device)
        x = torch.stack([_worn(part, autoencoder, session) for part in x])
        with session.autocast():
            seen = F.normalize(net(x.flatten(0, 1)).float(), dim=-1)
        a, b = seen.split(count)
        alike = a @ b.T
        angle = alike.diagonal().clamp(-0.999, 0.999).acos()
        margin = _MARGIN * min(1.0, 4 * progress)
        logits = _SCALE * torch.where(torch.eye(count, dtype=torch.bool, device=a.device),
                                      (angle + margin).cos()[:, None], alike)  # fmt: skip
        loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        trainer.step(loss, count, learning_rate(progress, trainer.iteration, 100))
        trainer.report(loss=loss, first=(alike.argmax(1) == target).float().mean())
    if session.rank == 0:
        session.say(check(load(session), session, *((4, 2) if session.small else (20, 12))))
    return trainer.done


def load(session):
    net = CLIPVisionModelWithProjection(config.VISION).to(session.device)
    net.load_state_dict(final_weights(session, "identity", "identity"))
    return net.eval().requires_grad_(False)


@torch.no_grad()
def embedded(net, pictures):
    """Bytes [n, 128, 128, 3] to unit vectors [n, width]."""
    device = next(net.parameters()).device
    x = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1
    return torch.cat([F.normalize(net(part.to(device)), dim=-1) for part in x.split(64)])


def check(net, session, cast_count=20, scenes_each=12):
    """What share of figures in real pictures of two and three of a cast are found to be who they
    are, among the cast's seven and among each with seven look-alikes; as text.

    Casts are known by the eight pictures that would be taught.
    """
    tallies = {"pairs": [], "trios": [], "look-alikes": []}
    for seed in range(50_000, 50_000 + cast_count):
        rng = np.random.default_rng([seed])
        cast = [f for f in casts.draw_cast(seed).values() if f["kind"] != "place"]
        known = torch.stack([_known(net, features, seed, i) for i, features in enumerate(cast)])
        for at in range(scenes_each):
            name = ("pairs", "trios")[at % 2]
            chosen = rng.permutation(len(cast))[: 2 + at % 2]
            found = embedded(net, _together([cast[i] for i in chosen], rng)) @ known.T
            tallies[name] += (found.argmax(1).cpu().numpy() == chosen).tolist()
        features = cast[seed % len(cast)]
        others = [features] + [look_alike(features, rng) for _ in range(7)]
        known = torch.stack([_known(net, other, seed, 100 + i) for i, other in enumerate(others)])
        views = [view(other, rng, worn=False) for other in others]
        found = (embedded(net, views) @ known.T).argmax(1).cpu().numpy()
        tallies["look-alikes"] += (found == np.arange(8)).tolist()
    shares = ", ".join(f"{k} {100 * np.mean(v):.1f} % of {len(v)}" for k, v in tallies.items())
    return f"identity: found who is who: {shares}"


def _known(net, features, seed, index):
    """The mean of a stranger's eight pictures."""
    views = []
    for scene, _ in casts.cast_scenes(features, seed, index):
        picture, masks = render(scene)
        views.append(cut_out(np.asarray(picture), np.asarray(masks[0]) > 127))
    return F.normalize(embedded(net, views).mean(0), dim=0)


def _together(cast, rng):
    """A picture of two or three strangers side by side, as the squares around each of them."""
    xs, sizes = ((33, 95), (0.75, 0.95)) if len(cast) == 2 else ((21, 64, 107), (0.58, 0.7))
    subjects = []
    for features, x in zip(cast, xs):
        subject = {"beard": False, "glasses": False, "sway": rng.uniform(-1, 1)} | features
        subject["facing"] = 1 if rng.random() < 0.5 else -1
        scale = rng.uniform(*sizes) * (1.1 if HEIGHT[features["kind"]] < 75 else 1.0)
        subjects.append((subject, x + rng.uniform(-3, 3), rng.uniform(112, 122), scale))
    place = TAUGHT_PLACES[rng.integers(len(TAUGHT_PLACES))]
    scene = {"place": place, "seed": int(rng.integers(2**31)), "subjects": subjects}
    picture, masks = render(scene)
    return [cut_out(np.asarray(picture), np.asarray(mask) > 127) for mask in masks]
