"""Fixtures for the tests of the commands: refusals, planted tasks, and a cache that is not the user's."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from transformers import AutoModel

from predrec.eval.encoder import FrozenEncoder

from .. import training
from . import planted


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    """Keeps vectors below the test's own folder."""
    monkeypatch.setenv("PREDREC_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def refusal(capfd) -> Callable[..., str]:
    """Calls a command that is to refuse: exit code 2 and one message without a traceback, which it returns."""

    def call(command: Callable[[list[str]], int], *words: object) -> str:
        capfd.readouterr()
        assert command([*map(str, words)]) == 2
        error = capfd.readouterr().err
        assert "Traceback" not in error and error.count("error: ") == 1
        return error[error.index("error: ") :]

    return call


@pytest.fixture(scope="session")
def text_file(tmp_path_factory) -> str:
    """The path of a text to train on; tests read it and do not change it."""
    path = tmp_path_factory.mktemp("text") / "corpus.txt"
    path.write_text("\n".join(training.corpus()), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory) -> Path:
    """A data directory with all planted tasks; tests read it and do not change it."""
    folder = tmp_path_factory.mktemp("planted")
    for task in planted.TASKS:
        planted.write_task(folder, task)
    return folder


@pytest.fixture(scope="session")
def encoder_dir(tiny_encoder, tmp_path_factory) -> Path:
    """The directory of a tiny encoder; tests read it and do not change it."""
    return tiny_encoder(tmp_path_factory.mktemp("encoders") / "tiny")


@pytest.fixture
def last_norm(tiny_encoder, tmp_path) -> Callable[[float, float], Path]:
    """Writes an encoder with another last LayerNorm: `last_norm(weight, bias)` gives its directory."""

    def write(weight: float, bias: float) -> Path:
        path = tiny_encoder(tmp_path / "changed", "bert")
        model = AutoModel.from_pretrained(path)
        norm = model.encoder.layer[-1].output.LayerNorm
        with torch.no_grad():
            norm.weight.fill_(weight)
            norm.bias.fill_(bias)
        model.save_pretrained(path)
        return path

    return write


@pytest.fixture
def encoded(monkeypatch) -> Iterator[list[int]]:
    """The number of texts in every batch that goes through an encoder."""
    sizes: list[int] = []
    original = FrozenEncoder.states

    def states(self, ids):
        sizes.append(len(ids))
        return original(self, ids)

    monkeypatch.setattr(FrozenEncoder, "states", states)
    return sizes


@pytest.fixture
def no_encoding(monkeypatch) -> Callable[[], None]:
    """From its call on, an encoder that is used is a failure."""

    def forbid() -> None:
        def states(self, ids):
            raise AssertionError("The encoder ran.")

        monkeypatch.setattr(FrozenEncoder, "states", states)

    return forbid
