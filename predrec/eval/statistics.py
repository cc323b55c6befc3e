"""Is one model better than another, and how sure are we? Paired tests, corrections, equivalence, a verdict in words.

Differences are "model minus baseline", one per seed, of a score where more is better.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal

import numpy as np
from scipy import stats
from statsmodels.stats.multitest import multipletests

MAX_EXACT = 14
"""Up to this many seeds, the sign-flip test goes through every assignment of signs."""

ROUNDING = 1e-12
"""Scores, losses and measures are of the order of 1: what differs by less does not differ."""


@dataclass(frozen=True)
class Comparison:
    """What a set of paired differences says.

    Args:
        effect (`float`): Mean difference.
        sd (`float`): Standard deviation of the differences; 0 for a single one.
        low, high (`float`): Bounds of the confidence interval of the mean, by Student's t.
        t_p, sign_flip_p (`float`): Two-sided p of the paired t-test and of the sign-flip permutation test.
        smallest_p (`float`): The smallest p that the sign-flip test could give with so few seeds, `2 / 2^n`.
        num_seeds (`int`): Number of differences.
    """

    effect: float
    sd: float
    low: float
    high: float
    t_p: float
    sign_flip_p: float
    smallest_p: float
    num_seeds: int


def sign_flip_p(differences: Sequence[float], num_draws: int = 20_000, seed: int = 0) -> float:
    """Two-sided permutation test of mean zero: how often random signs give a mean as far from zero.

    Exact up to `MAX_EXACT` differences; beyond, by random draws with the observed one among them, so p is never 0.

    Args:
        differences (`Sequence[float]`): One per pair, such as a pre-training seed.
        num_draws (`int`, defaults to 20000): Random signs, beyond `MAX_EXACT` differences.
        seed (`int`, defaults to 0): Of the draws.

    Raises:
        ValueError: If there is no difference, or one is not finite.
    """
    values = _finite(differences)
    least = abs(values.sum()) - ROUNDING * np.abs(values).sum()
    if len(values) <= MAX_EXACT:
        signs = np.array(list(product((-1.0, 1.0), repeat=len(values))))
        return float((np.abs(signs @ values) >= least).mean())
    signs = np.random.default_rng(seed).choice((-1.0, 1.0), size=(num_draws, len(values)))
    extreme = (np.abs(signs @ values) >= least).sum()
    return float((extreme + 1) / (num_draws + 1))


def compare(differences: Sequence[float], confidence: float = 0.95) -> Comparison:
    """Summarises paired differences.

    Differences that are all zero have p 1. Where all are the same but not zero, Student's t has no answer: the p of
    the sign-flip test stands in its place.

    Args:
        differences (`Sequence[float]`): Model minus baseline, one per seed.
        confidence (`float`, defaults to 0.95): Of the interval; infinitely wide for a single difference.

    Raises:
        ValueError: If there is no difference, or one is not finite.
    """
    values = _finite(differences)
    count, effect = len(values), float(values.mean())
    sd = float(values.std(ddof=1)) if count > 1 and not _constant(values) else 0.0
    if count == 1:
        low, high, t_p = -np.inf, np.inf, 1.0
    elif sd == 0:
        low, high, t_p = effect, effect, sign_flip_p(values)
    else:
        half = sd / count**0.5 * stats.t.ppf((1 + confidence) / 2, count - 1)
        low, high, t_p = effect - half, effect + half, float(stats.ttest_1samp(values, 0).pvalue)
    return Comparison(effect, sd, low, high, t_p, sign_flip_p(values), 2 / 2**count, count)


def _finite(differences: Sequence[float]) -> np.ndarray:
    """Returns differences as an array, with 0 for what is nothing but the rounding of scores."""
    values = np.asarray(differences, dtype=float)
    if not len(values) or not np.isfinite(values).all():
        raise ValueError(f"`differences` must be finite numbers, at least one; got {list(differences)}.")
    return np.where(np.abs(values) <= ROUNDING, 0.0, values)


def _constant(values: np.ndarray) -> bool:
    """Are the values equal but for rounding?"""
    return bool(np.ptp(values) <= ROUNDING * max(1.0, abs(values.mean())))


def equivalence_p(differences: Sequence[float], margin: float) -> float:
    """Two one-sided t-tests (TOST): a small p says that the mean difference lies within `(-margin, margin)`.

    Args:
        differences (`Sequence[float]`): One per pair.
        margin (`float`): Largest difference that does not matter, in the unit of the differences.

    Returns:
        The larger of the two p; 1 for a single difference. Where all are the same and within the margin, `1 / 2^n`,
        the p of as many signs.

    Raises:
        ValueError: If the margin is not positive, there is no difference, or one is not finite.

    Reference:
        Schuirmann, 1987, Journal of Pharmacokinetics and Biopharmaceutics 15.
    """
    values = _finite(differences)
    if margin <= 0:
        raise ValueError(f"An equivalence test needs a positive `margin`, not {margin}.")
    if len(values) < 2:
        return 1.0
    if _constant(values):
        return 1.0 if abs(values.mean()) >= margin else 1 / 2 ** len(values)
    above = stats.ttest_1samp(values, -margin, alternative="greater").pvalue
    below = stats.ttest_1samp(values, margin, alternative="less").pvalue
    return float(max(above, below))


def corrected(p_values: Sequence[float], method: Literal["holm", "bonferroni"] = "holm") -> list[float]:
    """Corrects a family of p values for multiple testing (Holm, 1979, or Bonferroni)."""
    return multipletests(p_values, method=method)[1].tolist() if len(p_values) else []


def corrected_tests(comparisons: Sequence[Comparison]) -> list[float]:
    """Returns p of paired t-tests, corrected by Holm over those of more than one pair: a single pair is no test."""
    tested = [comparison.num_seeds > 1 for comparison in comparisons]
    ps = iter(corrected([one.t_p for one, is_test in zip(comparisons, tested, strict=True) if is_test]))
    return [next(ps) if is_test else 1.0 for is_test in tested]


def mcnemar_p(model_correct: Sequence[bool], baseline_correct: Sequence[bool]) -> float:
    """Exact McNemar test on items: do the two models err on the same number of items?

    Raises:
        ValueError: If the two do not have one entry per item.
    """
    model, baseline = np.asarray(model_correct, bool), np.asarray(baseline_correct, bool)
    if model.shape != baseline.shape:
        raise ValueError(f"`model_correct` has {model.shape} entries but `baseline_correct` {baseline.shape}.")
    wins, losses = int((model & ~baseline).sum()), int((~model & baseline).sum())
    return float(stats.binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0


def bootstrap_interval(
    differences: Sequence[float], confidence: float = 0.95, num_draws: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """Percentile interval of the mean over resampled items.

    Args:
        differences (`Sequence[float]`): One per item.
        confidence (`float`, defaults to 0.95): Share of the resampled means that the interval holds.
        num_draws (`int`, defaults to 10000): How often items are resampled.
        seed (`int`, defaults to 0): Of the draws.

    Returns:
        Lower and upper end.

    Raises:
        ValueError: If there is no difference, or one is not finite.
    """
    values = _finite(differences)
    generator = np.random.default_rng(seed)
    means = np.array([generator.choice(values, len(values)).mean() for _ in range(num_draws)])
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def verdict(
    differences: Sequence[float],
    p: float,
    p_same: float,
    margin: float,
    alpha: float = 0.05,
    min_seeds: int | None = None,
) -> str:
    """Puts a comparison into words: "improves", "harms", "equivalent", "undecided" or "too few seeds".

    What is sure, and as sure to be less than the margin, "improves, by less than one point".

    Args:
        differences (`Sequence[float]`): Model minus baseline, one per seed.
        p (`float`): Of the difference, corrected for the family it is in.
        p_same (`float`): Of [`equivalence_p`], corrected likewise.
        margin (`float`): Differences below this do not matter in practice.
        alpha (`float`, defaults to 0.05): Level of the tests.
        min_seeds (`int`, *optional*): Fewest seeds; as many as let a sign-flip test reach `alpha` when absent.
    """
    few = 2 / 2 ** len(differences) > alpha if min_seeds is None else len(differences) < min_seeds
    if few:
        return "too few seeds"
    if p < alpha:
        words = "improves" if np.mean(differences) > 0 else "harms"
        most = "one point" if margin == 0.01 else f"{margin:g}"
        return f"{words}, by less than {most}" if p_same < alpha else words
    return "equivalent" if p_same < alpha else "undecided"
