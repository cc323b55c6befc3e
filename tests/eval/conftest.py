"""Fixtures for the tests of the evaluation: a tiny encoder with its tokenizer, in a directory."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModel, PreTrainedTokenizerBase

from ..modeling.tiny import encoder_config


@pytest.fixture(scope="session")
def tiny_encoder(tiny_tokenizer) -> Callable[..., Path]:
    """Writes a random encoder and a tokenizer: `tiny_encoder(path, model_type="predrec", **config)` gives `path`."""

    def write(
        path: str | Path,
        model_type: str = "predrec",
        *,
        seed: int = 0,
        tokenizer: PreTrainedTokenizerBase = tiny_tokenizer,
        **config,
    ) -> Path:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            AutoModel.from_config(encoder_config(model_type, **config)).save_pretrained(path)
        tokenizer.save_pretrained(path)
        return Path(path)

    return write
