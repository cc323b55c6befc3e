"""Going on in the middle of a stream: its place is saved with checkpoints, so that nothing is read to be skipped."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset
from transformers import TrainerCallback, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from ..data_collators.streamed_rows import StreamedRows, StreamPlace

STREAM_FILE = "stream.json"


class StreamEpochCallback(TrainerCallback):
    """Counts epochs of a stream, which has no length, by its share of `max_steps`, after a resume as before."""

    def on_step_end(self, args, state, control, **kwargs):
        state.epoch = state.global_step / state.max_steps


def take_place(batches: Sequence[dict[str, Any]]) -> StreamPlace | None:
    """Takes out of the batches of an update what is not for the model; returns the place of the last row."""
    places = [batch.pop("place", None) for batch in batches]
    return places[-1] if places else None


def save_place(folder: Path, place: StreamPlace | None, args: TrainingArguments) -> None:
    """Writes where the stream goes on, for all processes; nothing if there is no stream."""
    if place is not None:
        # The processes share the rows of an update in turn: those of the ones behind this one were read, too.
        behind = args.world_size - 1 - args.process_index
        rows = place.number + 1 + behind * args.per_device_train_batch_size
        (folder / STREAM_FILE).write_text(json.dumps(place.state(rows)), encoding="utf-8")


@contextmanager
def gone_on(rows: Dataset, args: TrainingArguments, checkpoint: str | bool | None) -> Iterator[None]:
    """Makes a stream begin where a checkpoint was written, and keeps the Trainer from skipping batches, too.

    Checkpoints without a place, of older versions, leave that to the Trainer: it reads everything again.
    """
    if not isinstance(rows, StreamedRows):
        yield
        return
    checkpoint = get_last_checkpoint(args.output_dir) if checkpoint is True else checkpoint
    path, skips_nothing = Path(checkpoint or "") / STREAM_FILE, args.ignore_data_skip
    known = bool(checkpoint) and path.is_file() and not skips_nothing
    rows.go_on_from(json.loads(path.read_text(encoding="utf-8")) if known else None)
    args.ignore_data_skip = skips_nothing or known
    try:
        yield
    finally:
        args.ignore_data_skip = skips_nothing
