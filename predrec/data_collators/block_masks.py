"""I-JEPA block masks on text: which positions the context encoder sees, and which blocks the predictor must guess."""

from dataclasses import dataclass

import numpy as np

ATTEMPTS = 8
MIN_JEPA_LENGTH = 16
"""Rows with fewer real tokens get no target blocks: they count for the masked-LM loss only."""


@dataclass(frozen=True)
class BlockMasks:
    """Where context and targets lie, for a batch.

    Args:
        context (`np.ndarray` of shape `(batch_size, sequence_length)`, bool): Visible positions.
        starts (`np.ndarray` of shape `(batch_size, num_blocks)`, int): First position of each target block.
        lengths (`np.ndarray` of shape `(batch_size,)`, int): Tokens in each target block; 0 in rows without targets.
    """

    context: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray


def num_draws(num_target_blocks: int) -> int:
    """Returns how many uniform numbers [`draw_block_masks`] takes per row."""
    return ATTEMPTS * (3 + num_target_blocks)


def smallest_context(lengths: np.ndarray | int, min_context_tokens: int) -> np.ndarray:
    """Returns how many tokens must stay visible in rows: the minimum, or a quarter of a row under 128 tokens."""
    return np.where(np.less(lengths, 128), np.minimum(min_context_tokens, lengths // 4), min_context_tokens)


def draw_block_masks(
    lengths: np.ndarray,
    special: np.ndarray,
    uniforms: np.ndarray,
    context_scale: tuple[float, float],
    target_scale: tuple[float, float],
    min_context_tokens: int,
    context_excludes_targets: bool = True,
) -> BlockMasks:
    """Draws one context block and `num_blocks` target blocks per row, all contiguous, all inside the real tokens.

    One context length and one target length are drawn per row. Target blocks may overlap one another; the context
    does not overlap them, unless `context_excludes_targets` is `False`. Special tokens inside a target block are not
    targets, and they stay in the context. A draw that leaves fewer than [`smallest_context`] visible tokens, or a
    block without any token to predict, is redrawn a bounded number of times; after that the smallest targets and the
    largest context are taken.

    Args:
        lengths (`np.ndarray` of shape `(batch_size,)`, int): Real tokens of each row.
        special (`np.ndarray` of shape `(batch_size, sequence_length)`, bool): `True` at special tokens.
        uniforms (`np.ndarray` of shape `(batch_size, num_draws(num_blocks))`): Numbers in [0, 1).
        context_scale, target_scale (`tuple` of two floats): Range of a block's share of the row.
        min_context_tokens (`int`): See [`smallest_context`].
        context_excludes_targets (`bool`, defaults to `True`):
            Whether targets are hidden from the context. The published code lets it see parts of them.

    Reference:
        Assran et al., 2023, https://arxiv.org/abs/2301.08243; Boukhari, 2026, https://arxiv.org/abs/2606.05173
    """
    batch_size, sequence_length = special.shape
    uniforms = uniforms.reshape(batch_size, ATTEMPTS, -1)
    num_blocks = uniforms.shape[2] - 3
    required = smallest_context(lengths, min_context_tokens)
    masks = BlockMasks(
        context=np.zeros((batch_size, sequence_length), dtype=bool),
        starts=np.zeros((batch_size, num_blocks), dtype=np.int64),
        lengths=np.zeros(batch_size, dtype=np.int64),
    )

    too_short = lengths < MIN_JEPA_LENGTH
    masks.context[too_short] = np.arange(sequence_length) < lengths[too_short, None]
    pending = np.flatnonzero(~too_short)
    for attempt in range(ATTEMPTS + 1):
        if not len(pending):
            break
        draws = uniforms[pending, min(attempt, ATTEMPTS - 1)]
        if attempt == ATTEMPTS:
            draws = np.concatenate([np.array([[1.0, 0.0]]).repeat(len(draws), 0), draws[:, 2:]], axis=1)
        context, starts, block_lengths = _place(
            lengths[pending], special[pending], draws, context_scale, target_scale, context_excludes_targets
        )
        predictable = _inside(starts, block_lengths, sequence_length) & ~special[pending, None]
        feasible = (context.sum(1) >= required[pending]) & predictable.any(2).all(1)
        if attempt == ATTEMPTS:
            feasible[:] = True
        done = pending[feasible]
        masks.context[done], masks.starts[done] = context[feasible], starts[feasible]
        masks.lengths[done] = block_lengths[feasible]
        pending = pending[~feasible]
    return masks


def _inside(starts: np.ndarray, block_lengths: np.ndarray, sequence_length: int) -> np.ndarray:
    """Returns `(batch_size, num_blocks, sequence_length)`, `True` inside each block."""
    positions = np.arange(sequence_length)
    return (positions >= starts[..., None]) & (positions < (starts + block_lengths[:, None])[..., None])


def _place(
    lengths: np.ndarray,
    special: np.ndarray,
    draws: np.ndarray,
    context_scale: tuple[float, float],
    target_scale: tuple[float, float],
    context_excludes_targets: bool,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Turns one row of draws (context length, target length, context start, target starts) into one placement."""

    def block_length(scale: tuple[float, float], draw: np.ndarray) -> np.ndarray:
        share = scale[0] + (scale[1] - scale[0]) * draw
        return np.clip(np.rint(share * lengths), 1, lengths).astype(np.int64)

    context_lengths, target_lengths = block_length(context_scale, draws[:, 0]), block_length(target_scale, draws[:, 1])
    # A block always fits: its start leaves room for all of it.
    context_starts = (draws[:, 2] * (lengths - context_lengths + 1)).astype(np.int64)
    target_starts = (draws[:, 3:] * (lengths - target_lengths + 1)[:, None]).astype(np.int64)

    sequence_length = special.shape[1]
    real = np.arange(sequence_length) < lengths[:, None]
    visible = _inside(context_starts[:, None], context_lengths, sequence_length)[:, 0]
    hidden = _inside(target_starts, target_lengths, sequence_length).any(1) & ~special
    if not context_excludes_targets:
        hidden[:] = False
    return (visible | special) & real & ~hidden, target_starts, target_lengths
