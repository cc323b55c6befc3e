"""One process of each machine prepares data while the others wait, however long it takes."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch.distributed as dist
from transformers import TrainingArguments

PATIENCE = timedelta(days=2)
"""How long the others wait: preparing a large corpus takes hours, and they hear at once of a process that died."""


@contextmanager
def main_process_first(args: TrainingArguments) -> Iterator[None]:
    """Lets the first process of each machine run the block alone; then the others do, and find what it has cached.

    `TrainingArguments.main_process_first` waits in the group that trains: NCCL aborts it, and with it every process,
    when that takes longer than `ddp_timeout`, half an hour. This waits in a group of its own, on the CPU.

    Args:
        args (`TrainingArguments`): Know about the other processes.
    """
    if args.world_size == 1 or not dist.is_initialized():
        yield
        return
    group, first = dist.new_group(backend="gloo", timeout=PATIENCE), args.local_process_index == 0
    try:
        if not first:
            dist.barrier(group=group)
        yield
    finally:
        if first:
            dist.barrier(group=group)
        dist.destroy_process_group(group)
