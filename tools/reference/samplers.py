"""Writes tests/fixtures/samplers.json and schedules.json: what diffusers' schedulers do, step for step, with a made-up model.

The model, the initial sample and the noise are formulas that the Rust test repeats (`model`, `start`, `noise`), so only the
results are stored. Image to image starts where `StableDiffusionImg2ImgPipeline.get_timesteps` says, and after every step the
levels of an original noised for blending (as the inpainting pipeline does) are kept as [signal, noise].
"""

import json
import math
import pathlib
from types import SimpleNamespace

import diffusers
import numpy as np
import torch
from diffusers import StableDiffusionImg2ImgPipeline
from diffusers.schedulers import (
    scheduling_ddim,
    scheduling_dpmsolver_multistep,
    scheduling_euler_ancestral_discrete,
    scheduling_lcm,
)

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
    "lcm": (diffusers.LCMScheduler, {}),
}
KARRAS = ["euler", "heun", "dpmpp-2m", "dpmpp-2m-sde"]
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
):
    module.randn_tensor = draw


def level(scheduler, timestep):
    t = timestep.reshape(1)
    one, zero = torch.ones(1, 1), torch.zeros(1, 1)
    return [float(scheduler.add_noise(one, zero, t)), float(scheduler.add_noise(zero, one, t))]


def short(values):
    return [float(np.format_float_scientific(np.float32(v), unique=True)) for v in values]


def run(kind, config, steps, karras=False, eta=0.0, strength=None):
    global draws
    draws = 0
    cls, overrides = CLASSES[kind]
    if karras:
        overrides = overrides | {"use_karras_sigmas": True}
    scheduler = cls.from_config(config, **overrides)
    scheduler.set_timesteps(steps)
    timesteps = scheduler.timesteps
    case = {
        "kind": kind,
        "config": config,
        "steps": steps,
        "karras": karras,
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
        extra = {"eta": eta} if kind == "ddim" else {}
        x = scheduler.step(output, t, x, **extra).prev_sample
        samples.append(short(x))
        if i + 1 < len(timesteps):
            levels.append(short(level(scheduler, timesteps[i + 1])))
    assert np.isfinite(samples).all(), case
    case |= {"timesteps": short(timesteps), "samples": samples, "levels": levels, "draws": draws}
    return case


def sd15(**changes):
    return SD15 | changes


cases = []
for kind in CLASSES:
    karras_choices = [False, True] if kind in KARRAS else [False]
    for karras in karras_choices:
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
        if kind not in ("pndm", "euler-ancestral"):
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
    if kind not in ("pndm", "heun"):
        zero = sd15(
            rescale_betas_zero_snr=True, prediction_type="v_prediction", timestep_spacing="trailing"
        )
        cases.append(run(kind, zero, 8))
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
