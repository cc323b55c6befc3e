"""Tests of tests: against naive enumeration, against their laws, and in words."""

from itertools import product

import numpy as np
import pytest
from scipy import stats

from predrec.eval.statistics import (
    bootstrap_interval,
    compare,
    corrected,
    equivalence_p,
    mcnemar_p,
    sign_flip_p,
    verdict,
)

GAINS = [0.9, 1.4, 1.1, 0.7, 1.3, 1.0]


def test_sign_flip_equals_enumeration():
    values = [0.5, -0.1, 0.4, 0.3]
    means = [abs(np.mean([s * v for s, v in zip(signs, values, strict=True)])) for signs in product((1, -1), repeat=4)]
    assert sign_flip_p(values) == np.mean([mean >= abs(np.mean(values)) - 1e-12 for mean in means])


@pytest.mark.parametrize("count", [3, 5, 8])
def test_sign_flip_of_equal_signs_is_the_smallest_possible(count):
    assert sign_flip_p([1.0] * count) == 2 / 2**count


def test_sign_flip_by_draws_agrees_with_the_exact_one(monkeypatch):
    values = np.random.default_rng(0).normal(0.3, 1, 12)
    exact = sign_flip_p(values)
    monkeypatch.setattr("predrec.eval.statistics.MAX_EXACT", 0)
    assert sign_flip_p(values) == pytest.approx(exact, abs=0.02)


def test_sign_flip_rejects_a_true_null_as_often_as_it_should():
    generator = np.random.default_rng(0)
    rejected = np.mean([sign_flip_p(generator.normal(size=8)) < 0.05 for _ in range(400)])
    assert 0.02 < rejected < 0.08


def test_compare_agrees_with_scipy():
    result = compare(GAINS)
    reference = stats.ttest_1samp(GAINS, 0)
    interval = reference.confidence_interval(0.95)
    assert result.t_p == pytest.approx(reference.pvalue)
    assert (result.low, result.high) == pytest.approx((interval.low, interval.high))
    assert result.effect == pytest.approx(np.mean(GAINS))


def test_compare_of_one_seed_knows_nothing():
    result = compare([3.0])
    assert (result.low, result.high, result.t_p, result.smallest_p) == (-np.inf, np.inf, 1.0, 1.0)


@pytest.mark.parametrize("bad", [[], [1.0, float("nan")]])
def test_compare_refuses_what_is_not_finite(bad):
    with pytest.raises(ValueError, match="finite"):
        compare(bad)


def test_equivalence_of_small_differences():
    small = [0.01, -0.02, 0.0, 0.02, -0.01, 0.01]
    assert equivalence_p(small, margin=0.5) < 1e-4
    assert equivalence_p(small, margin=0.005) > 0.2


def test_equivalence_needs_a_margin():
    with pytest.raises(ValueError, match="positive `margin`"):
        equivalence_p(GAINS, margin=0)


def test_holm_equals_its_definition():
    assert corrected([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert corrected([0.01, 0.04, 0.03], "bonferroni") == pytest.approx([0.03, 0.12, 0.09])
    assert corrected([]) == []


def test_mcnemar_equals_the_binomial_of_the_disagreements():
    model = [True] * 10 + [False] * 2 + [True] * 30
    baseline = [False] * 10 + [True] * 2 + [True] * 30
    assert mcnemar_p(model, baseline) == pytest.approx(stats.binomtest(10, 12).pvalue)
    assert mcnemar_p([True, False], [True, False]) == 1.0


def test_mcnemar_needs_the_same_items():
    with pytest.raises(ValueError, match="entries"):
        mcnemar_p([True], [True, False])


def test_bootstrap_interval_covers_the_mean_it_should():
    values = np.random.default_rng(0).normal(2, 1, 300)
    low, high = bootstrap_interval(values, num_draws=2000)
    assert low < 2 < high
    assert high - low == pytest.approx(2 * 1.96 / 300**0.5, rel=0.15)


@pytest.mark.parametrize(
    ("differences", "p", "p_same", "expected"),
    [
        (GAINS, 0.01, 0.9, "improves"),
        ([-gain for gain in GAINS], 0.01, 0.9, "harms"),
        (GAINS, 0.01, 0.01, "improves, by less than 0.5"),
        ([-gain for gain in GAINS], 0.01, 0.01, "harms, by less than 0.5"),
        (GAINS, 0.9, 0.01, "equivalent"),
        (GAINS, 0.8, 0.8, "undecided"),
        (GAINS[:3], 0.001, 0.001, "too few seeds"),
    ],
)
def test_verdict_in_words(differences, p, p_same, expected):
    assert verdict(differences, p, p_same, margin=0.5) == expected


def test_equivalence_of_one_seed_is_unknown():
    assert equivalence_p([0.0], margin=0.5) == 1.0


def test_differences_that_are_rounding_are_no_finding():
    found = compare([1e-17] * 8)
    assert (found.effect, found.t_p, found.sign_flip_p) == (0.0, 1.0, 1.0)


@pytest.mark.parametrize("count", [2, 8])
def test_differences_that_are_all_the_same_have_the_p_of_their_signs(count):
    found = compare([0.02] * count)
    assert found.t_p == found.sign_flip_p == 2 / 2**count
    assert equivalence_p([0.002] * count, 0.01) == 1 / 2**count
    assert equivalence_p([0.02] * count, 0.01) == 1.0


@pytest.mark.parametrize("bad", [[], [0.1, float("nan")], [0.1, float("inf")]], ids=str)
@pytest.mark.parametrize(
    "test", [sign_flip_p, lambda values: equivalence_p(values, 0.01), bootstrap_interval], ids=["flip", "tost", "boot"]
)
def test_tests_refuse_what_is_not_finite(test, bad):
    with pytest.raises(ValueError, match="finite"):
        test(bad)
