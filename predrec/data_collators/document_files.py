"""Files of documents, copied once into a memory-mapped cache, or read while training; in bounded memory either way."""

import bz2
import gzip
import io
import lzma
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import datasets
import pyarrow as pa

from ..errors import UserError, one_line
from . import json_files, parquet_files, text_files
from .documents import NoColumnError, NotTextError, cut

BATCH = 2**21
"""Characters that are handed over at once, about."""

COMPRESSIONS: dict[str, Callable[[str], BinaryIO]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
"""What a file may be compressed with, by its last suffix."""

NOT_DOCUMENTS = (
    (0, b"PK\x03\x04", "a zip archive: unpack it"),
    (257, b"ustar", "a tar archive: unpack it"),
    (0, b"7z\xbc\xaf", "a 7z archive: unpack it"),
    (0, b"Rar!", "a rar archive: unpack it"),
    (0, b"\x1f\x8b", "compressed by gzip: name it .gz"),
    (0, b"BZh", "compressed by bzip2: name it .bz2"),
    (0, b"\xfd7zXZ", "compressed by xz: name it .xz"),
    (0, b"\x28\xb5\x2f\xfd", "compressed by zstandard: decompress it"),
    (0, b"PAR1", "a parquet file: name it .parquet"),
    (0, b"\xff\xfe", "UTF-16: convert it to UTF-8, as with `iconv -f UTF-16 -t UTF-8`"),
    (0, b"\xfe\xff", "UTF-16: convert it to UTF-8, as with `iconv -f UTF-16 -t UTF-8`"),
)
"""Where which bytes stand in files that hold no text as it is, and what to do with them."""


READER = 1
"""Counts changes of this code that change documents, so that none of an older one are taken from the cache."""


@dataclass
class DocumentFilesConfig(datasets.BuilderConfig):
    """What decides the documents, and so the name of the cache.

    Args:
        paths (`tuple[str, ...]`): Files, as they were given.
        stamps (`tuple`): Of each file, its full path, size and time of change.
        kind (`"text"`, `"json"` or `"parquet"`): Format of all of them.
        text_column (`str`): Where the text is, but in text files.
        sample_by (`str`): What a document is in a text file.
        reader (`int`): [`READER`].
    """

    paths: tuple[str, ...] = ()
    stamps: tuple[tuple[str, int, int], ...] = ()
    kind: str = "text"
    text_column: str = "text"
    sample_by: str = "line"
    reader: int = 0


class DocumentFiles(datasets.ArrowBasedBuilder):
    """Reads files one after the other into a column `text`, without blank documents and without very long ones."""

    BUILDER_CONFIG_CLASS = DocumentFilesConfig
    field = "train_file"
    """The argument that errors name."""

    def _info(self) -> datasets.DatasetInfo:
        return datasets.DatasetInfo(features=datasets.Features({"text": datasets.Value("string")}))

    def _split_generators(self, dl_manager) -> list[datasets.SplitGenerator]:
        return [datasets.SplitGenerator("train", gen_kwargs={"paths": list(self.config.paths)})]

    def _generate_tables(self, paths: list[str]) -> Iterator[tuple[tuple[int, int], pa.Table]]:
        documents, number, size = [], 0, 0
        for text in self._documents(paths):
            documents.append(text)
            size += len(text)
            if size >= BATCH or len(documents) >= 10_000:
                yield (0, number), pa.table({"text": documents})
                documents, number, size = [], number + 1, 0
        if documents:
            yield (0, number), pa.table({"text": documents})

    def _documents(self, paths: list[str]) -> Iterator[str]:
        for path in paths:
            try:
                for text in _documents_of(path, self.config):
                    yield from (piece for piece in cut(text or "") if piece and not piece.isspace())
            except NoColumnError as error:
                raise UserError(f"`text_column`: the data of `{self.field}` {error} ({path!r}).") from error
            except NotTextError as error:
                raise UserError(f"`text_column`: the column holds {error}, not text ({path!r}).") from error
            # What a file holds decides what its reader raises.
            except Exception as error:
                reason = str(error) or type(error).__name__
                raise UserError(f"`{self.field}`: cannot read {path!r} as {self.config.kind}: {reason}.") from error


def read_files(field: str, paths: Sequence[str], kind: str, streaming: bool, text_column: str, sample_by: str):
    """Reads files of one format as a dataset with the column `text`.

    Args:
        field (`str`): The argument that errors name.
        paths (`Sequence[str]`): Files that are there.
        kind (`"text"`, `"json"` or `"parquet"`): Their format.
        streaming (`bool`): Read while training; else copy into the cache first, unless that was done before.
        text_column, sample_by (`str`): See [`DocumentFilesConfig`].

    Returns:
        `datasets.Dataset`, or `datasets.IterableDataset` if `streaming`.

    Raises:
        UserError: If a file cannot be read, or the cache cannot be written. While iterating, if `streaming`.
    """
    stamps = tuple((os.path.realpath(path), os.stat(path).st_size, os.stat(path).st_mtime_ns) for path in paths)
    # The cache is named after what is passed, not after defaults.
    options = {"kind": kind, "text_column": text_column, "sample_by": sample_by, "reader": READER}
    builder = DocumentFiles(paths=tuple(paths), stamps=stamps, **options)
    builder.field = field
    if streaming:
        return builder.as_streaming_dataset(split="train")
    try:
        builder.download_and_prepare()
    except (datasets.exceptions.DatasetsError, OSError) as error:
        raise _explained(error) from error
    if not builder.info.splits["train"].num_examples:
        raise UserError(f"`{field}`: the corpus is empty: no document has any text.")
    return builder.as_dataset(split="train")


def _explained(error: BaseException) -> Exception:
    """Returns the error of a reader that another one wraps, or one about the cache."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, UserError):
            return cause
        error, cause = cause, cause.__cause__
    return UserError(
        f"The cache in {str(datasets.config.HF_DATASETS_CACHE)!r} cannot be written: {one_line(str(error))}."
    )


def _documents_of(path: str, config: DocumentFilesConfig) -> Iterator[str | None]:
    if config.kind == "parquet":
        yield from parquet_files.documents(path, config.text_column)
        return
    with _opened(path) as file:
        _check_text(file)
        if config.kind == "text":
            yield from text_files.documents(file, config.sample_by)
        else:
            yield from json_files.documents(file, config.text_column)


def _opened(path: str) -> BinaryIO:
    """Opens a file, decompressed by what its suffix says."""
    opener = COMPRESSIONS.get(Path(path).suffix.lower())
    return open(path, "rb") if opener is None else io.BufferedReader(opener(path))


def _check_text(file: BinaryIO) -> None:
    """Raises `ValueError` for archives and other files that hold no text as it is; goes back to the beginning."""
    head = file.read(512)
    file.seek(0)
    for begin, magic, what in NOT_DOCUMENTS:
        if head[begin : begin + len(magic)] == magic:
            raise ValueError(f"it is {what}")
