"""How large a model would be, found out before any of it is allocated."""

import os

import torch
from transformers import PreTrainedConfig

from ..errors import UserError
from ..modeling import PredRecForPreTraining, PredRecPreTrainingConfig

LARGEST = {
    "hidden_size": 2**17,
    "num_hidden_layers": 1024,
    "num_attention_heads": 2**14,
    "intermediate_size": 2**20,
    "max_position_embeddings": 2**24,
    "vocab_size": 2**24,
}
"""Sizes beyond any encoder that was ever trained. Building a million layers would not end before the memory does."""


def check_sizes(config: PreTrainedConfig, source: str) -> None:
    """Refuses an encoder's configuration whose sizes are no sizes.

    Args:
        config (`PreTrainedConfig`): Of the encoder.
        source (`str`): Where it comes from, such as `` `init_from` 'some/model' ``.

    Raises:
        UserError: Naming the field and its value.
    """
    for name, largest in LARGEST.items():
        value, least = getattr(config, name, None), int(name != "num_hidden_layers")
        if value is not None and (not isinstance(value, int) or not least <= value <= largest):
            raise UserError(f"{source}: `{name}` is {value!r}; it must be a number from {least} to {largest:,}.")


def check_memory(config: PredRecPreTrainingConfig) -> None:
    """Refuses a model whose weights alone do not fit into this machine's memory; raises [`UserError`]."""
    needed, there = weight_bytes(config), machine_bytes()
    if needed > there:
        raise UserError(
            f"The model has {needed / 4:,.0f} weights, which take {needed / 2**30:,.0f} GiB, but this machine has "
            f"{there / 2**30:,.0f} GiB: lower `hidden_size`, `num_hidden_layers`, `vocab_size` or "
            "`max_position_embeddings`."
        )


def weight_bytes(config: PredRecPreTrainingConfig) -> int:
    """Returns what the weights of a model take in float32, target encoder and predictor included, in bytes."""
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        model = PredRecForPreTraining(config)
    return 4 * sum(tensor.numel() for tensor in (*model.parameters(), *model.buffers()))


def machine_bytes() -> int:
    """Returns the memory of this machine, in bytes."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
