"""Evaluation tasks: one row per task, and the reading of its splits."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, DatasetDict, load_dataset

from ..configuration.suggestions import did_you_mean
from ..errors import UserError

HUB_GLUE = "nyu-mll/glue"


@dataclass(frozen=True)
class Task:
    """One row of the table of tasks.

    Args:
        name (`str`): As on the command line.
        columns (`tuple[str, ...]`): One text column, or the two of a pair.
        label (`str`, defaults to `"label"`): Column of the label.
        num_labels (`int`): Number of classes; 0 for a score, which lies in `label_range`.
        metric (`str`): The task's headline metric, a key of what its metric module returns.
        num_epochs (`int`): Epochs of a linear probe: the paper's where it names them.
        reference_batch_size (`int`): Batch size of the author's code.
        config (`str`, *optional*): Name on the Hub and in a data directory, when it is not `name`.
        train_splits, eval_split: Names of the splits. Every training split that is there is used.
        label_range (`tuple[float, float]`): Of a score.
        hub_id (`str`): Data set on the Hub.
        full_train_size, full_eval_size (`int`): Rows of the whole splits; fewer are marked as not comparable.
    """

    name: str
    columns: tuple[str, ...]
    num_labels: int
    metric: str
    num_epochs: int = 0
    reference_batch_size: int = 32
    config: str = ""
    train_splits: tuple[str, ...] = ("train",)
    eval_split: str = "validation"
    label: str = "label"
    label_range: tuple[float, float] = (0.0, 5.0)
    hub_id: str = HUB_GLUE
    full_train_size: int = 0
    full_eval_size: int = 0

    @property
    def folder(self) -> str:
        """Name of the data set's configuration on the Hub, and of its folder in a data directory."""
        return self.config or self.name

    @property
    def is_regression(self) -> bool:
        return self.num_labels == 0


PAIR = ("sentence1", "sentence2")
NLI = ("premise", "hypothesis")
MNLI_TRAIN = ("train", "train_no_periods")

_GLUE = (
    Task("sst2", ("sentence",), 2, "accuracy", num_epochs=90, full_train_size=67_349, full_eval_size=872),
    Task("mrpc", PAIR, 2, "f1", num_epochs=10, full_train_size=3_668, full_eval_size=408),
    Task(
        "mnli",
        NLI,
        3,
        "accuracy",
        15,
        128,
        "",
        MNLI_TRAIN,
        "validation_matched",
        full_train_size=392_702,
        full_eval_size=9_815,
    ),
    Task(
        "mnli_mismatched",
        NLI,
        3,
        "accuracy",
        15,
        128,
        "mnli",
        MNLI_TRAIN,
        "validation_mismatched",
        full_train_size=392_702,
        full_eval_size=9_832,
    ),
    Task("cola", ("sentence",), 2, "matthews_correlation", num_epochs=90, full_train_size=8_551, full_eval_size=1_043),
    Task(
        "stsb",
        PAIR,
        0,
        "spearmanr",
        num_epochs=15,
        reference_batch_size=128,
        full_train_size=5_749,
        full_eval_size=1_500,
    ),
    Task("qqp", ("question1", "question2"), 2, "f1", num_epochs=10, full_train_size=363_846, full_eval_size=40_430),
    Task("rte", PAIR, 2, "accuracy", num_epochs=90, full_train_size=2_490, full_eval_size=277),
    Task(
        "qnli", ("question", "sentence"), 2, "accuracy", num_epochs=15, full_train_size=104_743, full_eval_size=5_463
    ),
)
TASKS = {task.name: task for task in _GLUE}
"""GLUE. Epochs of SST-2, MRPC, MNLI and STS-B are the paper's; the others, ours, follow the task most alike."""


PAPER_TASKS = ("sst2", "mrpc", "mnli", "cola", "stsb")


def _sts(name: str, hub_id: str, split: str = "test") -> Task:
    return Task(name, PAIR, 0, "spearmanr", eval_split=split, label="score", hub_id=hub_id)


_STS = (
    Task("stsb", PAIR, 0, "spearmanr", hub_id=HUB_GLUE),
    *(_sts(f"sts{year}", f"mteb/sts{year}-sts") for year in range(12, 17)),
    Task(
        "sickr",
        PAIR,
        0,
        "spearmanr",
        eval_split="test",
        label="score",
        label_range=(1.0, 5.0),
        hub_id="mteb/sickr-sts",
    ),
)
STS_TASKS = {task.name: task for task in _STS}
"""Semantic textual similarity, by cosine alone. STS-B is evaluated on GLUE's validation split, which has labels."""


@dataclass(frozen=True)
class Split:
    """Texts with their labels.

    Args:
        texts (`tuple[list[str], ...]`): One list per text column, all of the same length.
        labels (`np.ndarray` of shape `(num_rows,)`): Class (int64) or score (float64).
        groups (`list[str]`, *optional*): Part of the data set that each row comes from, where the data say so.
        development (`bool`): These are training rows that were held out for choices.
    """

    texts: tuple[list[str], ...]
    labels: np.ndarray
    groups: list[str] = field(default_factory=list)
    development: bool = False

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def fingerprint(self) -> str:
        """A name for the texts, their order and their labels."""
        content = json.dumps([self.texts, self.labels.tolist()])
        return hashlib.blake2b(content.encode(), digest_size=8).hexdigest()


def mean_metric(name: str) -> str:
    """Returns the metric by which a task goes into means over tasks.

    Of MRPC accuracy: two thirds of its rows have one label, so that who always says that has a binary F1 of 0.81.
    """
    return "accuracy" if name == "mrpc" else TASKS[name].metric


def find_task(name: str, table: dict[str, Task] = TASKS) -> Task:
    """Returns a row of the table.

    Raises:
        UserError: With the nearest name.
    """
    if name not in table:
        raise UserError(f"Unknown task `{name}`{did_you_mean(name, list(table))} Known: {', '.join(table)}.")
    return table[name]


def load_splits(
    task: Task,
    data_dir: str | Path | None = None,
    train: bool = True,
    max_train_samples: int | None = None,
    max_eval_samples: int | None = None,
) -> tuple[Split | None, Split]:
    """Reads and checks the training split, if asked for, and the evaluation split.

    Args:
        task (`Task`): Which.
        data_dir (`str`, *optional*):
            Folder with `<task>/<split>.parquet` (or `.jsonl`, `.csv`) in the Hub's columns. The Hub when absent.
        train (`bool`, defaults to `True`): Read the training split, too.
        max_train_samples, max_eval_samples (`int`, *optional*): Use only the first rows.

    Raises:
        UserError: If a split, a column or a label is missing, or a label is out of range.
    """
    evaluation = _read(task, data_dir, (task.eval_split,), needed="evaluated on")
    training = _read(task, data_dir, task.train_splits, needed="trained on") if train else None
    if training is not None:
        training = _head(training, max_train_samples)
    return training, _head(evaluation, max_eval_samples)


def _head(split: Split, count: int | None) -> Split:
    if count is None:
        return split
    if count < 1:
        raise UserError("`max_train_samples` and `max_eval_samples` must be at least 1.")
    return Split(tuple(column[:count] for column in split.texts), split.labels[:count], split.groups[:count])


def load_development(
    task: Task, data_dir: str | Path | None, share: float, max_train_samples: int | None = None
) -> tuple[Split, Split]:
    """Reads the training split and holds some of its rows out, for choices: the evaluation split is not touched.

    Which rows depends on their number alone. Rows that belong together in the data set (phrases of one sentence in
    SST-2, hypotheses of one premise in MNLI) may fall on both sides: scores are higher than on the evaluation split.

    Args:
        task (`Task`), data_dir (`str`, *optional*), max_train_samples (`int`, *optional*): As for [`load_splits`].
        share (`float`): Of the rows, to be held out.

    Returns:
        The other rows, and those that were held out, in the order of the file.

    Raises:
        UserError: As [`load_splits`], and if either part would be empty.
    """
    rows = _head(_read(task, data_dir, task.train_splits, needed="trained on"), max_train_samples)
    count = round(share * len(rows))
    if not 0 < count < len(rows):
        raise UserError(f"`{task.name}`: `validation_share` {share:g} of {len(rows)} rows leaves a part empty.")
    held = np.zeros(len(rows), dtype=bool)
    held[np.random.default_rng(0).permutation(len(rows))[:count]] = True
    return _rows(rows, ~held), replace(_rows(rows, held), development=True)


def _rows(split: Split, chosen: np.ndarray) -> Split:
    indices = np.flatnonzero(chosen)
    texts = tuple([column[i] for i in indices] for column in split.texts)
    return Split(texts, split.labels[indices], [split.groups[i] for i in indices] if split.groups else [])


_BUILDERS = {".parquet": "parquet", ".jsonl": "json", ".json": "json", ".csv": "csv"}


def _read(task: Task, data_dir: str | Path | None, splits: Iterable[str], needed: str) -> Split:
    """Reads the splits that are there, one after the other; at least the first must be."""
    splits = tuple(splits)
    found = _from_hub(task, splits) if data_dir is None else _from_folder(task, Path(data_dir), splits)
    if splits[0] not in found:
        where = f"{task.hub_id} on the Hub" if data_dir is None else str(Path(data_dir) / task.folder)
        raise UserError(f"`{task.name}` has no `{splits[0]}` split in {where}, so it cannot be {needed}.")
    parts = [_checked(task, name, found[name]) for name in splits if name in found]
    return Split(
        tuple([text for part in parts for text in part.texts[i]] for i in range(len(task.columns))),
        np.concatenate([part.labels for part in parts]),
        [group for part in parts for group in part.groups],
    )


def _from_folder(task: Task, data_dir: Path, splits: tuple[str, ...]) -> dict[str, Dataset]:
    folder = data_dir / task.folder
    if not folder.is_dir():
        raise UserError(f"`data_dir`: there is no folder {str(folder)!r} for the task `{task.name}`.")
    found = {}
    for split in splits:
        for suffix, builder in _BUILDERS.items():
            path = folder / f"{split}{suffix}"
            if path.is_file():
                options = {"keep_default_na": False} if builder == "csv" else {}
                try:
                    found[split] = load_dataset(builder, data_files=str(path), split="train", **options)
                except Exception as error:  # Whatever the reader of the format raises.
                    if "corresponds to no data" in str(error):
                        raise UserError(f"`{task.name}`, split `{split}` has no rows.") from error
                    raise UserError(f"`data_dir`: cannot read {str(path)!r}: {error}") from error
                break
    return found


def _from_hub(task: Task, splits: tuple[str, ...]) -> dict[str, Dataset]:
    try:
        data: Any = load_dataset(task.hub_id, task.folder) if task.hub_id == HUB_GLUE else load_dataset(task.hub_id)
    except (OSError, ValueError) as error:
        raise UserError(
            f"Cannot load `{task.name}` from {task.hub_id} on the Hub: {error}. Give local files with `data_dir`."
        ) from error
    return {split: data[split] for split in splits if isinstance(data, DatasetDict) and split in data}


def _checked(task: Task, split: str, data: Dataset) -> Split:
    """Checks columns, texts and labels of one split."""
    label = task.label if task.label in data.column_names else "label" if task.is_regression else task.label
    if task.is_regression and label not in data.column_names and "score" in data.column_names:
        label = "score"
    missing = [name for name in (*task.columns, label) if name not in data.column_names]
    if missing:
        raise UserError(
            f"`{task.name}`, split `{split}`: no column {', '.join(map(repr, missing))}; it has "
            f"{', '.join(map(repr, data.column_names))}."
        )
    if not len(data):
        raise UserError(f"`{task.name}`, split `{split}` has no rows.")
    texts = tuple(list(data[column]) for column in task.columns)
    for column, values in zip(task.columns, texts, strict=True):
        for row, value in enumerate(values):
            if not isinstance(value, str):
                raise UserError(f"`{task.name}`, split `{split}`, row {row}: `{column}` is {value!r}, not a text.")
    groups = list(data["genre"]) if "genre" in data.column_names and task.name in STS_TASKS else []
    return Split(texts, _labels(task, split, list(data[label])), groups)


def _labels(task: Task, split: str, values: list[Any]) -> np.ndarray:
    low, high = task.label_range if task.is_regression else (0, task.num_labels - 1)
    for row, value in enumerate(values):
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or not low <= value <= high or (not task.is_regression and value != int(value)):
            unlabelled = " The Hub marks rows without a published label with -1." if value == -1 else ""
            raise UserError(
                f"`{task.name}`, split `{split}`, row {row}: the label is {value!r}; it must be "
                f"{'a number' if task.is_regression else 'a whole number'} from {low:g} to {high:g}.{unlabelled}"
            )
    return np.asarray(values, dtype=np.float64 if task.is_regression else np.int64)


__all__ = ["PAPER_TASKS", "STS_TASKS", "TASKS", "Split", "Task", "find_task", "load_development", "load_splits"]
