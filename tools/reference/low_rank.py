"""Reference outputs of a UNet and a text tower with several low-rank updates, masked and not, computed by diffusers and transformers.

    python tools/reference/low_rank.py

Writes tests/fixtures/models/low_rank_<case>.safetensors, cases as models.py writes them. A layer of a set computes
y + scale mask up(down(x)), with hashed weights `<set>.<layer>.lora_{down,up}.weight`; the down of a k x k convolution is one too, its
up is 1x1. case["sets"] tells the sets: name, scale, and for masked ones the masks by their number of places: hashed inputs
`<set>.mask.<places>` with one number for each place, or for each place of each picture. "plain" is the output without any update.
"""

import torch
from diffusers import UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

import hashed
import models

F = torch.nn.functional


class Set:
    def __init__(self, name, rank, scale, chosen, masked=None):
        self.name, self.rank, self.scale, self.chosen, self.masked = (
            name,
            rank,
            scale,
            chosen,
            masked,
        )
        self.masks, self.matrices = {}, {}

    def mask(self, places, batch):
        """The mask of `places` places as [batch or 1, places]."""
        if places not in self.masks:
            shape = (batch, places) if self.masked == "batch" else (places,)
            self.masks[places] = hashed.tensor(f"input:{self.name}.mask.{places}", shape)
        return self.masks[places].reshape(-1, places)

    def attach(self, layer, module):
        out, into = module.weight.shape[:2]
        convolution = isinstance(module, torch.nn.Conv2d)
        kernel = (
            tuple(module.weight.shape[2:]) if convolution and module.kernel_size != (1, 1) else ()
        )
        down, up = (f"{self.name}.{layer}.lora_{part}.weight" for part in ("down", "up"))
        a = self.matrices[down] = hashed.tensor(down, (self.rank, into, *kernel))
        b = self.matrices[up] = hashed.tensor(up, (out, self.rank))

        def hook(_module, args, y):
            x = args[0]
            if convolution:
                t = F.conv2d(
                    x, a if kernel else a[:, :, None, None], None, module.stride, module.padding
                )
                update = F.conv2d(t, b[:, :, None, None])
            else:
                update = x @ a.T @ b.T
            if self.masked:
                batch = y.shape[0]
                height, width = (y.shape[2], y.shape[3]) if convolution else (1, y.shape[1])
                mask = self.mask(height * width, batch)
                update = update * (
                    mask.reshape(-1, 1, height, width) if convolution else mask[..., None]
                )
            return y + self.scale * update

        return module.register_forward_hook(hook)


def run(name, case, model, sets, evaluate):
    """`evaluate` gives the output as the graph lays it out."""
    tensors = {"plain": evaluate()}
    layers = [
        (n, m)
        for n, m in model.named_modules()
        if isinstance(m, (torch.nn.Linear, torch.nn.Conv2d))
    ]
    hooks = [s.attach(n, m) for s in sets for n, m in layers if s.chosen(n)]
    tensors["updated"] = evaluate()
    print(f"{name}: {len(hooks)} updates")
    matrices = {k: list(v.shape) for s in sets for k, v in s.matrices.items()}
    # The projection of the pooled text is no part of what is compared.
    case["parameters"] = {
        k: v for k, v in models.parameters(model).items() if k != "text_projection.weight"
    } | matrices
    case["sets"] = [
        dict(
            name=s.name,
            scale=s.scale,
            masks={str(p): list(m.shape) for p, m in sorted(s.masks.items())},
        )
        for s in sets
    ]
    models.write(f"low_rank_{name}", case, tensors)


def of_the_picture(layer):
    return not (
        layer.startswith("time_embedding")
        or "time_emb_proj" in layer
        or "attn2.to_k" in layer
        or "attn2.to_v" in layer
    )


def unet(name):
    config, inputs = models.UNETS[name]
    model = hashed.fill(UNet2DConditionModel(**config))
    b, h, w, n = (inputs[k] for k in ("batch", "height", "width", "tokens"))
    sample = hashed.picture("input:sample", b, h, w, config["in_channels"])
    text = hashed.tensor("input:text", (b, n, config["cross_attention_dim"]))
    sets = [
        Set(
            "region",
            4,
            0.7,
            lambda layer: ".attn" in layer and of_the_picture(layer),
            masked="places",
        ),
        Set("everything", 3, -0.25, lambda layer: True),
        Set(
            "pictures",
            1,
            0.4,
            lambda layer: "attn1" in layer or ".ff." in layer or "conv" in layer,
            masked="batch",
        ),
        Set("attention", 4, 0.5, lambda layer: "attn2" in layer),
    ]
    case = dict(kind="unet", config=config, inputs=inputs, probes={})
    run(
        name,
        case,
        model,
        sets,
        lambda: models.nhwc(model(sample, torch.tensor(inputs["timesteps"]), text).sample),
    )


def text(name):
    config = models.TEXTS[name]
    model = hashed.fill(CLIPTextModelWithProjection(CLIPTextConfig(**config)))
    ids = models.token_ids(name, 2, 16, config["bos_token_id"], 59)
    sets = [
        Set("attention", 4, 0.7, lambda layer: ".self_attn." in layer),
        Set("layers", 2, -0.4, lambda layer: ".encoder.layers." in layer),
    ]
    case = dict(kind="text", config=config, ids={"16": ids}, probes={})
    run(name, case, model, sets, lambda: model(torch.tensor(ids)).last_hidden_state)


if __name__ == "__main__":
    for case in ("unet_sd1", "unet_odd"):
        unet(case)
    text("text_quick_gelu")
