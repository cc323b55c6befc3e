"""Running sums of what is logged: kept on the device, read only when a log line is due, saved with checkpoints."""

import json
from pathlib import Path

import torch
from torch import Tensor

from ..modeling import PredRecForPreTrainingOutput

SUMS = ("steps", "loss", "mlm_loss", "labels", "mlm_correct", "jepa_loss", "targets", "tokens")


class MetricSums:
    """Token-weighted sums over batches.

    Args:
        device (`torch.device`): Where the sums live.
    """

    def __init__(self, device: torch.device):
        # Apple's GPUs have no float64.
        dtype = torch.float32 if device.type == "mps" else torch.float64
        self.values = torch.zeros(len(SUMS), dtype=dtype, device=device)

    def add(
        self, output: PredRecForPreTrainingOutput, tokens: Tensor | int, steps: float, only_if: Tensor | None = None
    ) -> None:
        """Adds one batch.

        Args:
            output ([`PredRecForPreTrainingOutput`]): Of the batch.
            tokens (`torch.Tensor` of shape `()` or `int`): Real tokens in it.
            steps (`float`): Which part of an optimizer update the batch is.
            only_if (`torch.BoolTensor` of shape `()`, *optional*): Whether to add it at all.
        """
        zero = self.values.new_zeros(())

        def times(mean: Tensor | None, count: Tensor | None) -> Tensor:
            return zero if mean is None else mean.to(zero.dtype) * count

        def count(value: Tensor | None) -> Tensor:
            return zero if value is None else value.to(zero.dtype)

        added = [
            zero + steps,
            output.loss.detach().to(zero.dtype),
            times(output.mlm_loss, output.num_labels),
            count(output.num_labels),
            count(output.mlm_correct),
            times(output.jepa_loss, output.num_targets),
            count(output.num_targets),
            zero + tokens,
        ]
        summed = torch.stack(added)
        self.values += summed if only_if is None else torch.where(only_if, summed, 0)

    def reset(self) -> None:
        self.values.zero_()

    @staticmethod
    def index(name: str) -> int:
        """Returns where a sum is in `values`."""
        return SUMS.index(name)

    @staticmethod
    def means(values: Tensor) -> dict[str, float]:
        """Turns sums, `(len(SUMS),)`, into means; terms that no batch had are left out. Reads the device once."""
        sums = dict(zip(SUMS, values.tolist(), strict=True))
        means = {"loss": sums["loss"] / sums["steps"]} if sums["steps"] else {}
        if sums["labels"]:
            means["mlm_loss"] = sums["mlm_loss"] / sums["labels"]
        if sums["targets"]:
            means["jepa_loss"] = sums["jepa_loss"] / sums["targets"]
        return means | {"tokens": sums["tokens"]}

    def save(self, path: str | Path, **more: float) -> None:
        """Writes the sums, so that a resumed run logs what an uninterrupted one does, and other numbers with them."""
        sums = dict(zip(SUMS, self.values.tolist(), strict=True))
        Path(path).write_text(json.dumps(sums | more), encoding="utf-8")

    def load(self, path: str | Path) -> dict[str, float]:
        """Reads what [`MetricSums.save`] wrote and returns it; without such a file the sums stay at zero."""
        if not Path(path).is_file():
            return {}
        numbers = json.loads(Path(path).read_text(encoding="utf-8"))
        self.values.copy_(torch.tensor([numbers[name] for name in SUMS], dtype=torch.float64))
        return numbers
