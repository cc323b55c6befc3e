"""Any dataset of token ids, with what masks are drawn from."""

from collections.abc import Mapping
from typing import Any

import torch
from torch.utils.data import Dataset


class NumberedRows(Dataset):
    """The rows of a dataset, each with its number and the epoch, so that masks differ from epoch to epoch.

    Args:
        rows (`Dataset`): Any with a length whose items have `input_ids`, such as a tokenized `datasets.Dataset`. Items
            that have `example_ids` keep them.
    """

    def __init__(self, rows: Any):
        self.rows = rows
        # Shared memory, so that worker processes that are already running see the new epoch.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def set_epoch(self, epoch: int) -> None:
        """Tells the masks which epoch it is."""
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"example_ids": index, **self.rows[index], "epoch": int(self._epoch)}


def knows_its_epoch(rows: Any) -> Any:
    """Returns the dataset that is told the epoch: this one, or one that it is a view of; `None` if there is none."""
    while rows is not None and not hasattr(rows, "set_epoch"):
        rows = getattr(rows, "dataset", None)
    return rows


def numbered(rows: Any) -> Any:
    """Returns a dataset whose rows have numbers and epochs: the given one if it sees to that, or reads a stream."""
    is_rows = hasattr(rows, "__len__") and not isinstance(rows, Mapping | str)
    return NumberedRows(rows) if is_rows and knows_its_epoch(rows) is None else rows
