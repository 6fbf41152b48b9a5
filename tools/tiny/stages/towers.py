"""Training the CLIP towers against each other."""

import torch
import torch.nn.functional as F
from torch import nn

from ..nets import config
from ..nets.clip import CLIPTextModel, CLIPVisionModelWithProjection
from ..runtime import Trainer, final_weights, learning_rate
from .data import Pictures

# Tokens of the longest caption, with room; the tower is causal, so padding beyond changes nothing.
_LONGEST = 72
_RATE, _RATE_OF_ADOPTED = 1e-3, 5e-4  # a UNet knows the states of weights that were brought here


class Towers(nn.Module):
    """Both towers with the text's projection and the logarithm of the inverse temperature."""

    def __init__(self, vocabulary):
        super().__init__()
        self.text = CLIPTextModel(text_config(vocabulary))
        self.vision = CLIPVisionModelWithProjection(config.VISION)
        self.text_projection = nn.Linear(
            config.TEXT_WIDTH, config.VISION["projection_dim"], bias=False
        )
        self.logit_scale = nn.Parameter(torch.tensor(2.66))

    def embed_text(self, tokens):
        states = self.text(tokens)
        return F.normalize(self.text_projection(self.text.pooled(tokens, states)).float(), dim=-1)

    def embed_pictures(self, pictures):
        return F.normalize(self.vision(pictures).float(), dim=-1)


def text_config(vocabulary):
    ends = {
        "bos_token_id": vocabulary.start,
        "eos_token_id": vocabulary.end,
        "pad_token_id": vocabulary.end,
    }
    return config.TEXT | {"vocab_size": len(vocabulary)} | ends


def run(session, vocabulary):
    """Contrastive training of both towers."""
    towers = session.place(Towers(vocabulary))
    groups = [(list(towers.parameters()), 1.0)]
    trainer = Trainer(
        session, "towers", {"towers": towers}, groups, _RATE, 0.998, 0.05, (0.9, 0.98)
    )
    if trainer.note.get("adopted"):
        trainer.rate = min(trainer.rate, _RATE_OF_ADOPTED)
    if trainer.done:
        return True
    data = Pictures.of(session)
    batch = session.batch(1024, 64)
    target = torch.arange(batch, device=session.device)
    see = session.compiled(towers.embed_pictures)
    for progress in trainer.steps():
        data.keep_up()
        indices = data.draw(batch)
        with session.autocast():
            pictures = data.images(indices)
            text = towers.embed_text(data.captions(indices)[:, :_LONGEST])
            logits = see(pictures) @ text.T * towers.logit_scale.exp().clamp(max=100)
        loss = (
            F.cross_entropy(logits.float(), target) + F.cross_entropy(logits.float().T, target)
        ) / 2
        trainer.step(loss, batch, learning_rate(progress, trainer.iteration, 100))
        trainer.report(loss=loss, first=(logits.argmax(1) == target).float().mean())
    share = retrieval(load(session, vocabulary), Pictures.of(session, validation=True))
    session.say(
        f"towers: the own caption comes first among 64 for {100 * share:.1f} % of held-out pictures"
    )
    return trainer.done


def load(session, vocabulary):
    """The trained towers."""
    towers = Towers(vocabulary).to(session.device)
    towers.load_state_dict(final_weights(session, "towers", "towers"))
    return towers.eval().requires_grad_(False)


@torch.no_grad()
def retrieval(towers, data, among=64):
    """Share of held-out pictures whose own caption comes first among `among`."""
    indices = torch.arange(len(data), device=data.tokens.device)
    found = total = 0
    for part in indices.split(among):
        text = towers.embed_text(data.tokens[part, 0].long())
        first = (towers.embed_pictures(data.images(part)) @ text.T).argmax(1)
        found, total = (
            found + (first == torch.arange(len(part), device=first.device)).sum().item(),
            total + len(part),
        )
    return found / total
