"""The published gradient fusion of three made-up concepts on a small made-up model, in double precision.

    python tools/reference/fusion.py

Writes tests/fixtures/fusion.json: configurations, the parameters' names and shapes, the concepts' shapes, and for each fused layer
the sum of squared errors before and after (L-BFGS as published; the least that any weights reach). Weights, embeddings and updates
are made again on the other side from their names (see hashed.py).
"""

import json
import os
import pathlib

import torch
from diffusers import DPMSolverMultistepScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

import hashed

torch.set_num_threads(1)
torch.set_default_dtype(torch.float64)

ROOT = pathlib.Path(__file__).resolve().parents[2]
WIDTH, RANK, SIZE, STEPS, VOCABULARY = 32, 4, 8, 20, 2088
TEXT = dict(
    vocab_size=VOCABULARY,
    hidden_size=WIDTH,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    max_position_embeddings=77,
    projection_dim=WIDTH,
    hidden_act="quick_gelu",
    bos_token_id=2086,
    eos_token_id=2087,
    pad_token_id=2087,
    layer_norm_eps=1e-5,
)
CROSS, CROSS_UP = "CrossAttnDownBlock2D", "CrossAttnUpBlock2D"
UNET = dict(
    in_channels=4,
    out_channels=4,
    layers_per_block=1,
    block_out_channels=[32, 48],
    norm_num_groups=8,
    attention_head_dim=4,
    cross_attention_dim=WIDTH,
    sample_size=SIZE,
    down_block_types=[CROSS, CROSS],
    up_block_types=[CROSS_UP, CROSS_UP],
)
SCHEDULER = dict(
    _class_name="PNDMScheduler",
    beta_start=0.00085,
    beta_end=0.012,
    beta_schedule="scaled_linear",
    num_train_timesteps=1000,
    steps_offset=1,
    set_alpha_to_one=False,
    skip_prk_steps=True,
    prediction_type="epsilon",
    timestep_spacing="leading",
)
# In the order in which this program numbers them: that of their words.
CONCEPTS = [
    dict(name="abra", unet=0.7, text=1.0),
    dict(name="brog", unet=1.0, text=0.8),
    dict(name="cyan", unet=1.0, text=1.0),
]
SCALE = 0.3
TEXT_LAYERS = ["q_proj", "k_proj", "v_proj", "out_proj"]
UNET_LAYERS = ["to_q", "to_k", "to_v", "to_out.0"]
ITERATIONS = dict(text=500, cross=500, spatial=50)


def factors(concept, network, layer, weight):
    """down [rank, in] and up [out, rank] of a concept's update."""
    out, into = weight.shape[:2]
    down = hashed.tensor(f"{concept}.{network}.{layer}.down", (RANK, into)).double()
    return down, hashed.tensor(f"{concept}.{network}.{layer}.up", (out, RANK)).double()


def change(concept, network, layer, weight):
    down, up = factors(concept["name"], network, layer, weight)
    return concept[network] * SCALE * up @ down


def linear_layers(model, endings):
    return {
        name: m for name, m in model.named_modules() if any(name.endswith("." + e) for e in endings)
    }


class Recorder:
    """Inputs of layers while it is on."""

    def __init__(self, layers):
        self.inputs = {name: [] for name in layers}
        self.hooks = [
            m.register_forward_pre_hook(
                lambda _m, args, name=name: self.inputs[name].append(args[0].detach())
            )
            for name, m in layers.items()
        ]

    def finish(self):
        for hook in self.hooks:
            hook.remove()
        return {
            name: torch.cat([x.reshape(-1, x.shape[-1]) for x in xs])
            for name, xs in self.inputs.items()
        }


def solve(base, samples, iterations):
    """The published solver, and the least squared error there is. `samples`: inputs and changes of each concept."""
    x = torch.cat([inputs for inputs, _ in samples])
    target = torch.cat([inputs @ (base + delta).T for inputs, delta in samples])
    weight = base.clone().requires_grad_(True)
    best = [float("inf"), base]
    optimiser = torch.optim.LBFGS(
        [weight],
        lr=1,
        max_iter=iterations,
        history_size=25,
        line_search_fn="strong_wolfe",
        tolerance_grad=1e-16,
        tolerance_change=1e-16,
    )

    def closure():
        optimiser.zero_grad()
        loss = torch.nn.functional.mse_loss(x @ weight.T, target)
        if loss.item() < best[0]:
            best[:] = [loss.item(), weight.detach().clone()]
        loss.backward()
        return loss

    optimiser.step(closure)
    with torch.no_grad():
        wanted = target - x @ base.T
        least = wanted - x @ torch.linalg.lstsq(x, wanted, rcond=1e-12, driver="gelsd").solution
        figures = dict(
            rows=len(x),
            before=wanted.square().sum().item(),
            lbfgs=(x @ best[1].T - target).square().sum().item(),
            least=least.square().sum().item(),
            change=((best[1] - base).norm() / base.norm()).item(),
        )
    return best[1], figures


def moved(inputs, noise):
    generator = torch.Generator().manual_seed(len(inputs))
    return inputs * (1 + noise * torch.randn(inputs.shape, generator=generator))


def procedure(noise):
    tokenizer = CLIPTokenizer.from_pretrained(ROOT / "models" / "tiny" / "tokenizer")
    unet = hashed.fill(UNet2DConditionModel(**UNET).double())
    parts = [*unet.down_blocks, unet.mid_block, *unet.up_blocks]
    attentions = [
        b.attn2
        for p in parts
        for t in (getattr(p, "attentions", None) or [])
        for b in t.transformer_blocks
    ]
    layers = len(attentions)

    # Stage 1: one token for each word and cross-attention.
    words = [f"<{c['name']}{k}>" for c in CONCEPTS for k in (1, 2)]
    names = {
        word: [f"<new{i * layers + n}>" for n in range(layers)] for i, word in enumerate(words)
    }
    tokenizer.add_tokens([name for word in words for name in names[word]])
    rows = torch.cat([hashed.tensor(word, (layers, WIDTH)).double() for word in words])
    text = CLIPTextModel(CLIPTextConfig(**{**TEXT, "vocab_size": len(tokenizer)})).double()
    named = lambda name: name if name.startswith("text_model.") else f"text_model.{name}"
    with torch.no_grad():
        for name, parameter in text.named_parameters():
            shape = (VOCABULARY, WIDTH) if "token_embedding" in name else tuple(parameter.shape)
            value = hashed.tensor(named(name), shape).double()
            parameter.copy_(torch.cat([value, rows]) if "token_embedding" in name else value)
    text.eval()
    assert len(tokenizer) == VOCABULARY + len(rows)

    def bound(prompt, layer):
        for word in words:
            prompt = prompt.replace(word, names[word][layer])
        return prompt

    def encode(prompt, padded):
        ids = tokenizer(
            prompt, padding="max_length" if padded else "do_not_pad", max_length=77, truncation=True
        ).input_ids
        return torch.tensor(ids), text(torch.tensor([ids])).last_hidden_state[0]

    phrase = lambda concept: f"<{concept['name']}1> <{concept['name']}2>"
    prompts = lambda concept: [f"photo of a {phrase(concept)}", phrase(concept)]
    report = {}

    def finish(stage, network, model, samples):
        for name, of_concepts in samples.items():
            module = model.get_submodule(name)
            fused, report[stage + "/" + (named(name) if network == "text" else name)] = solve(
                module.weight.data, of_concepts, ITERATIONS[stage]
            )
            module.weight.data = fused

    # Stage 2: the text encoder.
    chosen = linear_layers(text, TEXT_LAYERS)
    base = {name: m.weight.data.clone() for name, m in chosen.items()}
    samples = {name: [] for name in chosen}
    with torch.no_grad():
        for concept in CONCEPTS:
            deltas = {name: change(concept, "text", named(name), w) for name, w in base.items()}
            for name, m in chosen.items():
                m.weight.data = base[name] + deltas[name]
            recorder = Recorder(chosen)
            for prompt in prompts(concept):
                for layer in range(layers):
                    encode(bound(prompt, layer), False)
            for name, inputs in recorder.finish().items():
                samples[name].append((moved(inputs, noise), deltas[name]))
        for name, m in chosen.items():
            m.weight.data = base[name]
    finish("text", "text", text, samples)

    # Stage 3: keys and values of cross-attention.
    named_modules = {m: name for name, m in unet.named_modules()}
    samples = {}
    with torch.no_grad():
        for concept in CONCEPTS:
            for layer, attention in enumerate(attentions):
                found = []
                for prompt in prompts(concept):
                    ids, encoding = encode(bound(prompt, layer), False)
                    found.append(encoding[ids >= VOCABULARY - 1])
                for module in (attention.to_k, attention.to_v):
                    name = named_modules[module]
                    samples.setdefault(name, []).append(
                        (torch.cat(found), change(concept, "unet", name, module.weight))
                    )
    finish("cross", "unet", unet, samples)

    # Stage 4: the rest of the UNet, while it samples.
    keys_values = {named_modules[m] for a in attentions for m in (a.to_k, a.to_v)}
    chosen = {
        name: m for name, m in linear_layers(unet, UNET_LAYERS).items() if name not in keys_values
    }
    base = {name: m.weight.data.clone() for name, m in chosen.items()}
    samples = {name: [] for name in chosen}
    with torch.no_grad():
        for concept in CONCEPTS:
            deltas = {name: change(concept, "unet", name, w) for name, w in base.items()}
            for name, m in chosen.items():
                m.weight.data = base[name] + deltas[name]
            encodings = [
                encode(bound(prompts(concept)[0], layer), True)[1][None] for layer in range(layers)
            ]
            swaps = []
            for attention, encoding in zip(attentions, encodings):
                swap = lambda _m, args, kwargs, encoding=encoding: (
                    args,
                    {**kwargs, "encoder_hidden_states": encoding},
                )
                swaps.append(attention.register_forward_pre_hook(swap, with_kwargs=True))
            recorder = Recorder(chosen)
            scheduler = DPMSolverMultistepScheduler.from_config(SCHEDULER)
            scheduler.set_timesteps(STEPS)
            noise = torch.randn(
                (1, 4, SIZE, SIZE), generator=torch.Generator().manual_seed(0), dtype=torch.float32
            )
            latents = noise.double() * scheduler.init_noise_sigma
            for t in scheduler.timesteps:
                prediction = unet(scheduler.scale_model_input(latents, t), t, encodings[0]).sample
                latents = scheduler.step(prediction, t, latents).prev_sample
            for swap in swaps:
                swap.remove()
            for name, inputs in recorder.finish().items():
                samples[name].append((moved(inputs, noise), deltas[name]))
        for name, m in chosen.items():
            m.weight.data = base[name]
    finish("spatial", "unet", unet, samples)

    shapes = lambda model, rename: {
        rename(name): list(p.shape) for name, p in model.named_parameters()
    }
    text_shapes = shapes(text, named)
    text_shapes["text_model.embeddings.token_embedding.weight"] = [VOCABULARY, WIDTH]
    fixture = dict(
        text=dict(config=TEXT, parameters=text_shapes),
        unet=dict(config=UNET, parameters=shapes(unet, str)),
        scheduler=SCHEDULER,
        concepts=CONCEPTS,
        rank=RANK,
        scale=SCALE,
        attentions=layers,
        text_layers=TEXT_LAYERS,
        unet_layers=UNET_LAYERS,
        layers=report,
    )
    return fixture


def main():
    fixture, again = procedure(0.0), procedure(1e-5)
    report = fixture["layers"]
    # Stopped early on an ill-conditioned layer, the solver depends on its inputs' last digits: this
    # much.
    for name, figures in report.items():
        figures["scatter"] = abs(again["layers"][name]["lbfgs"] / max(figures["lbfgs"], 1e-300) - 1)
    path = ROOT / "tests" / "fixtures" / "fusion.json"
    part = path.with_suffix(".part")
    part.write_text(json.dumps(fixture, indent=None, separators=(",", ":"), sort_keys=True) + "\n")
    os.replace(part, path)
    print(path.stat().st_size, "bytes,", len(report), "layers")
    for name, f in list(report.items())[::9]:
        print(name, {k: f"{v:.4g}" for k, v in f.items()})


if __name__ == "__main__":
    main()
