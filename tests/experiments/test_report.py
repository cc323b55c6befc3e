"""The report of finished runs written by hand."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from scipy import stats

from predrec.eval.document import Heading, Picture, Table
from predrec.experiments.definition import Run, read_experiment
from predrec.experiments.report import build_blocks, write_report
from predrec.experiments.report_training import training_blocks
from predrec.experiments.run_files import merge_runs

from .made import DEFINITION, content, write_definition

ARMS = ("hybrid", "mlm", "mlm-time")


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write_definition(tmp_path_factory.mktemp("results") / "test")


@pytest.fixture(scope="module")
def experiment(path):
    return read_experiment(path)


@pytest.fixture(scope="module")
def written(path, experiment):
    """The text of a report of two seeds of every arm."""
    finished = {Run(arm, seed): content(arm, seed) for arm in ARMS for seed in (2, 1)}
    write_report(path, experiment, finished)
    return (path.parent / "report.md").read_text(encoding="utf-8")


def rows_below(blocks: list, heading: str, level: int = 2) -> list[dict[str, str]]:
    """Returns the rows of the last table below a heading."""
    at = next(index for index, block in enumerate(blocks) if block == Heading(heading, level))
    end = next((i for i in range(at + 1, len(blocks)) if isinstance(blocks[i], Heading)), len(blocks))
    table = [block for block in blocks[at:end] if isinstance(block, Table)][-1]
    return [dict(zip(table.header, row, strict=True)) for row in table.rows]


@pytest.fixture
def blocks(experiment, monkeypatch):
    """Builds a report without the figures of the evaluation, which take the most time."""
    monkeypatch.setattr("predrec.eval.report.all_figures", lambda results: [])

    def build(*contents: dict) -> list:
        by_arm: dict = {}
        for one in contents:
            by_arm.setdefault(one["arm"], []).append(one)
        return build_blocks(experiment, by_arm, merge_runs(contents), Path("."))

    return build


@pytest.mark.parametrize("name", ["report.md", "report.html", "results.json", "figures/training.png"])
def test_report_writes_its_files(path, written, name):
    assert (path.parent / name).stat().st_size > 0


def test_declared_comparison_comes_first(written):
    assert re.findall(r"^## (.*)$", written, flags=re.MULTILINE)[:3] == ["The declared comparison", "Time", "Training"]


def test_report_names_no_folder_of_the_machine(path, written):
    results = (path.parent / "results.json").read_text(encoding="utf-8")
    assert str(path.parent.parent) not in written + results


def test_report_says_how_much_is_there(written):
    assert "| mlm | 2 of 3 | one loss |" in written


def test_claims_of_the_declared_pairs_alone_are_tested(written):
    assert re.findall(r"^## The paper's claims: (.*)$", written, flags=re.MULTILINE) == ["hybrid against mlm"]


def test_declared_comparison_is_taken_apart_by_task(blocks):
    """Over the declared arms; the mean without a task is that of the other."""
    runs = [content("hybrid", seed, 0.6 + seed / 100) for seed in (1, 2)]
    built = blocks(*runs, *(content("mlm-time", seed, 0.5) for seed in (1, 2)))
    (table,) = [block for block in built if isinstance(block, Table) and block.header[0] == "score"]
    assert [row[0] for row in table.rows] == ["sst2", "stsb"]
    assert table.rows[0][1:4] == ["0.6150", "0.5000", "+0.1150"] and table.rows[0][5] == "+0.1150"


def test_small_p_is_not_shown_as_zero(blocks):
    noise = {1: 0.001, 2: -0.001, 3: 0.002, 4: -0.002, 5: 0.0}
    runs = [content("hybrid", seed, 0.8 + noise[seed]) for seed in noise]
    built = blocks(*runs, *(content("mlm-time", seed, 0.5) for seed in noise))
    (row,) = rows_below(built, "The declared comparison")
    expected = stats.ttest_1samp([0.3 + one for one in noise.values()], 0).pvalue
    assert row["p (paired t)"] == f"{expected:.0e}" and row["p (sign flips)"] == "0.0625"


def test_two_seeds_have_no_verdict(blocks):
    built = blocks(*(content(arm, seed) for arm in ARMS for seed in (1, 2)))
    (row,) = rows_below(built, "The declared comparison")
    assert (row["pairs"], row["verdict"]) == ("2", "**too few seeds**")


def test_declared_seeds_and_level_are_shown(experiment, blocks):
    other = replace(experiment, primary=replace(experiment.primary, first_seed=2, level=0.025))
    runs = [content(arm, seed) for arm in ARMS for seed in (1, 2)]
    built = build_blocks(
        other, {arm: [run for run in runs if run["arm"] == arm] for arm in ARMS}, merge_runs(runs), Path(".")
    )
    (row,) = rows_below(built, "The declared comparison")
    assert row["pairs"] == "1" and "97.5 % interval" in row
    text = " ".join(getattr(block, "text", "") for block in built)
    assert "paired t-test at a level of 0.025." in text
    tables = [block for block in built if isinstance(block, Table) and block.header[0] == "seed"]
    assert [row[-1] for row in tables[0].rows] == ["not counted", ""]


SPREAD = "What so many seeds can show"


def test_every_pair_has_the_declared_score(blocks):
    """Also of the seeds that were not declared; a pair without a seed in common has no row."""
    runs = [content("hybrid", seed, 0.6 + seed / 100) for seed in (1, 2, 3)]
    built = blocks(*runs, *(content("mlm", seed, 0.5) for seed in (1, 2, 3)), content("mlm-time", 4))
    (row,) = rows_below(built, SPREAD, 3)
    assert (row["pair"], row["seeds"], row["mean difference"]) == ("hybrid against mlm", "3", "+0.1200")
    assert row["standard deviation"] == "0.0100"


def test_detectable_difference_is_at_the_declared_level(experiment, blocks):
    runs = [content("hybrid", seed, 0.6 + seed / 100) for seed in (1, 2, 3, 4)]
    runs += [content("mlm-time", seed, 0.5) for seed in (1, 2, 3, 4)]
    by_arm = {arm: [run for run in runs if run["arm"] == arm] for arm in ("hybrid", "mlm-time")}
    shown = {}
    for level in (0.05, 0.025):
        other = replace(experiment, primary=replace(experiment.primary, level=level))
        (row,) = rows_below(build_blocks(other, by_arm, merge_runs(runs), Path(".")), SPREAD, 3)
        shown[level] = row["detectable"], row["seeds for 0.01"]
    # 2.128 and 2.716 standard deviations of 0.0129; 16 and 19 pairs for 0.775 of one.
    assert shown == {0.05: ("0.0275", "16"), 0.025: ("0.0351", "19")}


def test_declared_pair_is_not_shown_twice(experiment, blocks):
    other = replace(experiment, pairs=(("hybrid", "mlm-time"), ("hybrid", "mlm")))
    runs = [content(arm, seed) for arm in ARMS for seed in (1, 2)]
    by_arm = {arm: [run for run in runs if run["arm"] == arm] for arm in ARMS}
    rows = rows_below(build_blocks(other, by_arm, merge_runs(runs), Path(".")), SPREAD, 3)
    assert [row["pair"] for row in rows] == ["hybrid against mlm-time", "hybrid against mlm"]


def test_single_pair_says_nothing_of_what_could_be_shown(blocks):
    (row,) = rows_below(blocks(content("hybrid", 1), content("mlm-time", 1)), SPREAD, 3)
    assert {row[name] for name in ("standard deviation", "detectable", "seeds for 0.01")} == {"-"}


@pytest.mark.parametrize(("seconds", "matched"), [(82.0, True), (76.5, True), (60.0, False), (100.0, False)])
def test_time_match_is_measured(blocks, seconds, matched):
    built = blocks(content("hybrid", 1), content("mlm-time", 1, seconds_at_median_speed=seconds))
    row = {row["arm"]: row for row in rows_below(built, "Time")}["mlm-time"]
    assert row["time matched"] == f"{seconds / 80:.3f} of hybrid"
    text = " ".join(getattr(block, "text", "") for block in built)
    assert ("did not take the same time" in text) == (not matched)


def test_times_are_matched_within_seeds(blocks):
    """The second seed of one arm was made on a machine five times as slow, and has no partner."""
    runs = [content("hybrid", 1, seconds_at_median_speed=50.0), content("mlm-time", 1, seconds_at_median_speed=55.0)]
    built = blocks(*runs, content("mlm-time", 2, seconds_at_median_speed=275.0))
    assert {row["arm"]: row["time matched"] for row in rows_below(built, "Time")}["mlm-time"] == "1.100 of hybrid"


def test_times_that_cancel_out_are_told(blocks):
    runs = [content("hybrid", seed, seconds_at_median_speed=100.0) for seed in (1, 2, 3)]
    slow = [
        content("mlm-time", seed, seconds_at_median_speed=took) for seed, took in ((1, 150.0), (2, 50.0), (3, 99.0))
    ]
    built = blocks(*runs, *slow)
    matched = {row["arm"]: row["time matched"] for row in rows_below(built, "Time")}["mlm-time"]
    assert matched == "0.990 of hybrid (0.500 to 1.500)"
    assert "did not take the same time** in 2 of 3 pairs" in " ".join(getattr(block, "text", "") for block in built)


def test_times_of_arms_without_a_seed_in_common_are_not_matched(blocks):
    built = blocks(content("hybrid", 1), content("mlm-time", 2))
    assert {row["arm"]: row["time matched"] for row in rows_below(built, "Time")}["mlm-time"] == "-"


def test_times_are_in_minutes(blocks):
    (row,) = rows_below(blocks(content("hybrid", 1)), "Time")
    assert (row["training"], row["at median speed"], row["with evaluation"]) == ("1.5 min", "1.3 min", "2.0 min")


def test_times_that_the_files_of_padded_runs_do_not_hold_are_not_shown(blocks):
    """They took tokens per second, padding apart, for those of whole rows."""
    padded = content("hybrid", 1, arguments={"packing": "false"})
    built = blocks(padded, content("mlm-time", 1))
    rows = {row["arm"]: row for row in rows_below(built, "Time")}
    names = ("tokens", "training", "at median speed", "with evaluation")
    assert [rows["hybrid"][name] for name in names] == ["-"] * 4
    assert rows["mlm-time"]["training"] == "1.5 min" and rows["mlm-time"]["time matched"] == "-"
    assert "whose files do not count their tokens" in " ".join(getattr(block, "text", "") for block in built)


def test_tokens_of_padded_runs_are_the_real_ones(blocks):
    curves = {"tokens": [[100, 7.5e6]], "tokens_per_second": [[100, 100.0]]}
    (row,) = rows_below(blocks(content("hybrid", 1, arguments={"packing": "false"}, curves=curves)), "Time")
    assert (row["tokens"], row["training"]) == ("7.50 M", "1.5 min")


def test_trivial_predictors_stand_beside_the_jepa_loss(blocks):
    losses = {"eval_mlm_loss": 6.0, "eval_jepa_loss": 0.5, "eval_trivial_loss_mean": 0.7, "eval_jepa_margin": 0.2}
    rows = rows_below(blocks(content("hybrid", 1, last=losses), content("mlm", 1)), "Training")
    assert (rows[0]["JEPA loss"], rows[0]["mean target"], rows[0]["margin"]) == ("0.500", "0.700", "0.200")
    assert rows[1]["JEPA loss"] == "-"


def test_losses_are_means_over_seeds(blocks):
    (row,) = rows_below(blocks(content("mlm", 1), content("mlm", 2)), "Training")
    assert row["masked-LM loss"] == "6.650 ± 0.071"


def test_runs_without_curves_have_no_figure():
    blocks = training_blocks({"mlm": [content("mlm", 1, curves={})]})
    assert not any(isinstance(block, Picture) for block in blocks)


def test_runs_without_probes_have_a_report(blocks):
    bare = content("mlm", 1, measured=[], model=None)
    assert rows_below(blocks(bare), "Training")[0]["arm"] == "mlm"


def test_factors_have_a_table_of_effects(tmp_path, monkeypatch):
    monkeypatch.setattr("predrec.eval.report.all_figures", lambda results: [])
    text = DEFINITION.replace("{why: both losses}", "{why: both losses, levels: {objective: hybrid}}")
    text = text.replace('why: "one loss",', 'why: "one loss", levels: {objective: mlm},')
    contents = [content("hybrid", 1, 0.6), content("mlm", 1, 0.5, last={"eval_mlm_loss": 6.2})]
    by_arm = {one["arm"]: [one] for one in contents}
    built = build_blocks(read_experiment(write_definition(tmp_path, text)), by_arm, merge_runs(contents), tmp_path)
    rows = {row["measure"]: row for row in rows_below(built, "Effects of the factors")}
    assert rows["masked-LM loss"]["factor"] == "objective: hybrid to mlm"
    assert (rows["masked-LM loss"]["effect"], rows["mean probe score (sst2, stsb)"]["effect"]) == ("-0.400", "-0.100")


def test_contrasts_have_a_table_of_differences(tmp_path, monkeypatch):
    """Without factors there are no effects; an arm without runs is named."""
    monkeypatch.setattr("predrec.eval.report.all_figures", lambda results: [])
    text = DEFINITION + "contrasts: [[mlm, hybrid], [mlm-time, mlm]]\n"
    contents = [content("hybrid", 1, 0.6), content("mlm", 1, 0.5, last={"eval_mlm_loss": 6.2})]
    by_arm = {one["arm"]: [one] for one in contents}
    built = build_blocks(read_experiment(write_definition(tmp_path, text)), by_arm, merge_runs(contents), tmp_path)
    assert Heading("Effects of the factors") not in built
    rows = {row["measure"]: row for row in rows_below(built, "Differences between arms")}
    assert rows["masked-LM loss"]["arms"] == "mlm - hybrid" and rows["masked-LM loss"]["effect"] == "-0.400"
    assert rows["mean probe score (sst2, stsb)"]["effect"] == "-0.100"
    text = " ".join(getattr(block, "text", "") for block in built)
    assert "left out with what they would be compared with: mlm-time." in text


def test_differences_of_several_seeds_are_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr("predrec.eval.report.all_figures", lambda results: [])
    experiment = read_experiment(write_definition(tmp_path, DEFINITION + "contrasts: [[hybrid, mlm]]\n"))
    by_arm = {arm: [content(arm, seed) for seed in (1, 2)] for arm in ("hybrid", "mlm")}
    results = merge_runs([one for contents in by_arm.values() for one in contents])
    built = build_blocks(experiment, by_arm, results, tmp_path)
    (picture,) = [block for block in built if isinstance(block, Picture) and block.name == "differences"]
    assert picture.alt.startswith("Differences between arms")
