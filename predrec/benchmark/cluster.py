"""What a run needs on many GPUs, on paper: memory of each, what it sends in an update, and how much work hides that.

Nothing here was measured on GPUs. Sizes of weights are exact, what sharded runs send is compared with a run of two
processes, and activations with what autograd keeps; speeds of GPUs and networks are assumptions, named as such.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from ..modeling import PredRecConfig, PredRecForPreTraining, PredRecPreTrainingConfig
from ..modeling.flops import FORWARD_AND_BACKWARD, encoder_flops, head_flops, predictor_flops

STRATEGIES = ("DDP", "ZeRO-1", "ZeRO-2", "FSDP2")
GPUS = (8, 64)
NODE = 8
"""GPUs of one machine."""

FLOAT, HALF = 4, 2
"""Bytes of a number: weights, gradients and optimizer are float32, activations mostly bfloat16."""

CONTEXT_SHARE, TARGET_SHARE, LABEL_SHARE = 0.48, 0.35, 0.15
"""Of a row's tokens: those visible to the context encoder, those in target blocks (both blocks), those with labels."""

ACTIVATION_BYTES = 40
"""Kept for the backward pass by a transformer layer, for each token and feature: two inputs of norms in float32 (8
bytes), their outputs (4), queries, keys and values (6), the attention's output, twice (4), the feed-forward network's
four times as many features before and after GELU (16), in bfloat16; and 2 for odds and ends. Flash attention keeps no
probabilities."""

FLOPS_PER_SECOND = 0.4 * 989e12
"""Assumed: 40 % of what an H100 does in bfloat16 matrix products."""

BYTES_PER_SECOND = {"in a node": 450e9, "between nodes": 50e9}
"""Assumed, for each GPU and direction: NVLink, and a 400 Gb/s network card per GPU."""


@dataclass(frozen=True)
class Sizes:
    """Numbers of weights.

    Args:
        encoder, head, predictor (`int`): Trained ones of the three parts. What balances the losses is the predictor's.
        target (`int`): Of the target encoder; 0 without one.
        encoder_layers, predictor_layers (`int`): Of encoder and predictor, those in transformer layers.
    """

    encoder: int
    head: int
    predictor: int
    target: int
    encoder_layers: int
    predictor_layers: int

    @property
    def trained(self) -> int:
        return self.encoder + self.head + self.predictor

    @classmethod
    def of(cls, config: PredRecPreTrainingConfig) -> "Sizes":
        """Counts the weights of a model with this configuration, which takes no memory for them."""
        with torch.device("meta"):
            model = PredRecForPreTraining(config)
        encoder = _trained(model.encoder)
        head = _trained(model.masked_lm) - encoder
        return cls(
            encoder=encoder,
            head=head,
            predictor=_trained(model) - encoder - head,
            target=0 if model.target_encoder is None else model.target_encoder.num_parameters(),
            encoder_layers=_in_layers(model.encoder),
            predictor_layers=_in_layers(model.predictor),
        )


def _trained(module: nn.Module | None) -> int:
    parameters = () if module is None else module.parameters()
    return sum(parameter.numel() for parameter in parameters if parameter.requires_grad)


def _in_layers(module: nn.Module | None) -> int:
    stacks = () if module is None else (part for part in module.modules() if isinstance(part, nn.ModuleList))
    return sum(_trained(layer) for stack in stacks for layer in stack)


def states(sizes: Sizes, strategy: str, processes: int) -> dict[str, float]:
    """Returns the bytes that a GPU holds whatever the batch, by what they are for.

    Weights and target encoder, gradients, AdamW's two moments, what gradients are copied to for sending, and the
    bfloat16 copies of weights that autocast makes during a pass.
    """
    trained, target = FLOAT * sizes.trained, FLOAT * sizes.target
    whole = {"weights": trained + target, "gradients": trained, "optimizer": 2 * trained, "buckets": trained}
    sharded = {
        "DDP": (),
        "ZeRO-1": ("optimizer",),
        "ZeRO-2": ("optimizer", "gradients"),
        "FSDP2": ("weights", "optimizer", "gradients"),
    }[strategy]
    if processes == 1:
        whole["buckets"] = 0  # Nothing is sent.
    parts = {name: size / processes if name in sharded else size for name, size in whole.items()}
    if strategy == "FSDP2":  # Two layers are there whole, with gradients, and what is in no layer.
        outside = sizes.trained + sizes.target - 2 * sizes.encoder_layers - sizes.predictor_layers
        parts["buckets"] = FLOAT * outside
    return parts | {"autocast": HALF * sizes.trained}


def activations(config: PredRecPreTrainingConfig, length: int) -> float:
    """Returns the bytes that one row of so many tokens keeps for the backward pass."""
    encoder, predictor = config.encoder_config, config.predictor_config() if config.has_predictor else None
    passes = (config.objective != "jepa") * (config.mlm_view == "full") + config.has_jepa_branch * CONTEXT_SHARE
    kept = passes * length * encoder.num_hidden_layers * encoder.hidden_size * _per_feature(encoder)
    if predictor is not None:
        tokens = length * (2 * CONTEXT_SHARE + TARGET_SHARE)
        kept += tokens * predictor.num_hidden_layers * predictor.hidden_size * _per_feature(predictor)
    if config.objective != "jepa":  # Logits, and their gradient.
        kept += LABEL_SHARE * length * 2 * HALF * encoder.vocab_size
    return kept


def _per_feature(config) -> float:
    """Bytes per token and feature of a layer, whose feed-forward network may be of another width than four times."""
    return ACTIVATION_BYTES + 2 * HALF * (config.intermediate_size / config.hidden_size - 4)


def traffic(sizes: Sizes, strategy: str, processes: int, parts: int = 1) -> float:
    """Returns the bytes that each GPU sends in an update.

    Gathering n bytes on all processes, or summing them so that each has a share, sends `(processes - 1) / processes`
    of them; summing them for all sends twice as many. Statistics and counts add next to nothing.

    Args:
        sizes ([`Sizes`]): Of the model.
        strategy (`str`): One of [`STRATEGIES`].
        processes (`int`): How many GPUs there are.
        parts (`int`): Batches that an update is accumulated from. Copies send once; shards are fetched in each.
    """
    trained = sizes.trained
    numbers = {
        "DDP": 2 * trained,
        "ZeRO-1": 2 * trained,
        "ZeRO-2": (parts + 1) * trained,
        "FSDP2": parts * fetched(sizes) + trained,
    }[strategy]
    return FLOAT * numbers * (processes - 1) / processes


def fetched(sizes: Sizes) -> int:
    """Returns how many weights FSDP2 fetches in a forward and backward pass of a hybrid model.

    Everything once; the encoder's layers once more for the context, and both times again in the backward pass; the
    predictor's layers again there.
    """
    return sizes.trained + sizes.target + 3 * sizes.encoder_layers + sizes.predictor_layers


def row_flops(config: PredRecPreTrainingConfig, length: int) -> int:
    """Returns the operations of training on one row of so many tokens."""
    encoder, context = config.encoder_config, np.array([CONTEXT_SHARE * length])
    blocks = np.full((1, 2), TARGET_SHARE * length / 2)
    trained = encoder_flops(encoder, [length]) + head_flops(encoder, int(LABEL_SHARE * length))
    trained += encoder_flops(encoder, context) + predictor_flops(config, context, blocks)
    return FORWARD_AND_BACKWARD * trained + encoder_flops(encoder, [length])


def rows_that_hide(config: PredRecPreTrainingConfig, length: int, strategy: str, processes: int) -> float:
    """Returns how many rows a GPU must work on in an update so that this takes as long as sending does."""
    speed = BYTES_PER_SECOND["in a node" if processes <= NODE else "between nodes"]
    return traffic(Sizes.of(config), strategy, processes) / speed / (row_flops(config, length) / FLOPS_PER_SECOND)


def usual_config(hidden_size: int, num_hidden_layers: int) -> PredRecPreTrainingConfig:
    """Returns a hybrid model of this size: heads of 64 features, BERT's vocabulary, a predictor of six layers."""
    encoder = PredRecConfig(
        hidden_size=hidden_size,
        num_hidden_layers=num_hidden_layers,
        num_attention_heads=hidden_size // 64,
        intermediate_size=4 * hidden_size,
        vocab_size=30522,
        max_position_embeddings=512,
        position_embedding_type="rotary",
    )
    return PredRecPreTrainingConfig(encoder_config=encoder)


USUAL = {"paper": (512, 6), "base": (768, 12), "large": (1024, 24)}
"""Width and depth of the usual sizes."""

ROWS = (8, 16, 32, 64)
"""Batches of one GPU."""


def one_gpu(length: int = 512) -> str:
    """Returns the documentation's table of what a single GPU needs, in Markdown."""
    lines = [
        f"| size | weights | {' | '.join(f'{rows} rows, GB' for rows in ROWS)} | TFLOP per row |",
        "|---|---|" + "---|" * (len(ROWS) + 1),
    ]
    for name, (width, depth) in USUAL.items():
        config = usual_config(width, depth)
        sizes, kept = Sizes.of(config), activations(config, length)
        held = sum(states(sizes, "DDP", 1).values())
        memory = " | ".join(f"{(held + rows * kept) / 1e9:.1f}" for rows in ROWS)
        weights, work = f"{sizes.trained / 1e6:.0f} M", f"{row_flops(config, length) / 1e12:.2f}"
        lines.append(f"| {name}, {width} wide, {depth} deep | {weights} | {memory} | {work} |")
    return "\n".join(lines)


def table(length: int = 512) -> str:
    """Returns the documentation's table, in Markdown."""
    lines = [
        "| size | GPUs | strategy | states, GB | a row's activations, GB | sent per update, GB | rows that hide it |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in ("base", "large"):
        config = usual_config(*USUAL[name])
        sizes, kept = Sizes.of(config), activations(config, length)
        for processes in GPUS:
            for strategy in STRATEGIES:
                held = sum(states(sizes, strategy, processes).values())
                sent, rows = traffic(sizes, strategy, processes), rows_that_hide(config, length, strategy, processes)
                cells = (name, processes, strategy, f"{held / 1e9:.1f}", f"{kept / 1e9:.2f}", f"{sent / 1e9:.1f}")
                lines.append("| " + " | ".join(map(str, (*cells, f"{rows:.0f}"))) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(one_gpu(), table(), sep="\n\n")
