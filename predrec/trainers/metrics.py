"""Running sums of what is logged: kept on the device, read only when a log line is due, saved with checkpoints."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


class MetricSums:
    """Token-weighted sums over batches.

    Args:
        device (`torch.device`): Where the sums live.
        terms (`dict[str, str]`): Names of the loss's terms in a model's output, and of what each is a mean over.
        counts (`tuple[str, ...]`): Names of what else is added up.
    """

    def __init__(self, device: torch.device, terms: dict[str, str], counts: tuple[str, ...] = ()):
        self.terms = terms
        self.counts = (*dict.fromkeys(terms.values()), *counts)
        self.names = ("steps", "loss", *terms, *self.counts, "tokens")
        # Apple's GPUs have no float64.
        dtype = torch.float32 if device.type == "mps" else torch.float64
        self.values = torch.zeros(len(self.names), dtype=dtype, device=device)

    def add(self, output: Any, tokens: Tensor | int, steps: float, only_if: Tensor | None = None) -> None:
        """Adds one batch.

        Args:
            output (`ModelOutput`): Of the batch, with `loss`, terms and counts; those that are `None` count nothing.
            tokens (`torch.Tensor` of shape `()` or `int`): Real tokens in it.
            steps (`float`): Which part of an optimizer update the batch is.
            only_if (`torch.BoolTensor` of shape `()`, *optional*): Whether to add it at all.
        """
        zero = self.values.new_zeros(())

        def times(mean: Tensor | None, count: Tensor | None) -> Tensor:
            return zero if mean is None else mean.to(zero.dtype) * count

        def count(value: Tensor | None) -> Tensor:
            return zero if value is None else value.to(zero.dtype)

        added = [zero + steps, output.loss.detach().to(zero.dtype)]
        added += [times(getattr(output, term), getattr(output, over)) for term, over in self.terms.items()]
        added += [count(getattr(output, name)) for name in self.counts]
        added.append(zero + tokens)
        summed = torch.stack(added)
        self.values += summed if only_if is None else torch.where(only_if, summed, 0)

    def reset(self) -> None:
        self.values.zero_()

    def index(self, name: str) -> int:
        """Returns where a sum is in `values`."""
        return self.names.index(name)

    def means(self, values: Tensor) -> dict[str, float]:
        """Turns sums, `(len(names),)`, into means; terms that no batch had are left out. Reads the device once."""
        sums = dict(zip(self.names, values.tolist(), strict=True))
        means = {"loss": sums["loss"] / sums["steps"]} if sums["steps"] else {}
        means |= {term: sums[term] / sums[over] for term, over in self.terms.items() if sums[over]}
        return means | {"tokens": sums["tokens"]}

    def save(self, path: str | Path, **more: float) -> None:
        """Writes the sums, so that a resumed run logs what an uninterrupted one does, and other numbers with them."""
        sums = dict(zip(self.names, self.values.tolist(), strict=True))
        Path(path).write_text(json.dumps(sums | more), encoding="utf-8")

    def load(self, path: str | Path) -> dict[str, float]:
        """Reads what [`MetricSums.save`] wrote and returns it; without such a file the sums stay at zero."""
        if not Path(path).is_file():
            return {}
        numbers = json.loads(Path(path).read_text(encoding="utf-8"))
        self.values.copy_(torch.tensor([numbers[name] for name in self.names], dtype=torch.float64))
        return numbers
