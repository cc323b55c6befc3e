"""Arms timed in turn: which, what their ratios are, what of them a report shows."""

import json
from dataclasses import asdict, replace

import pytest

from predrec.errors import UserError
from predrec.eval.document import to_markdown
from predrec.experiments.definition import Run, read_experiment
from predrec.experiments.report import write_report
from predrec.experiments.timing import (
    TIMING_FILE,
    Timing,
    arms_to_time,
    read_timing,
    run_ratios,
    timing_table,
    without_length,
    write_timing,
)

from .made import DEFINITION, content, write_definition


@pytest.fixture
def experiment(tmp_path):
    return read_experiment(write_definition(tmp_path))


@pytest.fixture
def timing(experiment):
    """Three rounds; an update of `hybrid` takes 2.2, 2.0 and 2.1 times as long as one of `mlm-time`."""
    seconds = {"hybrid": [0.22, 0.4, 0.21], "mlm-time": [0.1, 0.2, 0.1]}
    arguments = {name: without_length(experiment.arms[name].arguments) for name in seconds}
    return Timing("a command", "2026-01-01", "2 CPU cores", {"torch": "2.0"}, 60, arguments, seconds)


def test_what_is_timed_is_what_is_to_take_the_same_time(experiment):
    arms = experiment.arms
    assert arms_to_time(arms, []) == ["hybrid", "mlm-time"]
    assert arms_to_time(arms, ["mlm-time", "mlm"]) == ["mlm", "mlm-time"]
    alone = {name: replace(arm, same_time_as=None) for name, arm in arms.items()}
    assert arms_to_time(alone, []) == ["hybrid", "mlm", "mlm-time"]


def test_ratios_are_within_rounds_and_of_all_updates(experiment, timing):
    """A slow round is slow for both. `mlm-time` makes 230 updates, `hybrid` 100."""
    found = run_ratios(timing, experiment.arms, "mlm-time", "hybrid")
    assert found == pytest.approx([0.1 * 230 / 22, 0.2 * 230 / 40, 0.1 * 230 / 21])


@pytest.mark.parametrize("other", [None, "mlm"])
def test_no_ratio_with_what_was_not_timed(experiment, timing, other):
    assert run_ratios(timing, experiment.arms, "mlm-time", other) == []


def test_no_ratio_of_arms_without_a_number_of_updates(experiment, timing):
    arms = {
        name: replace(arm, arguments=without_length(arm.arguments)) if name == "hybrid" else arm
        for name, arm in experiment.arms.items()
    }
    assert run_ratios(timing, arms, "mlm-time", "hybrid") == []


def test_table_has_the_factor_of_equal_time(experiment, timing):
    """In the median round, `mlm-time` takes 0.1 x 230 / 21 of the time of `hybrid`."""
    table = timing_table(timing, experiment.arms)
    rows = {row[0]: dict(zip(table.header, row, strict=True)) for row in table.rows}
    assert rows["mlm-time"]["all of them"] == "1.1 (1.05 to 1.15) of hybrid"
    assert rows["mlm-time"]["`updates_factor` of equal time"] == f"{2.26 / (23 / 21):.3g} (it is 2.26)"
    assert rows["hybrid"]["seconds per update"] == "0.22 (0.21 to 0.4)"
    assert rows["hybrid"]["all of them"] == "-"


def test_what_is_written_is_read_again(tmp_path, experiment, timing):
    write_timing(tmp_path, timing)
    assert read_timing(tmp_path, experiment.arms) == timing


def test_another_number_of_updates_is_the_same_arm_another_argument_is_not(tmp_path, timing):
    write_timing(tmp_path, timing)
    longer = read_experiment(write_definition(tmp_path, DEFINITION.replace("max_steps: 100", "max_steps: 400")))
    assert read_timing(tmp_path, longer.arms) == timing
    other = DEFINITION.replace("why: both losses", "why: both losses, hidden_size: 128")
    found = read_timing(tmp_path, read_experiment(write_definition(tmp_path, other)).arms)
    assert found.seconds == {"mlm-time": timing.seconds["mlm-time"]}
    wider = DEFINITION.replace("max_seq_length: 32", "max_seq_length: 64")
    assert read_timing(tmp_path, read_experiment(write_definition(tmp_path, wider)).arms) is None


def test_without_a_file_there_is_no_timing(tmp_path, experiment):
    assert read_timing(tmp_path, experiment.arms) is None


@pytest.mark.parametrize(
    "text",
    ["[", "[]", '{"updates": 60}', None],
    ids=["no JSON", "a list", "parts missing", "a round missing"],
)
def test_damaged_file_is_named(tmp_path, experiment, timing, text):
    damaged = asdict(timing) | {"seconds": timing.seconds | {"hybrid": [0.22]}}
    (tmp_path / TIMING_FILE).write_text(json.dumps(damaged) if text is None else text)
    with pytest.raises(UserError, match=r"timing\.json is not what `--time_rounds` writes: .*Delete it"):
        read_timing(tmp_path, experiment.arms)


@pytest.fixture
def report(tmp_path, experiment, monkeypatch):
    """Writes the report of two seeds in which `mlm-time` took 1.5 times as long as `hybrid`."""
    monkeypatch.setattr("predrec.eval.report.all_figures", lambda results: [])

    def write() -> str:
        took = {"hybrid": 80.0, "mlm-time": 120.0}
        finished = {
            Run(arm, seed): content(arm, seed, seconds_at_median_speed=took[arm]) for arm in took for seed in (1, 2)
        }
        write_report(tmp_path / "experiment.yaml", experiment, finished)
        return (tmp_path / "report.md").read_text(encoding="utf-8")

    return write


def test_report_has_times_of_arms_in_turn(tmp_path, experiment, timing, report):
    write_timing(tmp_path, timing)
    written = report()
    assert "### Timed in turn, with nothing beside them\n\n60 updates of each arm in each of 3 rounds" in written
    assert to_markdown([timing_table(timing, experiment.arms)]).strip() in written
    declared = written.split("## The declared comparison")[1].split("\n## ")[0]
    assert "did not take the same time** in 2 of 2 pairs (at median speed 1.500 to 1.500" in declared
    assert (
        "Timed in turn, with nothing beside them, mlm-time takes 1.095 times as long as hybrid (3 rounds" in declared
    )


def test_report_without_times_says_nothing_of_them(report):
    assert "Timed in turn" not in report()
