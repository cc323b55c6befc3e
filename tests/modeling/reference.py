"""Checkpoints as the original author's code writes them, and its forward pass in plain operations from the paper."""

import math
from typing import Any

import torch
from torch import Tensor

HEADS = {"encoder": 2, "predictor": 3}
SIZES = {
    "num_tokens": 40,
    "num_positions": 24,
    "width": 16,
    "depth": 2,
    "predictor_width": 12,
    "predictor_depth": 3,
}
PAPER_HEADS = {"encoder": 8, "predictor": 8}
PAPER_SIZES = {
    "num_tokens": 30522,
    "num_positions": 512,
    "width": 512,
    "depth": 6,
    "predictor_width": 512,
    "predictor_depth": 6,
}


def sinusoids(num_positions: int, width: int) -> Tensor:
    """Sines of each position at each wavelength, then the cosines; `(1, num_positions, width)`."""
    half = width // 2
    angles = [[position / 10000 ** (2 * i / width) for i in range(half)] for position in range(num_positions)]
    rows = [[math.sin(angle) for angle in row] + [math.cos(angle) for angle in row] for row in angles]
    return torch.tensor([rows])


class Draw:
    """Random weights by the names of `torch.nn`, larger than usual, so that a wrong one shows."""

    def __init__(self, seed: int, scale: float):
        self.generator, self.scale = torch.Generator().manual_seed(seed), scale

    def __call__(self, *shape: int) -> Tensor:
        return self.scale * torch.randn(shape, generator=self.generator)

    def linear(self, name: str, inputs: int, outputs: int) -> dict[str, Tensor]:
        return {f"{name}.weight": self(outputs, inputs), f"{name}.bias": self(outputs)}

    def norm(self, name: str, width: int) -> dict[str, Tensor]:
        return {f"{name}.weight": 1 + self(width), f"{name}.bias": self(width)}

    def block(self, name: str, width: int) -> dict[str, Tensor]:
        return {
            **self.norm(f"{name}.norm1", width),
            **self.linear(f"{name}.attn.qkv", width, 3 * width),
            **self.linear(f"{name}.attn.proj", width, width),
            **self.norm(f"{name}.norm2", width),
            **self.linear(f"{name}.mlp.fc1", width, 4 * width),
            **self.linear(f"{name}.mlp.fc2", 4 * width, width),
        }

    def encoder(self, num_tokens: int, num_positions: int, width: int, depth: int) -> dict[str, Tensor]:
        weights = {"pos_embed": sinusoids(num_positions, width)}
        weights["token_embed.token_embed.weight"] = self(num_tokens, width)
        for number in range(depth):
            weights |= self.block(f"blocks.{number}", width)
        return weights | self.norm("norm", width)

    def predictor(self, num_positions: int, width: int, inner: int, depth: int) -> dict[str, Tensor]:
        weights = {"mask_token": self(1, 1, inner), "pred_pos_embed": sinusoids(num_positions, inner)}
        weights |= self.linear("predictor_embed", width, inner)
        for number in range(depth):
            weights |= self.block(f"predictor_blocks.{number}", inner)
        return weights | self.norm("predictor_norm", inner) | self.linear("predictor_proj", inner, width)

    def regressor(self, num_tokens: int, width: int) -> dict[str, Tensor]:
        return self.linear("proj", width, width) | self.norm("norm", width) | self.linear("regress", width, num_tokens)


def reference_checkpoint(mode: str = "hybrid", seed: int = 0, scale: float = 0.2, **sizes: int) -> dict[str, Any]:
    """Returns what the original code saves at the end of a run, with random weights."""
    draw, sizes = Draw(seed, scale), SIZES | sizes
    tokens, positions, width = (sizes[name] for name in ("num_tokens", "num_positions", "width"))
    encoder = draw.encoder(tokens, positions, width, sizes["depth"])
    saved = {
        "encoder": encoder,
        "predictor": draw.predictor(positions, width, sizes["predictor_width"], sizes["predictor_depth"]),
        "token_regressor": draw.regressor(tokens, width),
        "loss_weight": torch.tensor([0.7]) if mode == "hybrid" else None,
        "opt": {"state": {0: {"exp_avg": torch.zeros(5), "step": 3}}, "param_groups": [{"lr": 1e-4, "params": [0]}]},
        "scaler": None,
        "epoch": 3,
        "loss": 5.25,
        "batch_size": 64,
        "lr": 5e-5,
        "training_mode": mode,
        "config": {"meta": {"model_name": "text_transformer_large", "pred_depth": 3}, "data": {"max_seq_len": 128}},
    }
    if mode == "hybrid":
        target = draw.encoder(tokens, positions, width, sizes["depth"])
        saved["target_encoder"] = {name: (encoder[name] + value) / 2 for name, value in target.items()}
    return saved


def linear(weights: dict[str, Tensor], name: str, states: Tensor) -> Tensor:
    return states @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def norm(weights: dict[str, Tensor], name: str, states: Tensor, eps: float) -> Tensor:
    centred = states - states.mean(-1, keepdim=True)
    scaled = centred / (centred.pow(2).mean(-1, keepdim=True) + eps).sqrt()
    return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def gelu(states: Tensor) -> Tensor:
    return states * (1 + torch.erf(states / math.sqrt(2))) / 2


def attend(weights: dict[str, Tensor], name: str, states: Tensor, num_heads: int) -> Tensor:
    """Every token attends to every other, padding included."""
    width = states.shape[-1]
    joined, size, outputs = linear(weights, f"{name}.qkv", states), width // num_heads, []
    for head in range(num_heads):
        query, key, value = (joined[..., kind * width + head * size :][..., :size] for kind in range(3))
        outputs.append((query @ key.transpose(-1, -2) / math.sqrt(size)).softmax(-1) @ value)
    return linear(weights, f"{name}.proj", torch.cat(outputs, dim=-1))


def transform(weights: dict[str, Tensor], name: str, states: Tensor, num_heads: int) -> Tensor:
    """All blocks whose names begin so."""
    number = 0
    while f"{name}.{number}.norm1.weight" in weights:
        block = f"{name}.{number}"
        states = states + attend(weights, f"{block}.attn", norm(weights, f"{block}.norm1", states, 1e-6), num_heads)
        inner = gelu(linear(weights, f"{block}.mlp.fc1", norm(weights, f"{block}.norm2", states, 1e-6)))
        states, number = states + linear(weights, f"{block}.mlp.fc2", inner), number + 1
    return states


def encode(weights: dict[str, Tensor], input_ids: Tensor, num_heads: int, positions: Tensor | None = None) -> Tensor:
    """States `(batch_size, num_positions, width)` of texts or, given `(batch_size, num_positions)`, of parts."""
    states = weights["token_embed.token_embed.weight"][input_ids] + weights["pos_embed"][0, : input_ids.shape[1]]
    if positions is not None:
        states = torch.stack([row[kept] for row, kept in zip(states, positions, strict=True)])
    return norm(weights, "norm", transform(weights, "blocks", states, num_heads), 1e-6)


def regress(weights: dict[str, Tensor], states: Tensor) -> Tensor:
    return linear(weights, "regress", norm(weights, "norm", gelu(linear(weights, "proj", states)), 1e-5))


def predict(weights: dict[str, Tensor], states: Tensor, context: Tensor, targets: Tensor, num_heads: int) -> Tensor:
    """Latents at `targets`, `(batch_size, num_blocks, block_length)`, from states at `context`; a block at a time."""
    table, blocks = weights["pred_pos_embed"][0], []
    visible = linear(weights, "predictor_embed", states) + table[context]
    for block in targets.unbind(1):
        asked = weights["mask_token"] + table[block]
        everything = transform(weights, "predictor_blocks", torch.cat([visible, asked], dim=1), num_heads)
        found = norm(weights, "predictor_norm", everything, 1e-6)[:, context.shape[1] :]
        blocks.append(linear(weights, "predictor_proj", found))
    return torch.stack(blocks, dim=1)


def standardise(states: Tensor) -> Tensor:
    """A LayerNorm without weights."""
    plain = {"n.weight": torch.ones(states.shape[-1]), "n.bias": torch.zeros(states.shape[-1])}
    return norm(plain, "n", states, 1e-5)


def cosine(first: Tensor, second: Tensor) -> Tensor:
    return (first * second).sum(-1) / (first.norm(dim=-1) * second.norm(dim=-1))
