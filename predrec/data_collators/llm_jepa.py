"""Batches for LLM-JEPA: the generated sequences, and beside them the views, packed or one to a row."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from .view_examples import ViewExample


@dataclass
class DataCollatorForLLMJepa:
    """Pads on the right, whatever the tokenizer's side, and tells padding by the attention mask, never by token id.

    Args:
        pad_id (`int`): Fills up rows.
        views (`bool`, defaults to `True`): Make the views; pure next-token training needs none.
        layout (`"packed"` or `"rows"`, defaults to `"packed"`):
            Many views to a row, positions beginning anew at each; or one view to a row.
        pad_to_length (`int`, *optional*): Length of every row; the longest of the batch when absent.
        mask_eos_like_pad (`bool`, defaults to `False`):
            No label at tokens equal to the padding token, as in the published code: where padding is the stop token,
            the model does not learn to stop.

    The batch has

    - **input_ids**, **attention_mask**, **labels** (`(batch_size, seq_length)`) - the generated sequences; labels are
      -100 where no token is predicted;
    - **view_input_ids**, **view_position_ids** (`(num_rows, row_length)`) - the views; positions that begin again at
      0 begin another view, or padding;
    - **view_attention_mask** (`(num_rows, row_length)`) - in the layout of rows only;
    - **source_index**, **target_index** (`(batch_size,)`) - where the views' readouts are, counted through all rows;
    - **pair_numbers** (`(batch_size,)`) - equal for equal target views;
    - **example_ids** (`(batch_size,)`).
    """

    pad_id: int
    views: bool = True
    layout: Literal["packed", "rows"] = "packed"
    pad_to_length: int | None = None
    mask_eos_like_pad: bool = False

    def __call__(self, items: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        examples: list[ViewExample] = [item["example"] for item in items]
        ids, mask = self._padded([example.input_ids for example in examples])
        labels = ids.masked_fill(~mask, -100)
        for row, example in enumerate(examples):
            labels[row, : example.num_unsupervised] = -100
        if self.mask_eos_like_pad:
            labels = labels.masked_fill(ids == self.pad_id, -100)
        batch = {
            "input_ids": ids,
            "attention_mask": mask.long(),
            "labels": labels,
            "example_ids": torch.tensor([item["example_id"] for item in items]),
        }
        return batch | self.view_batch(examples) if self.views else batch

    def without_views(self) -> "DataCollatorForLLMJepa":
        """Returns the collator for training that does not look at views."""
        return replace(self, views=False)

    def view_batch(self, examples: Sequence[ViewExample]) -> dict[str, Tensor]:
        """Lays out the views of some examples."""
        blocks = [example.source_ids for example in examples] + [example.target_ids for example in examples]
        readouts = np.array(
            [example.source_readout for example in examples] + [example.target_readout for example in examples]
        )
        if self.layout == "rows":
            ids, mask = self._padded(blocks)
            begins = np.arange(len(blocks)) * ids.shape[1]
            positions = torch.arange(ids.shape[1]).expand_as(ids).contiguous()
            batch = {"view_input_ids": ids, "view_position_ids": positions, "view_attention_mask": mask.long()}
        else:
            capacity = max(len(e.source_ids) + len(e.target_ids) for e in examples)
            ids, positions, begins = pack(blocks, capacity, self.pad_id)
            batch = {"view_input_ids": ids, "view_position_ids": positions}
        source, target = torch.from_numpy(begins + readouts).chunk(2)
        numbers = torch.tensor([example.pair_number for example in examples])
        return batch | {"source_index": source, "target_index": target, "pair_numbers": numbers}

    def _padded(self, rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Returns ids and the mask of real tokens, `(num_rows, row_length)`."""
        lengths = torch.tensor([len(row) for row in rows])
        length = max(int(lengths.max()), self.pad_to_length or 0)
        ids = torch.full((len(rows), length), self.pad_id)
        for number, row in enumerate(rows):
            ids[number, : len(row)] = torch.tensor(row)
        return ids, torch.arange(length) < lengths[:, None]


def pack(blocks: Sequence[Sequence[int]], capacity: int, pad_id: int) -> tuple[Tensor, Tensor, np.ndarray]:
    """Puts blocks into rows, the longest first, each into the first row with room.

    Args:
        blocks (sequence of `int` sequences): None is longer than `capacity`.
        capacity (`int`): Tokens in a row.
        pad_id (`int`): Fills up rows.

    Returns:
        Ids and positions, `(num_rows, row_length)`, where a position of 0 begins a block or the padding, and
        `(num_blocks,)` the first token of each block, counted through all rows.
    """
    rows: list[list[int]] = []
    used: list[int] = []
    for number in sorted(range(len(blocks)), key=lambda index: -len(blocks[index])):
        size = len(blocks[number])
        row = next((row for row, filled in enumerate(used) if filled + size <= capacity), len(used))
        if row == len(used):
            rows.append([])
            used.append(0)
        rows[row].append(number)
        used[row] += size
    width = max(used)
    ids = torch.full((len(rows), width), pad_id)
    positions = torch.zeros_like(ids)
    begins = np.zeros(len(blocks), dtype=np.int64)
    for row, members in enumerate(rows):
        column = 0
        for number in members:
            end = column + len(blocks[number])
            ids[row, column:end] = torch.tensor(blocks[number])
            positions[row, column:end] = torch.arange(end - column)
            begins[number] = row * width + column
            column = end
        positions[row, column:] = torch.arange(width - column)
    return ids, positions, begins
