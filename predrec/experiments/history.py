"""What a run's log says: curves, tokens, and the time that training took."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import median
from typing import Any

from transformers.hf_argparser import string_to_bool

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


def update_speeds(found: Mapping[str, Sequence[Sequence[float]]], tokens_per_step: float) -> list[list[float]]:
    """Returns `[step, updates per second]` of every log line, over the updates since the one before.

    Args:
        found (`dict`): Curves.
        tokens_per_step (`float`): Where lines do not say how many tokens they count, as they did not always: those of
            an update, of which none may be padding.
    """
    counted, speeds, before = dict(found.get("tokens", [])), [], 0
    for step, rate in found.get("tokens_per_second", []):
        updates = step - before
        if tokens := counted.get(step, 0) if counted else updates * tokens_per_step:
            speeds.append([step, rate * updates / tokens])
        before = step
    return speeds


def tokens_of(content: Mapping[str, Any]) -> float | None:
    """Returns how many tokens a finished run has trained on, padding apart; `None` where its file does not say.

    Such a file does not say either how long the updates took: it has that from the speed in tokens.
    """
    counted = dict(content["curves"].get("tokens", []))
    if counted:
        lines = [int(step) for step, _ in content["curves"]["tokens_per_second"]]
        updates = sum(step - before for before, step in pairwise([0, *lines]) if step in counted)
        return sum(counted.values()) / updates * content["steps"]
    padded = not string_to_bool(content["arguments"].get("packing", True))
    if padded and not string_to_bool(content["arguments"].get("padding_is_text", False)):
        return None
    return content["tokens"]


def training_seconds(speeds: Sequence[Sequence[float]], steps: int, change: float = 0) -> tuple[float, float]:
    """Returns how long the updates took, and how long they would have taken at the median speed.

    Evaluation and saving do not count. The second number forgives what else the machine did for a while.

    Args:
        speeds (`list`): See [`update_speeds`].
        steps (`int`): Of the run.
        change (`float`): Update from which updates cost more or less than before: each part has a median of its own.
    """
    if not speeds:
        return 0.0, 0.0
    before, seconds = 0, 0.0
    for step, speed in speeds:
        seconds += (step - before) / max(speed, 1e-9)
        before = step
    whole = [speed for _, speed in speeds]
    early, late = ([speed for step, speed in speeds if (step <= change) == first] or whole for first in (True, False))
    parts = ((change, median(early)), (steps - change, median(late)))
    seconds += (steps - before) / parts[1][1]
    return seconds, sum(updates / speed for updates, speed in parts)


def evaluation_seconds(history: Sequence[dict[str, Any]]) -> float:
    """Returns how long the evaluations during training took."""
    return sum(entry.get("eval_runtime", 0.0) for entry in history)
