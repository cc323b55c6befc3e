"""Fixtures for the tests of the models."""

import pytest
from torch import Tensor

from .tiny import UNPADDED_ROWS, block_batch


@pytest.fixture
def batch() -> dict[str, Tensor]:
    """Three rows of different length."""
    return block_batch()


@pytest.fixture
def full_batch() -> dict[str, Tensor]:
    """Three rows without padding."""
    return block_batch(UNPADDED_ROWS)
