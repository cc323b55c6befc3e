"""What a run's log says: curves, tokens, and the time that training took."""

from collections.abc import Sequence
from statistics import median
from typing import Any

from .run_files import rounded

LEFT_OUT = ("epoch", "step", "grad_norm", "learning_rate", "total_flos")
"""Not kept of a log line; nor are run times and rates, but for the training speed."""


def curves(history: Sequence[dict[str, Any]]) -> dict[str, list[list[float]]]:
    """Returns `[step, value]` points of every metric in a Trainer's log."""
    found: dict[str, list[list[float]]] = {}
    for entry in history:
        for name, value in entry.items():
            rate = name.endswith(("_per_second", "_runtime")) and name != "tokens_per_second"
            if name in LEFT_OUT or rate or not isinstance(value, int | float):
                continue
            found.setdefault(name, []).append([entry["step"], rounded(value, 5)])
    return found


def last(found: dict[str, list[list[float]]]) -> dict[str, float]:
    """Returns the last value of every metric of the held-out text."""
    return {name: points[-1][1] for name, points in found.items() if name.startswith("eval_")}


def training_seconds(
    points: Sequence[Sequence[float]], steps: int, tokens_per_step: float, change: float = 0
) -> tuple[float, float]:
    """Returns how long the updates took, and how long they would have taken at the median speed.

    Evaluation and saving do not count. The second number forgives what else the machine did for a while.

    Args:
        points (`list`): `[step, tokens per second]` of every log line, over the updates since the one before.
        steps (`int`), tokens_per_step (`float`): Of the run.
        change (`float`): Update from which updates cost more or less than before: each part has a median of its own.
    """
    if not points:
        return 0.0, 0.0
    before, seconds = 0, 0.0
    for step, rate in points:
        seconds += (step - before) * tokens_per_step / max(rate, 1e-9)
        before = step
    whole = [rate for _, rate in points]
    early, late = ([rate for step, rate in points if (step <= change) == first] or whole for first in (True, False))
    parts = ((change, median(early)), (steps - change, median(late)))
    seconds += (steps - before) * tokens_per_step / parts[1][1]
    return seconds, sum(updates * tokens_per_step / speed for updates, speed in parts)


def evaluation_seconds(history: Sequence[dict[str, Any]]) -> float:
    """Returns how long the evaluations during training took."""
    return sum(entry.get("eval_runtime", 0.0) for entry in history)
