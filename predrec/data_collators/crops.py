"""Random crops of texts: short pieces that are read by themselves, each of which is what it has to predict."""

import numpy as np

from .block_masks import BlockMasks

NUM_DRAWS = 2
"""How many uniform numbers [`draw_crops`] takes per crop."""


def draw_crops(
    lengths: np.ndarray, special: np.ndarray, uniforms: np.ndarray, crop_length: tuple[int, int]
) -> BlockMasks:
    """Draws one crop per row: a contiguous piece of the text, in the special tokens that the text stands in.

    The context is the crop, with the special tokens that the row begins and ends with, as if the crop were all there
    is; its one target block is the crop itself. A row with fewer tokens than the shortest crop is taken whole.

    Args:
        lengths (`np.ndarray` of shape `(batch_size,)`, int): Real tokens of each row.
        special (`np.ndarray` of shape `(batch_size, sequence_length)`, bool): `True` at special tokens.
        uniforms (`np.ndarray` of shape `(batch_size, NUM_DRAWS)`): Numbers in [0, 1).
        crop_length (`tuple` of two ints): Fewest and most tokens of a crop, without the special ones around it.

    Reference:
        Izacard et al., 2022, https://arxiv.org/abs/2112.09118 (crops as views of a text)
    """
    shortest, longest = crop_length
    rows, positions = np.arange(len(lengths)), np.arange(special.shape[1])
    last = np.maximum(lengths - 1, 0)
    begins = (special[:, 0] & (lengths > 0)).astype(np.int64)
    ends = np.maximum(lengths - (special[rows, last] & (last > 0)), begins)
    sizes = np.minimum(shortest + (uniforms[:, 0] * (longest - shortest + 1)).astype(np.int64), ends - begins)
    starts = begins + (uniforms[:, 1] * (ends - begins - sizes + 1)).astype(np.int64)
    inside = (positions >= starts[:, None]) & (positions < (starts + sizes)[:, None])
    around = (positions < begins[:, None]) | (positions >= ends[:, None]) & (positions < lengths[:, None])
    return BlockMasks(context=inside | around, starts=starts[:, None], lengths=sizes)
