"""Twenty batches of tuning by torch: losses, norms of the concept words' rows, and what was learnt.

    python tools/reference/tuning.py             # every case
    python tools/reference/tuning.py prior       # some of them

Writes tests/fixtures/models/tuning_<case>.safetensors, cases as models.py writes them. A tiny UNet and a tiny text tower with
hashed weights (see hashed.py); everything that a batch brings is hashed or computed from its number k, as batch() states.
"losses", "regularisation": of each batch. "norms": mean norm of the rows after each update. "learnt": every n-th number of every
matrix at the end, one after another in the order of their names, n = max(1, numbers // PROBE); "moved": the same, minus the
beginning. Names: rows, rows_2; text.<layer>.lora_{down,up}.weight; likewise text_2. and unet. Cases of Stable
Diffusion XL ("xl") have a second text tower, whose parameters' names begin with text_encoder_2., and a UNet that is told of sizes.
"""

import sys

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

import hashed
import models

torch.set_grad_enabled(True)

BATCHES, PROBE, BATCH, TOKENS, SIZE, VOCABULARY = 20, 12, 2, 12, 8, 64

UNET = dict(
    in_channels=4,
    out_channels=4,
    layers_per_block=1,
    block_out_channels=[8, 16],
    norm_num_groups=4,
    attention_head_dim=2,
    cross_attention_dim=12,
    down_block_types=[models.CROSS, models.CROSS],
    up_block_types=[models.CROSS_UP, models.CROSS_UP],
)
TEXT = dict(
    vocab_size=VOCABULARY,
    hidden_size=12,
    intermediate_size=24,
    num_hidden_layers=2,
    num_attention_heads=2,
    max_position_embeddings=TOKENS,
    projection_dim=8,
    hidden_act="quick_gelu",
    bos_token_id=60,
    eos_token_id=61,
    pad_token_id=61,
)

# Stable Diffusion XL: both towers' last layer but one side by side, the second's summary besides.
TEXT_XL = TEXT | dict(num_hidden_layers=3)
TEXT_2 = TEXT | dict(
    hidden_size=16,
    intermediate_size=32,
    num_hidden_layers=3,
    projection_dim=10,
    hidden_act="gelu",
    pad_token_id=0,
)
UNET_XL = UNET | dict(
    cross_attention_dim=12 + 16,
    use_linear_projection=True,
    down_block_types=["DownBlock2D", models.CROSS],
    up_block_types=[models.CROSS_UP, "UpBlock2D"],
    transformer_layers_per_block=[1, 2],
    addition_embed_type="text_time",
    addition_time_embed_dim=8,
    projection_class_embeddings_input_dim=10 + 6 * 8,
)

PLAIN = dict(
    method="ed-lora",
    text_layers="attention",
    unet_layers="attention",
    text_rank=2,
    unet_rank=2,
    alpha=1.0,
    accumulate=1,
    attention_loss=None,
    full_identity=False,
    masked=False,
    factors=[1.0, 1.0],
    norm_limit=None,
    prediction="epsilon",
    rates=[1e-2, 1e-3, 2e-3],
)
CASES = {
    "plain": PLAIN,
    "masked": PLAIN
    | dict(attention_loss=0.5, masked=True, alpha=0.8, factors=[1.0, 0.6], norm_limit=0.245),
    "identity": PLAIN
    | dict(
        attention_loss=0.5, full_identity=True, masked=True, accumulate=4, prediction="v_prediction"
    ),
    "lora": PLAIN
    | dict(method="lora", text_layers="encoder-layer", unet_layers="transformer", unet_rank=3),
    # Orthogonal Adaptation: the first matrices stand still.
    "orthogonal": PLAIN | dict(method="orthogonal", accumulate=2, alpha=0.8),
    "p_plus": PLAIN | dict(method="p-plus", attention_loss=0.1),
    # As many pictures of the class in each batch, without the words and without a mask; DreamBooth's
    # loss (diffusers' train_dreambooth.py: the concept's mean, plus so many times the class's).
    "prior": PLAIN
    | dict(
        attention_loss=0.5,
        full_identity=True,
        masked=True,
        accumulate=2,
        prior_weight=0.7,
        factors=[1.0, 0.6, 0.8, 1.0],
    ),
    # The same, told what the model predicts of the class without anything that is trained.
    "prior_base": PLAIN
    | dict(
        attention_loss=0.5,
        masked=True,
        accumulate=2,
        prior_weight=0.7,
        prior_target="base",
        prediction="v_prediction",
        text_layers="encoder-layer",
        unet_layers="transformer",
        lora_dropout=0.3,
        seed=4,
        factors=[1.0, 0.6, 0.8, 1.0],
    ),
    "xl_prior_base": PLAIN
    | dict(
        xl=True,
        accumulate=2,
        prior_weight=1.0,
        prior_target="base",
        factors=[1.0, 0.6, 0.8, 1.0],
    ),
    # kohya's network_dropout and rank_dropout (sd-scripts, networks/lora.py), masks as kept() draws
    # them.
    "dropout": PLAIN
    | dict(
        text_layers="encoder-layer",
        unet_layers="transformer",
        unet_rank=3,
        accumulate=2,
        lora_dropout=0.3,
        rank_dropout=0.25,
        seed=9,
    ),
    # Ranks alone; the words learn alone in the first updates; another weight decay for LoRA.
    "xl": PLAIN | dict(xl=True, attention_loss=0.5, masked=True, accumulate=2, norm_limit=0.23),
    "xl_lora": PLAIN
    | dict(
        xl=True,
        method="lora",
        text_layers="encoder-layer",
        unet_layers="transformer",
        clip_skip=1,
        lora_dropout=0.3,
        seed=5,
    ),
    "words_first": PLAIN | dict(rank_dropout=0.5, words_first=7, lora_weight_decay=20.0, seed=3),
}


def pictures(case):
    """In a batch."""
    return BATCH if case.get("prior_weight") is None else 2 * BATCH


def cross_attentions(unet):
    """Down, middle, up."""
    names = [name for name, _ in unet.named_modules() if name.endswith(".attn2")]
    order = {"down": 0, "mid_": 1, "up_b": 2}
    return sorted(names, key=lambda name: (order[name[:4]], names.index(name)))


class CrossAttention:
    """Reads its own copy of the text, and keeps its probabilities."""

    def __init__(self, index):
        self.index = index

    def __call__(self, attn, hidden, encoder_hidden_states=None, **_):
        text = encoder_hidden_states[:, min(self.index, encoder_hidden_states.shape[1] - 1)]
        q, k, v = (
            attn.head_to_batch_dim(x) for x in (attn.to_q(hidden), attn.to_k(text), attn.to_v(text))
        )
        self.probabilities = (attn.scale * q @ k.transpose(1, 2)).softmax(-1)
        return attn.to_out[0](attn.batch_to_head_dim(self.probabilities @ v))


class Table(torch.nn.Module):
    """The token table, continued by the concept words' rows."""

    def __init__(self, frozen, rows):
        super().__init__()
        self.frozen, self.rows = frozen, rows

    def forward(self, ids):
        return F.embedding(ids, torch.cat([self.frozen, self.rows]))


def philox(counter, key):
    """Ten rounds of Philox4x32 (Salmon et al. 2011) for counters [n, 4] and a key [2]."""
    c, key, low = counter.astype(np.uint64), [np.uint64(k) for k in key], np.uint64(0xFFFFFFFF)
    for _ in range(10):
        first, second = np.uint64(0xD2511F53) * c[:, 0], np.uint64(0xCD9E8D57) * c[:, 2]
        high = np.uint64(32)
        c = np.stack(
            [
                (second >> high) ^ c[:, 1] ^ key[0],
                second & low,
                (first >> high) ^ c[:, 3] ^ key[1],
                first & low,
            ],
            1,
        )
        key = [(key[0] + np.uint64(0x9E3779B9)) & low, (key[1] + np.uint64(0xBB67AE85)) & low]
    return c


DROPOUT, RANK_DROPOUT = 14, 15


def kept(purpose, seed, index, shape, share):
    """Factors of dropout: number i is 0 where word i of the stream, as a part of 2^32, is below the
    share that is dropped, else 1 / (1 - share). The stream: key the seed, counter (block, purpose,
    index), words of a block in order."""
    count = int(np.prod(shape))
    blocks = np.arange(-(-count // 4))
    rest = [np.full_like(blocks, v) for v in (purpose, index & 0xFFFFFFFF, index >> 32)]
    words = philox(np.stack([blocks, *rest], 1), [seed & 0xFFFFFFFF, seed >> 32])
    words = words.flatten()[:count]
    values = np.where(words * 2.0**-32 < share, 0.0, 1.0 / (1.0 - share))
    return torch.tensor(values, dtype=torch.float32).reshape(shape)


class Drops:
    """What dropout leaves of the narrow side of each update, in batch k of the run."""

    def __init__(self, case, copies):
        self.case, self.copies, self.k, self.names = case, copies, 0, []
        # Whether the updates are not there at all.
        self.off = False

    def factors(self, name, hidden):
        case = self.case
        number = self.k * len(self.names) + sorted(self.names).index(name)
        shape = [hidden.shape[0], hidden[0, ..., 0].numel(), hidden.shape[-1]]
        factors = torch.ones(shape)
        if case.get("lora_dropout"):
            factors = factors * kept(DROPOUT, case["seed"], number, shape, case["lora_dropout"])
        if case.get("rank_dropout"):
            few = [shape[0], 1, shape[2]]
            factors = factors * kept(RANK_DROPOUT, case["seed"], number, few, case["rank_dropout"])
        if name.startswith("text"):
            # There all captions' first copies come first, here all copies of the first caption.
            factors = factors.reshape(self.copies, -1, *shape[1:]).transpose(0, 1).reshape(shape)
        return factors.reshape(hidden.shape)


def add_low_rank(model, network, chosen, rank, alpha, drops, fixed):
    """Puts updates on the layers whose names are `chosen`, up zero; returns their matrices by name."""
    found = {}
    for layer, module in model.named_modules():
        convolution = isinstance(module, torch.nn.Conv2d) and module.kernel_size == (1, 1)
        if not chosen(layer) or not (isinstance(module, torch.nn.Linear) or convolution):
            continue
        out, into = module.weight.shape[:2]
        down, up = (f"{network}.{layer}.lora_{part}.weight" for part in ("down", "up"))
        found[down] = hashed.tensor(down, (rank, into)).requires_grad_(not fixed)
        found[up] = torch.zeros(out, rank).requires_grad_()

        drops.names.append(name := f"{network}.{layer}")

        def hook(
            _module, args, y, down=found[down], up=found[up], convolution=convolution, name=name
        ):
            if drops.off:
                return y
            x = args[0].movedim(1, -1) if convolution else args[0]
            hidden = x @ down.T
            update = alpha * ((hidden * drops.factors(name, hidden)) @ up.T)
            return y + (update.movedim(-1, 1) if convolution else update)

        module.register_forward_hook(hook)
    return found


def batch(case, k, copies):
    """Everything that batch k brings."""
    n = pictures(case)
    ids = torch.empty(n, copies, TOKENS, dtype=torch.long)
    sizes = [[60 + 8 * ((k + b) % 3), 72, k % 4, b, 64, 64] for b in range(n)]
    for b in range(n):
        at = 1 + (k + 2 * b) % 4
        for j in range(TOKENS):
            ids[b, :, j] = 60 if j == 0 else 61 if j > at + 3 else 3 + (7 * j + 3 * k + b) % 50
        for copy in range(copies if b < BATCH else 0):
            ids[b, copy, at], ids[b, copy, at + 1] = VOCABULARY + copy, VOCABULARY + copies + copy
    # The second tower's tokenizer fills up with "!" instead of end marks.
    ids_2 = ids.clone()
    for b in range(n):
        ids_2[b, :, 1 + (k + 2 * b) % 4 + 5 :] = 0
    mask = (hashed.tensor(f"input:mask.{k}", (n, SIZE, SIZE)) > -0.3).float()
    if k % 7 == 3:
        mask = torch.ones_like(mask)
    mask[BATCH:] = 1.0
    latents, noise = (
        hashed.picture(f"input:{name}.{k}", n, SIZE, SIZE, 4) for name in ("latents", "noise")
    )
    timesteps = torch.tensor([(k * 137 + 29 + b * 411) % 1000 for b in range(n)])
    return dict(
        ids=ids,
        ids_2=ids_2,
        sizes=torch.tensor(sizes),
        mask=mask,
        loss_mask=mask if case["masked"] else torch.ones_like(mask),
        latents=latents,
        noise=noise,
        timesteps=timesteps,
    )


def regularisation(case, cross, ids, mask, copies):
    """Of the concept's pictures; those of the class have no words to look at."""
    ids, mask = ids[:BATCH], mask[:BATCH]
    positions = [[row[0].tolist().index(VOCABULARY + w * copies) for w in range(2)] for row in ids]
    by_size = {}
    for attention in cross:
        p = attention.probabilities
        side = int(p.shape[1] ** 0.5)
        by_size.setdefault(side, []).append(
            p.reshape(pictures(case), -1, side, side, p.shape[-1])[:BATCH]
        )
    total = torch.zeros(())
    for side, maps in by_size.items():
        mean = torch.cat(maps, 1).mean(1)
        first, second = (
            torch.stack([m[..., p[w]] for m, p in zip(mean, positions)]) for w in range(2)
        )
        first, second = first / first.max(), second / second.max()
        small = F.interpolate(mask[:, None], size=(side, side), mode="nearest")[:, 0]
        outside = small == 0
        if not outside.any():
            continue
        total = total + first[outside].mean()
        total = total + (
            F.mse_loss(second, small) if case["full_identity"] else second[outside].mean()
        )
    return case["attention_loss"] * total


def run(name, case):
    xl, skip = case.get("xl", False), case.get("clip_skip", 0)
    config = dict(unet=UNET_XL, text=TEXT_XL, text_2=TEXT_2) if xl else dict(unet=UNET, text=TEXT)
    tower = lambda config: CLIPTextModelWithProjection(CLIPTextConfig(**config))
    unet = hashed.fill(UNet2DConditionModel(**config["unet"])).requires_grad_(False)
    text = hashed.fill(tower(config["text"])).requires_grad_(False)
    parameters = models.parameters(unet) | {
        k: v for k, v in models.parameters(text).items() if k != "text_projection.weight"
    }
    text_2 = None
    if xl:
        named = hashed.fill(torch.nn.ModuleDict({"text_encoder_2": tower(config["text_2"])}))
        parameters |= models.parameters(named.requires_grad_(False))
        text_2 = named["text_encoder_2"]
    names = cross_attentions(unet)
    cross = [CrossAttention(i) for i in range(len(names))]
    for attention, at in zip(cross, names):
        unet.get_submodule(at).set_processor(attention)
    copies = 1 if case["method"] == "lora" else len(names)

    def give_rows(text, name, width):
        rows = (0.1 * hashed.tensor(f"input:{name}", (2 * copies, width))).requires_grad_()
        embeddings = text.text_model.embeddings
        embeddings.token_embedding = Table(embeddings.token_embedding.weight, rows)
        return rows

    rows = give_rows(text, "rows", TEXT["hidden_size"])
    rows_2 = [give_rows(text_2, "rows_2", TEXT_2["hidden_size"])] if xl else []
    in_text, in_unet, drops = {}, {}, Drops(case, copies)
    fixed = case["method"] == "orthogonal"
    if case["method"] != "p-plus":
        wide = case["text_layers"] == "encoder-layer"
        # What is not read is not trained: the first tower's last layers.
        read = TEXT_XL["num_hidden_layers"] - 1 - skip if xl else TEXT["num_hidden_layers"]
        unread = [f".layers.{i}." for i in range(read, TEXT_XL["num_hidden_layers"])]
        chosen = lambda layer: ".self_attn." in layer or wide and ".mlp." in layer
        in_text = add_low_rank(
            text,
            "text",
            lambda layer: chosen(layer) and not any(name in layer for name in unread),
            case["text_rank"],
            case["alpha"],
            drops,
            fixed,
        )
        if xl:
            in_text |= add_low_rank(
                text_2, "text_2", chosen, case["text_rank"], case["alpha"], drops, fixed
            )
        whole = case["unet_layers"] == "transformer"
        in_unet = add_low_rank(
            unet,
            "unet",
            lambda layer: (
                ".attn1." in layer or ".attn2." in layer or whole and ".attentions." in layer
            ),
            case["unet_rank"],
            case["alpha"],
            drops,
            fixed,
        )
    learnt = {"rows": rows} | {"rows_2": row for row in rows_2} | in_text | in_unet
    start = {k: v.detach().clone() for k, v in learnt.items()}
    groups = [
        dict(params=params, lr=rate, weight_decay=decay)
        for params, rate, decay in zip(
            [[rows, *rows_2], list(in_text.values()), list(in_unet.values())],
            case["rates"],
            [0.01] + 2 * [case.get("lora_weight_decay", 0.01)],
        )
    ]
    optimiser = torch.optim.AdamW(
        [g for g in groups if g["params"]], betas=(0.9, 0.999)
    )
    base = [g["lr"] for g in optimiser.param_groups]
    schedule = DDPMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        prediction_type=case["prediction"],
    )

    def predict(b, noisy):
        shape, added = (pictures(case), copies, TOKENS, -1), None
        ids = b["ids"].reshape(-1, TOKENS)
        if xl:
            first = text(ids, output_hidden_states=True)
            second = text_2(b["ids_2"].reshape(-1, TOKENS), output_hidden_states=True)
            hidden = [out.hidden_states[-2 - skip] for out in (first, second)]
            encoding = torch.cat(hidden, -1).reshape(shape)
            pooled = second.text_embeds.reshape(pictures(case), copies, -1)[:, 0]
            added = dict(text_embeds=pooled, time_ids=b["sizes"])
        else:
            encoding = text(ids).last_hidden_state.reshape(shape)
        return unet(noisy, b["timesteps"], encoding, added_cond_kwargs=added).sample

    losses, parts, norms, stopped = [], [], [], False
    updates = BATCHES // case["accumulate"]
    for k in range(BATCHES):
        b = batch(case, k, copies)
        drops.k = k
        noisy = schedule.add_noise(b["latents"], b["noise"], b["timesteps"])
        target = (
            b["noise"]
            if case["prediction"] == "epsilon"
            else schedule.get_velocity(b["latents"], b["noise"], b["timesteps"])
        )
        if case.get("prior_target") == "base":
            drops.off = True
            with torch.no_grad():
                target = torch.cat([target[:BATCH], predict(b, noisy)[BATCH:]])
            drops.off = False
        prediction = predict(b, noisy)
        mask = b["loss_mask"][:, None]
        each = ((prediction - target) ** 2 * mask).sum([1, 2, 3]) / mask.sum([1, 2, 3])
        each = each * torch.tensor(case["factors"])
        loss = each[:BATCH].mean()
        if case.get("prior_weight") is not None:
            loss = loss + case["prior_weight"] * each[BATCH:].mean()
        extra = (
            regularisation(case, cross, b["ids"], b["mask"], copies)
            if case["attention_loss"]
            else torch.zeros(())
        )
        (loss + extra).div(case["accumulate"]).backward()
        losses.append((loss + extra).item())
        parts.append(extra.item())
        if (k + 1) % case["accumulate"]:
            continue
        update = k // case["accumulate"]
        for group, rate in zip(optimiser.param_groups, base):
            group["lr"] = rate * (1.0 - update / updates)
        before = [row.detach().clone() for row in (rows, *rows_2)]
        if update < case.get("words_first", 0):
            for parameter in [*in_text.values(), *in_unet.values()]:
                parameter.grad = None
        optimiser.step()
        optimiser.zero_grad()
        with torch.no_grad():
            if stopped:
                for row, old in zip((rows, *rows_2), before):
                    row.copy_(old)
            norms.append(rows.norm(dim=1).mean().item())
            stopped = stopped or case["norm_limit"] is not None and norms[-1] >= case["norm_limit"]

    def probes(difference):
        found = []
        for parameter in sorted(learnt):
            flat = (
                learnt[parameter].detach() - (start[parameter] if difference else 0.0)
            ).flatten()
            found.append(flat[:: max(1, flat.numel() // PROBE)])
        return torch.cat(found)

    described = dict(
        kind="tuning",
        config=config,
        inputs=case,
        probes={},
        parameters=parameters,
    )
    tensors = dict(
        losses=torch.tensor(losses),
        regularisation=torch.tensor(parts),
        norms=torch.tensor(norms),
        learnt=probes(False),
        moved=probes(True),
    )
    models.write(f"tuning_{name}", described, tensors)
    print(name, "losses", [round(x, 3) for x in losses], "norms", [round(x, 3) for x in norms])


if __name__ == "__main__":
    for name in sys.argv[1:] or CASES:
        run(name, CASES[name])
