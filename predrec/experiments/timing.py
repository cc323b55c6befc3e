"""`timing.json`: how long an update of each arm takes, timed in turn, and with how many they take the same time."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from ..errors import UserError
from ..eval.document import Table
from ..whole_files import whole_file
from .definition import Arm

TIMING_FILE = "timing.json"
LENGTH = "max_steps"
"""The one argument of an arm that its speed does not depend on."""


@dataclass(frozen=True)
class Timing:
    """What was timed together: every arm once in every round.

    Args:
        command (`str`): What was typed, without the folders of a machine.
        finished (`str`): Date.
        machine (`str`): In words.
        versions (`dict[str, str]`): Of the libraries.
        updates (`int`): Of every arm in every round.
        arguments (`dict[str, dict]`): Of each arm, but for its number of updates.
        seconds (`dict[str, list[float]]`): Of each arm, seconds per update in each round, at its median speed.
    """

    command: str
    finished: str
    machine: str
    versions: dict[str, str]
    updates: int
    arguments: dict[str, dict[str, Any]]
    seconds: dict[str, list[float]]

    def ratios(self, arm: str, other: str) -> list[float]:
        """Returns how many times as long an update of one arm takes as one of another, in each round."""
        return [own / others for own, others in zip(self.seconds[arm], self.seconds[other], strict=True)]


def without_length(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the arguments of an arm that its speed depends on."""
    return {name: value for name, value in arguments.items() if name != LENGTH}


def arms_to_time(arms: Mapping[str, Arm], only: Sequence[str]) -> list[str]:
    """Returns the arms whose times are compared: those named, or all that are to take the same time, or all."""
    if only:
        return [name for name in arms if name in only]
    same = {name for arm in arms.values() if arm.same_time_as for name in (arm.name, arm.same_time_as)}
    return [name for name in arms if name in same or not same]


def write_timing(folder: Path, timing: Timing) -> Path:
    """Writes the file into the folder of the experiment: it appears whole or not at all."""
    path = folder / TIMING_FILE
    with whole_file(path) as staging:
        staging.write_text(json.dumps(asdict(timing), indent=1) + "\n", encoding="utf-8")
    return path


def read_timing(folder: Path, arms: Mapping[str, Arm]) -> Timing | None:
    """Reads the file, without arms that are defined otherwise now; `None` where there is none, or none of its arms.

    Raises:
        UserError: If it is damaged.
    """
    path = folder / TIMING_FILE
    if not path.is_file():
        return None
    try:
        timing = Timing(**json.loads(path.read_text(encoding="utf-8")))
        arguments = {
            name: own
            for name, own in timing.arguments.items()
            if name in arms and own == without_length(arms[name].arguments)
        }
        seconds = {name: [float(value) for value in timing.seconds[name]] for name in arguments}
        if len({len(rounds) for rounds in seconds.values()}) > 1 or not all(
            value > 0 for rounds in seconds.values() for value in rounds
        ):
            raise ValueError("its rounds are not complete")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is not what `--time_rounds` writes: {error}. Delete it.") from error
    if not seconds:
        return None
    return Timing(**(asdict(timing) | {"arguments": arguments, "seconds": seconds}))


def run_ratios(timing: Timing, arms: Mapping[str, Arm], arm: str, other: str | None) -> list[float]:
    """Returns how many times as long all updates of one arm take as those of another, in each round.

    Nothing where one was not timed, or the number of its updates depends on the data.
    """
    if other is None or not {arm, other} <= timing.seconds.keys():
        return []
    updates = [int(arms[name].arguments.get(LENGTH, 0)) for name in (arm, other)]
    return [ratio * updates[0] / updates[1] for ratio in timing.ratios(arm, other)] if min(updates) > 0 else []


def timing_table(timing: Timing, arms: Mapping[str, Arm]) -> Table:
    """Shows seconds per update, and for arms that are to take the same time as another which factor makes it so."""
    rows = []
    for name, seconds in timing.seconds.items():
        arm, other = arms[name], arms[name].same_time_as
        ratios = run_ratios(timing, arms, name, other)
        rows.append(
            [
                name,
                _range(seconds),
                arm.arguments.get(LENGTH, "-"),
                f"{_range(ratios)} of {other}" if ratios else "-",
                f"{arm.updates_factor / median(ratios):.3g} (it is {arm.updates_factor:g})" if ratios else "-",
            ]
        )
    header = ["arm", "seconds per update", "updates", "all of them", "`updates_factor` of equal time"]
    return Table(header, rows)


def _range(values: Sequence[float]) -> str:
    """Shows the median and, of several, the least and the most."""
    least, most = min(values), max(values)
    return f"{median(values):.3g}" + (f" ({least:.3g} to {most:.3g})" if len(values) > 1 else "")
