"""What a run will take on the disk, known before it begins."""

import math
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor
from transformers import PreTrainedTokenizerBase
from transformers.trainer_utils import IntervalStrategy, SaveStrategy
from transformers.training_args import OptimizerNames

from ..modeling import PredRecForPreTraining
from .training_args import PredRecTrainingArguments

MOMENTS = {"sgd": 0, "adafactor": 0, "adagrad": 1, "rmsprop": 1, "lion": 1, "paged_lion": 1}
"""Numbers that an optimizer keeps per weight, by the beginning of its name. All others are kinds of Adam."""

PER_TENSOR = 1024
"""Bytes in optimizer.pt beside a weight's moments: their names, their places, a count of steps."""

PER_LOG_LINE, PER_EVALUATION = 700, 1600
"""Bytes in trainer_state.json."""

SMALL_FILES = 40_000
"""Bytes of a checkpoint's configuration, arguments, random states, schedule and checksums."""

CARD_AND_CURVES = 250_000
"""Bytes of the model card, the training curves and the code that goes along with an encoder, about."""


@dataclass(frozen=True)
class DiskEstimate:
    """What the output directory will hold, in bytes.

    Args:
        checkpoint (`int`): A checkpoint.
        checkpoints (`int`): How many there are in the end.
        export (`int`): The trained encoder and what lies beside it.
    """

    checkpoint: int
    checkpoints: int
    export: int

    @property
    def total(self) -> int:
        """What stays."""
        return self.checkpoint * self.checkpoints + self.export

    @property
    def peak(self) -> int:
        """What there is at most: a checkpoint is whole before an old one goes."""
        return self.total + (self.checkpoint if self.checkpoints else 0)

    def describe(self, free: int) -> str:
        """Says it in a line.

        Args:
            free (`int`): Free bytes on the disk.
        """
        kept = f"{self.checkpoints} checkpoint{'s' if self.checkpoints > 1 else ''} of {size(self.checkpoint)}, "
        peak = f"; {size(self.peak)} while a checkpoint is written" if self.checkpoints else ""
        return (
            f"about {size(self.total)}: {kept if self.checkpoints else ''}the encoder of {size(self.export)}{peak}; "
            f"{size(free)} free{', which is TOO LITTLE' if free < self.peak else ''}"
        )


def estimate(
    args: PredRecTrainingArguments, model: PredRecForPreTraining, tokenizer: PreTrainedTokenizerBase, rows: int | None
) -> DiskEstimate:
    """Estimates what a run leaves in its output directory.

    Args:
        args ([`PredRecTrainingArguments`]): Which checkpoints are kept, with which optimizer.
        model ([`PredRecForPreTraining`]): The model; its weights are saved once, however often they are used.
        tokenizer ([`PreTrainedTokenizerBase`]): Saved with every checkpoint.
        rows (`int`, *optional*): Rows of an epoch; unknown for a stream.
    """
    beside, updates = _saved_bytes(tokenizer), total_updates(args, rows)
    evaluations = _times(args.eval_strategy, args.eval_steps, args, updates)
    state = PER_LOG_LINE * _times("steps", args.logging_steps, args, updates) + PER_EVALUATION * evaluations
    checkpoint = _bytes(model.state_dict().values()) + beside + state + SMALL_FILES
    if not args.save_only_model:
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        checkpoint += _moments(args.optim) * _bytes(trained) + PER_TENSOR * len(trained)
    export = _bytes(model.masked_lm.state_dict().values()) + beside + CARD_AND_CURVES
    return DiskEstimate(checkpoint, checkpoints_kept(args, updates, evaluations), export)


def total_updates(args: PredRecTrainingArguments, rows: int | None) -> int:
    """Returns how many updates a run has."""
    if args.max_steps > 0 or rows is None:
        return max(1, args.max_steps)
    batches = math.ceil(rows / (args.per_device_train_batch_size * args.world_size))
    return math.ceil(args.num_train_epochs * math.ceil(batches / args.gradient_accumulation_steps))


def checkpoints_kept(args: PredRecTrainingArguments, updates: int, evaluations: int) -> int:
    """Returns how many checkpoints there are in the end, at most: the best and the newest stay, whatever the limit."""
    if args.save_strategy == SaveStrategy.NO:
        return 0
    best = args.metric_for_best_model is not None and evaluations > 0
    saved = evaluations if best else 0
    if args.save_strategy != SaveStrategy.BEST:
        saved += _times(args.save_strategy, args.save_steps, args, updates)
    if not args.save_total_limit:
        return saved
    return min(saved, max(args.save_total_limit, 2 if best else 1))


def size(count: float) -> str:
    """Writes a number of bytes for people."""
    for unit in ("bytes", "KB", "MB", "GB"):
        if count < 999.5:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.1f} TB"


def free_bytes(output_dir: str | Path) -> int:
    """Returns what is free on the disk of a directory, which need not be there yet."""
    path = Path(output_dir).resolve()
    return shutil.disk_usage(next(folder for folder in (path, *path.parents) if folder.is_dir())).free


def _times(strategy: str, every: float | None, args: PredRecTrainingArguments, updates: int) -> int:
    """Returns how often something happens that happens every so many steps, or once an epoch, and at the end."""
    if strategy == IntervalStrategy.NO:
        return 0
    if strategy == IntervalStrategy.EPOCH:
        return math.ceil(args.num_train_epochs)
    steps = max(1, math.ceil(every * updates) if every < 1 else int(every))
    return math.ceil(updates / steps)


def _moments(optim: str | OptimizerNames) -> int:
    return next((count for name, count in MOMENTS.items() if OptimizerNames(optim).value.startswith(name)), 2)


def _bytes(tensors: Iterable[Tensor]) -> int:
    distinct = {(tensor.data_ptr(), tensor.shape): tensor for tensor in tensors}
    return sum(tensor.numel() * tensor.element_size() for tensor in distinct.values())


def _saved_bytes(tokenizer: PreTrainedTokenizerBase) -> int:
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        return sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
