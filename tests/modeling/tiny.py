"""Tiny models and a batch written by hand, for the tests of models, measures and export."""

import numpy as np
import torch
from torch import Tensor
from transformers import CONFIG_MAPPING, PreTrainedConfig

from predrec.modeling import PredRecForPreTraining, PredRecPreTrainingConfig
from predrec.modeling.layout import Segments

VOCAB_SIZE = 160
HIDDEN_SIZE = 16
FIRST_ORDINARY_ID = 5
MASK_ID = 4

SIZES = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": HIDDEN_SIZE,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    # Larger than usual, so that a wrong mask or position shows in the output of so small a model.
    "initializer_range": 0.2,
}

OWN_SIZES = {
    "roberta": {"pad_token_id": 1},
    "xlm-roberta": {"pad_token_id": 1},
    "mpnet": {"pad_token_id": 1},
    "electra": {"embedding_size": 8},
    # Layers alternate between full attention and a window of two tokens on each side.
    "modernbert": {
        "local_attention": 4,
        "global_attn_every_n_layers": 2,
        "num_hidden_layers": 3,
        **dict.fromkeys(("bos_token_id", "cls_token_id"), 2),
        **dict.fromkeys(("eos_token_id", "sep_token_id"), 3),
    },
}


def encoder_config(model_type: str = "predrec", **fields) -> PreTrainedConfig:
    """Returns the configuration of a tiny encoder without dropout."""
    config = CONFIG_MAPPING[model_type](**(SIZES | OWN_SIZES.get(model_type, {}) | fields))
    for name in ("hidden_dropout_prob", "attention_probs_dropout_prob", "dropout", "attention_dropout"):
        if hasattr(config, name):
            setattr(config, name, 0.0)
    return config


def pretraining_config(model_type: str = "predrec", encoder: dict | None = None, **fields) -> PredRecPreTrainingConfig:
    """Returns the configuration of a tiny pre-training model with a predictor of one block."""
    defaults = {"predictor_num_hidden_layers": 1, "initializer_range": 0.2}
    return PredRecPreTrainingConfig(
        encoder_config=encoder_config(model_type, **(encoder or {})), **(defaults | fields)
    )


def pretraining_model(
    model_type: str = "predrec", encoder: dict | None = None, seed: int = 0, **fields
) -> PredRecForPreTraining:
    """Returns a tiny pre-training model in evaluation mode."""
    torch.manual_seed(seed)
    return PredRecForPreTraining(pretraining_config(model_type, encoder, **fields)).eval()


def drift(model: PredRecForPreTraining, seed: int = 1) -> PredRecForPreTraining:
    """Moves the context encoder away from the target encoder, as training does."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.encoder.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return model


# Real tokens and the target blocks (start, length), which overlap in the last two rows. Position 1 is hidden, too.
ROWS = ((24, ((4, 4), (14, 5))), (20, ((2, 3), (4, 4))), (17, ((10, 3), (12, 2))))
UNPADDED_ROWS = ((24, ((4, 4), (14, 5))), (24, ((2, 3), (4, 4))), (24, ((10, 3), (12, 2))))


def padded(rows: list, fill: int) -> Tensor:
    """Makes lists of different length a tensor."""
    width = max(len(row) for row in rows)
    return torch.tensor([list(row) + [fill] * (width - len(row)) for row in rows])


def block_batch(rows=ROWS, pad_token_id: int = 0, seed: int = 0) -> dict[str, Tensor]:
    """Returns a batch in the collator's format; padding of the index tensors points at position 0."""
    generator = torch.Generator().manual_seed(seed)
    length = max(real for real, _ in rows)
    real = torch.arange(length) < torch.tensor([[real] for real, _ in rows])
    original = torch.randint(FIRST_ORDINARY_ID, VOCAB_SIZE, real.shape, generator=generator)
    original = original.masked_fill(~real, pad_token_id)
    # Every fifth token has a label; position 5 lies in a target block of the first two rows.
    chosen = real & (torch.arange(length) % 5 == 0)
    labels = original.masked_fill(~chosen, -100)

    contexts, targets = [], []
    for count, blocks in rows:
        hidden = {1} | {start + i for start, size in blocks for i in range(size)}
        contexts.append([position for position in range(count) if position not in hidden])
        targets.append([[start + i for i in range(size)] for start, size in blocks])
    widest = max(len(block) for row in targets for block in row)
    flat = [block for row in targets for block in row]
    target_shape = (len(rows), len(targets[0]), widest)
    batch = {
        "input_ids": original.masked_fill(chosen, MASK_ID),
        "labels": labels,
        "original_input_ids": original,
        "context_indices": padded(contexts, 0),
        "context_mask": padded([[1] * len(row) for row in contexts], 0).bool(),
        "target_indices": padded(flat, 0).view(target_shape),
        "target_mask": padded([[1] * len(block) for block in flat], 0).bool().view(target_shape),
        # The last entry only fills up: position 1 has no label.
        "label_indices": torch.cat([chosen.flatten().nonzero()[:, 0], torch.tensor([1])]),
        "example_ids": torch.arange(len(rows)),
    }
    if not real.all():
        batch["attention_mask"] = real.long()
    return batch


def context_visibility(batch: dict[str, Tensor]) -> Tensor:
    """Returns the visible context as an attention mask `(batch_size, sequence_length)`, row by row."""
    visible = torch.zeros_like(batch["input_ids"])
    for row, (indices, mask) in enumerate(zip(batch["context_indices"], batch["context_mask"], strict=True)):
        visible[row, indices[mask]] = 1
    return visible


def segments_of(lengths: list[int], limit: int | None = None) -> Segments:
    """Sequences laid end to end; `limit` is the longest that is to be expected."""
    return Segments.of(np.array(lengths, dtype=np.int64), max([1, *lengths]) if limit is None else limit)


def part_of(batch: dict[str, Tensor], rows: slice) -> dict[str, Tensor]:
    """Returns some rows of a batch; the label positions, which count in the whole, are left to the model."""
    return {name: value[rows] for name, value in batch.items() if name != "label_indices"}
