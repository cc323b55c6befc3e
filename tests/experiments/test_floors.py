"""What the winner of the declared comparison has to be above."""

from dataclasses import replace

import pytest

from predrec.errors import UserError
from predrec.eval.results import Results, add_record, write_results
from predrec.experiments.definition import Floor, read_experiment
from predrec.experiments.floors import compare_floors
from predrec.experiments.report import build_blocks
from predrec.experiments.run_files import merge_runs

from .made import DEFINITION, content, write_definition
from .test_report import rows_below

WORDS = Floor("words, whitened", "ours", "../other", "embeddings", "whitened", first_seed=1)


@pytest.fixture
def primary(tmp_path):
    return read_experiment(write_definition(tmp_path / "own")).primary


def words_of(folder, values):
    """Other results, with whitened means of word embeddings of several checkpoints, and what must not be read."""
    results = Results()
    for task, metric in (("sst2", "accuracy"), ("stsb", "spearmanr")):
        shared = {"kind": "probe", "model": "ours", "task": task, "metric": metric, "head": "linear"}
        for number, value in enumerate(values):
            own = shared | {"replicate": number}
            add_record(results, **own, pooling="embeddings", variant="whitened", value=value)
            add_record(results, **own, pooling="embeddings", value=0.01)
            add_record(results, **own, pooling="mean", variant="whitened", value=0.02)
    write_results(folder, results)


def test_floor_of_other_results_is_paired_by_seed(primary, tmp_path):
    words_of(tmp_path / "other", [0.5, 0.7])
    given = replace(primary, floors=(WORDS,))
    (floor,) = compare_floors(Results(), given, {1: 0.6, 2: 0.6, 3: 0.9}, tmp_path / "own")
    assert (floor.name, floor.num_seeds, floor.comparison.num_seeds) == ("words, whitened", 2, 2)
    assert floor.score == pytest.approx(0.6) and floor.comparison.effect == pytest.approx(0.0)


def test_floor_without_a_seed_in_common_is_refused(primary, tmp_path):
    words_of(tmp_path / "other", [0.5])
    with pytest.raises(UserError, match="'words, whitened' has no scores of the seeds"):
        compare_floors(Results(), replace(primary, floors=(WORDS,)), {9: 0.6}, tmp_path / "own")


def test_arm_without_a_seed_in_common_so_far_is_no_floor_yet(primary, tmp_path):
    given = replace(primary, floors=(Floor("random weights", "mlm"),))
    assert compare_floors(merge_runs([content("mlm", 2)]), given, {1: 0.6}, tmp_path) == []


def test_majority_class_is_a_floor_without_seeds(primary, tmp_path):
    results = Results()
    for task, metric in (("sst2", "accuracy"), ("stsb", "spearmanr")):
        add_record(results, kind="probe", model="majority", task=task, metric=metric, value=0.5)
    (floor,) = compare_floors(results, primary, {1: 0.6, 2: 0.8}, tmp_path)
    assert (floor.name, floor.num_seeds, floor.score) == ("majority class", 0, 0.5)
    assert floor.comparison.effect == pytest.approx(0.2)


def report_of(tmp_path, monkeypatch, untrained: float) -> tuple[str, dict]:
    monkeypatch.setattr("predrec.eval.report.all_figures", lambda results: [])
    text = DEFINITION.replace("arms:\n", "arms:\n  random: {why: no training, objective: mlm}\n")
    text += "  floors:\n    - {name: random weights, model: random}\n"
    experiment = read_experiment(write_definition(tmp_path, text))
    scores = {"hybrid": 0.6, "mlm-time": 0.5, "random": untrained}
    runs = [content(arm, seed, score) for arm, score in scores.items() for seed in range(1, 9)]
    by_arm = {arm: [run for run in runs if run["arm"] == arm] for arm in scores}
    blocks = build_blocks(experiment, by_arm, merge_runs(runs), tmp_path)
    rows = {row["what"]: row for row in rows_below(blocks, "Beside reference baselines", 3)}
    return "\n".join(getattr(block, "text", "") for block in blocks), rows


def test_winner_above_its_floors_is_said_to_be(tmp_path, monkeypatch):
    text, rows = report_of(tmp_path, monkeypatch, 0.55)
    assert "**hybrid**, the better of the two, is significantly above all of them." in text
    assert rows["random weights"]["hybrid minus it"] == "+0.0500"


@pytest.mark.parametrize("untrained", [0.6, 0.7])
def test_winner_that_is_not_above_its_floors_is_said_so(untrained, tmp_path, monkeypatch):
    text, _ = report_of(tmp_path, monkeypatch, untrained)
    assert "**hybrid, the better of the two, is not significantly above: random weights.**" in text


@pytest.mark.parametrize(
    ("floor", "message"),
    [
        ("{model: mlm}", "lacks `name`"),
        ("{name: a, model: mlmm}", "There is no arm 'mlmm'"),
        ("{name: a, model: mlm, pooling: max}", "`pooling` of a floor is for `results`"),
        ("{name: a, model: mlm, seeds: 3}", "Unknown part `seeds`"),
    ],
)
def test_impossible_floors_are_refused(floor, message, tmp_path):
    with pytest.raises(UserError, match=message):
        read_experiment(write_definition(tmp_path, DEFINITION + f"  floors:\n    - {floor}\n"))
