"""How much arithmetic an update takes: matrix products, two operations for each multiply-add, on real tokens only."""

from collections.abc import Sequence

import numpy as np
from torch import Tensor
from transformers import PreTrainedConfig

from .configuration_pretraining import PredRecPreTrainingConfig

FORWARD_AND_BACKWARD = 3
"""A backward pass has two matrix products for each one of the forward pass."""


def layer_flops(hidden_size: int, intermediate_size: int, lengths: Sequence[int] | np.ndarray) -> int:
    """Returns the operations of one transformer layer on sequences of these lengths, forward."""
    lengths = np.asarray(lengths, dtype=np.int64)
    per_token = 2 * (4 * hidden_size**2 + 2 * hidden_size * intermediate_size)
    return int(lengths.sum() * per_token + 4 * hidden_size * (lengths**2).sum())


def encoder_flops(config: PreTrainedConfig, lengths: Sequence[int] | np.ndarray) -> int:
    """Returns the operations of an encoder without its head, forward.

    Args:
        config (`PreTrainedConfig`): Of an encoder with full attention in every layer.
        lengths (sequence of `int`): Tokens of each sequence.
    """
    return config.num_hidden_layers * layer_flops(config.hidden_size, config.intermediate_size, lengths)


def head_flops(config: PreTrainedConfig, num_tokens: int) -> int:
    """Returns the operations of the masked-LM head on so many tokens, forward: a dense layer, then the vocabulary."""
    return 2 * num_tokens * config.hidden_size * (config.hidden_size + config.vocab_size)


def predictor_flops(config: PredRecPreTrainingConfig, contexts: np.ndarray, blocks: np.ndarray) -> int:
    """Returns the operations of the predictor, forward.

    Args:
        config ([`PredRecPreTrainingConfig`]): Of the pre-training model.
        contexts (`np.ndarray` of shape `(num_contexts,)`): Visible tokens.
        blocks (`np.ndarray` of shape `(num_contexts, num_blocks)`): Targets in each block.
    """
    predictor, outer = config.predictor_config(), config.encoder_config.hidden_size
    width, inner, layers = predictor.hidden_size, predictor.intermediate_size, predictor.num_hidden_layers
    ends = 2 * width * outer * int(contexts.sum() + blocks.sum())
    if config.predictor_attention == "cross":
        targets = blocks.sum(1)
        per_target, per_context = 2 * (2 * width**2 + 2 * width * inner), 4 * width**2
        products = 4 * width * int((targets * contexts).sum())
        return ends + layers * int(targets.sum() * per_target + contexts.sum() * per_context + products)
    pairs = np.stack([np.repeat(contexts[:, None], blocks.shape[1], 1), blocks], axis=-1)[blocks > 0]
    # The last layer makes keys and values of everything, but goes on with the targets alone.
    lengths, targets = pairs.sum(1), pairs[:, 1]
    last = 6 * width**2 * lengths.sum() + 4 * width * (lengths * targets).sum()
    last += 2 * (width**2 + 2 * width * inner) * targets.sum()
    return ends + (layers - 1) * layer_flops(width, inner, lengths) + int(last)


def training_flops(config: PredRecPreTrainingConfig, batch: dict[str, Tensor]) -> dict[str, int]:
    """Returns the operations of one update on a batch, forward and backward, by part.

    What padding and the recomputation of activations cost is not counted: it is not needed.

    Args:
        config ([`PredRecPreTrainingConfig`]): Of the pre-training model.
        batch (`dict`): From [`DataCollatorForPreTraining`].

    Returns:
        `dict` with `text` (the encoder on the masked texts), `head`, `context`, `target` and `predictor`; 0 for what
        the objective does without. An update that `jepa_dropout` shortens has less.
    """
    encoder, rows = config.encoder_config, batch["input_ids"].shape
    mask = batch.get("attention_mask")
    texts = np.full(rows[0], rows[1]) if mask is None else mask.sum(1).numpy()
    parts = dict.fromkeys(("text", "head", "context", "target", "predictor"), 0)
    num_labels = int(batch["labels"].ne(-100).sum())
    if config.has_jepa_branch:
        contexts, blocks = batch["context_mask"].sum(1).numpy(), batch["target_mask"].sum(2).numpy()
        parts["context"] = FORWARD_AND_BACKWARD * encoder_flops(encoder, contexts)
        if config.has_predictor:
            parts["predictor"] = FORWARD_AND_BACKWARD * predictor_flops(config, contexts, blocks)
        # No gradient goes through the target encoder; SIGReg has none, and trains the online encoder on the targets.
        if config.target_layers != 0:
            passes = 1 if config.has_target_encoder else FORWARD_AND_BACKWARD
            parts["target"] = passes * encoder_flops(encoder, texts)
        if config.mlm_view == "context":
            labels = batch["labels"].repeat(len(contexts) // rows[0], 1).gather(1, batch["context_indices"])
            num_labels = int((labels.ne(-100) & batch["context_mask"]).sum())
    if config.objective != "jepa":
        parts["head"] = FORWARD_AND_BACKWARD * head_flops(encoder, num_labels)
        if config.mlm_view == "full":
            parts["text"] = FORWARD_AND_BACKWARD * encoder_flops(encoder, texts)
    return parts
