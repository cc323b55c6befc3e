"""The small file of a run: it holds what was measured, appears whole, and is never mixed with others."""

import numpy as np
import pytest

from predrec.errors import UserError
from predrec.eval.claims import by_replicate
from predrec.experiments.definition import Run
from predrec.experiments.run_files import merge_runs, pack, read_run, read_runs, stale, unpack, write_run
from tests.eval.made import full_results

from .made import content

DEFINITIONS = {"hybrid": "definition of hybrid", "mlm": "definition of mlm"}


@pytest.fixture(scope="module")
def measured():
    """Results of every kind, of one checkpoint."""
    return full_results(1, ("hybrid",), ("probe", "geometry"))


def packed(results) -> dict:
    return content("hybrid", 3) | pack(results)


def means(results, replicate: int) -> dict:
    keys = {(r.kind, r.task, r.metric, r.pooling) for r in results.records if r.model == "hybrid"}
    keys = {key for key in keys if key[3] != "weighted"}
    return {key: by_replicate(results, key[0], "hybrid", *key[1:])[replicate] for key in keys}


def test_packed_results_are_the_measured_ones(measured):
    before, after = means(measured, 0), means(unpack(packed(measured)), 3)
    assert before.keys() == after.keys()
    assert [after[key] for key in before] == pytest.approx(list(before.values()), rel=1e-5)


def test_seeds_of_heads_are_kept(measured):
    select = {"kind": "probe", "model": "hybrid", "task": "sst2", "metric": "accuracy", "variant": None}
    before, after = measured.select(**select), unpack(packed(measured)).select(**select)
    assert [r.seed for r in after] == [r.seed for r in before]
    np.testing.assert_allclose([r.value for r in after], [r.value for r in before], rtol=1e-5)


def test_draws_of_attention_are_averaged(measured):
    found = unpack(packed(measured)).select(task="sst2", pooling="attention", metric="uniformity", variant="raw")
    draws = measured.values(task="sst2", pooling="attention", metric="uniformity", variant="raw")
    assert len(draws) == 2
    assert [record.value for record in found] == pytest.approx([draws.mean()], rel=1e-5)


def test_seed_is_the_number_of_the_checkpoint(measured):
    results = unpack(packed(measured))
    assert {record.replicate for record in results.records if record.model == "hybrid"} == {3}
    assert [(model["name"], model["replicate"]) for model in results.models] == [("hybrid", 3)]


def test_file_is_read_as_it_was_written(tmp_path, measured):
    path = write_run(tmp_path / "runs/hybrid-3.json", packed(measured))
    assert read_run(path) == packed(measured)
    assert [found.name for found in path.parent.iterdir()] == ["hybrid-3.json"]


def test_file_is_small(tmp_path, measured):
    assert write_run(tmp_path / "run.json", packed(measured)).stat().st_size < 40_000


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"format": 1}'])
def test_damaged_file_is_named(tmp_path, text):
    (tmp_path / "hybrid-1.json").write_text(text)
    with pytest.raises(UserError, match=r"hybrid-1.json is not the file of a run"):
        read_run(tmp_path / "hybrid-1.json")


def test_other_format_is_refused(tmp_path):
    path = write_run(tmp_path / "hybrid-1.json", content("hybrid", 1, format=99))
    with pytest.raises(UserError, match="format 99"):
        read_run(path)


def test_renamed_file_is_refused(tmp_path):
    write_run(tmp_path / "mlm-1.json", content("hybrid", 1))
    with pytest.raises(UserError, match="holds the run hybrid-1"):
        read_runs(tmp_path)


def test_files_are_found_by_run(tmp_path):
    for seed in (1, 2):
        write_run(tmp_path / f"mlm-{seed}.json", content("mlm", seed))
    assert list(read_runs(tmp_path)) == [Run("mlm", 1), Run("mlm", 2)]


def test_no_folder_holds_no_run(tmp_path):
    assert read_runs(tmp_path / "nowhere") == {}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"definition": "another"}, "another definition"),
        ({"evaluation": "another"}, "other settings"),
        ({"data": "another"}, "other data"),
    ],
)
def test_stale_file_is_listed_with_its_reason(changes, reason):
    found = {Run("mlm", 1): content("mlm", 1), Run("mlm", 2): content("mlm", 2, **changes)}
    (problem,) = stale(found, DEFINITIONS, "evaluation")
    assert problem.startswith("mlm-2: ") and reason in problem


def on_other_rows(name: str, number: int) -> dict:
    """Returns what changes in a file when its probes had another number of rows."""
    entries = content("mlm", 2)["measured"]
    return {"measured": [entry | ({name: number} if "seeds" in entry else {}) for entry in entries]}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (on_other_rows("num_train", 13_000), "numbers of rows of sst2 (probe)"),
        (on_other_rows("num_eval", 7), "numbers of rows of sst2 (probe)"),
        ({"model": content("mlm", 2)["model"] | {"dtype": "bfloat16"}}, "precision"),
        ({"texts": {"sst2 (probe)": "other texts"}}, "rows of sst2 (probe)"),
    ],
)
def test_file_that_was_measured_on_something_else_is_stale(changes, reason):
    found = {Run("mlm", seed): content("mlm", seed, texts={"sst2 (probe)": "texts"}) for seed in (1, 2, 3)}
    found[Run("mlm", 2)] |= changes
    assert stale(found, DEFINITIONS, "evaluation") == [f"mlm-2: measured with other {reason}"]


def test_file_from_before_texts_had_names_is_compared_by_numbers():
    found = {Run("mlm", 1): content("mlm", 1), Run("mlm", 2): content("mlm", 2, texts={"sst2 (probe)": "texts"})}
    assert stale(found, DEFINITIONS, "evaluation") == []
    found[Run("mlm", 2)] |= on_other_rows("num_eval", 7)
    assert len(stale(found, DEFINITIONS, "evaluation")) == 1


def test_arms_with_other_rows_have_other_fingerprints():
    padded = content("hybrid", 1, data="of padded rows", arguments={"packing": "false"})
    assert stale({Run("mlm", 1): content("mlm", 1), Run("hybrid", 1): padded}, DEFINITIONS, "evaluation") == []


def test_file_of_an_unknown_arm_is_stale():
    (problem,) = stale({Run("gone", 1): content("gone", 1)}, DEFINITIONS, "evaluation")
    assert "no arm `gone`" in problem


def test_files_that_belong_together_are_not_stale():
    found = {Run(arm, 1): content(arm, 1) for arm in DEFINITIONS}
    assert stale(found, DEFINITIONS, "evaluation") == []


def test_merged_runs_have_each_baseline_once():
    merged = merge_runs([content("mlm", 1), content("mlm", 2), content("hybrid", 1)])
    assert len(merged.select(model="majority")) == 1
    assert merged.model_names == ["mlm", "hybrid"]


def test_merged_runs_keep_every_seed():
    merged = merge_runs([content("mlm", seed, score=seed / 10) for seed in (1, 2, 3)])
    found = by_replicate(merged, "probe", "mlm", "sst2", "accuracy", "mean")
    assert found == pytest.approx({1: 0.1, 2: 0.2, 3: 0.3})


def test_notes_of_earlier_files_are_those_of_the_probes():
    note = "trained on 100 of 67,349 rows: not comparable with published scores"
    assert unpack(content("mlm", 1, notes={"sst2": note})).notes == {"probe|sst2": note}
    assert unpack(content("mlm", 1, notes={"probe|sst2": note})).notes == {"probe|sst2": note}
