"""One process works alone, on data before training or on answers after it, while the others wait, however long."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch.distributed as dist
from transformers import TrainingArguments

PATIENCE = timedelta(days=2)
"""How long the others wait: preparing a large corpus takes hours. Of a process that died they hear at once."""


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
    first = args.local_process_index == 0
    with _patient_group() as group:
        try:
            if not first:
                dist.barrier(group=group)
            yield
        finally:
            if first:
                dist.barrier(group=group)


@contextmanager
def waiting_at_the_end(args: TrainingArguments) -> Iterator[None]:
    """Lets processes leave the block together, as when one of them evaluates alone what all have trained."""
    if args.world_size == 1 or not dist.is_initialized():
        yield
        return
    with _patient_group() as group:
        yield
        dist.barrier(group=group)


@contextmanager
def _patient_group() -> Iterator[dist.ProcessGroup]:
    """A group that all processes make at about the same time: making it does not wait as long."""
    group = dist.new_group(backend="gloo", timeout=PATIENCE)
    try:
        yield group
    finally:
        dist.destroy_process_group(group)
