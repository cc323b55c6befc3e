"""Tiny runs and encoders to publish."""

import os
import subprocess
import sys
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoModel, PreTrainedTokenizerBase

from predrec.eval.pooling import POOLINGS
from predrec.trainers.export import export_encoder

from .. import training
from ..modeling.tiny import pretraining_model

TEXTS = ["the cat sat", "a dog ran on the mat and then the cat sat, un known", "mat", "the dog " * 100]
"""Texts of different length for the tiny tokenizer; the last one is longer than any tiny encoder takes."""


def trained_run(output_dir: Path, objective: str = "hybrid", max_steps: int = 4, **overrides) -> Path:
    """Trains for a few updates, with a checkpoint every second one and the export at the root."""
    trainer = training.trainer(
        output_dir, objective, max_steps=max_steps, save_strategy="steps", save_steps=2, **overrides
    )
    trainer.train()
    trainer.save_model()
    return output_dir


def encoder_folder(
    path: Path, model_type: str, tokenizer: PreTrainedTokenizerBase, encoder: dict | None = None
) -> Path:
    """Writes a random masked-LM model and a tokenizer."""
    export_encoder(pretraining_model(model_type, encoder, objective="mlm"), tokenizer, path)
    return path


@torch.no_grad()
def pooled_by_hand(path: Path, pooling: str, tokenizer: PreTrainedTokenizerBase, limit: int) -> Tensor:
    """Returns vectors of `TEXTS`, one at a time, so that nothing is padded."""
    encoder = AutoModel.from_pretrained(path).eval()
    vectors = []
    for text in TEXTS:
        input_ids = torch.tensor([tokenizer(text, truncation=True, max_length=limit)["input_ids"]])
        states = encoder(input_ids=input_ids).last_hidden_state
        vectors.append(POOLINGS[pooling](states, torch.ones_like(input_ids).bool()))
    return torch.cat(vectors)


def run_without_predrec(script: str, folder: Path, tmp_path: Path) -> str:
    """Runs code in a process that cannot import predrec; returns what it prints."""
    return run_python("import sys; sys.modules['predrec'] = None\n" + script, folder, tmp_path)


def run_python(script: str, folder: Path, tmp_path: Path) -> str:
    """Runs code in a process of its own, with the folder as its working directory; returns what it prints."""
    environment = os.environ | {"HF_MODULES_CACHE": str(tmp_path / "modules"), "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout
