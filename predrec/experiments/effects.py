"""What factors of a two-level design change over the arms that differ in nothing else, and how any two arms differ."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from ..eval.claims import CLAIMS, claim_means
from ..eval.results import DEVELOPMENT, Results
from ..eval.statistics import Comparison, compare, corrected_tests
from ..eval.tasks import TASKS, mean_metric
from .definition import Arm
from .primary import mean_scores

MEASURES = (
    ("masked-LM loss", "eval_mlm_loss"),
    ("margin", "eval_jepa_margin"),
    ("uniformity, held-out rows", "eval_uniformity"),
    ("effective rank, held-out rows", "eval_effective_rank"),
)
"""Of the held-out text after the last update; geometry is that of the monitor's few rows."""

CLAIMED = (
    ("uniformity, task vectors", 1),
    ("spectral entropy, task vectors, max pooling", 2),
    ("token probe", 3),
    ("probe gap", 4),
    ("alignment, task vectors", 6),
)
"""Of the vectors of the tasks' texts: what a claim of the paper, by its number, is about."""

ALPHA = 0.05
"""Level of the tests."""


@dataclass(frozen=True)
class Effect:
    """What a factor changes, from its first level to its second; or how much more so at another's second level.

    Args:
        name (`str`): The factor and its levels, two factors with an `x` between them, or two arms.
        measure (`str`): Of what.
        comparison (`Comparison`): Over seeds.
        p (`float`): Paired t, corrected by Holm over all effects on the measure, or all differences in it, that have
            more than one seed.
        arms (`tuple[str, ...]`): Whose runs it is made of.
    """

    name: str
    measure: str
    comparison: Comparison
    p: float
    arms: tuple[str, ...]

    @property
    def verdict(self) -> str:
        """In words; with fewer seeds than a sign-flip test needs to reach 0.05, none."""
        if self.comparison.smallest_p > ALPHA:
            return "too few seeds"
        return "changes" if self.p < ALPHA else "undecided"


def factors_of(arms: Mapping[str, Arm]) -> dict[str, list[str]]:
    """Returns the levels of every factor in the order in which the arms name them."""
    found: dict[str, list[str]] = {}
    for arm in arms.values():
        for factor, level in arm.levels.items():
            if level not in found.setdefault(factor, []):
                found[factor].append(level)
    return found


def contrast(
    values: Mapping[str, Mapping[int, float]], arms: Mapping[str, Arm], factors: Sequence[str]
) -> dict[int, float]:
    """Returns the effect of a factor, or the interaction of two, in each seed that has all its arms.

    Arms are blocked by their other factors; a block that lacks a combination of the levels does not count. An
    interaction is the half of the difference of differences.

    Args:
        values (`dict[str, dict[int, float]]`): Of each arm and seed.
        arms (`dict[str, Arm]`): With their levels.
        factors (`list[str]`): One or two.
    """
    levels = {factor: found for factor, found in factors_of(arms).items() if factor in factors}
    full = full_blocks(values, arms, factors)
    if not full:
        return {}
    seeds = set.intersection(*(set(values[name]) for block in full for name in block.values()))
    scale = len(full) * 2 ** (len(factors) - 1)
    found = {}
    for seed in sorted(seeds):
        total = 0.0
        for block in full:
            for combination, name in block.items():
                ups = [level == levels[factor][1] for factor, level in zip(factors, combination, strict=True)]
                total += np.prod([1 if up else -1 for up in ups]) * values[name][seed]
        found[seed] = float(total / scale)
    return found


def full_blocks(
    values: Mapping[str, Mapping[int, float]], arms: Mapping[str, Arm], factors: Sequence[str]
) -> list[dict[tuple, str]]:
    """Returns the arms of every block that has each combination of the levels, by that combination."""
    levels = factors_of(arms)
    if any(len(levels[factor]) != 2 for factor in factors):
        return []
    blocks: dict[tuple, dict[tuple, str]] = {}
    for name, arm in arms.items():
        if values.get(name) and set(factors) <= arm.levels.keys():
            others = tuple(sorted((f, level) for f, level in arm.levels.items() if f not in factors))
            blocks.setdefault(others, {})[tuple(arm.levels[factor] for factor in factors)] = name
    return [block for block in blocks.values() if len(block) == 2 ** len(factors)]


def effects(arms: Mapping[str, Arm], values: Mapping[str, Mapping[int, float]], measure: str) -> list[Effect]:
    """Returns the effects of every factor and the interactions of every two, as far as there are arms for them."""
    levels = factors_of(arms)
    found = []
    for factors in [(name,) for name in levels] + list(combinations(levels, 2)):
        by_seed = contrast(values, arms, factors)
        if by_seed:
            used = tuple(name for block in full_blocks(values, arms, factors) for name in block.values())
            name = " x ".join(factors) if len(factors) > 1 else f"{factors[0]}: {' to '.join(levels[factors[0]])}"
            found.append((name, list(by_seed.values()), used))
    return _tested(found, measure)


def simple_effects(
    arms: Mapping[str, Arm], values: Mapping[str, Mapping[int, float]], measure: str
) -> list[tuple[str, Comparison]]:
    """Returns what a factor changes at each level of another, where the two are seen to depend on one another.

    That is, where the interval of their interaction, uncorrected, does not hold zero: there, an effect that is
    averaged over both levels may be that of neither.
    """
    levels = factors_of(arms)
    found = []
    for pair in combinations(levels, 2):
        together = list(contrast(values, arms, pair).values())
        if len(together) < 2 or compare(together).low <= 0 <= compare(together).high:
            continue
        for factor, other in (pair, pair[::-1]):
            for level in levels[other]:
                there = {name: values.get(name, {}) for name in arms if arms[name].levels.get(other) == level}
                by_seed = contrast(there, arms, [factor])
                name = f"{factor}: {' to '.join(levels[factor])}, where {other} is {level}"
                found.append((name, compare(list(by_seed.values()))))
    return found


def differences(
    contrasts: Sequence[tuple[str, str]], values: Mapping[str, Mapping[int, float]], measure: str
) -> list[Effect]:
    """Returns by how much the first arm of each contrast is above the second, over the seeds that both have."""
    found = []
    for first, second in contrasts:
        own, others = values.get(first, {}), values.get(second, {})
        by_seed = [own[seed] - others[seed] for seed in own if seed in others]
        if by_seed:
            found.append((f"{first} - {second}", by_seed, (first, second)))
    return _tested(found, measure)


def _tested(found: Sequence[tuple[str, list[float], tuple[str, ...]]], measure: str) -> list[Effect]:
    """Compares values of the seeds with zero, corrected over all that has more than one seed."""
    comparisons = [compare(by_seed) for _, by_seed, _ in found]
    ps = corrected_tests(comparisons)
    return [
        Effect(name, measure, comparison, p, used)
        for (name, _, used), comparison, p in zip(found, comparisons, ps, strict=True)
    ]


def measured(
    by_arm: Mapping[str, Sequence[dict[str, Any]]], results: Results, tasks: Sequence[str]
) -> dict[str, dict[str, dict[int, float]]]:
    """Returns everything that effects are shown for, by measure, arm and seed.

    Args:
        by_arm (`dict[str, list]`): Contents of the files of finished runs.
        results (`Results`): Of their probes and geometry.
        tasks (`list[str]`): Whose probe scores are averaged; on held-out training rows, if they were scored there.
    """
    found = {measure: held_out(by_arm, name) for measure, name in MEASURES}
    found |= {measure: claimed(results, by_arm, number) for measure, number in CLAIMED}
    wanted = {task: mean_metric(task) for task in tasks if task in TASKS}
    for kind, where in (("probe", ""), ("probe" + DEVELOPMENT, ", held-out training rows")) if wanted else ():
        scores = {arm: mean_scores(results, arm, wanted, kind) for arm in by_arm}
        found[f"mean probe score ({', '.join(wanted)}{where})"] = scores
    return found


def held_out(by_arm: Mapping[str, Sequence[dict[str, Any]]], name: str) -> dict[str, dict[int, float]]:
    """Returns a measure of the held-out text, by arm and seed."""
    return {
        arm: {content["seed"]: content["last"][name] for content in contents if name in content["last"]}
        for arm, contents in by_arm.items()
    }


def claimed(results: Results, by_arm: Mapping[str, Any], number: int) -> dict[str, dict[int, float]]:
    """Returns what a claim of the paper is about, by arm and seed: the mean over its tasks and poolings."""
    claim = next(claim for claim in CLAIMS if claim.number == number)
    return {arm: claim_means(results, claim, arm) for arm in by_arm}
