"""Stable Diffusion's noise schedule, and the sampler that scores and sheets use."""

import torch

STEPS = 1000


def alphas_cumulative(device):
    """Share of the signal's power left at each of the 1000 timesteps (`scaled_linear`, 0.00085 to 0.012)."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, STEPS, device=device, dtype=torch.float64) ** 2
    return torch.cumprod(1 - betas, 0).float()


def noised(latents, noise, steps, alphas):
    """The latents at the given timesteps."""
    a = alphas[steps][:, None, None, None]
    return a.sqrt() * latents + (1 - a).sqrt() * noise


def min_snr_weights(alphas, gamma=5.0):
    """Loss weights of min-SNR (Hang et al. 2023) for noise prediction."""
    snr = alphas / (1 - alphas)
    return snr.clamp(max=gamma) / snr


def spread_steps(count, device):
    """`count` timesteps, one random one from each of `count` equal strata: less noisy losses than drawing freely."""
    steps = (torch.arange(count, device=device) + torch.rand(count, device=device)) * (
        STEPS / count
    )
    return steps.long().clamp(0, STEPS - 1)


@torch.no_grad()
def sample(unet, context, empty, noise, steps=25, guidance=3.0, features=None):
    """DPM-Solver++(2M) (Lu et al. 2022) with classifier-free guidance, as diffusers' DPMSolverMultistep runs it.

    `context` [b, 77, w] and `empty` [1, 77, w] are encoded prompts, `noise` [b, 4, h, w]; returns latents that are
    still multiplied by the scaling factor.
    """
    device, count = noise.device, len(noise)
    alphas = alphas_cumulative(device).double()
    times = (
        torch.linspace(0, STEPS - 1, steps + 1, dtype=torch.float64)
        .round()
        .long()
        .flip(0)[:-1]
        .to(device)
    )
    both = torch.cat([empty.expand(count, -1, -1), context])
    if features is not None:
        features = [torch.cat([f, f]) for f in features]
    x, before, h_before = noise, None, None
    for i, t in enumerate(times):
        alpha, sigma = alphas[t].sqrt(), (1 - alphas[t]).sqrt()
        plain, told = unet(torch.cat([x, x]), t.expand(2 * count), both, features).float().chunk(2)
        clean = (x - sigma.float() * (plain + guidance * (told - plain))) / alpha.float()
        if i + 1 == steps:
            return clean
        later = alphas[times[i + 1]]
        alpha_later, sigma_later = later.sqrt(), (1 - later).sqrt()
        h = torch.log(alpha_later / sigma_later) - torch.log(alpha / sigma)
        direction = clean
        if before is not None:
            direction = clean + 0.5 * (h / h_before).float() * (clean - before)
        x = (sigma_later / sigma).float() * x - (alpha_later * torch.expm1(-h)).float() * direction
        before, h_before = clean, h
    return x
