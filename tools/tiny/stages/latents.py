"""The training pictures' latents, encoded once."""

import torch
import torch.nn.functional as F

from ..nets.config import LATENT_SCALE
from . import vae
from .data import Pictures

_MOST_NOISE = 0.1  # a channel that the decoder hardly reads may be noisier than that: no need to learn its noise


class Latents:
    """Latents [n, 4, s/8, s/8] of pictures, scaled to unit variance, and their mean deviation [4].

    Several processes that train together each encode and draw from pictures of their own.
    """

    def __init__(self, session, data=None, size=128, most=None):
        data = data or Pictures.of(session)
        most = min(len(data), most or len(data))
        self.indices = torch.arange(session.rank, most, session.workers, device=session.device)
        path = session.work / f"latents{size}-{session.rank}of{session.workers}.pt"
        kept = torch.load(path, map_location=session.device, weights_only=True) if path.exists() else None
        if kept is None or len(kept["mean"]) != len(self.indices):  # or of pictures that were rendered since
            kept = self._encode(session, data, size)
            torch.save(kept, path)
        self.mean, self.deviation = kept["mean"], kept["deviation"]
        self.rates = data.rates(self.indices)
        self.session = session

    @torch.no_grad()
    def _encode(self, session, data, size):
        model = session.place(vae.load(session))
        means, variances = [], torch.zeros(4, device=session.device)
        parts = self.indices.split(session.batch(512, 16))
        for part in parts:
            x = data.images(part)
            if size != 128:
                x = F.avg_pool2d(x, 128 // size)
            mean, log_variance = model.encode(x)
            means.append((mean * LATENT_SCALE).half())
            variances += log_variance.exp().mean((0, 2, 3)) / len(parts)
        session.say(f"encoded {len(self.indices)} pictures of {size}x{size}")
        deviation = (variances.sqrt() * LATENT_SCALE).clamp(max=_MOST_NOISE)
        return {"mean": torch.cat(means), "deviation": deviation}

    def __len__(self):
        return len(self.mean)

    def draw(self, count, repeats=1):
        """`count` latents of random pictures, all kinds of subjects alike, each picture `repeats` times; and the pictures' indices."""
        which = torch.multinomial(self.rates, count // repeats, replacement=True)
        z = self.mean[which].float().repeat(repeats, 1, 1, 1)
        return z + self.deviation[:, None, None] * torch.randn_like(z), self.indices[which]
