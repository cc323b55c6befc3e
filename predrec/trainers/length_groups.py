"""Rows of similar length together, in an order that seed and epoch decide."""

from collections.abc import Callable, Iterator

import torch
from transformers.trainer_pt_utils import LengthGroupedSampler


class SeededLengthGroups(LengthGroupedSampler):
    """A `LengthGroupedSampler` that gives an epoch the same order after a resume, and on every process.

    The stock one draws from the global random state, as it is when an epoch begins or a run resumes.

    Args:
        seed (`int`): Seed of all orders.
        epoch (`Callable`): Says which epoch begins.
        kwargs: As for `LengthGroupedSampler`.
    """

    def __init__(self, *args, seed: int, epoch: Callable[[], int], **kwargs):
        super().__init__(*args, **kwargs)
        self.seed, self.epoch = seed, epoch

    def __iter__(self) -> Iterator[int]:
        self.generator = torch.Generator().manual_seed(self.seed + self.epoch())
        return super().__iter__()
