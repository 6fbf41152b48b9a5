"""Training the autoencoder.

Plain training stays gray for a long time. So first the encoder alone learns to put luma and two colour differences,
averaged over each latent's square, into three channels (which leaves latents that look like a small picture: easy to
denoise, too); then everything; at last the decoder alone, against slightly noisy latents. Then the latents are
whitened and scaled once, inside quant_conv and post_quant_conv, so that Stable Diffusion's 0.18215 stays true.

Weights that were brought here have latents already, which a UNet may know: they go on with
everything at once, at a smaller rate. Figures count more than what is behind them, and colours of
squares of four pixels beside those of pixels, because what is taught later is told by the colours
of its parts.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F

from ..nets import config
from ..nets.vae import AutoencoderKL
from ..runtime import Trainer, final_weights
from ..world import parts, scenes
from .data import Pictures, signed

FACTOR = 2 ** (len(config.VAE["block_out_channels"]) - 1)
_ENCODER_ALONE, _DECODER_ALONE = 0.04, 0.80
_RATE, _RATE_OF_ADOPTED = 2.5e-3, 1.2e-3
_SWAPPED = 0.2  # share of batches whose channels are exchanged: more colours than the world has


def anchor(pictures):
    """Luma, red-green and blue-yellow at latent size, about unit variance: what three latent channels start from."""
    r, g, b = F.avg_pool2d(pictures, FACTOR).unbind(1)
    return torch.stack([(r + g + b) / 1.5, (r - g) * 2.6, (b - (r + g) / 2) * 2.3], 1)


def _edges_loss(p, q):
    """L1 of the gradients at full and half size, plus L1 at half size."""
    loss = 0.0
    for level in range(2):
        loss = (
            loss
            + (p.diff(dim=3) - q.diff(dim=3)).abs().mean()
            + (p.diff(dim=2) - q.diff(dim=2)).abs().mean()
        )
        if level == 0:
            p, q = F.avg_pool2d(p, 2), F.avg_pool2d(q, 2)
            loss = loss + 0.5 * (p - q).abs().mean()
    return loss


def _likeness(y, x, figures):
    """The loss between pictures and their reconstructions, and values to report."""
    weights = (0.5 + 2 * figures) / (0.5 + 2 * figures).mean()
    squared = ((y - x).square() * weights).mean()
    flat = F.avg_pool2d(y - x, 4).abs() * F.avg_pool2d(weights, 4)
    loss = ((y - x).abs() * weights).mean() + 1.5 * squared + 0.3 * _edges_loss(y, x) + flat.mean()
    return loss, {"loss": loss.detach(), "squared": F.mse_loss(y, x).detach()}


def _crop(session, progress):
    """Side of the squares to train on."""
    return 64 if progress < (0.8 if session.cuda else 0.95) else 128


def run(session):
    model = session.place(AutoencoderKL(config.VAE)).to(memory_format=torch.channels_last)
    with torch.no_grad():  # start nearly noiseless
        model.quant_conv.bias[4:] -= 5.0
        model.quant_conv.weight[4:] *= 0.3
    encoder = [*model.encoder.parameters(), *model.quant_conv.parameters()]
    decoder = [*model.decoder.parameters(), *model.post_quant_conv.parameters()]
    groups = [(encoder, 1.0), (decoder, 1.0)]
    trainer = Trainer(session, "vae", {"vae": model}, groups, _RATE, 0.999, 1e-4)
    adopted = trainer.note.get("adopted", False)
    trainer.rate = min(trainer.rate, _RATE_OF_ADOPTED) if adopted else trainer.rate
    if trainer.done:
        return True
    data = Pictures.of(session)

    def anchored_alone(x, figures):
        with session.autocast():
            mean = model.encode(x)[0].float()
        anchored = (mean[:, :3] - anchor(x)).pow(2).mean()
        return anchored, {"anchored": anchored.detach()}

    def joint(x, figures, anchor_weight):
        with session.autocast():
            mean, log_variance = (t.float() for t in model.encode(x))
            anchored = (mean[:, :3] - anchor(x)).pow(2).mean()
            y = model.decode(mean + (0.5 * log_variance).exp() * torch.randn_like(mean)).float()
        divergence = 0.5 * (mean.pow(2) + log_variance.exp() - 1 - log_variance).mean()
        loss, values = _likeness(y, x, figures)
        return loss + 1e-4 * divergence + anchor_weight * anchored, values | {
            "anchored": anchored.detach()
        }

    def decoder_alone(x, figures):
        with session.autocast():
            with torch.no_grad():
                mean, log_variance = (t.float() for t in model.encode(x))
            z = mean + (0.5 * log_variance).exp() * torch.randn_like(mean)
            y = model.decode(z + 0.03 * torch.randn_like(z)).float()
        return _likeness(y, x, figures)

    for progress in trainer.steps():
        data.keep_up()
        crop = _crop(session, progress)
        batch = max(1, session.batch(256, 16) * 64**2 // crop**2)
        x, figures = data.squares(data.draw(batch), crop)
        if np.random.random() < 0.5:
            x, figures = x.flip(3), figures.flip(3)
        if np.random.random() < _SWAPPED:
            x = x[:, torch.randperm(3, device=x.device)]
        warm = min(1.0, (trainer.iteration + 1) / 50)
        if progress < _ENCODER_ALONE and not adopted:
            rate = warm * ((1 - progress / _ENCODER_ALONE) * 0.9 + 0.1)
            values = trainer.repeat(anchored_alone, [x, figures], batch, rate)
        else:
            rate = warm * (0.5 * (1 + math.cos(math.pi * progress)) + 0.02)
            if progress < _DECODER_ALONE:
                weight = 0.0 if adopted else 0.25 * max(0.0, 1 - 2 * progress) + 0.03
                weight = torch.tensor(weight, device=x.device)
                values = trainer.repeat(joint, [x, figures, weight], batch, rate)
            else:
                values = trainer.repeat(decoder_alone, [x, figures], batch, rate)
        if trainer.iteration % 5 == 0:
            trainer.report(**values)
    held_out = Pictures.of(session, validation=True)
    pictures = held_out.images(torch.arange(min(64, len(held_out)), device=session.device))
    trained = load(session)
    session.say(
        f"vae: {psnr(trained, pictures):.1f} dB on held-out pictures,"
        f" parts' colours {np.median(part_errors(trained, 32)):.1f} of 255 from their own (median)"
    )
    return trainer.done


def load(session, data=None):
    """The trained autoencoder, its latents whitened, ready to use."""
    model = AutoencoderKL(config.VAE).to(session.device)
    model.load_state_dict(final_weights(session, "vae", "vae"))
    model.eval().requires_grad_(False)
    _whiten(session, model, data or Pictures.of(session, validation=True))
    return model


@torch.no_grad()
def _whiten(session, model, data):
    """Folds mean and covariance into the 1x1 convolutions: latents times the scaling factor become N(0, 1), uncorrelated."""
    indices = torch.arange(min(256, len(data)), device=session.device)
    latents = torch.cat([model.encode(data.images(part))[0] for part in indices.split(32)])
    flat = latents.transpose(0, 1).flatten(1).double()
    mean = flat.mean(1)
    values, vectors = torch.linalg.eigh(torch.cov(flat))
    whiten = (vectors * values.clamp(min=1e-8).rsqrt()) @ vectors.T / config.LATENT_SCALE
    restore = torch.linalg.inv(whiten)
    quant, post = model.quant_conv, model.post_quant_conv
    weight, bias = quant.weight[:, :, 0, 0].double(), quant.bias.double()
    spread = whiten.diagonal().abs().log() * 2
    quant.weight.copy_(torch.cat([whiten @ weight[:4], weight[4:]])[:, :, None, None])
    quant.bias.copy_(torch.cat([whiten @ (bias[:4] - mean), bias[4:] + spread]))
    after = post.weight[:, :, 0, 0].double()
    post.bias.copy_(post.bias.double() + after @ mean)
    post.weight.copy_((after @ restore)[:, :, None, None])


@torch.no_grad()
def part_errors(model, count=64):
    """Of every part of eight by eight pixels or more in `count` held-out strange scenes, how far its
    colour is from its own after a round trip: 0..255, of medians, in the channel that differs most.
    """
    device, found = next(model.parameters()).device, []
    for seed in range(scenes.STRANGE_PROMPTS, scenes.STRANGE_PROMPTS + count):
        picture, where, colours = parts.rendered(scenes.example(seed)[0])
        x = signed(torch.from_numpy(picture.copy())[None]).to(device)
        y = model.decode(model.encode(x)[0])[0].clamp(-1, 1).permute(1, 2, 0)
        found += parts.seen((y.cpu().numpy() + 1) * 127.5, where, colours).values()
    return found


@torch.no_grad()
def psnr(model, pictures, size=32):
    """Peak signal-to-noise ratio in dB of pictures [n, 3, s, s] against their reconstructions, over all their pixels."""
    squared = [
        F.mse_loss(model.decode(model.encode(x)[0]).clamp(-1, 1), x, reduction="none").mean(
            (1, 2, 3)
        )
        for x in pictures.split(size)
    ]
    return 10 * math.log10(4 / torch.cat(squared).mean().item())
