"""Writes tests/fixtures/samplers.json and schedules.json: what diffusers' schedulers do, step for step, with a made-up model.

The model, the initial sample and the noise are formulas that the Rust test repeats (`model`, `start`, `noise`), so only the
results are stored. What diffusers does not have, k-diffusion has (`pip install --no-deps k-diffusion==0.1.1.post1`, of which one file is
read). Noise of Brownian paths is put together from draws as the Rust samplers do (`Path`). Image to image starts where `StableDiffusionImg2ImgPipeline.get_timesteps` says, and after every step the
levels of an original noised for blending (as the inpainting pipeline does) are kept as [signal, noise].
"""

import json
import math
import importlib.util
import pathlib
import sys
from types import ModuleType, SimpleNamespace

import diffusers
import numpy as np
import torch
from diffusers import StableDiffusionImg2ImgPipeline
from diffusers.schedulers import (
    scheduling_ddim,
    scheduling_dpmsolver_multistep,
    scheduling_dpmsolver_sde,
    scheduling_euler_ancestral_discrete,
    scheduling_lcm,
    scheduling_tcd,
)

# Its package asks for much that its samplers do not need.
PACKAGE = importlib.util.find_spec("k_diffusion")
sys.modules["k_diffusion"] = ModuleType("k_diffusion")
sys.modules["k_diffusion"].__path__ = PACKAGE.submodule_search_locations
sys.modules["k_diffusion.utils"] = sys.modules["k_diffusion"].utils = ModuleType("utils")
from k_diffusion import sampling  # noqa: E402

sampling.to_d = lambda x, sigma, denoised: (x - denoised) / sigma

torch.set_num_threads(1)
OUT = pathlib.Path(__file__).parents[2] / "tests" / "fixtures" / "samplers.json"
N = 3
CLASSES = {
    "ddim": (diffusers.DDIMScheduler, {}),
    "pndm": (diffusers.PNDMScheduler, {}),
    "euler": (diffusers.EulerDiscreteScheduler, {}),
    "euler-ancestral": (diffusers.EulerAncestralDiscreteScheduler, {}),
    "heun": (diffusers.HeunDiscreteScheduler, {}),
    "dpmpp-2m": (diffusers.DPMSolverMultistepScheduler, {"algorithm_type": "dpmsolver++"}),
    "dpmpp-2m-sde": (diffusers.DPMSolverMultistepScheduler, {"algorithm_type": "sde-dpmsolver++"}),
    "dpmpp-sde": (diffusers.DPMSolverSDEScheduler, {}),
    "unipc": (diffusers.UniPCMultistepScheduler, {}),
    "lcm": (diffusers.LCMScheduler, {}),
    "tcd": (diffusers.TCDScheduler, {}),
}
KARRAS = ["euler", "heun", "dpmpp-2m", "dpmpp-2m-sde", "dpmpp-sde", "unipc"]
SIGMAS = ["karras", "exponential", "beta"]
SPACINGS = ["leading", "linspace", "trailing"]
# Stable Diffusion 1.5's own scheduler_config.json.
SD15 = {
    "_class_name": "PNDMScheduler",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
    "clip_sample": False,
}


def model(x, t):
    return (
        0.3 * x
        + 0.5 * torch.sin(torch.tensor([t / 100 + j for j in range(N)], dtype=torch.float64))
    ).float()


def start():
    return torch.tensor([1.1 * math.cos(1.3 * j) for j in range(N)], dtype=torch.float32)


def noise(k):
    """The k-th draw of noise of a run."""
    return torch.tensor(
        [1.3 * math.sin(1.7 * k + 0.9 * j + 0.2) for j in range(N)], dtype=torch.float32
    )


draws = 0


def draw(shape, generator=None, device=None, dtype=None, layout=None):
    global draws
    draws += 1
    return noise(draws - 1)


for module in (
    scheduling_ddim,
    scheduling_dpmsolver_multistep,
    scheduling_euler_ancestral_discrete,
    scheduling_lcm,
    scheduling_tcd,
):
    module.randn_tensor = draw


class Path:
    """Noise of a Brownian path in sigma: a draw for each stretch that nobody has looked at yet."""

    def __init__(self, *_):
        self.seen = {}

    def __call__(self, sigma, sigma_next):
        sigma, sigma_next = float(sigma), float(sigma_next)
        if sigma not in self.seen:
            self.seen[sigma] = sigma_next, draw(None)
            return self.seen[sigma][1]
        middle, first = self.seen[sigma]
        second = draw(None)
        whole = first * (sigma - middle) ** 0.5 + second * (middle - sigma_next) ** 0.5
        return whole / (sigma - sigma_next) ** 0.5


scheduling_dpmsolver_sde.BrownianTreeNoiseSampler = Path


def level(scheduler, timestep):
    t = timestep.reshape(1)
    one, zero = torch.ones(1, 1), torch.zeros(1, 1)
    return [float(scheduler.add_noise(one, zero, t)), float(scheduler.add_noise(zero, one, t))]


def short(values):
    return [float(np.format_float_scientific(np.float32(v), unique=True)) for v in values]


def run(kind, config, steps, schedule=None, eta=None, strength=None):
    global draws
    draws = 0
    cls, overrides = CLASSES[kind]
    if schedule in SIGMAS:
        overrides = overrides | {f"use_{schedule}_sigmas": True}
    elif schedule in SPACINGS:
        overrides = overrides | {"timestep_spacing": schedule}
    scheduler = cls.from_config(config, **overrides)
    scheduler.set_timesteps(steps)
    timesteps = scheduler.timesteps
    case = {
        "kind": kind,
        "config": config,
        "steps": steps,
        "schedule": schedule,
        "eta": eta,
        "strength": strength,
    }
    if strength is None:
        # Where a schedule has a timestep twice, text to image would look up the wrong one.
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(0)
        x = start() * scheduler.init_noise_sigma
        case["initial_scale"] = float(scheduler.init_noise_sigma)
    else:
        pipeline = SimpleNamespace(scheduler=scheduler)
        timesteps, _ = StableDiffusionImg2ImgPipeline.get_timesteps(
            pipeline, steps, strength, "cpu"
        )
        case["start"] = short(level(scheduler, timesteps[0]))
        x = scheduler.add_noise(
            start().reshape(1, N), noise(1000).reshape(1, N), timesteps[:1]
        ).reshape(N)
    samples, levels = [], []
    for i, t in enumerate(timesteps):
        output = model(scheduler.scale_model_input(x, t), float(t))
        extra = {"eta": eta} if eta is not None else {}
        x = scheduler.step(output.reshape(1, N), t, x.reshape(1, N), **extra).prev_sample.reshape(N)
        samples.append(short(x))
        if i + 1 < len(timesteps):
            after = level(scheduler, timesteps[i + 1])
            if kind == "dpmpp-sde" and scheduler.mid_point_sigma is not None and i % 2 == 0:
                # diffusers takes the end of the step for its middle.
                after = [1.0, float(scheduler.mid_point_sigma)]
            levels.append(short(after))
    assert np.isfinite(samples).all(), case
    case |= {"timesteps": short(timesteps), "samples": samples, "levels": levels, "draws": draws}
    return case


K_DIFFUSION = {
    "euler": sampling.sample_euler,
    "euler-ancestral": sampling.sample_euler_ancestral,
    "heun": sampling.sample_heun,
    "dpmpp-2m-sde": sampling.sample_dpmpp_2m_sde,
    "dpmpp-sde": sampling.sample_dpmpp_sde,
    "dpmpp-3m-sde": sampling.sample_dpmpp_3m_sde,
}


def ladder(config, steps, schedule):
    """Timesteps and sigmas; those of web UIs are their formulas."""
    scheduler = diffusers.EulerDiscreteScheduler.from_config(config)
    logs = np.log((((1 - scheduler.alphas_cumprod) / scheduler.alphas_cumprod) ** 0.5).numpy())
    train = len(logs)
    if schedule == "sgm-uniform":
        timesteps = np.linspace(train - 1, 0, steps + 1)[:-1]
    elif schedule == "simple":
        timesteps = np.array([train - (1 + int(i * train / steps)) for i in range(steps)])
    else:
        overrides = {f"use_{schedule}_sigmas": True} if schedule in SIGMAS else {}
        if schedule in SPACINGS:
            overrides = {"timestep_spacing": schedule}
        scheduler = diffusers.EulerDiscreteScheduler.from_config(config, **overrides)
        scheduler.set_timesteps(steps)
        return scheduler.timesteps, scheduler.sigmas, float(scheduler.init_noise_sigma)
    sigmas = np.exp(np.interp(timesteps, np.arange(train), logs))
    return torch.tensor(timesteps), torch.tensor(np.append(sigmas, 0.0)).float(), float(sigmas[0])


def k_run(kind, config, steps, schedule=None, eta=None):
    """A run of k-diffusion's sampler, whose noise is what `Path` makes of draws where it is that of a path."""
    global draws
    draws = 0
    timesteps, sigmas, scale = ladder(config, steps, schedule)
    table = diffusers.EulerDiscreteScheduler.from_config(config)
    logs = np.log((((1 - table.alphas_cumprod) / table.alphas_cumprod) ** 0.5).numpy())
    visited, inputs = [], []
    known = {float(sigma): float(t) for sigma, t in zip(sigmas, timesteps)}

    def denoiser(x, sigma):
        sigma = float(sigma[0])
        t = known.get(sigma)
        if t is None:
            t = float(table._sigma_to_t(np.float64(sigma), logs))
        visited.append(t)
        inputs.append(x[0])
        variance = sigma**2 + 1
        output = model(x / variance**0.5, t)
        if config.get("prediction_type") == "v_prediction":
            return x / variance - sigma / variance**0.5 * output
        return x - sigma * output

    path = Path()
    noise_sampler = path if kind == "dpmpp-sde" else lambda *_: draw(None)
    extra = {} if kind in ("euler", "heun") else {"noise_sampler": noise_sampler}
    if eta is not None:
        extra["eta"] = eta
    last = K_DIFFUSION[kind](denoiser, (start() * scale).reshape(1, N), sigmas, disable=True, **extra)
    samples = [short(x) for x in inputs[1:] + [last[0]]]
    assert np.isfinite(samples).all()
    return {
        "kind": kind,
        "config": config,
        "steps": steps,
        "schedule": schedule,
        "eta": eta,
        "strength": None,
        "initial_scale": scale,
        "timesteps": short(visited),
        "samples": samples,
        "levels": None,
        # Where nothing comes of it, this one is drawn too, as in diffusers.
        "draws": 0 if eta == 0.0 else draws + (kind == "euler-ancestral"),
    }


def sd15(**changes):
    return SD15 | changes


cases = []
for kind in CLASSES:
    for karras in [None, "karras"] if kind in KARRAS else [None]:
        for spacing in SPACINGS:
            for prediction in ("epsilon", "v_prediction"):
                config = sd15(timestep_spacing=spacing, prediction_type=prediction)
                cases.append(run(kind, config, 5, karras))
        # Long enough for every formula, none of the short cuts that short runs take.
        cases.append(run(kind, sd15(), 20, karras))
        cases.append(
            run(kind, sd15(timestep_spacing="trailing", prediction_type="v_prediction"), 20, karras)
        )
        for steps, strength in ((10, 0.75), (20, 0.3), (4, 1.0)):
            cases.append(run(kind, sd15(), steps, karras, strength=strength))
        if kind not in ("pndm", "euler-ancestral", "dpmpp-sde"):
            cases.append(run(kind, sd15(prediction_type="sample"), 6, karras))
    # The class's own defaults for everything that the config leaves open.
    bare = {"_class_name": CLASSES[kind][0].__name__, "clip_sample": False}
    cases.append(run(kind, bare, 7))
    cases.append(run(kind, bare | {"beta_schedule": "squaredcos_cap_v2"}, 6))
    betas = [round(0.001 + 0.02 * i, 6) for i in range(20)]
    cases.append(
        run(
            kind,
            bare
            | {"trained_betas": betas, "num_train_timesteps": 20, "original_inference_steps": 10},
            4,
        )
    )
    # A single step, and one that is hard on rounding.
    cases.append(run(kind, sd15(), 2))
    cases.append(run(kind, sd15(timestep_spacing="trailing"), 48))
    if kind not in ("pndm", "heun", "dpmpp-sde"):
        zero = sd15(
            rescale_betas_zero_snr=True, prediction_type="v_prediction", timestep_spacing="trailing"
        )
        cases.append(run(kind, zero, 8))
    if kind in KARRAS:
        for schedule in ("exponential", "beta"):
            for steps in (5, 20):
                cases.append(run(kind, sd15(), steps, schedule))
            cases.append(run(kind, sd15(timestep_spacing="linspace"), 8, schedule, strength=0.6))
    if kind not in ("lcm", "tcd", "pndm"):
        cases.append(run(kind, sd15(), 6, "trailing"))
for config in (sd15(timestep_spacing="linspace"), sd15(prediction_type="v_prediction")):
    for steps in (2, 3, 12):
        for schedule in (None, *SIGMAS, "sgm-uniform", "simple"):
            cases.append(k_run("dpmpp-3m-sde", config, steps, schedule))
    for schedule in ("sgm-uniform", "simple", *SIGMAS):
        for kind in K_DIFFUSION:
            if kind in ("euler", "heun", "dpmpp-2m-sde") and schedule in SIGMAS:
                continue
            if kind != "dpmpp-2m-sde":
                cases.append(k_run(kind, config, 7, schedule))
    for eta in (0.0, 0.4, 0.9):
        for kind in ("euler-ancestral", "dpmpp-sde", "dpmpp-3m-sde"):
            cases.append(k_run(kind, config, 9, "trailing", eta))
for eta in (0.0, 0.3, 0.7, 1.0):
    cases.append(run("tcd", sd15(), 4, eta=eta))
for solver in ({"solver_order": 3}, {"solver_order": 1}, {"solver_type": "bh1", "final_sigmas_type": "sigma_min"}, {"solver_type": "bh1", "final_sigmas_type": "sigma_min", "solver_order": 3},
               {"disable_corrector": [0, 2]}, {"final_sigmas_type": "sigma_min"},
               {"final_sigmas_type": "sigma_min", "use_karras_sigmas": True}, {"solver_order": 3, "beta_schedule": "squaredcos_cap_v2"}):
    for steps in (3, 12):
        cases.append(run("unipc", sd15(**solver), steps))
    cases.append(run("unipc", sd15(**solver), 12, strength=0.5))
for eta in (0.4, 1.0):
    cases.append(run("ddim", sd15(), 10, eta=eta))
    cases.append(run("ddim", sd15(set_alpha_to_one=True), 10, eta=eta))
cases.append(run("pndm", sd15(skip_prk_steps=False), 8))
cases.append(
    run(
        "pndm", sd15(skip_prk_steps=False, prediction_type="v_prediction", set_alpha_to_one=True), 4
    )
)
cases.append(run("pndm", sd15(), 1))
cases.append(run("pndm", sd15(), 20, strength=0.95))
for kind in ("dpmpp-2m", "dpmpp-2m-sde"):
    for changes in (
        {"solver_order": 1},
        {"solver_order": 3},
        {"solver_type": "heun"},
        {"lower_order_final": False},
        {"euler_at_final": True, "final_sigmas_type": "sigma_min"},
        {"final_sigmas_type": "sigma_min"},
        {"beta_schedule": "squaredcos_cap_v2", "lambda_min_clipped": -5.1},
        {"beta_schedule": "squaredcos_cap_v2", "use_karras_sigmas": True},
    ):
        for steps in (8, 16):
            cases.append(run(kind, sd15(**changes), steps))
cases.append(run("euler", sd15(final_sigmas_type="sigma_min"), 8))
cases.append(run("euler", sd15(use_karras_sigmas=True, sigma_min=0.1, sigma_max=10.0), 8))

text = ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases)
OUT.write_text("[\n" + text + "\n]\n")
print(
    f"{OUT.name}: {len(cases)} runs, {OUT.stat().st_size} bytes; diffusers {diffusers.__version__}"
)


def schedule(config):
    """The tables of training: all of alphas_cumprod by a checksum of its bits, some of it in full, and noising at those steps."""
    scheduler = diffusers.DDPMScheduler.from_config(config)
    alphas = scheduler.alphas_cumprod.numpy()
    weights = 2 * np.arange(len(alphas), dtype=np.uint64) + 1
    steps = [0, 1, len(alphas) // 2, len(alphas) - 2, len(alphas) - 1]
    return {
        "config": config,
        "count": len(alphas),
        "checksum": int((alphas.view(np.uint32).astype(np.uint64) * weights).sum() % 2**32),
        "steps": steps,
        "alphas_cumprod": short(alphas[steps]),
        "levels": [short(level(scheduler, torch.tensor(t))) for t in steps],
    }


schedules = [
    schedule({"_class_name": "DDPMScheduler"} | changes)
    for changes in (
        {},
        SD15,
        {"beta_schedule": "squaredcos_cap_v2"},
        {"num_train_timesteps": 77},
        {"num_train_timesteps": 250, **SD15},
        {"trained_betas": [0.1, 0.2, 0.3], "num_train_timesteps": 3},
        SD15 | {"rescale_betas_zero_snr": True},
    )
]
path = OUT.with_name("schedules.json")
path.write_text(
    "[\n" + ",\n".join(json.dumps(case, separators=(",", ":")) for case in schedules) + "\n]\n"
)
print(f"{path.name}: {path.stat().st_size} bytes")
