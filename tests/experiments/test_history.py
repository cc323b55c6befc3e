"""Curves and times from a Trainer's log."""

import pytest

from predrec.experiments.history import curves, evaluation_seconds, last, tokens_of, training_seconds, update_speeds

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
    seconds, _ = training_seconds([[10, 100.0], [20, 50.0]], 20)
    assert seconds == pytest.approx(10 / 100 + 10 / 50)


def test_updates_after_the_last_line_have_the_median_speed():
    seconds, _ = training_seconds([[10, 100.0]], 15)
    assert seconds == pytest.approx(15 / 100)


def test_median_speed_forgives_a_slow_moment():
    _, typical = training_seconds([[10, 100.0], [20, 1.0], [30, 100.0]], 30)
    assert typical == pytest.approx(30 / 100)


def test_parts_of_a_run_that_cost_differently_have_medians_of_their_own():
    points = [[10, 100.0], [20, 1.0], [30, 100.0], [40, 50.0], [50, 50.0], [60, 2.0]]
    seconds, typical = training_seconds(points[:5], 60, change=35)
    assert typical == pytest.approx(35 / 100 + 25 / 50)
    assert seconds == pytest.approx(20 / 100 + 10 / 1 + 30 / 50)
    assert training_seconds(points, 60, change=35)[1] == typical


def test_run_that_ends_before_its_first_line_of_a_part_has_the_speed_of_the_other():
    assert training_seconds([[10, 100.0]], 20, change=15)[1] == pytest.approx(20 / 100)


def test_run_without_a_log_took_no_known_time():
    assert training_seconds([], 10) == (0.0, 0.0)


PADDED = {"tokens": [[10, 300.0], [20, 500.0]], "tokens_per_second": [[10, 30.0], [20, 100.0]]}
"""Ten updates of 300 tokens in 10 seconds, ten of 500 in 5; an update has 64 places."""


def test_speed_of_padded_rows_is_by_the_tokens_that_were_counted():
    assert update_speeds(PADDED, 64) == [[10, 1.0], [20, 2.0]]


def test_speed_of_a_log_that_counts_no_tokens_is_by_those_of_an_update():
    assert update_speeds({"tokens_per_second": [[10, 64.0], [15, 32.0]]}, 64) == [[10, 1.0], [15, 0.5]]


def test_lines_from_before_tokens_were_counted_are_left_out_beside_those_that_count_them():
    assert update_speeds(PADDED | {"tokens": [[20, 500.0]]}, 64) == [[20, 2.0]]


@pytest.mark.parametrize(
    ("curves", "arguments", "tokens"),
    [
        (PADDED, {"packing": "false"}, 800),
        (PADDED | {"tokens": [[20, 500.0]]}, {"packing": "false"}, 1000),
        ({}, {"packing": "false"}, None),
        ({}, {"packing": "false", "padding_is_text": "true"}, 1280),
        ({}, {}, 1280),
    ],
)
def test_tokens_of_a_run_are_known_where_they_were_counted_or_nothing_was_padded(curves, arguments, tokens):
    assert tokens_of({"curves": curves, "arguments": arguments, "steps": 20, "tokens": 1280}) == tokens


def test_time_of_evaluations():
    assert evaluation_seconds(LOG) == 7
