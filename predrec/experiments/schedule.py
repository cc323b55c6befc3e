"""Which runs are left, and how long they will take."""

from collections.abc import Mapping, Sequence
from typing import Any

from .definition import Run


def remaining(order: Sequence[Run], finished: Mapping[Run, Any], only: Sequence[str] = ()) -> list[Run]:
    """Returns the runs that no file covers, in their order; of some arms only, if named."""
    return [run for run in order if run not in finished and (not only or run.arm in only)]


def seconds_of(content: Mapping[str, Any]) -> float:
    """Returns how long a finished run took, evaluation included."""
    return sum(content["seconds"].values())


def estimate(run: Run, finished: Mapping[Run, Mapping[str, Any]], tokens: Mapping[str, int | None]) -> float | None:
    """Estimates how long a run will take.

    Args:
        run (`Run`): Which.
        finished (`dict`): Contents of the files of finished runs.
        tokens (`dict[str, int]`): Training tokens of each arm, where they are known beforehand.

    Returns:
        Seconds: the mean of finished runs of the same arm; where there is none, of all runs, with the training by its
        tokens and the evaluation as it was. `None` when nothing has finished.
    """
    same = [seconds_of(content) for other, content in finished.items() if other.arm == run.arm]
    if same:
        return sum(same) / len(same)
    if not finished:
        return None
    training = sum(content["seconds"].get("training", 0.0) for content in finished.values())
    everything = sum(map(seconds_of, finished.values()))
    own = tokens.get(run.arm)
    if not own:
        return everything / len(finished)
    # Over all runs together: one of a few updates would make of its start a speed, and days of that.
    trained = sum(content["tokens"] for content in finished.values())
    return training / trained * own + (everything - training) / len(finished)


def time_left(
    runs: Sequence[Run], finished: Mapping[Run, Mapping[str, Any]], tokens: Mapping[str, int | None]
) -> float | None:
    """Returns the seconds that the runs will take together; `None` when nothing has finished."""
    estimates = [estimate(run, finished, tokens) for run in runs]
    return None if None in estimates else sum(found for found in estimates if found is not None)


def in_words(seconds: float | None) -> str:
    """Says how long, to the minute."""
    if seconds is None:
        return "unknown until the first run has finished"
    minutes = round(seconds / 60)
    return "less than a minute" if minutes < 1 else f"{minutes} min" if minutes < 60 else f"{minutes / 60:.1f} h"
