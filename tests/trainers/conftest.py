"""Fixtures for the tests of measures and export."""

import pytest
from torch import Tensor

from ..modeling.tiny import block_batch


@pytest.fixture
def batch() -> dict[str, Tensor]:
    """Three rows of different length, with the masks of pre-training."""
    return block_batch()
