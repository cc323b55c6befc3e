"""The corpus: documents from files, from the Hub, or from Python's own documentation, as one text column."""

import glob
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import datasets
from datasets import Dataset, IterableDataset

from ..errors import UserError
from .document_files import COMPRESSIONS, read_files
from .python_docs import python_documents

FORMATS = {".txt": "text", ".md": "text", ".json": "json", ".jsonl": "json", ".parquet": "parquet"}
STREAM_HELD_OUT = 500
"""Documents held out of a stream, whose length is not known."""

ARCHIVES = {".zip", ".tar", ".tgz", ".7z", ".rar"}


@dataclass
class Corpus:
    """Training and held-out documents, each a dataset with the single column `text`.

    Args:
        train (`Dataset` or `IterableDataset`): Documents to train on.
        validation (`Dataset`): Held-out documents.
        description (`str`): Where they come from, for the model card.
    """

    train: Dataset | IterableDataset
    validation: Dataset
    description: str


def load_corpus(
    train_file: Sequence[str] = (),
    validation_file: Sequence[str] = (),
    dataset_name: str | None = None,
    dataset_config_name: str | None = None,
    text_column: str = "text",
    sample_by: str = "line",
    streaming: bool = False,
    validation_share: float = 0.02,
    max_validation_documents: int = 2000,
    seed: int = 42,
    max_characters: int | None = None,
) -> Corpus:
    """Loads the documents to train and to evaluate on.

    Without files and without a dataset name, the corpus is the documentation that ships with Python. Without
    validation files and without a validation split, `validation_share` of the documents is held out.

    Args:
        train_file, validation_file (`Sequence[str]`): Paths or globs: txt, jsonl, json, parquet, also compressed.
        dataset_name, dataset_config_name (`str`, *optional*): A dataset on the Hub.
        text_column (`str`, defaults to `"text"`): Where the text is.
        sample_by (`"line"`, `"paragraph"` or `"document"`, defaults to `"line"`): What a document is in a txt file.
        streaming (`bool`, defaults to `False`): Read while training, without a copy on disk.
        validation_share (`float`, defaults to 0.02): Share of documents to hold out when nothing else is given; of a
            stream, whose length is not known, the first 500 are held out, or this share of one of fewer than 1,000.
        max_validation_documents (`int`, defaults to 2000): Most documents to evaluate on.
        seed (`int`, defaults to 42): Chooses the documents to hold out.
        max_characters (`int`, *optional*): How much of every document is used; all of it when absent.

    Raises:
        UserError: If a file or a column is missing, a file cannot be read, or no document has any text.
    """
    if train_file:
        train = load_files("train_file", train_file, text_column, sample_by, streaming)
        description = ", ".join(Path(pattern).name for pattern in train_file)
        validation = None
    elif dataset_name:
        train, validation = _load_from_hub(
            dataset_name, dataset_config_name, text_column, streaming, max_validation_documents
        )
        description = f"{dataset_name} ({dataset_config_name})" if dataset_config_name else dataset_name
    else:
        train, validation = Dataset.from_dict({"text": python_documents()}), None
        description = "the Python language reference and the standard library's docstrings"
    if validation_file:
        validation = load_files("validation_file", validation_file, text_column, sample_by, False)
    if not streaming:
        train = _checked(train, "train_file" if train_file else "dataset_name")
    if validation is None:
        train, validation = _hold_out(train, validation_share, max_validation_documents, seed)
    else:
        validation = _checked(validation, "validation_file" if validation_file else "dataset_name")
        if len(validation) > max_validation_documents:
            validation = validation.shuffle(seed=seed).select(range(max_validation_documents))
    if max_characters:
        train, validation = (beginnings(part, max_characters) for part in (train, validation))
        description += f", the first {max_characters:,} characters of a document"
    return Corpus(train, validation, description)


def beginnings(dataset: Dataset | IterableDataset, max_characters: int) -> Dataset | IterableDataset:
    """Cuts every text after so many characters."""
    return dataset.map(
        lambda texts: {"text": [text[:max_characters] for text in texts]}, input_columns="text", batched=True
    )


def load_files(field: str, patterns: Sequence[str], text_column: str, sample_by: str, streaming: bool):
    """Reads the documents of files, or globs, of one format into the column `text`; errors name the field."""
    paths = [path for pattern in patterns for path in (sorted(glob.glob(pattern, recursive=True)) or [pattern])]
    # Unlike pathlib, os.path takes a name that is too long for one that is not there.
    missing = [path for path in paths if not os.path.isfile(path)]
    if missing and os.path.isdir(missing[0] or "."):
        folder = missing[0] or "."
        raise UserError(f"`{field}`: {missing[0]!r} is a directory: give files, or a glob such as '{folder}/*.txt'.")
    if missing:
        raise UserError(f"`{field}`: {missing[0]!r} does not exist (working directory: {Path.cwd().name}/).")
    formats = {_format(field, path) for path in paths}
    if len(formats) > 1:
        raise UserError(f"`{field}`: the files have different formats ({', '.join(sorted(formats))}); give one.")
    return read_files(field, paths, formats.pop(), streaming, text_column, sample_by)


def _last_suffix(path: str) -> tuple[str, bool]:
    """Returns the suffix of a path, in small letters, and whether another one, of a compression, stands behind it."""
    suffixes = [suffix.lower() for suffix in Path(path).suffixes]
    compressed = False
    while suffixes and suffixes[-1] in COMPRESSIONS:
        suffixes.pop()
        compressed = True
    return suffixes[-1] if suffixes else "", compressed


def kind_of(path: str) -> str | None:
    """Returns what a file or a glob holds by its name, a value of `FORMATS`; `None` for anything else."""
    return FORMATS.get(_last_suffix(path)[0])


def _format(field: str, path: str) -> str:
    last, compressed = _last_suffix(path)
    if last in ARCHIVES:
        raise UserError(f"`{field}`: {path!r} is an archive: unpack it, and give the files.")
    kind = FORMATS.get(last)
    if kind is None:
        raise UserError(f"`{field}`: {path!r} is none of {', '.join(FORMATS)} (optionally compressed).")
    if kind == "parquet" and compressed:
        raise UserError(f"`{field}`: {path!r} is compressed twice, since parquet has its own: decompress it.")
    return kind


def _load_from_hub(name: str, config_name: str | None, text_column: str, streaming: bool, most: int):
    try:
        splits = datasets.load_dataset(name, config_name, streaming=streaming)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise UserError(
            f"`dataset_name`: cannot load {name!r}: {_root(error)}. Check the id, `dataset_config_name` and the "
            "network, or give local files with `train_file`."
        ) from error
    if "train" not in splits:
        raise UserError(f"`dataset_name`: {name!r} has no train split, only {', '.join(splits)}.")
    validation = splits.get("validation")
    if validation is not None and streaming:
        validation = Dataset.from_list(list(validation.take(most)))
    train = _text_only(splits["train"], text_column, "dataset_name")
    return train, validation if validation is None else _text_only(validation, text_column, "dataset_name")


def _text_only(dataset: Dataset | IterableDataset, text_column: str, field: str):
    first = next(iter(dataset), None) if isinstance(dataset, IterableDataset) else None
    columns = dataset.column_names or list(first or {})
    if not columns:
        raise UserError(f"`{field}`: the corpus is empty: there is no document in it.")
    if text_column not in columns:
        raise UserError(
            f"`text_column`: the data of `{field}` has no column {text_column!r}, but {', '.join(map(repr, columns))}."
        )
    if first is not None and not isinstance(first[text_column], str | None):
        raise UserError(f"`text_column`: the column holds {type(first[text_column]).__name__}, not text.")
    dataset = dataset.select_columns([text_column])
    return dataset if text_column == "text" else dataset.rename_column(text_column, "text")


def _checked(dataset: Dataset, field: str) -> Dataset:
    """Returns the documents that are not blank; raises `UserError` if there are none. Of files, no other are read."""
    kinds = dataset.features["text"]
    if getattr(kinds, "dtype", None) not in ("string", "large_string"):
        raise UserError(f"`text_column`: the column holds {kinds}, not text.")
    if not field.endswith("_file"):
        dataset = dataset.filter(
            lambda texts: [bool(text and text.strip()) for text in texts], input_columns="text", batched=True
        )
    if not len(dataset):
        raise UserError(f"`{field}`: the corpus is empty: no document has any text.")
    return dataset


def _hold_out(train, share: float, most: int, seed: int):
    if isinstance(train, IterableDataset):
        held = min(most, STREAM_HELD_OUT)
        train = train.filter(lambda row: bool(row["text"] and row["text"].strip()))
        ahead = list(train.take(2 * held))
        if len(ahead) < 2:
            raise UserError("`streaming`: the corpus is empty, or has only one document with text.")
        if len(ahead) < 2 * held:  # A short stream: hold out a share of it, as of a corpus that is not streamed.
            held = max(1, round(share * len(ahead)))
        return train.skip(held), Dataset.from_list(
            ahead[:held], features=datasets.Features({"text": datasets.Value("string")})
        )
    if len(train) < 2:
        raise UserError(
            "`train_file`: one document is not enough to hold some out for evaluation: give `validation_file`, or "
            "read the file by line or paragraph with `sample_by`."
        )
    size = min(most, max(1, round(share * len(train))))
    split = train.train_test_split(test_size=size, seed=seed)
    return split["train"], split["test"]


def _root(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
