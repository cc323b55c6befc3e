"""Rows made while reading, for corpora that are not to be copied to disk, and places in them to go on from."""

import hashlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import datasets
import numpy as np
from torch.utils.data import IterableDataset
from transformers import PreTrainedTokenizerBase

from ..errors import UserError
from .rows import row_prefix, tokenize_texts

READ = 256
"""Documents that are read and tokenized at once. Going on reads as many again, at most."""


@dataclass(frozen=True)
class Anchor:
    """A place between two reads: what reading on from there needs.

    Args:
        rows (`int`): Rows before it, over all passes.
        epoch (`int`): The pass.
        index (`int`): Number of the next row in the pass.
        documents (`dict`, *optional*): State of the documents; that of a pass's beginning if absent.
        pending (`tuple[int, ...]`): Tokens read that do not fill a row yet.
    """

    rows: int = 0
    epoch: int = 0
    index: int = 0
    documents: dict[str, Any] | None = None
    pending: tuple[int, ...] = ()


@dataclass(frozen=True)
class StreamPlace:
    """Where a row is in a stream, and how to recognise it.

    Args:
        anchor ([`Anchor`]): The last one before the row.
        number (`int`): Rows before it, over all passes.
        digest (`str`): Of its tokens.
    """

    anchor: Anchor
    number: int
    digest: str

    def state(self, rows: int) -> dict[str, Any]:
        """Returns what [`StreamedRows.go_on_from`] takes, to go on after so many rows; JSON can hold it."""
        return {"rows": rows, **asdict(self)}


@dataclass
class PlacedCollator:
    """Adds to each batch the [`StreamPlace`] of its last row, as `place`.

    Args:
        collator (`Callable`): Makes the batch.
    """

    collator: Callable[[Sequence[dict[str, Any]]], dict[str, Any]]

    def __call__(self, features: Sequence[dict[str, Any]]) -> dict[str, Any]:
        last = features[-1]
        return self.collator(features) | {
            "place": StreamPlace(last["anchor"], last["number"], row_digest(last["input_ids"]))
        }


def row_digest(row: np.ndarray) -> str:
    """Returns a digest of a row's tokens."""
    return hashlib.sha256(row.astype("<i8").tobytes()).hexdigest()


class StreamedRows(IterableDataset):
    """Rows made while reading, for corpora that are not to be copied to disk; after the last, it begins anew.

    A row's number is its place in the pass, and the pass is its epoch. The loader may have one worker, not several:
    the order of a stream is what makes a run repeatable. A resumed run goes on from the last read before it stopped.

    Args:
        documents (`datasets.IterableDataset`): Documents in a column `text`.
        tokenizer, max_seq_length: See [`TokenRows`].
        packing (`bool`, defaults to `True`): Full rows, or one document per row.

    Raises:
        UserError: While iterating, if a whole pass gives no row, or if what it goes on from was another stream.
    """

    def __init__(
        self,
        documents: datasets.IterableDataset,
        tokenizer: PreTrainedTokenizerBase,
        max_seq_length: int,
        packing: bool = True,
    ):
        self.documents, self.tokenizer = documents, tokenizer
        self.max_seq_length, self.packing = max_seq_length, packing
        self._state: dict[str, Any] | None = None

    def go_on_from(self, state: dict[str, Any] | None) -> None:
        """Makes iterating begin where a [`StreamPlace.state`] says; at the beginning if it is `None`."""
        self._state = state

    def __iter__(self) -> Iterator[dict[str, Any]]:
        if self._state is None:
            yield from self._from(Anchor())
            return
        known = self._state
        for row in self._from(Anchor(**known["anchor"])):
            if row["number"] == known["number"] and row_digest(row["input_ids"]) != known["digest"]:
                raise UserError(
                    f"`train_file`: the stream is not what the run was trained on: row {row['number']} differs. "
                    "Use the same data and tokenizer, or begin in another `--output_dir`."
                )
            if row["number"] >= known["rows"]:
                yield row

    def _from(self, anchor: Anchor) -> Iterator[dict[str, Any]]:
        """Gives rows from an anchor on, pass after pass, without an end."""
        for epoch in itertools.count(anchor.epoch):
            begun, row = anchor, None
            for row in self._pass(begun):
                yield row
            if row is None:
                raise UserError(
                    f"`streaming`: the corpus is empty, or holds less than one row of {self.max_seq_length} tokens."
                )
            anchor = Anchor(rows=row["number"] + 1, epoch=epoch + 1)

    def _pass(self, anchor: Anchor) -> Iterator[dict[str, Any]]:
        """Gives the rows of a pass, each with the anchor before it."""
        number, ahead = anchor.rows, anchor.rows - anchor.index
        pending = np.array(anchor.pending, dtype=np.int64)
        self.documents.load_state_dict(anchor.documents or {})
        for batch in self.documents.iter(batch_size=READ):
            texts = [text for text in batch["text"] if text and text.strip()]
            for tokens in tokenize_texts(texts, self.tokenizer, "int64")["input_ids"] if texts else []:
                rows, pending = self._cut(pending, tokens)
                for row in rows:
                    about = {"example_ids": number - ahead, "epoch": anchor.epoch, "anchor": anchor, "number": number}
                    yield {"input_ids": row, **about}
                    number += 1
            state = self.documents.state_dict()
            anchor = Anchor(number, anchor.epoch, number - ahead, state, tuple(pending.tolist()))

    def _cut(self, pending: np.ndarray, document: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
        """Returns the rows that a document completes, and the tokens that are left over."""
        prefix = row_prefix(self.tokenizer)
        content = self.max_seq_length - len(prefix)
        if not self.packing:
            cut = [prefix, document[: min(content, len(document)) - 1], document[-1:]]
            return [np.concatenate(cut)], pending
        tokens = np.concatenate([pending, document])
        full = len(tokens) // content * content
        return [np.concatenate([prefix, piece]) for piece in tokens[:full].reshape(-1, content)], tokens[full:]
