"""Reference gradients of UNets, text towers and a VAE's encoder with low-rank updates everywhere, computed by torch autograd.

    python tools/reference/gradients.py

Writes tests/fixtures/models/gradients_<case>.safetensors, cases as models.py writes them. Each linear layer (and 1x1 convolution)
of the transformers, and of the VAE's attention, computes y + 0.7 up(down(x)) with rank 2 and hashed weights `lora.<layer>.lora_{down,up}.weight`. The loss is
sum(weights * (output - target)^2), with hashed weights and target. "gradients.lora" holds every n-th number of the gradient of
every update, one after another in the order of their names, n = max(1, numbers // PROBE).
"""

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

import hashed
import models

torch.set_grad_enabled(True)

SCALE, RANK, PROBE = 0.7, 2, 24


def add_low_rank(model, chosen):
    """Puts updates on the layers whose names are `chosen`; returns their parameters by name."""
    found = {}
    for layer, module in model.named_modules():
        convolution = isinstance(module, torch.nn.Conv2d) and module.kernel_size == (1, 1)
        if not chosen(layer) or not (isinstance(module, torch.nn.Linear) or convolution):
            continue
        out, into = module.weight.shape[:2]
        down, up = (f"lora.{layer}.lora_{part}.weight" for part in ("down", "up"))
        found[down] = hashed.tensor(down, (RANK, into)).requires_grad_()
        found[up] = hashed.tensor(up, (out, RANK)).requires_grad_()

        def hook(_module, args, y, down=found[down], up=found[up], convolution=convolution):
            x = args[0].movedim(1, -1) if convolution else args[0]
            update = SCALE * (x @ down.T @ up.T)
            return y + (update.movedim(-1, 1) if convolution else update)

        module.register_forward_hook(hook)
    return found


def finish(name, case, model, low_rank, output, wanted):
    """`output` as the graph lays it out; `wanted`: tensors by the names their gradients are stored under."""
    shape = tuple(output.shape)
    loss = (
        hashed.tensor("input:weights", shape) * (output - hashed.tensor("input:target", shape)) ** 2
    ).sum()
    loss.backward()
    kept = []
    for parameter in sorted(low_rank):
        flat = low_rank[parameter].grad.flatten()
        kept.append(flat[:: max(1, flat.numel() // PROBE)])
    case["parameters"] = models.parameters(model) | {k: list(v.shape) for k, v in low_rank.items()}
    tensors = {"loss": loss.detach().reshape(1), "gradients.lora": torch.cat(kept)}
    models.write(
        f"gradients_{name}", case, tensors | {f"gradients.{k}": v for k, v in wanted().items()}
    )


def unet(name):
    config, inputs = models.UNETS[name]
    model = hashed.fill(UNet2DConditionModel(**config)).requires_grad_(False)
    low_rank = add_low_rank(model, lambda layer: ".attentions." in layer)
    b, h, w, n = (inputs[k] for k in ("batch", "height", "width", "tokens"))
    sample = hashed.picture("input:sample", b, h, w, config["in_channels"]).requires_grad_()
    text = hashed.tensor("input:text", (b, n, config["cross_attention_dim"])).requires_grad_()
    output = model(sample, torch.tensor(inputs["timesteps"]), text).sample
    case = dict(kind="unet", config=config, inputs=inputs, probes={})
    finish(
        name,
        case,
        model,
        low_rank,
        output.permute(0, 2, 3, 1),
        lambda: {"text": text.grad, "sample": models.nhwc(sample.grad)},
    )


def text(name):
    config = models.TEXTS[name]
    model = hashed.fill(CLIPTextModelWithProjection(CLIPTextConfig(**config))).requires_grad_(False)
    table = model.text_model.embeddings.token_embedding.weight.requires_grad_()
    low_rank = add_low_rank(model, lambda layer: ".encoder.layers." in layer)
    ids = models.token_ids(name, 2, 16, config["bos_token_id"], 59)
    output = model(torch.tensor(ids)).last_hidden_state
    case = dict(kind="text", config=config, ids={"16": ids}, probes={})
    finish(name, case, model, low_rank, output, lambda: {"table": table.grad})


def vae(name):
    config, inputs = models.VAES[name]
    model = hashed.fill(AutoencoderKL(**config)).requires_grad_(False)
    low_rank = add_low_rank(
        model, lambda layer: layer.startswith("encoder.") and ".attentions." in layer
    )
    pixels = hashed.picture(
        "input:pixels", *(inputs[k] for k in ("batch", "height", "width")), 3
    ).requires_grad_()
    output = model.encode(pixels).latent_dist.mean
    case = dict(kind="vae", config=config, inputs=inputs, probes={})
    finish(
        name,
        case,
        model,
        low_rank,
        output.permute(0, 2, 3, 1),
        lambda: {"pixels": models.nhwc(pixels.grad)},
    )


if __name__ == "__main__":
    for case in ("unet_sd1", "unet_odd"):
        unet(case)
    for case in models.TEXTS:
        text(case)
    for case in ("vae_sd1", "vae_odd"):
        vae(case)
