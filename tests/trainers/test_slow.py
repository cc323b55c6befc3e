"""Settings that cost speed are told, with what to do instead; others are not."""

from types import SimpleNamespace

import pytest
import torch

from predrec.trainers import slow
from predrec.trainers.slow import slow_choices
from tests import training


def on(
    device: str,
    bf16: bool = False,
    unpad: bool = True,
    dropout: float = 0.0,
    takes_layout: bool = True,
    mode: str | None = None,
):
    """What is looked at of a trainer."""
    config = SimpleNamespace(attention_probs_dropout_prob=dropout)
    return SimpleNamespace(
        args=SimpleNamespace(device=torch.device(device), bf16=bf16, torch_compile_mode=mode),
        data_collator=SimpleNamespace(unpad=unpad),
        model=SimpleNamespace(encoder=SimpleNamespace(config=config), takes_layout=takes_layout),
    )


@pytest.mark.parametrize(
    ("trainer", "isolates", "words"),
    [
        (on("cpu", unpad=False), True, "`isolate_documents` is slow here"),
        (on("cuda", dropout=0.1), False, "`attention_probs_dropout_prob` is 0.1"),
        (on("cpu", bf16=True), False, "`bf16` is probably slow here"),
        (on("cuda", mode="reduce-overhead"), False, "`torch_compile_mode=reduce-overhead` records"),
        (on("cuda", mode="max-autotune"), False, "`torch_compile_mode=max-autotune` records"),
    ],
    ids=["padded documents", "dropout on a GPU", "bf16 on a CPU", "CUDA graphs", "CUDA graphs too"],
)
def test_slow_choice_is_told(monkeypatch, trainer, isolates, words):
    monkeypatch.setattr(slow, "has_fast_bfloat16", lambda device: False)
    [found] = slow_choices(trainer, isolates)
    assert found.startswith(words)


@pytest.mark.parametrize(
    ("trainer", "isolates"),
    [
        (on("cpu", unpad=False), False),
        (on("cpu", dropout=0.1), True),
        (on("cuda", dropout=0.1, takes_layout=False), False),
        (on("cuda", bf16=True), False),
        (on("cuda", mode="reduce-overhead", unpad=False), False),
        (on("cuda", mode="max-autotune-no-cudagraphs"), False),
    ],
    ids=["packed", "dropout on a CPU", "padded anyway", "bf16 on a GPU", "padded batches", "no CUDA graphs"],
)
def test_what_is_not_slow_is_not_told(monkeypatch, trainer, isolates):
    monkeypatch.setattr(slow, "has_fast_bfloat16", lambda device: False)
    assert slow_choices(trainer, isolates) == []


def test_processor_with_instructions_for_bf16_is_not_told(monkeypatch):
    monkeypatch.setattr(slow, "has_fast_bfloat16", lambda device: True)
    assert slow_choices(on("cpu", bf16=True), False) == []


def test_trainer_has_what_is_looked_at(tmp_path):
    assert slow_choices(training.trainer(tmp_path), True) == []
