"""How small a difference so many pairs can show: against simulated experiments and tables of sample sizes."""

import numpy as np
import pytest
from scipy import stats

from predrec.eval.power import MAX_PAIRS, detectable_difference, pairs_needed


@pytest.mark.parametrize("num_pairs", [2, 3, 8, 40])
@pytest.mark.parametrize("level", [0.05, 0.025])
def test_test_finds_the_detectable_difference_as_often_as_said(num_pairs, level):
    difference = detectable_difference(0.5, num_pairs, level)
    draws = np.random.default_rng(0).normal(difference, 0.5, (10_000, num_pairs))
    assert (stats.ttest_1samp(draws, 0, axis=1).pvalue < level).mean() == pytest.approx(0.8, abs=0.015)


@pytest.mark.parametrize(("effect", "needed"), [(0.2, 199), (0.5, 34), (0.8, 15), (1.0, 10)])
def test_seeds_needed_are_those_of_published_tables(effect, needed):
    # Cohen's small, medium and large effects of a paired t-test, level 0.05, power 0.8.
    assert pairs_needed(1.0, effect) == needed


def test_needed_pairs_find_the_difference_and_one_less_do_not():
    needed = pairs_needed(0.01, 0.006)
    assert detectable_difference(0.01, needed) <= 0.006 < detectable_difference(0.01, needed - 1)


def test_sign_of_the_wanted_difference_does_not_matter():
    assert pairs_needed(1.0, -0.5) == pairs_needed(1.0, 0.5)


def test_more_power_takes_more_pairs():
    assert pairs_needed(1.0, 0.5, power=0.95) > pairs_needed(1.0, 0.5)


def test_single_pair_can_show_nothing():
    assert detectable_difference(0.1, 1) == float("inf")


def test_without_spread_every_difference_shows():
    assert detectable_difference(0.0, 3) == 0
    assert pairs_needed(0.0, 0.01) == 2


def test_difference_that_takes_too_many_pairs_has_no_number():
    assert pairs_needed(1.0, 0.01) is None
    assert detectable_difference(1.0, MAX_PAIRS) > 0.01


@pytest.mark.parametrize(
    "wrong", [{"sd": -0.1}, {"level": 0.0}, {"level": 1.0}, {"power": 1.0}, {"power": 0.04}, {"level": 0.9}]
)
def test_impossible_question_is_refused(wrong):
    with pytest.raises(ValueError, match="0 < `level` < `power` < 1"):
        detectable_difference(**{"sd": 0.1, "num_pairs": 5} | wrong)


def test_no_number_of_pairs_finds_nothing():
    with pytest.raises(ValueError, match="a `difference` of 0"):
        pairs_needed(0.1, 0.0)
