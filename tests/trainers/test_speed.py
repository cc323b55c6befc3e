"""Whatever happens to the time of day, rates are those of the time that passed, and saving goes by steps."""

import itertools
import os
import time

import pytest

from predrec.trainers.checkpoints import checkpoints_in, resume_point
from predrec.trainers.speed import SpeedLog
from tests import training

STEP = {"max_steps": 8, "eval_strategy": "steps", "eval_steps": 4, "save_strategy": "steps", "save_steps": 2}


@pytest.fixture(params=[-3600.0, 0.0, 1e9], ids=["back", "still", "ahead"])
def clock(request, monkeypatch):
    """The time of day, which goes back an hour, stands still or jumps whenever somebody looks."""
    times = itertools.count(1.7e9, request.param) if request.param else itertools.repeat(1.7e9)
    monkeypatch.setattr(time, "time", lambda: next(times))


def test_rates_are_those_of_the_time_that_passed(tmp_path, clock):
    trainer, start = training.trainer(tmp_path, **STEP), time.perf_counter()
    trainer.train()
    passed = time.perf_counter() - start
    logged = [(name, value) for entry in trainer.state.log_history for name, value in entry.items()]
    times = [value for name, value in logged if name.endswith("_runtime")]
    assert len(times) == 3 and all(0 < value <= passed for value in times)
    rates = dict(pair for pair in logged if pair[0].endswith("_per_second"))
    assert len(rates) == 6 and all(value > 0 for value in rates.values())
    assert rates["train_steps_per_second"] >= 8 / passed
    assert rates["train_samples_per_second"] == pytest.approx(8 * rates["train_steps_per_second"], rel=1e-2)


def test_saving_goes_by_steps(tmp_path, clock):
    training.trainer(tmp_path, save_total_limit=2, **STEP).train()
    best_and_last = [path.name for path in checkpoints_in(tmp_path)]
    assert len(best_and_last) == 2 and best_and_last[-1] == "checkpoint-8"


def test_newest_checkpoint_is_that_of_the_last_step_whatever_its_date(tmp_path):
    training.trainer(tmp_path, save_total_limit=4, **STEP).train()
    for age, path in enumerate(checkpoints_in(tmp_path)):
        os.utime(path, (1e9 - age, 1e9 - age))
    assert resume_point(tmp_path, True).name == "checkpoint-8"


def test_other_lines_of_the_log_stay_as_they_are():
    logs = {"loss": 1.0, "test_runtime": -5.0}
    SpeedLog("eval").correct(logs)
    assert logs == {"loss": 1.0, "test_runtime": -5.0}


@pytest.mark.parametrize("kind", ["packed", "isolated"])
def test_evaluation_counts_rows(tmp_path, kind):
    """A row of isolated documents is one, however many it holds."""
    trainer = training.trainer(tmp_path, kind=kind)
    rows = training.train_rows(kind)
    found = trainer.evaluate(rows)
    rate, seconds = found["eval_samples_per_second"], found["eval_runtime"]
    assert rate * seconds == pytest.approx(len(rows), rel=0.01)
    assert found["eval_steps_per_second"] * seconds == pytest.approx(-(-len(rows) // 8), rel=0.01)
