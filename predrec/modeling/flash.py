"""Flash attention in language models: kernels that take nothing but half precision."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn


def uses_flash(model: nn.Module) -> bool:
    """Is the attention of a transformers model a flash kernel, of its own package or from the Hub?"""
    return "flash" in (model.config._attn_implementation or "")


def half_for_flash(model: nn.Module) -> AbstractContextManager:
    """Returns autocast to bfloat16 for a model with flash attention, which refuses float32; nothing for others.

    What is checked and generated beside training is computed in the weights' own precision as far as that goes: more
    exact, and the same tokens whatever else is in a batch.
    """
    if not uses_flash(model):
        return nullcontext()
    return torch.autocast(next(model.parameters()).device.type, torch.bfloat16)
