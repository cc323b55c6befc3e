"""The declared comparison, on planted scores: an effect, none, and too few seeds."""

import numpy as np
import pytest
from scipy import stats

from predrec.experiments.definition import Primary
from predrec.experiments.primary import compare_primary, mean_scores
from predrec.experiments.run_files import merge_runs

from .made import content

SCORES = {"sst2": "accuracy", "stsb": "spearmanr"}
NOISE = [0.004, -0.003, 0.001, -0.005, 0.002, 0.0, 0.003, -0.002]


def planted(effect: float, pairs: int, declared: int = 8, noise: float = 1.0):
    """Compares runs whose mean scores differ by the effect and some noise."""
    runs = [content("mlm-time", seed, 0.5 + seed / 100) for seed in range(1, pairs + 1)]
    runs += [
        content("hybrid", seed, 0.5 + seed / 100 + effect + noise * NOISE[seed - 1]) for seed in range(1, pairs + 1)
    ]
    return compare_primary(merge_runs(runs), Primary("?", "hybrid", "mlm-time", SCORES, declared))


def test_score_of_a_seed_is_the_mean_over_tasks():
    run = content("hybrid", 2, 0.6)
    run["measured"][2]["values"]["spearmanr"] = [0.2, 0.4]
    assert mean_scores(merge_runs([run]), "hybrid", SCORES) == pytest.approx({2: (0.6 + 0.3) / 2})


def test_seed_without_all_scores_does_not_count():
    run = content("hybrid", 2)
    del run["measured"][2]
    assert mean_scores(merge_runs([content("hybrid", 1), run]), "hybrid", SCORES).keys() == {1}


@pytest.mark.parametrize(("effect", "verdict"), [(0.02, "improves"), (-0.02, "harms")])
def test_planted_effect_is_found(effect, verdict):
    found = planted(effect, 8)
    assert found.verdict == verdict
    assert found.comparison.effect == pytest.approx(effect, abs=0.001)


def test_interval_and_p_are_those_of_a_paired_t_test():
    comparison = planted(0.02, 8).comparison
    expected = stats.ttest_1samp(np.array(NOISE) + 0.02, 0)
    interval = expected.confidence_interval(0.95)
    assert comparison.t_p == pytest.approx(expected.pvalue, rel=1e-6)
    assert (comparison.low, comparison.high) == pytest.approx((interval.low, interval.high), rel=1e-6)


@pytest.mark.parametrize(("effect", "verdict"), [(0.004, "improves"), (-0.004, "harms")])
def test_sure_effect_of_less_than_a_point_says_so(effect, verdict):
    assert planted(effect, 8, noise=0.1).verdict == f"{verdict}, by less than one point"


def test_no_effect_with_little_noise_is_equivalent():
    assert planted(0.0, 8).verdict == "equivalent"


def test_no_effect_with_much_noise_is_undecided():
    assert planted(0.0, 8, noise=10).verdict == "undecided"


@pytest.mark.parametrize("pairs", [1, 2, 4])
def test_fewer_than_five_pairs_are_too_few_whatever_they_say(pairs):
    assert planted(0.2, pairs).verdict == "too few seeds"


def test_fewer_pairs_than_declared_are_an_interim_result():
    assert planted(0.02, 5).verdict == "improves (interim: 5 of 8 declared pairs)"


def test_pairs_beyond_the_declared_number_do_not_count():
    found = planted(0.02, 8, declared=5)
    assert found.comparison.num_seeds == 5
    assert found.verdict == "improves"


def test_declared_seeds_may_begin_later_and_the_level_be_lower():
    noise = dict(zip(range(7, 15), NOISE, strict=True))
    runs = [content("mlm-time", seed, 0.5) for seed in noise]
    runs += [content("hybrid", seed, 0.503 + noise[seed]) for seed in noise]
    declared = Primary("?", "hybrid", "mlm-time", SCORES, 6, first_seed=9, level=0.2)
    found = compare_primary(merge_runs(runs), declared)
    differences = 0.003 + np.array(NOISE[2:])
    interval = stats.ttest_1samp(differences, 0).confidence_interval(0.8)
    assert found.comparison.num_seeds == 6
    assert (found.comparison.low, found.comparison.high) == pytest.approx((interval.low, interval.high), rel=1e-6)
    assert 0.05 < found.comparison.t_p < 0.2 and found.verdict == "improves, by less than one point"
    at_usual = compare_primary(merge_runs(runs), Primary("?", "hybrid", "mlm-time", SCORES, 6, first_seed=9))
    assert at_usual.verdict == "equivalent"


def test_seeds_are_paired_by_number():
    runs = [content("hybrid", seed, seed / 10) for seed in (1, 3)] + [content("mlm-time", 3, 0.1)]
    found = compare_primary(merge_runs(runs), Primary("?", "hybrid", "mlm-time", SCORES, 8))
    assert (found.comparison.num_seeds, found.comparison.effect) == (1, pytest.approx(0.2))


def test_part_of_a_task_is_its_difference_and_that_of_the_others():
    runs = [content("mlm-time", seed, 0.5) for seed in (1, 2, 3)]
    for seed in (1, 2, 3):
        runs.append(content("hybrid", seed, 0.5 + seed / 100))
        runs[-1]["measured"][2]["values"]["spearmanr"] = [0.8, 0.8]
    found = compare_primary(merge_runs(runs), Primary("?", "hybrid", "mlm-time", SCORES, 8))
    sst2, stsb = found.parts["sst2"], found.parts["stsb"]
    assert (sst2.model, sst2.baseline, sst2.comparison.effect) == pytest.approx((0.52, 0.5, 0.02))
    assert (stsb.model, stsb.comparison.effect, stsb.comparison.sd) == pytest.approx((0.8, 0.3, 0.0))
    assert (sst2.without, stsb.without) == pytest.approx((0.3, 0.02))


def test_nothing_measured_has_no_comparison():
    found = compare_primary(merge_runs([]), Primary("?", "hybrid", "mlm-time", SCORES, 8))
    assert (found.comparison, found.verdict) == (None, "too few seeds")
