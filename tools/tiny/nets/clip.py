"""The two CLIP towers (transformers' CLIPTextModel and CLIPVisionModelWithProjection)."""

import torch
from torch import nn

from .blocks import attend


class _SelfAttention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (
            nn.Linear(width, width) for _ in range(4)
        )

    def forward(self, x, causal):
        q, k, v = (
            p(x).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for p in (self.q_proj, self.k_proj, self.v_proj)
        )
        return self.out_proj(attend(q, k, v, causal).transpose(1, 2).flatten(2))


class _Mlp(nn.Module):
    def __init__(self, width, inner):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, inner), nn.Linear(inner, width)

    def forward(self, x):
        h = self.fc1(x)
        return self.fc2(h * torch.sigmoid(1.702 * h))


class _Layer(nn.Module):
    def __init__(self, config):
        super().__init__()
        width, eps = config["hidden_size"], config["layer_norm_eps"]
        self.layer_norm1, self.self_attn = (
            nn.LayerNorm(width, eps),
            _SelfAttention(width, config["num_attention_heads"]),
        )
        self.layer_norm2, self.mlp = (
            nn.LayerNorm(width, eps),
            _Mlp(width, config["intermediate_size"]),
        )

    def forward(self, x, causal):
        x = x + self.self_attn(self.layer_norm1(x), causal)
        return x + self.mlp(self.layer_norm2(x))


class _Layers(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.layers = nn.ModuleList(_Layer(config) for _ in range(config["num_hidden_layers"]))

    def forward(self, x, causal=False):
        for layer in self.layers:
            x = layer(x, causal)
        return x


class _TextEmbeddings(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.token_embedding = nn.Embedding(config["vocab_size"], config["hidden_size"])
        self.position_embedding = nn.Embedding(
            config["max_position_embeddings"], config["hidden_size"]
        )

    def forward(self, tokens):
        return self.token_embedding(tokens) + self.position_embedding.weight[: tokens.shape[1]]


class _TextTransformer(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.embeddings, self.encoder = _TextEmbeddings(config), _Layers(config)
        self.final_layer_norm = nn.LayerNorm(config["hidden_size"], config["layer_norm_eps"])

    def forward(self, tokens):
        return self.final_layer_norm(self.encoder(self.embeddings(tokens), causal=True))


class CLIPTextModel(nn.Module):
    """Token numbers [b, 77] to hidden states [b, 77, 128], which are the UNet's context."""

    def __init__(self, config):
        super().__init__()
        self.end = config["eos_token_id"]
        self.text_model = _TextTransformer(config)
        _initialise(self)

    def forward(self, tokens):
        return self.text_model(tokens)

    def pooled(self, tokens, states):
        """The state at each prompt's (first) end token."""
        first = (tokens == self.end).int().argmax(1)
        return states[torch.arange(len(tokens), device=tokens.device), first]


class _VisionEmbeddings(nn.Module):
    def __init__(self, config):
        super().__init__()
        width, patch = config["hidden_size"], config["patch_size"]
        self.class_embedding = nn.Parameter(torch.randn(width) * 0.02)
        self.patch_embedding = nn.Conv2d(config["num_channels"], width, patch, patch, bias=False)
        self.position_embedding = nn.Embedding((config["image_size"] // patch) ** 2 + 1, width)

    def forward(self, pictures):
        patches = self.patch_embedding(pictures).flatten(2).transpose(1, 2)
        first = self.class_embedding.to(patches.dtype).expand(len(patches), 1, -1)
        return torch.cat([first, patches], 1) + self.position_embedding.weight


class _VisionTransformer(nn.Module):
    def __init__(self, config):
        super().__init__()
        width, eps = config["hidden_size"], config["layer_norm_eps"]
        self.embeddings = _VisionEmbeddings(config)
        self.pre_layrnorm = nn.LayerNorm(width, eps)
        self.encoder = _Layers(config)
        self.post_layernorm = nn.LayerNorm(width, eps)

    def forward(self, pictures):
        return self.post_layernorm(self.encoder(self.pre_layrnorm(self.embeddings(pictures)))[:, 0])


class CLIPVisionModelWithProjection(nn.Module):
    """Pictures [b, 3, 128, 128] in -1..1 (mean and deviation 0.5) to embeddings [b, 128]."""

    def __init__(self, config):
        super().__init__()
        self.vision_model = _VisionTransformer(config)
        self.visual_projection = nn.Linear(
            config["hidden_size"], config["projection_dim"], bias=False
        )
        _initialise(self)

    def forward(self, pictures):
        return self.visual_projection(self.vision_model(pictures))


def _initialise(model):
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(
                module.weight,
                std=0.02 if isinstance(module, nn.Embedding) else module.weight.shape[1] ** -0.5,
            )
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
