"""Reference baselines of the declared comparison, of no language or of words alone: is the winner above them?"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import UserError
from ..eval.results import BASELINES, Results, read_results
from ..eval.statistics import Comparison, compare
from .definition import Floor, Primary
from .primary import mean_scores


@dataclass(frozen=True)
class FloorResult:
    """The declared score of a floor.

    Args:
        name (`str`): In words.
        score (`float`): Mean over its seeds.
        num_seeds (`int`): Of them; 0 where there is nothing to draw.
        comparison (`Comparison`): Of the winner minus the floor, over the seeds that both have, or over the winner's.
    """

    name: str
    score: float
    num_seeds: int
    comparison: Comparison


def compare_floors(results: Results, primary: Primary, winner: Mapping[int, float], folder: Path) -> list[FloorResult]:
    """Compares the better of the two arms with every floor.

    Args:
        results (`Results`): Of the experiment.
        primary ([`Primary`]): With its floors.
        winner (`dict[int, float]`): Declared score of each declared seed.
        folder (`Path`): Of the experiment; results of others are named from there.

    Raises:
        UserError: If results that a floor names are not there, or lack its scores.
    """
    found = []
    for name, title in BASELINES.items():
        values = [results.values(kind="probe", model=name, task=t, metric=m) for t, m in primary.scores.items()]
        if all(len(value) for value in values):
            score = float(np.mean([value[0] for value in values]))
            found.append(FloorResult(title, score, 0, compare([one - score for one in winner.values()])))
    for floor in primary.floors:
        scores = floor_scores(floor, results, primary, folder)
        shared = [seed for seed in winner if seed in scores]
        if not shared and floor.results is None:
            continue  # Its runs are still to come.
        if not shared:
            raise UserError(f"The floor {floor.name!r} has no scores of the seeds {sorted(winner)} on all tasks.")
        differences = [winner[seed] - scores[seed] for seed in shared]
        found.append(FloorResult(floor.name, float(np.mean(list(scores.values()))), len(scores), compare(differences)))
    return found


def floor_scores(floor: Floor, results: Results, primary: Primary, folder: Path) -> dict[int, float]:
    """Returns the declared score of a floor by seed."""
    if floor.results is None:
        return mean_scores(results, floor.model, primary.scores)
    other = read_results(folder / floor.results)
    wanted = {"kind": "probe", "model": floor.model, "pooling": floor.pooling, "head": "linear"}
    by_task = [
        other.by_checkpoint(lambda record: record.variant == floor.vectors, task=task, metric=metric, **wanted)
        for task, metric in primary.scores.items()
    ]
    common = sorted(set.intersection(*map(set, by_task)))
    return {one + floor.first_seed: float(np.mean([values[one] for values in by_task])) for one in common}
