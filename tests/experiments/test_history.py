"""Curves and times from a Trainer's log."""

import pytest

from predrec.experiments.history import curves, evaluation_seconds, last, training_seconds

LOG = [
    {"loss": 5.123456789, "learning_rate": 1e-3, "epoch": 0.1, "tokens_per_second": 100.0, "step": 10},
    {"loss": 4.0, "tokens_per_second": 50.0, "step": 20},
    {"eval_mlm_loss": 6.5, "eval_runtime": 3.0, "eval_tokens_per_second": 9.0, "step": 20},
    {"eval_mlm_loss": 6.25, "eval_runtime": 4.0, "step": 40},
]


def test_curves_have_steps_and_rounded_values():
    assert curves(LOG)["loss"] == [[10, 5.1235], [20, 4.0]]


def test_rates_and_rulers_are_no_curves():
    assert set(curves(LOG)) == {"loss", "tokens_per_second", "eval_mlm_loss"}


def test_last_values_are_of_the_held_out_text():
    assert last(curves(LOG)) == {"eval_mlm_loss": 6.25}


def test_training_time_is_that_of_the_updates():
    seconds, _ = training_seconds([[10, 100.0], [20, 50.0]], 20, 8)
    assert seconds == pytest.approx(10 * 8 / 100 + 10 * 8 / 50)


def test_updates_after_the_last_line_have_the_median_speed():
    seconds, _ = training_seconds([[10, 100.0]], 15, 8)
    assert seconds == pytest.approx(15 * 8 / 100)


def test_median_speed_forgives_a_slow_moment():
    _, typical = training_seconds([[10, 100.0], [20, 1.0], [30, 100.0]], 30, 8)
    assert typical == pytest.approx(30 * 8 / 100)


def test_parts_of_a_run_that_cost_differently_have_medians_of_their_own():
    points = [[10, 100.0], [20, 1.0], [30, 100.0], [40, 50.0], [50, 50.0], [60, 2.0]]
    seconds, typical = training_seconds(points[:5], 60, 8, change=35)
    assert typical == pytest.approx(35 * 8 / 100 + 25 * 8 / 50)
    assert seconds == pytest.approx(20 * 8 / 100 + 10 * 8 / 1 + 30 * 8 / 50)
    assert training_seconds(points, 60, 8, change=35)[1] == typical


def test_run_that_ends_before_its_first_line_of_a_part_has_the_speed_of_the_other():
    assert training_seconds([[10, 100.0]], 20, 8, change=15)[1] == pytest.approx(20 * 8 / 100)


def test_run_without_a_log_took_no_known_time():
    assert training_seconds([], 10, 8) == (0.0, 0.0)


def test_time_of_evaluations():
    assert evaluation_seconds(LOG) == 7
