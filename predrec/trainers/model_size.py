"""How large a model would be, found out before any of it is allocated."""

import os

import torch

from ..errors import UserError
from ..modeling import PredRecForPreTraining, PredRecPreTrainingConfig


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
