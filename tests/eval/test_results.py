"""Results files: written, read, refused and put together."""

import json
from pathlib import Path

import numpy as np
import pytest

from predrec.errors import UserError
from predrec.eval.results import (
    LIBRARIES,
    SCHEMA_VERSION,
    SETTINGS,
    Record,
    Results,
    add_record,
    merge_results,
    read_results,
    write_results,
)

PROBE = {"kind": "probe", "model": "ours", "task": "sst2", "metric": "accuracy", "pooling": "mean", "head": "linear"}

COMMITTED = sorted(Path(__file__).parents[2].glob("results/*/results.json"))


def model_entry(name: str = "ours", replicate: int = 0, weights: str = "aa") -> dict:
    return {"name": name, "replicate": replicate, "weights": weights, "hidden_size": 16}


def results_of(*values: float, model: dict | None = None, **fields) -> Results:
    """Returns results of one model with one probe record per value, told apart by the seed."""
    records = [Record(**(PROBE | {"seed": seed} | fields), value=value) for seed, value in enumerate(values)]
    return Results(commands=["predrec probe"], models=[model or model_entry()], records=records)


@pytest.fixture
def results():
    """Something of everything that a file holds."""
    return Results(
        commands=["predrec probe a b", "predrec geometry 'ä'"],
        models=[model_entry(), model_entry(replicate=1, weights="bb"), model_entry("theirs", weights="cc")],
        records=[
            Record(**PROBE, value=0.1 + 0.2, seed=3, num_train=10, num_eval=5, num_epochs=2, batch_size=4),
            Record("geometry", "theirs", "sst2", "stable_rank", 7.0, pooling="attention", draw=2, variant="centred"),
            Record("sts", "ours", "sts12", "spearmanr", -0.25, replicate=1),
        ],
        spectra=[{"model": "ours", "replicate": 0, "task": "sst2", "pooling": "mean", "values": [3.0, 0.5, 0.0]}],
        notes={"probe|sst2": "10 of 67,349 rows: “not comparable”"},
        versions={"torch": "2.0"},
        predictions={
            "probe|ours|0|sst2|mean|linear": np.array([[0, 1, 1], [1, 1, 0]]),
            "probe|labels|sst2": np.array([0, 1, 0]),
        },
    )


def edit(path, **fields) -> None:
    """Changes fields of a results file."""
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | fields))


@pytest.mark.parametrize("name", ["commands", "models", "records", "spectra", "notes", "versions"])
def test_read_results_gives_what_was_written(results, tmp_path, name):
    write_results(tmp_path, results)
    assert getattr(read_results(tmp_path), name) == getattr(results, name)


def test_read_results_gives_the_names_of_predictions(results, tmp_path):
    write_results(tmp_path, results)
    assert read_results(tmp_path).predictions.keys() == results.predictions.keys()


def test_read_results_gives_predictions(results, tmp_path):
    write_results(tmp_path, results)
    np.testing.assert_array_equal(
        read_results(tmp_path).predictions["probe|ours|0|sst2|mean|linear"],
        results.predictions["probe|ours|0|sst2|mean|linear"],
    )


OLD_PREDICTIONS = {
    "ours|0|sst2|mean|linear": np.ones((2, 5), int),
    "ours|0|sst2|mean|linear|whitened": np.zeros((2, 5), int),
    "ours|0|sst2|finetune|-": np.ones((1, 5), int),
    "labels|sst2": np.arange(5),
}
"""As files had them before their keys began with the kind of scores."""


def old_file(folder, *kinds: str, num_eval: int | None = 5) -> Results:
    """Writes predictions without kinds beside scores of these kinds; returns what is read."""
    results = Results(predictions=dict(OLD_PREDICTIONS))
    for kind in kinds:
        results.records += results_of(0.5, kind=kind, num_eval=num_eval).records
    write_results(folder, results)
    return read_results(folder)


@pytest.mark.parametrize("behind", ["", "-development"])
@pytest.mark.parametrize("num_eval", [5, None])
def test_read_results_finds_the_kind_of_earlier_predictions(tmp_path, behind, num_eval):
    found = old_file(tmp_path, f"probe{behind}", f"finetune{behind}", "geometry", num_eval=num_eval).predictions
    probe, tuned = f"probe{behind}|", f"finetune{behind}|"
    names = [probe + name for name in OLD_PREDICTIONS if "-" not in name] + [tuned + "ours|0|sst2|finetune|-"]
    assert found.keys() == {*names, tuned + "labels|sst2"}
    np.testing.assert_array_equal(found[probe + "labels|sst2"], np.arange(5))


def test_read_results_leaves_out_earlier_predictions_of_either_kind(tmp_path):
    """One took the place of the other when they were merged."""
    assert old_file(tmp_path, "probe", "probe-development").predictions == {}


def test_read_results_knows_earlier_predictions_by_their_rows(tmp_path):
    records = [*results_of(0.5, num_eval=9).records, *results_of(0.5, kind="probe-development", num_eval=5).records]
    write_results(tmp_path, Results(records=records, predictions=dict(OLD_PREDICTIONS)))
    assert "probe-development|labels|sst2" in read_results(tmp_path).predictions


@pytest.mark.parametrize(
    ("note", "kinds"),
    [("trained on 9 of 10 rows", ["probe", "finetune"]), ("scored on held out", ["probe-development"])],
)
def test_read_results_finds_the_kind_of_earlier_notes(tmp_path, note, kinds):
    scored = [Record(kind, "ours", "sst2", "accuracy", 0.5) for kind in ("probe", "finetune", "probe-development")]
    other = [Record("finetune-development", "ours", "cola", "accuracy", 0.5)]
    write_results(tmp_path, Results(records=scored + other, notes={"sst2": note}))
    assert read_results(tmp_path).notes == {f"{kind}|sst2": note for kind in kinds}


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.parent.name)
def test_read_results_keeps_the_notes_of_committed_reports(path):
    written, found = json.loads(path.read_text(encoding="utf-8"))["notes"], read_results(path).notes
    by_task = [{key.split("|")[-1]: note for key, note in notes.items()} for notes in (written, found)]
    assert by_task[0] == by_task[1] and all("|" in key for key in found)


def test_read_results_takes_the_file(results, tmp_path):
    assert read_results(write_results(tmp_path, results)).records == results.records


def test_read_results_takes_a_path_as_text(results, tmp_path):
    write_results(str(tmp_path), results)
    assert read_results(str(tmp_path)).records == results.records


def test_read_results_takes_results_of_nothing(tmp_path):
    write_results(tmp_path, Results())
    assert read_results(tmp_path) == Results()


def test_read_results_has_no_predictions_without_their_file(results, tmp_path):
    write_results(tmp_path, results)
    (tmp_path / "predictions.npz").unlink()
    assert read_results(tmp_path).predictions == {}


def test_write_results_makes_the_folder(results, tmp_path):
    assert write_results(tmp_path / "new" / "folder", results).is_file()


def test_write_results_leaves_out_what_does_not_apply(results, tmp_path):
    content = json.loads(write_results(tmp_path, results).read_text(encoding="utf-8"))
    assert content["records"][2].keys() == {"kind", "model", "task", "metric", "value", "replicate"}


def test_write_results_writes_a_line_per_record(results, tmp_path):
    lines = write_results(tmp_path, results).read_text(encoding="utf-8").splitlines()
    assert sum('"metric"' in line for line in lines) == 3


def test_write_results_rounds_spectra_to_five_digits(tmp_path):
    write_results(tmp_path, Results(spectra=[{"model": "ours", "values": [1.23456789, 123456.789]}]))
    assert read_results(tmp_path).spectra[0]["values"] == [1.2346, 123460.0]


def test_write_results_writes_no_predictions_without_any(tmp_path):
    write_results(tmp_path, results_of(0.5))
    assert not (tmp_path / "predictions.npz").exists()


def test_write_results_does_not_keep_predictions_of_earlier_results(results, tmp_path):
    write_results(tmp_path, results)
    write_results(tmp_path, results_of(0.5))
    assert read_results(tmp_path).predictions == {}


def test_write_results_keeps_earlier_results_when_writing_fails(results, tmp_path, monkeypatch):
    write_results(tmp_path, results)

    def full(*_, **__):
        raise OSError("The disk is full")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="full"):
        write_results(tmp_path, results_of(0.5))
    assert read_results(tmp_path).records == results.records
    assert not list(tmp_path.glob(".*"))


def test_results_name_the_versions_of_the_libraries():
    assert tuple(Results().versions) == LIBRARIES


def test_results_name_each_model_once(results):
    assert results.model_names == ["ours", "theirs"]


def test_results_select_by_fields(results):
    assert results.select(model="ours", kind="sts") == [results.records[2]]


def test_results_select_everything_without_fields(results):
    assert results.select() == results.records


def test_results_give_values_of_the_selected(results):
    assert results.values(model="theirs").tolist() == [7.0]


def test_results_give_no_values_of_nothing(results):
    assert results.values(model="nobody").shape == (0,)


def seeds_of_checkpoints(*checkpoints: list[float]) -> Results:
    """Returns results with one record per checkpoint and seed."""
    parts = [results_of(*values, replicate=number) for number, values in enumerate(checkpoints)]
    return Results(records=[record for part in parts for record in part.records])


def test_sample_is_one_value_per_checkpoint_where_there_are_several():
    assert seeds_of_checkpoints([0.1, 0.3], [0.5, 0.9]).sample(model="ours").tolist() == pytest.approx([0.2, 0.7])


def test_sample_is_one_value_per_seed_of_a_single_checkpoint():
    results = seeds_of_checkpoints([0.1, 0.3], [0.5, 0.9])
    assert results.sample(lambda record: record.replicate == 1, task="sst2").tolist() == [0.5, 0.9]


def test_sample_of_nothing_is_empty():
    assert seeds_of_checkpoints([0.1], [0.5]).sample(task="cola").shape == (0,)


def test_add_record_adds(results):
    add_record(results, kind="sts", model="ours", task="sts13", metric="spearmanr", value=0.5)
    assert results.records[-1] == Record("sts", "ours", "sts13", "spearmanr", 0.5)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_add_record_refuses_what_is_not_finite(results, value):
    with pytest.raises(ValueError, match="is not finite"):
        add_record(results, kind="sts", model="ours", task="sts13", metric="spearmanr", value=value)


def test_read_results_explains_a_missing_file(tmp_path):
    with pytest.raises(UserError, match=r"There are no results at '.*results.json'"):
        read_results(tmp_path)


def test_read_results_explains_a_missing_folder(tmp_path):
    with pytest.raises(UserError, match=r"There are no results at '.*nowhere'"):
        read_results(tmp_path / "nowhere")


@pytest.mark.parametrize("found", [SCHEMA_VERSION + 1, None])
def test_read_results_refuses_another_schema_version(results, tmp_path, found):
    edit(write_results(tmp_path, results), schema_version=found)
    with pytest.raises(UserError, match=f"^[^:]*results.json has schema version {found}, but this predrec reads"):
        read_results(tmp_path)


@pytest.mark.parametrize("content", ["", "{", "[]", "3", f'{{"schema_version": {SCHEMA_VERSION}}}'])
def test_read_results_refuses_a_damaged_file(tmp_path, content):
    (tmp_path / "results.json").write_text(content)
    with pytest.raises(UserError, match=r"results.json is not a results file"):
        read_results(tmp_path)


def test_read_results_refuses_a_file_that_is_no_text(tmp_path):
    (tmp_path / "results.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"results.json is not a results file"):
        read_results(tmp_path)


@pytest.mark.parametrize("record", [{"kind": "probe"}, {**PROBE, "value": 1.0, "colour": "red"}, 3])
def test_read_results_refuses_a_damaged_record(results, tmp_path, record):
    edit(write_results(tmp_path, results), records=[record])
    with pytest.raises(UserError, match=r"results.json is not a results file"):
        read_results(tmp_path)


@pytest.mark.parametrize("content", [b"", b"nothing"])
def test_read_results_refuses_damaged_predictions(results, tmp_path, content):
    write_results(tmp_path, results)
    (tmp_path / "predictions.npz").write_bytes(content)
    with pytest.raises(UserError, match=r"predictions\.npz"):
        read_results(tmp_path)


def test_read_results_refuses_cut_predictions(results, tmp_path):
    write_results(tmp_path, results)
    path = tmp_path / "predictions.npz"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match=r"predictions\.npz"):
        read_results(tmp_path)


def test_merge_results_joins_records():
    merged = merge_results([results_of(0.1, 0.2), results_of(0.3, task="cola")])
    assert merged.values().tolist() == [0.1, 0.2, 0.3]


def test_merge_results_joins_models():
    parts = [results_of(0.1), results_of(0.2, model=model_entry("theirs"), task="cola")]
    assert merge_results(parts).model_names == ["ours", "theirs"]


def test_merge_results_joins_checkpoints_of_one_name():
    parts = [results_of(0.1), results_of(0.2, model=model_entry(replicate=1, weights="bb"), replicate=1)]
    assert [model["replicate"] for model in merge_results(parts).models] == [0, 1]


@pytest.mark.parametrize("name", ["commands", "spectra"])
def test_merge_results_keeps_the_order_of_the_parts(results, name):
    merged = merge_results([results, results_of(0.5, task="cola")])
    assert getattr(merged, name) == getattr(results, name) + getattr(results_of(), name)


def test_merge_results_joins_notes():
    parts = [Results(notes={"probe|sst2": "one"}), Results(notes={"probe-development|sst2": "other"})]
    assert merge_results(parts).notes == {"probe|sst2": "one", "probe-development|sst2": "other"}


def test_merge_results_joins_predictions(results):
    other = Results(predictions={"probe|labels|cola": np.array([1])})
    assert merge_results([results, other]).predictions.keys() == {*results.predictions, "probe|labels|cola"}


def test_merge_results_of_nothing_is_empty():
    assert merge_results([]).records == []


def test_merge_results_keeps_one_of_equal_records(results):
    assert merge_results([results, results]).records == results.records


def test_merge_results_keeps_one_of_equal_models(results):
    assert merge_results([results, results]).models == results.models


def test_merge_results_keeps_one_of_equal_spectra(results):
    assert merge_results([results, results]).spectra == results.spectra


def test_merge_results_leaves_its_parts_alone(results):
    merge_results([results, results_of(0.5, task="cola")])
    assert (len(results.records), len(results.models), len(results.commands)) == (3, 3, 2)


def test_merge_results_refuses_two_values_of_one_number():
    with pytest.raises(UserError, match="The results disagree on ours, sst2, accuracy: give one of them"):
        merge_results([results_of(0.1), results_of(0.2)])


def test_merge_results_refuses_two_values_within_one_part():
    part = results_of(0.1)
    part.records += results_of(0.2).records
    with pytest.raises(UserError, match="The results disagree on ours, sst2, accuracy"):
        merge_results([part])


@pytest.mark.parametrize("field", [{"seed": 9}, {"pooling": "max"}, {"variant": "best_on_eval"}])
def test_merge_results_keeps_records_that_differ_in_a_field(field):
    assert len(merge_results([results_of(0.1), results_of(0.2, **field)]).records) == 2


@pytest.mark.parametrize("seed", [0, 9])
@pytest.mark.parametrize("field", SETTINGS)
def test_merge_results_refuses_what_no_mean_may_mix(field, seed):
    """Of another seed, too: reports have the mean over seeds."""
    parts = [results_of(0.1, **{field: 90}), results_of(0.1, seed=seed, **{field: 1})]
    words = rf"hold ours, sst2, accuracy \(probe, mean, linear; checkpoint 0\) with `{field}` 90 and with 1, which"
    with pytest.raises(UserError, match=words):
        merge_results(parts)


def test_merge_results_refuses_baselines_of_other_training_rows():
    parts = [Results(records=[Record("probe", "majority", "sst2", "accuracy", 0.5, num_train=n)]) for n in (100, 60)]
    with pytest.raises(UserError, match=r"hold majority, sst2, accuracy .* with `num_train` 100 and with 60"):
        merge_results(parts)


@pytest.mark.parametrize("field", [{"kind": "probe-development"}, {"head": "mlp"}, {"replicate": 1}])
def test_merge_results_keeps_other_settings_of_what_is_in_no_common_mean(field):
    parts = [results_of(0.1, num_train=7), results_of(0.2, num_train=8, **field)]
    assert len(merge_results(parts).records) == 2


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.parent.name)
def test_merge_results_takes_the_committed_reports(path):
    committed = read_results(path)
    assert merge_results([committed, committed]).records == committed.records


def test_merge_results_refuses_two_encoders_of_one_name():
    parts = [results_of(0.1), results_of(0.2, model=model_entry(weights="bb"), task="cola")]
    with pytest.raises(UserError, match=r"`ours` \(checkpoint 0\) is a different encoder in two of the results"):
        merge_results(parts)


def test_merge_results_takes_one_encoder_at_two_lengths():
    parts = [
        results_of(0.1, model=model_entry() | {"max_seq_length": 64}),
        results_of(0.2, model=model_entry() | {"max_seq_length": 128}, task="cola"),
    ]
    assert len(merge_results(parts).models) == 1
