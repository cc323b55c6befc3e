"""From token states to one vector per text. Only real tokens count, whatever is beside them."""

from collections.abc import Callable

import torch
from torch import Tensor


def _real(mask: Tensor, states: Tensor) -> Tensor:
    if not mask.any(1).all():
        raise ValueError(f"Texts {torch.nonzero(~mask.any(1))[:, 0].tolist()} have no token: they cannot be pooled.")
    return mask[..., None].to(states.dtype)


def mean_pooling(states: Tensor, mask: Tensor) -> Tensor:
    """Averages over real tokens.

    Args:
        states (`torch.FloatTensor` of shape `(batch_size, sequence_length, hidden_size)`): Token states.
        mask (`torch.BoolTensor` of shape `(batch_size, sequence_length)`): Real tokens.

    Returns:
        `torch.FloatTensor` of shape `(batch_size, hidden_size)`.

    Raises:
        ValueError: If a text has no token.
    """
    real = _real(mask, states)
    return (states * real).sum(1) / real.sum(1)


def max_pooling(states: Tensor, mask: Tensor) -> Tensor:
    """Takes the largest value of each feature over real tokens; arguments as in [`mean_pooling`]."""
    _real(mask, states)
    return states.masked_fill(~mask[..., None], -torch.inf).amax(1)


def cls_pooling(states: Tensor, mask: Tensor) -> Tensor:
    """Takes the first real token; arguments as in [`mean_pooling`]."""
    _real(mask, states)
    first = mask.int().argmax(1)
    return states[torch.arange(len(states)), first]


def weighted_pooling(states: Tensor, mask: Tensor, position_weights: Tensor | None = None) -> Tensor:
    """Averages with one weight per position, by softmax over real tokens.

    Published numbers use the weights at their uniform start, which is [`mean_pooling`]: a null check.

    Args:
        states, mask: As in [`mean_pooling`].
        position_weights (`torch.FloatTensor` of shape `(at least sequence_length,)`, *optional*): Zero when absent.
    """
    _real(mask, states)
    length = states.shape[1]
    scores = states.new_zeros(length) if position_weights is None else position_weights[:length].to(states)
    weights = scores.expand(len(states), -1).masked_fill(~mask, -torch.inf).softmax(-1)
    return (weights[..., None] * states).sum(1)


def attention_pooling(states: Tensor, mask: Tensor, query: Tensor, key: Tensor) -> Tensor:
    """Averages with weights from one query: softmax of `query . (key state) / sqrt(hidden_size)` over real tokens.

    Args:
        states, mask: As in [`mean_pooling`].
        query (`torch.FloatTensor` of shape `(hidden_size,)`): Untrained in published numbers, see [`attention_draw`].
        key (`torch.FloatTensor` of shape `(hidden_size, hidden_size)`): Key projection.
    """
    _real(mask, states)
    scores = states @ (key.T @ query).to(states) / states.shape[-1] ** 0.5
    weights = scores.masked_fill(~mask, -torch.inf).softmax(-1)
    return (weights[..., None] * states).sum(1)


def attention_draw(hidden_size: int, seed: int) -> tuple[Tensor, Tensor]:
    """Draws an untrained query, standard normal, and key projection, Xavier uniform.

    Every published attention-pooling number is one such draw: report several.
    """
    generator = torch.Generator().manual_seed(seed)
    query = torch.randn(hidden_size, generator=generator)
    limit = (6 / (2 * hidden_size)) ** 0.5
    return query, (torch.rand(hidden_size, hidden_size, generator=generator) * 2 - 1) * limit


POOLINGS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mean": mean_pooling,
    "max": max_pooling,
    "weighted": weighted_pooling,
    "cls": cls_pooling,
}
"""Poolings without arguments of their own; attention needs a draw."""
