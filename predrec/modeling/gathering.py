"""What the processes of a data-parallel run know together: sums and rows of all of them, with gradients.

The rule for gradients: every process computes the same number from what was gathered, and the gradient that flows
back to a process's own values is the sum over processes. Data-parallel training divides gradients by the number of
processes, so the parameters end up with the gradient of that number, as if one process held all rows.

Every process must make the same calls in the same order. Without `torch.distributed`, and with one process, all of
this is the identity. Nothing waits for the device.
"""

import torch
import torch.distributed as dist
from torch import Tensor


def process_count() -> int:
    """Returns how many processes train together; 1 without `torch.distributed`."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def process_index() -> int:
    """Returns which of them this is, from 0."""
    return dist.get_rank() if process_count() > 1 else 0


class _Total(torch.autograd.Function):
    """Sum over processes; so is the gradient. `torch.distributed.nn` has the same, but announces its end."""

    @staticmethod
    def forward(ctx, values: Tensor) -> Tensor:
        summed = values.contiguous().clone()
        dist.all_reduce(summed)
        return summed

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        return _Total.apply(grad)


def total(values: Tensor) -> Tensor:
    """Returns the sum over processes of tensors of one shape, with gradient."""
    return values if process_count() == 1 else _Total.apply(values)


def own_part(values: Tensor) -> Tensor:
    """Returns this process's shard of a sharded tensor (`DTensor`), and other tensors as they are."""
    return values.to_local() if hasattr(values, "to_local") else values


class SpreadRows:
    """At most `most` rows, evenly spread over those that a mask keeps, on this process or on all of them.

    Which rows are chosen depends on all processes, so the numbers are tensors, and shapes do not depend on them.

    Args:
        mask (`torch.BoolTensor` of shape `(num_rows,)`): The rows of this process that count.
        most (`int`): How many rows to choose at most, over all processes.
        over_processes (`bool`): Choose from the rows of all processes; they count as lying one after the other.

    Attributes:
        places (`torch.LongTensor` of shape `(min(num_rows, most),)`): Chosen rows of this process.
        chosen (`torch.BoolTensor`, same shape): Which entries of `places` mean something; the first ones.
        count (`torch.LongTensor` of shape `()`): How many rows are chosen over all processes.
    """

    def __init__(self, mask: Tensor, most: int, over_processes: bool):
        self.most, self.over_processes = most, over_processes and process_count() > 1
        kept_before = mask.cumsum(0)
        own = mask.sum()
        first, everywhere = self._position(own) if self.over_processes else (torch.zeros_like(own), own)
        self.count = everywhere.clamp(max=most)
        divisor = self.count.clamp(min=1)
        # Number i of the chosen is row `i * everywhere // count`; this process has those from `first` on.
        begin, end = (-(-row * self.count // everywhere.clamp(min=1)) for row in (first, first + own))
        entries = torch.arange(min(len(mask), most), device=mask.device)
        self.chosen = entries < end - begin
        self.numbers = torch.where(self.chosen, begin + entries, 0)
        rows = self.numbers * everywhere // divisor - first
        self.places = torch.where(self.chosen, torch.searchsorted(kept_before, rows + 1), 0)

    @staticmethod
    def _position(own: Tensor) -> tuple[Tensor, Tensor]:
        """Returns how many rows the processes before this one have, and how many all have, each of shape `()`."""
        counts = own.new_zeros(process_count())
        counts[process_index()] = own
        counts = total(counts)
        return counts[: process_index()].sum(), counts.sum()

    def gather(self, values: Tensor) -> Tensor:
        """Returns the values, of shape `(num_rows, ...)`, of all chosen rows.

        With several processes their shape is `(most, ...)`, with one `(min(num_rows, most), ...)`; the first `count`
        rows mean something.
        """
        picked = values[self.places]
        if not self.over_processes:
            return picked
        picked = picked * self.chosen.view(-1, *[1] * (values.ndim - 1)).to(values.dtype)
        return total(picked.new_zeros(self.most, *values.shape[1:]).index_add(0, self.numbers, picked))
