"""How small a difference could so many pairs show, and how many pairs would it take to show a given one?

Both are of the two-sided paired t-test, by the noncentral t distribution. The spread of the differences is taken as
known: estimated from few pairs, it makes these numbers orders of magnitude.
"""

from bisect import bisect_left

from scipy import stats
from scipy.optimize import brentq

POWER = 0.8
"""Share of experiments in which the test is to find a difference that is there."""

MAX_PAIRS = 1000


def detectable_difference(sd: float, num_pairs: int, level: float = 0.05, power: float = POWER) -> float:
    """Returns the true mean difference that the test finds with the given power.

    Args:
        sd (`float`): Standard deviation of the differences, in their unit.
        num_pairs (`int`): Number of pairs.
        level (`float`, defaults to 0.05): Of the test.
        power (`float`, defaults to 0.8): Probability of finding the difference.

    Returns:
        In the unit of `sd`; infinite for fewer than two pairs.

    Raises:
        ValueError: If the standard deviation is negative, or the level and the power are not probabilities with the
            power above the level.
    """
    if sd < 0 or not 0 < level < power < 1:
        raise ValueError(f"Needs `sd` >= 0 and 0 < `level` < `power` < 1, not {sd}, {level} and {power}.")
    if num_pairs < 2:
        return float("inf")
    most = 1.0
    while _power(most, num_pairs, level) < power:
        most *= 2
    return sd * brentq(lambda effect: _power(effect, num_pairs, level) - power, 0, most)


def pairs_needed(sd: float, difference: float, level: float = 0.05, power: float = POWER) -> int | None:
    """Returns the fewest pairs with which the test finds a true difference; `None` if more than `MAX_PAIRS`.

    Args:
        sd (`float`): Standard deviation of the differences.
        difference (`float`): The true mean difference, in the same unit.
        level (`float`, defaults to 0.05): Of the test.
        power (`float`, defaults to 0.8): Probability of finding the difference.

    Raises:
        ValueError: If the difference is 0, or for what [`detectable_difference`] refuses.
    """
    if not difference:
        raise ValueError("No number of pairs finds a `difference` of 0.")
    counts = range(2, MAX_PAIRS + 1)
    at = bisect_left(counts, True, key=lambda count: detectable_difference(sd, count, level, power) <= abs(difference))
    return counts[at] if at < len(counts) else None


def _power(effect: float, num_pairs: int, level: float) -> float:
    """Probability of finding a difference, in units of the standard deviation, with its sign."""
    critical = stats.t.ppf(1 - level / 2, num_pairs - 1)
    return float(stats.nct.sf(critical, num_pairs - 1, effect * num_pairs**0.5))
