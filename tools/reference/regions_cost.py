"""What regions cost by the published procedure: a pass of Stable Diffusion 1.5's UNet in PyTorch, one thread, CPU seconds.

    python tools/reference/regions_cost.py [pixels]

As in Mix-of-Show's public program: in every cross-attention, of every step, the context's attention is computed for the whole map, then
that of each region for its box, with keys and values made anew; results are divided by how many regions cover a place.
"""

import math
import sys
import time

import torch
from diffusers import UNet2DConditionModel

torch.set_num_threads(1)
torch.set_grad_enabled(False)

SIDES = [[0.0, 0.0, 1.0, 1 / 3], [0.0, 1 / 3, 1.0, 2 / 3], [0.0, 2 / 3, 1.0, 1.0]]
CASES = {
    "no regions": [],
    "3 side by side": SIDES,
    "8 over all of the picture": [[0.0, 0.0, 1.0, 1.0]] * 8,
}


class Regional:
    def __init__(self, boxes, texts):
        self.boxes, self.texts = boxes, texts

    def __call__(self, attn, x, encoder_hidden_states=None, **_):
        text = x if encoder_hidden_states is None else encoder_hidden_states
        query = attn.to_q(x)

        def attend(q, text):
            heads = [
                t.unflatten(-1, (attn.heads, -1)).transpose(1, 2)
                for t in (q, attn.to_k(text), attn.to_v(text))
            ]
            return (
                torch.nn.functional.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(-2)
            )

        y = attend(query, text)
        if encoder_hidden_states is not None and self.boxes:
            side = math.isqrt(x.shape[1])
            q, out = query.unflatten(1, (side, side)), y.unflatten(1, (side, side))
            total, count = torch.zeros_like(out), torch.zeros(1, side, side, 1)
            for (top, left, bottom, right), text in zip(self.boxes, self.texts):
                rows = slice(math.ceil(top * side), math.floor(bottom * side))
                columns = slice(math.ceil(left * side), math.floor(right * side))
                part = q[:, rows, columns]
                total[:, rows, columns] += attend(part.flatten(1, 2), text).reshape(part.shape)
                count[:, rows, columns] += 1
            y = torch.where(count > 0, total / count.clamp(min=1), out).flatten(1, 2)
        return attn.to_out[0](y)


def main():
    side = int(sys.argv[1]) // 8 if len(sys.argv) > 1 else 64
    unet = UNet2DConditionModel(
        cross_attention_dim=768, attention_head_dim=8, sample_size=side
    ).eval()
    sample, text = torch.randn(2, 4, side, side), torch.randn(2, 77, 768)
    first = None
    for name, boxes in CASES.items():
        processor = Regional(boxes, [torch.randn(2, 77, 768) for _ in boxes])
        for module in unet.modules():
            if hasattr(module, "set_processor"):
                module.set_processor(processor)
        best = math.inf
        for _ in range(2):
            start = time.process_time()
            unet(sample, torch.tensor([500.0, 500.0]), text)
            best = min(best, time.process_time() - start)
        first = first or best
        print(f"{name}: {best:.2f} s a pass, {best / first:.3f} of one without regions", flush=True)


if __name__ == "__main__":
    main()
