"""Times the arms of an experiment: a moment of training of each, in turn, with nothing beside it."""

import itertools
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ..configuration import write_recipe
from ..errors import UserError
from ..eval.document import to_markdown
from ..eval.results import Results
from ..experiments.definition import Arm
from ..experiments.history import curves, training_seconds, update_speeds
from ..experiments.timing import Timing, arms_to_time, timing_table, without_length, write_timing
from .experiment_runs import StoppedError, Workshop, machine, pretrained, train_words

LEFT_OUT = (
    *("eval_", "save_", "logging_", "lr_scheduler_", "collapse_"),
    *("metric_for_best", "greater_is_better", "load_best"),
)
"""How the arguments begin that say what happens between updates, where the clock stands still."""
UPDATES = 60
"""Of an arm in a round, where nobody says how many."""
LOGS = 12
"""Log lines of an arm in a round, whose median is its speed."""


def timed_arguments(arm: Arm, updates: int) -> dict[str, Any]:
    """Returns the arguments of a moment of an arm: the same updates, with nothing between them."""
    kept = {name: value for name, value in arm.arguments.items() if not name.startswith(LEFT_OUT)}
    return kept | {
        "max_steps": str(updates),
        "logging_steps": str(max(1, updates // LOGS)),
        "eval_strategy": "no",
        "save_strategy": "steps",
        "save_steps": str(updates),
    }


def seconds_per_update(shop: Workshop, arm: Arm, updates: int, folder: Path) -> float:
    """Trains an arm for a moment, in a process of its own; returns the seconds of an update at its median speed."""
    recipe, output = folder / f"{arm.name}.yaml", folder / arm.name
    shutil.rmtree(output, ignore_errors=True)
    write_recipe(recipe, timed_arguments(arm, updates), f"A moment of the arm {arm.name} of an experiment")
    words = train_words(shop, 0, recipe, output)
    _, state = pretrained(words, output, folder / f"{arm.name}.log", f"A moment of {arm.name}")
    speeds = update_speeds(curves(state["log_history"]), shop.tokens_per_step[arm.name])
    change = float(arm.arguments.get("jepa_start", 0)) * updates
    _, seconds = training_seconds(speeds, updates, change)
    shutil.rmtree(output)
    return seconds / updates


def time_arms(shop: Workshop, path: Path) -> Path:
    """Times the arms, shows a table and writes `timing.json` beside the experiment.

    Args:
        shop ([`Workshop`]): Of the experiment.
        path (`Path`): Of its file.

    Returns:
        `Path` of what was written.

    Raises:
        UserError: If another call is making runs of the experiment, whose time would be in this.
    """
    rounds, updates = shop.arguments.time_rounds, shop.arguments.timed_updates or UPDATES
    check_alone(shop.folder)
    arms = shop.experiment.arms
    names = arms_to_time(arms, shop.arguments.only)
    place = shop.folder / "timing"
    place.mkdir(parents=True, exist_ok=True)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number, name in itertools.product(range(1, rounds + 1), names):
        try:
            seconds[name].append(round(seconds_per_update(shop, arms[name], updates, place), 6))
        except StoppedError as stopped:
            raise StoppedError(stopped.code, "stopped; nothing was written.") from None
        print(f"round {number}, {name}: {seconds[name][-1]:.4g} seconds per update", flush=True)
    timing = Timing(
        f"predrec reproduce {'/'.join(path.parts[-3:])} --data DATA --time_rounds {rounds} --timed_updates {updates}",
        datetime.now(UTC).strftime("%Y-%m-%d"),
        machine(shop.arguments.num_threads),
        Results().versions,
        updates,
        {name: without_length(arms[name].arguments) for name in names},
        seconds,
    )
    print("\n" + to_markdown([timing_table(timing, arms)]))
    return write_timing(path.parent, timing)


def check_alone(folder: Path) -> None:
    """Refuses to time beside runs of the same experiment.

    Raises:
        UserError: Naming the run.
    """
    for lock in sorted(folder.glob("*.lock")):
        try:
            with FileLock(lock, timeout=0):
                pass
        except Timeout:
            raise UserError(
                f"`time_rounds`: {lock.stem} is being made by another call. Wait for it: beside it, times would say "
                "little."
            ) from None
