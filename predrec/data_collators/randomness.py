"""Randomness without state: what is drawn for an example depends on the seed, the epoch and the example alone.

So masks are the same for any number of workers or processes, exact after a resume, and new in every epoch.
"""

from functools import lru_cache

import numpy as np


@lru_cache(maxsize=64)
def _key(seed: int, epoch: int) -> np.ndarray:
    return np.random.SeedSequence((seed, epoch)).generate_state(2, np.uint64)


def example_generator(seed: int, epoch: int, example_id: int, part: int = 0) -> np.random.Generator:
    """Returns the generator of one part of an example in one epoch; those of different examples never overlap."""
    return np.random.Generator(np.random.Philox(key=_key(seed, epoch), counter=[0, 0, part, example_id]))
