"""Rows of token ids: documents packed without padding, or one document per row."""

import hashlib
from collections.abc import Iterable, Iterator
from functools import partial

import datasets
import numpy as np
import pyarrow.compute as pc
import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from ..errors import UserError
from .documents import cut
from .tokenizers import separator_id, start_id

AT_ONCE = 2**19
"""Characters that are tokenized at once, about: the tokenizer needs some hundred bytes for each while it works."""

SAMPLE = 2**18
"""Tokens from the beginning of the corpus that tell whether the tokenizer is of its language."""

READ_AT_ONCE = 2**24
"""Bytes of documents that are read at once, at most."""


def tokenize_texts(texts: list[str], tokenizer: PreTrainedTokenizerBase, dtype: str) -> dict[str, list[np.ndarray]]:
    """Tokenizes documents; each ends with the separator. Special tokens written out in a text are plain text.

    A document that is too long counts as several; see [`cut`].

    Raises:
        UserError: If the tokenizer fails.
    """
    end, documents = separator_id(tokenizer), []
    for some in _groups(piece for text in texts for piece in cut(text)):
        try:
            encoded = tokenizer(
                some,
                add_special_tokens=False,
                split_special_tokens=True,
                return_attention_mask=False,
                return_token_type_ids=False,
                verbose=False,
            )["input_ids"]
            documents += [np.array([*ids, end], dtype=dtype) for ids in encoded if ids]
        # Tokenizers raise nothing more special, and what they raise is decided by their file.
        except Exception as error:
            raise UserError(
                f"`tokenizer_name`: the tokenizer fails on the corpus: {error}. Use another one."
            ) from error
    return {"input_ids": documents}


def _groups(texts: Iterable[str]) -> Iterator[list[str]]:
    """Gives texts in groups of about [`AT_ONCE`] characters."""
    group, size = [], 0
    for text in texts:
        group.append(text)
        size += len(text)
        if size >= AT_ONCE:
            yield group
            group, size = [], 0
    if group:
        yield group


def _documents_at_once(dataset: Dataset) -> int:
    """Returns how many documents may be read at once: a thousand, fewer if the longest one is long."""
    lengths = (pc.max(pc.binary_length(chunk)).as_py() or 0 for chunk in dataset.data.column("text").chunks)
    return max(1, min(1000, READ_AT_ONCE // max(1, max(lengths, default=1))))


def tokenize_documents(dataset: Dataset, tokenizer: PreTrainedTokenizerBase, num_proc: int | None = None) -> Dataset:
    """Tokenizes every document once, in order, into a memory-mapped column `input_ids` that is cached on disk.

    Args:
        dataset (`Dataset`): Documents in a column `text`.
        tokenizer ([`PreTrainedTokenizerBase`]): Its separator ends every document.
        num_proc (`int`, *optional*): Processes; the result does not depend on it.

    Raises:
        UserError: If the tokenizer fails, or knows none of the corpus's words.
    """
    dtype = "uint16" if len(tokenizer) <= 2**16 else "int32"
    tokenized = dataset.map(
        partial(tokenize_texts, tokenizer=tokenizer, dtype=dtype),
        batched=True,
        batch_size=_documents_at_once(dataset),
        input_columns="text",
        remove_columns=dataset.column_names,
        features=datasets.Features({"input_ids": datasets.List(datasets.Value(dtype))}),
        num_proc=num_proc if num_proc and num_proc > 1 and len(dataset) > num_proc else None,
        desc="Tokenizing",
    )
    _check_known(tokenized, tokenizer)
    return tokenized


def _check_known(tokenized: Dataset, tokenizer: PreTrainedTokenizerBase) -> None:
    if not len(tokenized):
        raise UserError("`train_file`: the corpus has no tokens: the tokenizer drops all of its characters.")
    if tokenizer.unk_token_id is None:
        return
    sample = TokenStream(tokenized).read(0, SAMPLE)
    words = sample[sample != separator_id(tokenizer)]
    if (words == tokenizer.unk_token_id).all():
        raise UserError(
            "`tokenizer_name`: the tokenizer knows none of the corpus's word pieces, every token is "
            f"{tokenizer.unk_token}: choose one for this language, or train one with `--train_tokenizer`."
        )


def row_prefix(tokenizer: PreTrainedTokenizerBase) -> np.ndarray:
    """Returns the token that begins a row, `(1,)`, or `(0,)` if the tokenizer has none."""
    start = start_id(tokenizer)
    return np.array([] if start is None else [start], dtype=np.int64)


class TokenStream:
    """All tokens of all documents as one array, read from the mapped file without copying it.

    Args:
        tokenized (`Dataset`): From [`tokenize_documents`].
    """

    def __init__(self, tokenized: Dataset):
        # A shuffled or filtered view would be read through its indices; the stream reads the column itself.
        self.tokenized = tokenized.flatten_indices() if tokenized._indices is not None else tokenized
        self._chunks: list[np.ndarray] | None = None
        self._starts = np.cumsum([0] + [len(chunk) for chunk in self.chunks])

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_chunks": None}

    @property
    def _lists(self) -> list:
        return self.tokenized.data.column("input_ids").chunks

    @property
    def chunks(self) -> list[np.ndarray]:
        """Views of the file's pieces, in order."""
        if self._chunks is None:
            self._chunks = [piece.flatten().to_numpy(zero_copy_only=True) for piece in self._lists]
        return self._chunks

    def document_bounds(self) -> np.ndarray:
        """Returns where each document begins, and where the last one ends: `(num_documents + 1,)`."""
        lengths = [piece.value_lengths().to_numpy(zero_copy_only=False) for piece in self._lists]
        return np.concatenate([[0], np.cumsum(np.concatenate(lengths), dtype=np.int64)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def read(self, begin: int, end: int) -> np.ndarray:
        """Returns the tokens from `begin` to before `end`, or to the end of the stream."""
        end, pieces = min(end, len(self)), []
        chunk = int(np.searchsorted(self._starts, begin, side="right")) - 1
        while begin < end:
            base, stop = int(self._starts[chunk]), min(end, int(self._starts[chunk + 1]))
            pieces.append(self.chunks[chunk][begin - base : stop - base])
            begin, chunk = stop, chunk + 1
        return np.concatenate(pieces).astype(np.int64)


class TokenRows(torch.utils.data.Dataset):
    """Rows of token ids, each with its number and the epoch, from which the collator derives its masks.

    Args:
        tokenized (`Dataset`): From [`tokenize_documents`].
        tokenizer ([`PreTrainedTokenizerBase`]): For the token that begins a row.
        max_seq_length (`int`): Most tokens in a row.
    """

    def __init__(self, tokenized: Dataset, tokenizer: PreTrainedTokenizerBase, max_seq_length: int):
        self.stream, self.max_seq_length = TokenStream(tokenized), max_seq_length
        self._prefix = row_prefix(tokenizer)
        self._content = max_seq_length - len(self._prefix)
        if len(self.stream) and self.stream.read(0, 1).tolist() == self._prefix.tolist():
            raise ValueError(
                "`tokenized` has special tokens: use `tokenize_documents`, or give it to the Trainer as it is, whose "
                "rows then are these."
            )
        # Shared memory, so that worker processes that are already running see the new epoch.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def set_epoch(self, epoch: int) -> None:
        """Tells the masks which epoch it is."""
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        raise NotImplementedError

    def content(self, index: int) -> np.ndarray:
        """Returns a row without the token that begins it."""
        raise NotImplementedError

    def row(self, index: int) -> np.ndarray:
        """Returns the token ids of a row, `(at most max_seq_length,)`."""
        return np.concatenate([self._prefix, self.content(index)])

    def fingerprint(self, num_rows: int = 256) -> str:
        """Returns a digest of the number of rows and of evenly spread rows, to recognise the data by."""
        digest = hashlib.sha256(str(len(self)).encode())
        for index in np.linspace(0, len(self) - 1, min(num_rows, len(self))).astype(int):
            digest.update(self.row(int(index)).tobytes())
        return digest.hexdigest()

    def __getitem__(self, index: int) -> dict:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return {"input_ids": self.row(index), "example_ids": index, "epoch": int(self._epoch)}


class PackedRows(TokenRows):
    """Documents end to end, cut into full rows: nothing is padded.

    Every row begins with the start token; the separator ends every document, wherever in a row that is. What is left
    over after the last full row is dropped, unless it is all there is.
    """

    def __len__(self) -> int:
        return max(1, len(self.stream) // self._content)

    def content(self, index: int) -> np.ndarray:
        return self.stream.read(index * self._content, (index + 1) * self._content)


class IsolatedRows(TokenRows):
    """Rows as full as [`PackedRows`] whose documents do not see one another: each begins with the start token.

    A document that is cut by the end of a row goes on in the next one, as a document of its own. A row may be shorter
    than `max_seq_length` by a token or two, where a document begins or ends with it.
    """

    def __init__(self, tokenized: Dataset, tokenizer: PreTrainedTokenizerBase, max_seq_length: int):
        super().__init__(tokenized, tokenizer, max_seq_length)
        self._bounds = self.stream.document_bounds()
        # Where each document would begin if the start tokens were in the stream.
        self._begins = self._bounds + len(self._prefix) * np.arange(len(self._bounds))

    def __len__(self) -> int:
        return max(1, int(self._begins[-1]) // self._content)

    def documents(self, index: int) -> list[np.ndarray]:
        """Returns the documents of a row, each with the token that begins it."""
        begin, end = index * self._content, (index + 1) * self._content
        number, prefix, found = int(np.searchsorted(self._begins, begin, side="right")) - 1, len(self._prefix), []
        while number < len(self._bounds) - 1 and self._begins[number] < end:
            offset, start = int(self._bounds[number]), int(self._begins[number]) + prefix
            first, last = max(begin - start, 0), min(end, int(self._begins[number + 1])) - start
            if last > first:
                found.append(np.concatenate([self._prefix, self.stream.read(offset + first, offset + last)]))
            number += 1
        return found

    def row(self, index: int) -> np.ndarray:
        return np.concatenate(self.documents(index))

    def __getitem__(self, index: int) -> dict:
        found = super().__getitem__(index)
        return found | {"document_lengths": [len(document) for document in self.documents(index)]}


class DocumentRows(TokenRows):
    """One document per row, cut after `max_seq_length` tokens; the collator pads."""

    def __init__(self, tokenized: Dataset, tokenizer: PreTrainedTokenizerBase, max_seq_length: int):
        super().__init__(tokenized, tokenizer, max_seq_length)
        self._bounds = self.stream.document_bounds()

    def __len__(self) -> int:
        return len(self._bounds) - 1

    def content(self, index: int) -> np.ndarray:
        begin, end = int(self._bounds[index]), int(self._bounds[index + 1])
        kept = self.stream.read(begin, min(end, begin + self._content))
        kept[-1] = self.stream.read(end - 1, end)[0]  # The separator ends a cut document, too.
        return kept
