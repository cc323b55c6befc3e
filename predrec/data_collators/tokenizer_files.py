"""A tokenizer's files, looked at before they are loaded: loading takes a hundred times their size."""

import os
from pathlib import Path

from transformers.utils import cached_file

from ..errors import UserError

MAX_BYTES = 2**27
"""Largest file of a tokenizer: the largest published ones have half of it."""

MAX_ENTRIES = 5_000_000
"""Most strings or lines in one: a vocabulary of two million, and its merges."""

PATTERNS = ("tokenizer*.json", "special_tokens_map.json", "added_tokens.json", "vocab*", "merges*.txt", "*.model")
"""Files that a tokenizer is loaded from."""

ON_THE_HUB = ("tokenizer.json", "vocab.json", "vocab.txt")
"""Of these, those that hold a vocabulary."""


def check_tokenizer_files(name: str | Path) -> None:
    """Refuses files that would fill the memory; raises [`UserError`].

    Args:
        name (`str`): Hub id or directory.
    """
    for path in _files(name):
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise UserError(
                f"`tokenizer_name`: {str(path)!r} has {size >> 20:,} MiB; at most {MAX_BYTES >> 20} are read. A "
                "tokenizer of two million tokens has less: look at what is in it."
            )
        entries = _entries(path)
        if entries > MAX_ENTRIES:
            raise UserError(
                f"`tokenizer_name`: {str(path)!r} has {entries:,} entries; at most {MAX_ENTRIES:,} are read. Train a "
                "tokenizer with a smaller vocabulary."
            )


def _files(name: str | Path) -> list[Path]:
    if os.path.isdir(name):
        return sorted({path for pattern in PATTERNS for path in Path(name).glob(pattern) if path.is_file()})
    quiet = dict.fromkeys(("missing_entries", "connection_errors", "gated_repo"), False)
    options = {f"_raise_exceptions_for_{what}": value for what, value in quiet.items()}
    found = [cached_file(str(name), file, **options) for file in ON_THE_HUB]
    return [Path(path) for path in found if path]


def _entries(path: Path) -> int:
    """Returns the number of strings in a JSON file, or of lines in another one, without reading it as such."""
    sign, per_entry = (b'"', 2) if path.suffix == ".json" else (b"\n", 1)
    with path.open("rb") as file:
        return sum(chunk.count(sign) for chunk in iter(lambda: file.read(2**20), b"")) // per_entry
