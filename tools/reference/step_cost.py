"""What a tuning step of ED-LoRA costs in PyTorch: Stable Diffusion 1.5 with made-up weights, f32, one thread, CPU seconds.

    python tools/reference/step_cost.py [pixels] [--checkpointing]

As `mos bench step`: batch 1, updates of rank 4 on all attention layers of both networks, embeddings for two words in each of the 16
cross-attentions (the text encoder reads 16 prompts of 77 tokens), forward, backward, AdamW. Beside it the forward pass alone, without updates.
"""

import math
import sys
import time

import torch
from diffusers import UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

RANK, TOKENS, WORDS = 4, 77, 2


class Updated(torch.nn.Module):
    """A linear layer with a low-rank update beside it."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer
        self.down = torch.nn.Parameter(torch.randn(RANK, layer.in_features) / RANK)
        self.up = torch.nn.Parameter(torch.zeros(layer.out_features, RANK))
        self.on = True

    def forward(self, x):
        y = self.layer(x)
        return y + (x @ self.down.T) @ self.up.T if self.on else y


def update(model, endings):
    updated = []
    for name, module in list(model.named_modules()):
        if isinstance(module, torch.nn.Linear) and name.endswith(endings):
            parent, _, child = name.rpartition(".")
            updated.append(Updated(module))
            setattr(model.get_submodule(parent), child, updated[-1])
    return updated


class Layerwise:
    """Gives every cross-attention an encoding of its own."""

    def __init__(self, unet):
        attentions = [m for n, m in unet.named_modules() if n.endswith("attn2")]
        for number, attention in enumerate(attentions):
            attention.register_forward_pre_hook(
                lambda _m, args, kwargs, n=number: (
                    args,
                    kwargs | {"encoder_hidden_states": self.texts[n : n + 1]},
                ),
                with_kwargs=True,
            )
        self.count = len(attentions)


def networks(pixels, checkpointing=False):
    """A step, and a forward pass without updates."""
    side = pixels // 8
    text = CLIPTextModel(
        CLIPTextConfig(
            hidden_size=768,
            intermediate_size=3072,
            num_hidden_layers=12,
            num_attention_heads=12,
            projection_dim=768,
        )
    ).eval()
    unet = UNet2DConditionModel(cross_attention_dim=768, attention_head_dim=8, sample_size=side)
    if checkpointing:
        unet.enable_gradient_checkpointing()
    text.requires_grad_(False), unet.requires_grad_(False)
    updated = update(text, ("q_proj", "k_proj", "v_proj", "out_proj")) + update(
        unet, ("to_q", "to_k", "to_v", "to_out.0")
    )
    layerwise = Layerwise(unet)
    table = text.get_input_embeddings()
    rows = torch.nn.Parameter(0.01 * torch.randn(WORDS, layerwise.count, 768))
    optimiser = torch.optim.AdamW([p for u in updated for p in (u.down, u.up)] + [rows], lr=1e-4)
    ids = torch.randint(0, 40000, (layerwise.count, TOKENS))
    sample, noise, steps = (
        torch.randn(1, 4, side, side),
        torch.randn(1, 4, side, side),
        torch.tensor([500]),
    )

    def forward():
        def embed(ids):
            embedded = torch.nn.functional.embedding(ids, table.weight)
            return torch.cat([embedded[:, :4], rows.transpose(0, 1), embedded[:, 4 + WORDS :]], 1)

        handle = table.register_forward_hook(lambda _m, args, _out: embed(args[0]))
        layerwise.texts = text(ids).last_hidden_state
        handle.remove()
        return unet(sample, steps, layerwise.texts[:1]).sample

    def step():
        unet.train()
        for u in updated:
            u.on = True
        optimiser.zero_grad()
        (forward() - noise).pow(2).mean().backward()
        optimiser.step()

    def alone():
        unet.eval()
        for u in updated:
            u.on = False
        with torch.no_grad():
            forward()

    return step, alone


def main():
    torch.set_num_threads(1)
    pixels = int(next((a for a in sys.argv[1:] if a.isdigit()), 256))
    step, forward = networks(pixels, "--checkpointing" in sys.argv)

    def fastest(work, repeat=2):
        work()
        best = math.inf
        for _ in range(repeat):
            start = time.process_time()
            work()
            best = min(best, time.process_time() - start)
        return best

    took, alone = fastest(step), fastest(forward)
    print(f"{took:.2f} s a step, {alone:.2f} s a forward pass: {took / alone:.2f} passes")


if __name__ == "__main__":
    main()
