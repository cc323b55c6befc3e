"""Effects of a two-level design: what one factor changes, averaged over the arms that differ in nothing else."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from ..eval.statistics import Comparison, compare, corrected
from .definition import Arm

MEASURES = (
    ("masked-LM loss", "eval_mlm_loss"),
    ("uniformity", "eval_uniformity"),
    ("effective rank", "eval_effective_rank"),
    ("margin", "eval_jepa_margin"),
)
"""Of the held-out text after the last update."""


@dataclass(frozen=True)
class Effect:
    """What a factor changes, from its first level to its second; or how much more so at another's second level.

    Args:
        factors (`tuple[str, ...]`): One, or two for an interaction.
        measure (`str`): Of what.
        comparison (`Comparison`): Over seeds.
        p (`float`): Paired t, corrected by Holm over all effects on the measure.
    """

    factors: tuple[str, ...]
    measure: str
    comparison: Comparison
    p: float


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
    if any(len(found) != 2 for found in levels.values()):
        return {}
    blocks: dict[tuple, dict[tuple, str]] = {}
    for name, arm in arms.items():
        if values.get(name) and set(factors) <= arm.levels.keys():
            others = tuple(sorted((f, level) for f, level in arm.levels.items() if f not in factors))
            blocks.setdefault(others, {})[tuple(arm.levels[factor] for factor in factors)] = name
    full = [block for block in blocks.values() if len(block) == 2 ** len(factors)]
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


def effects(arms: Mapping[str, Arm], values: Mapping[str, Mapping[int, float]], measure: str) -> list[Effect]:
    """Returns the effects of every factor and the interactions of every two, as far as there are arms for them."""
    names = list(factors_of(arms))
    found = []
    for factors in [(name,) for name in names] + list(combinations(names, 2)):
        by_seed = contrast(values, arms, factors)
        if by_seed:
            found.append((factors, compare(list(by_seed.values()))))
    ps = corrected([comparison.t_p for _, comparison in found])
    return [Effect(factors, measure, comparison, p) for (factors, comparison), p in zip(found, ps, strict=True)]


def held_out(by_arm: Mapping[str, Sequence[dict[str, Any]]], name: str) -> dict[str, dict[int, float]]:
    """Returns a measure of the held-out text, by arm and seed."""
    return {
        arm: {content["seed"]: content["last"][name] for content in contents if name in content["last"]}
        for arm, contents in by_arm.items()
    }
