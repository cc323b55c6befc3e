"""What a bad input is: how it is made, what it is given to, and what the error must say."""

import shutil
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

from predrec.commands.pretrain import main
from predrec.data_collators import DataCollatorForPreTraining
from tests import training
from tests.commands.test_pretrain import TINY
from tests.warm import run_script

RAN = "it-ran"
"""A file that hostile code writes into its folder, if it is ever run."""

OWN_TOKENIZER = ("--train_tokenizer", "--vocab_size", "120")
GIVEN_TOKENIZER = tuple(word for word in TINY if word not in OWN_TOKENIZER)
"""The tiny run's arguments without a tokenizer."""

SIZES = ("--hidden_size", "--num_hidden_layers", "--num_attention_heads", "--intermediate_size")
INIT = tuple(
    word for name, word in zip(("", *GIVEN_TOKENIZER), GIVEN_TOKENIZER, strict=False) if not {name, word} & set(SIZES)
)
"""The same without the encoder's sizes."""


@dataclass(frozen=True)
class Made:
    """What cases are made of, in folders that are copied, never changed.

    Args:
        run (`Path`): A finished tiny run with checkpoints 2 and 4.
        encoder (`Path`): A tiny BERT with its head and tokenizer.
    """

    run: Path
    encoder: Path

    def copy(self, what: str, to: Path) -> Path:
        """Copies `run` or `encoder` into a folder."""
        return Path(shutil.copytree(getattr(self, what), to))


def tiny(*words: str) -> list[str]:
    """Returns the words of a tiny run on `corpus.txt`, which is there; those given come last and win."""
    return ["--train_file", "corpus.txt", "--output_dir", "run", *TINY, *words]


@dataclass(frozen=True)
class Case:
    """An input to the command, called in this process.

    Args:
        name (`str`): What is wrong.
        arrange (`Callable`): Makes files in a folder, which is the current one, and returns the command's words.
        parts (`tuple[str, ...]`): What the error says: the field, the value, what to do.
    """

    name: str
    arrange: Callable[[Path, Made], list[str]]
    parts: tuple[str, ...]

    def refusal(self, folder: Path, words: list[str]) -> str:
        """Gives the command the input and returns its error, of which there must be one, on one line."""
        err = StringIO()
        with redirect_stdout(StringIO()), redirect_stderr(err):
            code = main(words)
        return one_error(code, err.getvalue())


@dataclass(frozen=True)
class ProcessCase(Case):
    """An input to the real command line: `python scripts/pretrain.py`."""

    def refusal(self, folder: Path, words: list[str]) -> str:
        done = run_script("pretrain.py", *words, cwd=folder)
        return one_error(done.returncode, done.stderr)


@dataclass(frozen=True)
class CollatorCase(Case):
    """An input to the collator.

    Args:
        features (`Any`): The batch.
        options (`dict`): Arguments of the collator.
    """

    arrange: Callable[[Path, Made], list[str]] = field(default=lambda folder, made: [], repr=False)
    parts: tuple[str, ...] = ()
    features: Any = ()
    options: dict[str, Any] = field(default_factory=dict)

    def refusal(self, folder: Path, words: list[str]) -> str:
        try:
            DataCollatorForPreTraining(training.tokenizer(), **self.options)(self.features)
        except ValueError as error:
            return str(error)
        raise AssertionError("The collator took it.")


def one_error(code: int, stderr: str) -> str:
    """Returns the one error of a command that refuses its input."""
    assert code == 2, stderr[-3000:]
    assert "Traceback" not in stderr, stderr[-3000:]
    lines = [line for line in stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, stderr[-3000:]
    return lines[0]


def given(*words: str) -> Callable[[Path, Made], list[str]]:
    """A tiny run with these words beside."""
    return partial(_given, words)


def _given(words: tuple[str, ...], folder: Path, made: Made) -> list[str]:
    return tiny(*words)
