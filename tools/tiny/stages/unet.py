"""Training the noise predictor; the text tower is held still, as in Stable Diffusion.

eps-prediction on Stable Diffusion's schedule, min-SNR weights, figures weighted up, one caption in ten left out (for guidance), averaged
weights. That schedule ends with a trace of the picture left; a model learns to read off it how bright the picture is, and then
makes everything medium bright. A little noise offset covers that trace. On a CPU the first part runs on pictures of half
the size, which costs a quarter and teaches composition.
"""

import torch
from torch import nn

from .. import diffusion
from ..nets import config
from ..nets.unet import UNet2DConditionModel
from ..runtime import Trainer, at_most, final_weights, learning_rate
from . import towers
from .data import BLOCK, Pictures
from .latents import GrowingLatents, Latents

DROPPED_CAPTIONS = 0.1
_NOISE_OFFSET = 0.05
_RATE_OF_ADOPTED = 1.2e-3  # from weights that know a world already: not so far that they forget it
_HALF_SIZE_UNTIL = 0.4
_COMPILING = 150  # seconds at most: as long as the VAE takes
_MOST_RENDERED = 200 * BLOCK
MOST_ON_CPU = 32 * 1024  # pictures of each process


def empty_prompt(session, vocabulary):
    return torch.tensor([vocabulary.encode("", config.TOKENS)], device=session.device)


def run(session, vocabulary):
    unet = session.place(UNet2DConditionModel(config.UNET)).to(
        memory_format=torch.channels_last
    )  # no slower on CPUs, mostly faster
    nn.init.zeros_(unet.conv_out.weight)
    text = towers.load(session, vocabulary).text
    trainer = Trainer(
        session,
        "unet",
        {"unet": unet},
        [(list(unet.parameters()), 1.0)],
        2e-3,
        0.9995 if session.cuda else 0.998,
    )
    if trainer.done:
        return True
    if trainer.note.get("adopted"):
        trainer.rate = min(trainer.rate, _RATE_OF_ADOPTED)
    # On a CPU, encoding and reading captions would take a good part of the time: fewer pictures,
    # and two noises to each.
    most, repeats = (None, 1) if session.cuda or session.small else (MOST_ON_CPU, 2)
    # Weights that were brought here know composition already.
    half_size_until = 0.0 if session.cuda or trainer.note.get("adopted") else _HALF_SIZE_UNTIL
    device, batch = session.device, session.batch(1024, 24)
    alphas = diffusion.alphas_cumulative(device)
    weights = diffusion.min_snr_weights(alphas)
    empty = empty_prompt(session, vocabulary)

    def loss_by(predict):
        def loss_of(latents, noise, steps, captions, figures):
            with session.autocast():
                with torch.no_grad():
                    context = text(captions).repeat(repeats, 1, 1)
                predicted = predict(diffusion.noised(latents, noise, steps, alphas), steps, context)
            squared = (predicted.float() - noise).pow(2)
            weighted = (squared * figure_weights(figures, alphas[steps])).mean((1, 2, 3)) * weights[
                steps
            ]
            return weighted.mean(), {"squared": squared.detach().mean()}

        return loss_of

    loss_of = loss_by(unet)
    if session.replays:
        z, steps = (
            torch.randn(batch, 4, 16, 16, device=device),
            diffusion.spread_steps(batch, device),
        )
        examples = [
            z,
            torch.randn_like(z),
            steps,
            empty.repeat(batch, 1),
            torch.rand(batch, 1, 16, 16, device=device),
        ]
        loss_of = _faster(
            session, trainer, loss_of, loss_by(torch.compile(unet, dynamic=False)), examples
        )
    session.wait_for("vae", "towers")
    text.load_state_dict(
        towers.load(session, vocabulary).text.state_dict()
    )  # in place: it is part of what was recorded
    if session.to_deadline:
        kept = {128: GrowingLatents(session, _MOST_RENDERED)}
        data = kept[128].data
    else:
        data, kept = Pictures.of(session), {}
    for progress in trainer.steps():
        size = 64 if progress < half_size_until else 128
        if size not in kept:  # encoding takes long: not before it is needed
            kept[size] = Latents(session, data, size, most)
        if session.to_deadline and trainer.iteration % 1000 == 999:
            kept[size].grow()
        count = batch if size == 128 else 2 * batch
        latents, indices = kept[size].draw(count, repeats)
        captions = data.captions(indices)
        captions = torch.where(
            torch.rand(len(indices), 1, device=device) < DROPPED_CAPTIONS, empty, captions
        )
        steps = diffusion.spread_steps(count, device)
        noise = torch.randn_like(latents) + _NOISE_OFFSET * torch.randn(
            count, 4, 1, 1, device=device
        )
        figures = data.figures(indices, latents.shape[-1]).repeat(repeats, 1, 1, 1)
        values = trainer.repeat(
            loss_of,
            [latents, noise, steps, captions, figures],
            count,
            learning_rate(progress, trainer.iteration, 300, flat=0.3),
        )
        if trainer.iteration % 10 == 0:
            trainer.report(**values)
    return trainer.done


def _faster(session, trainer, plain, compiled, examples):
    """Which of the losses runs faster, recorded and ready to repeat."""
    trainer.record_if_possible(plain, examples)
    if not session.replays:
        return plain
    seconds = trainer.seconds_of_replay()
    session.say(f"unet: {1e3 * seconds:.1f} ms for {len(examples[0])} samples")
    if not session.compile_models:
        return plain
    try:
        with at_most(_COMPILING):
            trainer.record(compiled, examples)
        faster = trainer.seconds_of_replay()
        session.say(f"unet: {1e3 * faster:.1f} ms compiled")
        if faster < seconds:
            return compiled
    except Exception as error:
        session.give_up_compiling(error)
    trainer.record(plain, examples)
    return plain


def figure_weights(figures, alphas):
    """How much each square counts: figures and background alike, where a figure is a tenth of the picture or more.

    Unweighted, the error of skies and grounds hides that of figures, which people look at first. Weights that depend on the picture
    bias a guess towards what weighs more: with much noise, towards figures where there may be none. So they fade with the signal.
    `figures` [b, 1, s, s] in 0..1, `alphas` [b]: cumulative.
    """
    share = figures.mean((2, 3), keepdim=True).clamp(0.1, 0.9)
    balanced = 0.5 * figures / share + 0.5 * (1 - figures) / (1 - share)
    return 1 + alphas.sqrt()[:, None, None, None] * (balanced - 1)


def load(session, vocabulary):
    """The trained UNet and the text tower that goes with it."""
    unet = UNet2DConditionModel(config.UNET)
    unet.load_state_dict(final_weights(session, "unet", "unet"))
    return session.place(unet).eval().requires_grad_(False), towers.load(session, vocabulary).text
