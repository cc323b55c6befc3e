"""The one comparison that was declared before the runs: mean score of each seed, paired difference, verdict."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..eval.claims import by_replicate
from ..eval.results import Results
from ..eval.statistics import Comparison, compare, equivalence_p, verdict
from .definition import Primary

MARGIN = 0.01
"""A mean score that differs by less, one point, does not differ in practice."""

MIN_PAIRS = 5
"""With fewer pairs there is no verdict, whatever the numbers."""


@dataclass(frozen=True)
class PrimaryResult:
    """What the runs say so far.

    Args:
        model, baseline (`dict[int, float]`): Mean score of each seed of the two arms.
        comparison (`Comparison`, *optional*): Of the differences of the seeds that both have; `None` without any.
        verdict (`str`): In words. Before the declared number of pairs is there, it is marked as interim.
        parts (`dict[str, Part]`): What each task has to do with it, over the same seeds.
    """

    model: dict[int, float]
    baseline: dict[int, float]
    comparison: Comparison | None
    verdict: str
    parts: dict[str, "Part"] = field(default_factory=dict)


@dataclass(frozen=True)
class Part:
    """One task of the mean.

    Args:
        model, baseline (`float`): Mean over the seeds.
        comparison (`Comparison`): Of the differences.
        without (`float`, *optional*): Mean difference of the other tasks; `None` without any.
    """

    model: float
    baseline: float
    comparison: Comparison
    without: float | None


def task_scores(results: Results, arm: str, scores: Mapping[str, str], kind: str = "probe") -> dict[int, np.ndarray]:
    """Returns, of each seed that has them all, the scores; heads and poolings as the claims take them."""
    found = [by_replicate(results, kind, arm, task, metric, "mean") for task, metric in scores.items()]
    seeds = sorted(set.intersection(*map(set, found)))
    return {seed: np.array([one[seed] for one in found]) for seed in seeds}


def mean_scores(results: Results, arm: str, scores: Mapping[str, str], kind: str = "probe") -> dict[int, float]:
    """Returns the mean over the tasks of each seed of [`task_scores`]."""
    return {seed: float(found.mean()) for seed, found in task_scores(results, arm, scores, kind).items()}


def compare_primary(results: Results, primary: Primary) -> PrimaryResult:
    """Compares the two arms on the declared seeds, paired, by a two-sided t-test at the declared level.

    Args:
        results (`Results`): Of the probes.
        primary (`Primary`): What was declared.
    """
    model, baseline = (mean_scores(results, arm, primary.scores) for arm in (primary.model, primary.baseline))
    pairs = [seed for seed in model if seed in baseline and primary.counts(seed)]
    if not pairs:
        return PrimaryResult(model, baseline, None, "too few seeds")
    differences = [model[seed] - baseline[seed] for seed in pairs]
    comparison = compare(differences, 1 - primary.level)
    words = "too few seeds"
    if len(pairs) >= MIN_PAIRS:
        same = equivalence_p(differences, MARGIN)
        words = verdict(differences, comparison.t_p, same, MARGIN, primary.level, min_seeds=MIN_PAIRS)
        if len(pairs) < primary.seeds:
            words += f" (interim: {len(pairs)} of {primary.seeds} declared pairs)"
    return PrimaryResult(model, baseline, comparison, words, _parts(results, primary, pairs))


def compare_arms(results: Results, model: str, baseline: str, primary: Primary) -> Comparison | None:
    """Compares any two arms by the declared score over the seeds that both have; `None` where they share none."""
    first, second = (mean_scores(results, arm, primary.scores) for arm in (model, baseline))
    differences = [first[seed] - second[seed] for seed in first if seed in second]
    return compare(differences, 1 - primary.level) if differences else None


def _parts(results: Results, primary: Primary, pairs: Sequence[int]) -> dict[str, Part]:
    """Takes the mean apart: a difference may be one task's."""
    model, baseline = (
        np.stack([task_scores(results, arm, primary.scores)[seed] for seed in pairs])
        for arm in (primary.model, primary.baseline)
    )
    differences = model - baseline
    parts = {}
    for index, task in enumerate(primary.scores):
        others = np.delete(differences, index, 1)
        parts[task] = Part(
            float(model[:, index].mean()),
            float(baseline[:, index].mean()),
            compare(differences[:, index].tolist(), 1 - primary.level),
            float(others.mean()) if others.size else None,
        )
    return parts
