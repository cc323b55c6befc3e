"""What is left, and how long it takes."""

import pytest

from predrec.experiments.definition import Run
from predrec.experiments.schedule import estimate, in_words, remaining, seconds_of, time_left

from .made import content

ORDER = [Run("mlm", 1), Run("hybrid", 1), Run("mlm", 2), Run("hybrid", 2)]
TOKENS = {"mlm": 12800, "hybrid": 25600, "streamed": None}


def test_finished_runs_are_left_out():
    assert remaining(ORDER, {Run("mlm", 1): {}}) == ORDER[1:]


def test_only_the_named_arms_remain():
    assert remaining(ORDER, {Run("mlm", 1): {}}, ["mlm"]) == [Run("mlm", 2)]


def test_run_took_all_its_parts():
    assert seconds_of(content("mlm", 1)) == 120


def test_estimate_is_the_mean_of_the_same_arm():
    slow = content("mlm", 2, seconds={"training": 200.0})
    finished = {Run("mlm", 1): content("mlm", 1), Run("mlm", 2): slow, Run("hybrid", 1): content("hybrid", 1)}
    assert estimate(Run("mlm", 3), finished, TOKENS) == 160


def test_estimate_of_a_new_arm_goes_by_tokens():
    assert estimate(Run("hybrid", 1), {Run("mlm", 1): content("mlm", 1)}, TOKENS) == 210


def test_estimate_of_a_new_arm_is_not_led_astray_by_runs_of_a_few_updates():
    untrained = content("untrained", 1, tokens=128, seconds={"training": 1.0, "probes": 20.0})
    finished = {Run("mlm", 1): content("mlm", 1), Run("untrained", 1): untrained}
    assert estimate(Run("hybrid", 1), finished, TOKENS) == pytest.approx(205, rel=0.01)


def test_estimate_of_unknown_tokens_is_the_mean_of_all():
    assert estimate(Run("streamed", 1), {Run("mlm", 1): content("mlm", 1)}, TOKENS) == 120


def test_time_left_adds_up():
    finished = {Run("mlm", 1): content("mlm", 1)}
    assert time_left(remaining(ORDER, finished), finished, TOKENS) == 210 + 120 + 210


def test_time_left_is_unknown_at_first():
    assert time_left(ORDER, {}, TOKENS) is None
    assert in_words(None) == "unknown until the first run has finished"


@pytest.mark.parametrize(("seconds", "words"), [(20, "less than a minute"), (600, "10 min"), (5400, "1.5 h")])
def test_time_in_words(seconds, words):
    assert in_words(seconds) == words
