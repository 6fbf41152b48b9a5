"""The training pictures' latents, encoded once."""

import torch
import torch.nn.functional as F

from ..nets.config import LATENT_SCALE
from . import vae
from .data import Pictures, signed

_MOST_NOISE = 0.1  # a channel that the decoder hardly reads may be noisier than that: no need to learn its noise


@torch.no_grad()
def encoded(session, model, parts):
    """Latents of batches of pictures in -1..1: `mean` [n, 4, s/8, s/8], scaled to unit variance, in f16; mean `deviation` [4]."""
    means, variances = [], []
    for x in parts:
        with session.autocast():
            mean, log_variance = (t.float() for t in model.encode(x))
        means.append((mean * LATENT_SCALE).half())
        variances.append(log_variance.exp().mean((0, 2, 3)))
    deviation = (torch.stack(variances).mean(0).sqrt() * LATENT_SCALE).clamp(max=_MOST_NOISE)
    return {"mean": torch.cat(means), "deviation": deviation}


class Latents:
    """Latents [n, 4, s/8, s/8] of pictures, scaled to unit variance, and their mean deviation [4].

    Several processes that train together each encode and draw from pictures of their own.
    """

    def __init__(self, session, data=None, size=128, most=None):
        data = data or Pictures.of(session)
        most = min(len(data), most or len(data))
        self.indices = torch.arange(most, device=session.device)
        path = session.work / f"latents{size}-{session.rank}of{session.workers}.pt"
        kept = (
            torch.load(path, map_location=session.device, weights_only=True)
            if path.exists()
            else None
        )
        if kept is None or len(kept["mean"]) != len(
            self.indices
        ):  # or of pictures that were rendered since
            kept = self._encode(session, data, size)
            torch.save(kept, path)
        self.mean, self.deviation = kept["mean"], kept["deviation"]
        self.rates = data.rates(self.indices)
        self.session = session

    def _encode(self, session, data, size):
        def parts():
            for part in self.indices.split(session.batch(512, 16)):
                yield (
                    data.images(part)
                    if size == 128
                    else F.avg_pool2d(data.images(part), 128 // size)
                )

        kept = encoded(session, session.place(vae.load(session)), parts())
        session.say(f"encoded {len(self.indices)} pictures of {size}x{size}")
        return kept

    def __len__(self):
        return len(self.mean)

    def draw(self, count, repeats=1):
        """`count` latents of random pictures, all kinds of subjects alike, each picture `repeats` times; and the pictures' indices."""
        which = torch.multinomial(self.rates, count // repeats, replacement=True)
        z = self.mean[which].float().repeat(repeats, 1, 1, 1)
        return z + self.deviation[:, None, None] * torch.randn_like(z), self.indices[which]


class GrowingLatents(Latents):
    """Latents of pictures that are still being rendered, up to `most`; nothing of them is kept on disk."""

    def __init__(self, session, most):
        self.session, self.most = session, most
        self.data = Pictures(session, keep=False)
        self.model = session.place(vae.load(session))
        self.mean = torch.empty(0)
        self.grow()
        if not len(self.mean):
            raise SystemExit(f"no pictures in {session.work / 'data'}: run the stage 'data' first")

    def grow(self):
        """Takes in what was rendered since the last time."""
        fresh = self.data.more(self.most)
        if fresh is None:
            return
        kept = encoded(
            self.session,
            self.model,
            (signed(part.to(self.session.device)) for part in fresh.split(1024)),
        )
        self.mean = torch.cat([self.mean, kept["mean"]]) if len(self.mean) else kept["mean"]
        self.deviation = kept["deviation"]
        self.indices = torch.arange(len(self.data), device=self.session.device)
        self.rates = self.data.rates(self.indices)
