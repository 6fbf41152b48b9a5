"""A classifier of the world's pictures, for scoring only: place, and who stands left, centre and right.

It is trained on real pictures, some blurred or noisy so that it judges content and not sharpness, and its accuracy on
held-out real pictures is printed beside that on samples: no sample can be expected to score above it.
"""

import torch
import torch.nn.functional as F
from torch import nn

from ..runtime import Trainer, final_weights, learning_rate
from ..world.canvas import COLOUR_NAMES
from ..world.places import PLACE_NAMES
from ..world.scenes import UNKNOWN
from ..world.subjects import KINDS
from .data import Pictures

_SIZES = [len(PLACE_NAMES)] + [len(KINDS) + 1, len(COLOUR_NAMES)] * 3


class Judge(nn.Module):
    def __init__(self):
        super().__init__()
        layers, before = [], 3
        for width in (32, 64, 96, 128):
            layers += [nn.Conv2d(before, width, 4, 2, 1), nn.BatchNorm2d(width), nn.SiLU()]
            layers += [nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.SiLU()]
            before = width
        self.body = nn.Sequential(*layers)
        self.mix = nn.Sequential(
            nn.Conv2d(128, 48, 1), nn.SiLU(), nn.Flatten(), nn.Linear(48 * 64, 256), nn.SiLU()
        )
        self.head = nn.Linear(256, sum(_SIZES))

    def forward(self, pictures):
        """Logits: [b, places], then kind (0: nobody) and colour for each of the three slots."""
        return self.head(self.mix(self.body(pictures))).split(_SIZES, 1)


def run(session):
    judge = session.place(Judge())
    trainer = Trainer(
        session, "judge", {"judge": judge}, [(list(judge.parameters()), 1.0)], 2e-3, 0.99, 0.02
    )
    if trainer.done:
        return True
    data = Pictures.of(session)
    batch = session.batch(512, 32)
    for progress in trainer.steps():
        data.keep_up()
        indices = data.draw(batch)
        x, truth = _worn(data.images(indices)), data.labels[indices].long()
        with session.autocast():
            outputs = judge(x)
        loss = sum(_loss(i, logits.float(), truth) for i, logits in enumerate(outputs))
        trainer.step(loss, batch, learning_rate(progress, trainer.iteration, 100))
        trainer.report(loss=loss, kind=(outputs[1].argmax(1) == truth[:, 1]).float().mean())
    return trainer.done


def _loss(index, logits, truth):
    loss = F.cross_entropy(logits, truth[:, index], reduction="none", ignore_index=UNKNOWN)
    if index >= 2 and index % 2 == 0:  # a colour counts only where somebody stands
        loss = loss * ((truth[:, index - 1] > 0) & (truth[:, index - 1] != UNKNOWN))
    return loss.mean()


def _worn(x):
    choice = torch.rand(())
    if choice < 0.3:
        x = F.interpolate(
            F.avg_pool2d(x, 2), scale_factor=2.0, mode="bilinear", align_corners=False
        )
    elif choice < 0.7:
        x = x + 0.1 * torch.rand(()).item() * torch.randn_like(x)
    return x


def load(session):
    judge = Judge().to(session.device)
    judge.load_state_dict(final_weights(session, "judge", "judge"))
    return judge.eval().requires_grad_(False)
