"""Reading of tasks from local files, and what is said about files that cannot be used."""

import json

import numpy as np
import pytest
from datasets import Dataset, DatasetDict

from predrec.errors import UserError
from predrec.eval import tasks
from predrec.eval.tasks import PAPER_TASKS, STS_TASKS, TASKS, find_task, load_development, load_splits

SST2 = {"sentence": ["a fine film", "a dull film", "fine"], "label": [1, 0, 1]}
STS = {"sentence1": ["a cat", "a dog"], "sentence2": ["the cat", "a mat"], "score": [4.5, 0.5]}


def write(path, columns: dict[str, list]) -> None:
    """Writes a table in the format that the name of the file says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = Dataset.from_dict(columns)
    if path.suffix == ".parquet":
        data.to_parquet(path)
    elif path.suffix == ".csv":
        data.to_csv(path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in data))


@pytest.fixture
def sst2(tmp_path):
    """A data directory with both splits of SST-2."""
    for split in ("train", "validation"):
        write(tmp_path / "sst2" / f"{split}.jsonl", SST2)
    return tmp_path


def evaluation(name: str, columns: dict[str, list], data_dir):
    """Writes and reads the evaluation split of a task of the first table, or of the second."""
    task = {**STS_TASKS, **TASKS}[name]
    write(data_dir / task.folder / f"{task.eval_split}.jsonl", columns)
    return load_splits(task, data_dir, train=False)[1]


@pytest.mark.parametrize("table", [TASKS, STS_TASKS])
def test_tables_name_tasks_after_themselves(table):
    assert all(name == task.name for name, task in table.items())


def test_tasks_of_the_paper_are_in_the_table():
    assert set(PAPER_TASKS) <= set(TASKS)


def test_tasks_of_classification_have_epochs_and_a_size():
    assert all(task.num_epochs and task.full_train_size and task.full_eval_size for task in TASKS.values())


def test_find_task_returns_the_row():
    assert find_task("sst2") is TASKS["sst2"]


def test_find_task_looks_in_the_given_table():
    assert find_task("stsb", STS_TASKS) is STS_TASKS["stsb"]


def test_find_task_names_the_nearest():
    with pytest.raises(UserError, match="Unknown task `sst-2`; did you mean `sst2`"):
        find_task("sst-2")


def test_find_task_explains_a_name_far_from_all():
    with pytest.raises(UserError, match=r"Unknown task `translation`\."):
        find_task("translation")


@pytest.mark.parametrize("suffix", ["parquet", "jsonl", "json", "csv"])
def test_load_splits_reads_texts(tmp_path, suffix):
    write(tmp_path / "sst2" / f"validation.{suffix}", SST2)
    assert load_splits(TASKS["sst2"], tmp_path, train=False)[1].texts == (SST2["sentence"],)


@pytest.mark.parametrize("suffix", ["parquet", "jsonl", "json", "csv"])
def test_load_splits_reads_labels(tmp_path, suffix):
    write(tmp_path / "sst2" / f"validation.{suffix}", SST2)
    np.testing.assert_array_equal(load_splits(TASKS["sst2"], tmp_path, train=False)[1].labels, SST2["label"])


def test_load_splits_reads_both_splits(tmp_path):
    write(tmp_path / "sst2" / "train.jsonl", SST2)
    write(tmp_path / "sst2" / "validation.jsonl", {"sentence": ["other"], "label": [0]})
    training, evaluation = load_splits(TASKS["sst2"], tmp_path)
    assert (len(training), evaluation.texts) == (3, (["other"],))


def test_load_splits_reads_no_training_split_unless_asked(sst2):
    (sst2 / "sst2" / "train.jsonl").unlink()
    assert load_splits(TASKS["sst2"], sst2, train=False)[0] is None


def test_load_splits_takes_a_data_dir_as_text(sst2):
    assert len(load_splits(TASKS["sst2"], str(sst2))[1]) == 3


def test_load_splits_keeps_columns_of_a_pair_apart(tmp_path):
    columns = {"sentence1": ["a", "b"], "sentence2": ["c", "d"], "label": [0, 1]}
    assert evaluation("mrpc", columns, tmp_path).texts == (["a", "b"], ["c", "d"])


def test_load_splits_ignores_other_columns(tmp_path):
    assert len(evaluation("sst2", SST2 | {"idx": [0, 1, 2]}, tmp_path)) == 3


def test_load_splits_takes_an_empty_text(tmp_path):
    assert evaluation("sst2", {"sentence": [""], "label": [0]}, tmp_path).texts == ([""],)


@pytest.mark.parametrize("text", ["NA", "null", "", "42"])
def test_load_splits_takes_any_text_from_csv(tmp_path, text):
    write(tmp_path / "sst2" / "validation.csv", {"sentence": ["a fine film", text], "label": [0, 1]})
    assert load_splits(TASKS["sst2"], tmp_path, train=False)[1].texts == (["a fine film", text],)


def test_load_splits_makes_classes_whole_numbers(sst2):
    assert load_splits(TASKS["sst2"], sst2)[1].labels.dtype == np.int64


def test_load_splits_takes_whole_numbers_with_a_point(tmp_path):
    assert evaluation("sst2", {"sentence": ["a", "b"], "label": [1.0, 0.0]}, tmp_path).labels.tolist() == [1, 0]


def test_load_splits_joins_the_training_splits_of_mnli(tmp_path):
    for split in ("train", "train_no_periods", "validation_matched"):
        columns = {"premise": [f"{split} one", f"{split} two"], "hypothesis": ["x", "y"], "label": [0, 2]}
        write(tmp_path / "mnli" / f"{split}.jsonl", columns)
    training, _ = load_splits(TASKS["mnli"], tmp_path)
    assert training.texts[0] == ["train one", "train two", "train_no_periods one", "train_no_periods two"]


def test_load_splits_takes_mnli_with_one_training_split(tmp_path):
    for split in ("train", "validation_matched"):
        write(tmp_path / "mnli" / f"{split}.jsonl", {"premise": ["p"], "hypothesis": ["h"], "label": [2]})
    assert len(load_splits(TASKS["mnli"], tmp_path)[0]) == 1


def test_load_splits_reads_mismatched_mnli_from_the_folder_of_mnli(tmp_path):
    write(tmp_path / "mnli" / "validation_mismatched.jsonl", {"premise": ["other"], "hypothesis": ["h"], "label": [1]})
    _, found = load_splits(TASKS["mnli_mismatched"], tmp_path, train=False)
    assert found.texts[0] == ["other"]


@pytest.mark.parametrize("name", ["stsb", "sts12", "sickr"])
@pytest.mark.parametrize("column", ["label", "score"])
def test_load_splits_finds_the_score_of_a_pair(tmp_path, name, column):
    columns = {"sentence1": ["a", "b"], "sentence2": ["c", "d"], column: [1.5, 4.0]}
    assert evaluation(name, columns, tmp_path).labels.tolist() == [1.5, 4.0]


def test_load_splits_makes_scores_of_whole_numbers_floats(tmp_path):
    assert evaluation("stsb", STS | {"score": [1, 5]}, tmp_path).labels.dtype == np.float64


def test_load_splits_does_not_take_a_score_for_a_class(tmp_path):
    with pytest.raises(UserError, match="`sst2`, split `validation`: no column 'label'; it has 'sentence', 'score'"):
        evaluation("sst2", {"sentence": ["a"], "score": [1]}, tmp_path)


def test_load_splits_keeps_the_genres_of_a_similarity_task(tmp_path):
    assert evaluation("sts12", STS | {"genre": ["news", "forum"]}, tmp_path).groups == ["news", "forum"]


def test_load_splits_has_no_groups_where_the_data_have_none(tmp_path):
    assert evaluation("sts12", STS, tmp_path).groups == []


def test_load_splits_uses_the_first_training_rows(sst2):
    assert load_splits(TASKS["sst2"], sst2, max_train_samples=2)[0].texts == (["a fine film", "a dull film"],)


def test_load_splits_uses_the_first_evaluation_labels(sst2):
    assert load_splits(TASKS["sst2"], sst2, max_eval_samples=2)[1].labels.tolist() == [1, 0]


def test_load_splits_cuts_each_split_by_its_own_number(sst2):
    training, found = load_splits(TASKS["sst2"], sst2, max_train_samples=1, max_eval_samples=2)
    assert (len(training), len(found)) == (1, 2)


def test_load_splits_cuts_groups_with_the_rows(tmp_path):
    write(tmp_path / "sts12" / "test.jsonl", STS | {"genre": ["news", "forum"]})
    assert load_splits(STS_TASKS["sts12"], tmp_path, False, max_eval_samples=1)[1].groups == ["news"]


def test_load_splits_takes_more_samples_than_there_are(sst2):
    assert len(load_splits(TASKS["sst2"], sst2, max_train_samples=100)[0]) == 3


@pytest.mark.parametrize("option", ["max_train_samples", "max_eval_samples"])
def test_load_splits_refuses_no_samples(sst2, option):
    with pytest.raises(UserError, match="must be at least 1"):
        load_splits(TASKS["sst2"], sst2, **{option: 0})


def test_load_splits_explains_a_missing_folder(tmp_path):
    with pytest.raises(UserError, match=r"`data_dir`: there is no folder '.*sst2' for the task `sst2`"):
        load_splits(TASKS["sst2"], tmp_path)


def test_load_splits_explains_a_missing_training_split(sst2):
    (sst2 / "sst2" / "train.jsonl").unlink()
    with pytest.raises(UserError, match=r"`sst2` has no `train` split in .*sst2, so it cannot be trained on"):
        load_splits(TASKS["sst2"], sst2)


def test_load_splits_explains_a_missing_evaluation_split(sst2):
    (sst2 / "sst2" / "validation.jsonl").unlink()
    with pytest.raises(UserError, match=r"`sst2` has no `validation` split in .*sst2, so it cannot be evaluated on"):
        load_splits(TASKS["sst2"], sst2)


def test_load_splits_needs_the_first_training_split_of_mnli(tmp_path):
    for split in ("train_no_periods", "validation_matched"):
        write(tmp_path / "mnli" / f"{split}.jsonl", {"premise": ["p"], "hypothesis": ["h"], "label": [2]})
    with pytest.raises(UserError, match="`mnli` has no `train` split"):
        load_splits(TASKS["mnli"], tmp_path)


def test_load_splits_explains_missing_columns(tmp_path):
    with pytest.raises(UserError, match="`validation`: no column 'sentence', 'label'; it has 'text'"):
        evaluation("sst2", {"text": ["a"]}, tmp_path)


def test_load_splits_explains_a_missing_score(tmp_path):
    with pytest.raises(UserError, match=r"`sts12`, split `test`: no column '(score|label)'"):
        evaluation("sts12", {"sentence1": ["a"], "sentence2": ["b"]}, tmp_path)


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_load_splits_explains_a_split_without_rows(tmp_path, suffix):
    path = tmp_path / "sst2" / f"validation.{suffix}"
    write(path, {"sentence": [], "label": []})
    with pytest.raises(UserError, match="`sst2`, split `validation` has no rows"):
        load_splits(TASKS["sst2"], tmp_path, train=False)


@pytest.mark.parametrize("suffix", ["parquet", "jsonl", "csv"])
def test_load_splits_explains_an_empty_file(tmp_path, suffix):
    path = tmp_path / "sst2" / f"validation.{suffix}"
    path.parent.mkdir()
    path.touch()
    with pytest.raises(UserError, match=rf"`data_dir`: cannot read .*validation\.{suffix}"):
        load_splits(TASKS["sst2"], tmp_path, train=False)


@pytest.mark.parametrize("suffix", ["parquet", "jsonl"])
def test_load_splits_explains_a_damaged_file(tmp_path, suffix):
    path = tmp_path / "sst2" / f"validation.{suffix}"
    path.parent.mkdir()
    path.write_bytes(b"{ nothing")
    with pytest.raises(UserError, match=f"`data_dir`: cannot read '.*validation.{suffix}'"):
        load_splits(TASKS["sst2"], tmp_path, train=False)


@pytest.mark.parametrize("text", [None, 7])
def test_load_splits_explains_what_is_no_text(tmp_path, text):
    with pytest.raises(UserError, match=f"split `validation`, row 0: `sentence` is {text}, not a text"):
        evaluation("sst2", {"sentence": [text], "label": [0]}, tmp_path)


@pytest.mark.parametrize("label", [2, -2, 0.5, None, "good", True, float("nan")])
def test_load_splits_refuses_what_is_no_class(tmp_path, label):
    path = tmp_path / "sst2" / "validation.parquet"
    write(path, {"sentence": ["a"], "label": [label]})
    with pytest.raises(UserError, match=r"row 0: the label is .*; it must be a whole number from 0 to 1"):
        load_splits(TASKS["sst2"], tmp_path, train=False)


def test_load_splits_names_the_row_of_a_bad_label(tmp_path):
    with pytest.raises(UserError, match="`sst2`, split `validation`, row 2: the label is 9"):
        evaluation("sst2", SST2 | {"label": [0, 1, 9]}, tmp_path)


def test_load_splits_explains_rows_without_a_label(tmp_path):
    with pytest.raises(UserError, match="The Hub marks rows without a published label with -1"):
        evaluation("sst2", SST2 | {"label": [-1, -1, -1]}, tmp_path)


@pytest.mark.parametrize(
    ("name", "score", "limits"), [("stsb", 5.5, "0 to 5"), ("stsb", -0.1, "0 to 5"), ("sickr", 0.5, "1 to 5")]
)
def test_load_splits_refuses_a_score_out_of_range(tmp_path, name, score, limits):
    columns = {"sentence1": ["a"], "sentence2": ["b"], "score": [score]}
    with pytest.raises(UserError, match=f"the label is {score}; it must be a number from {limits}"):
        evaluation(name, columns, tmp_path)


def test_load_splits_checks_the_training_split(sst2):
    write(sst2 / "sst2" / "train.jsonl", SST2 | {"label": [0, 1, 2]})
    with pytest.raises(UserError, match="`sst2`, split `train`, row 2: the label is 2"):
        load_splits(TASKS["sst2"], sst2)


@pytest.mark.parametrize("task", [TASKS["sst2"], STS_TASKS["sts12"]], ids=lambda task: task.name)
def test_load_splits_explains_that_the_hub_is_out_of_reach(task):
    with pytest.raises(UserError, match=f"Cannot load `{task.name}` from {task.hub_id} on the Hub: .* `data_dir`"):
        load_splits(task)


@pytest.mark.parametrize(
    ("task", "arguments"),
    [(TASKS["mnli_mismatched"], ("nyu-mll/glue", "mnli")), (STS_TASKS["sts12"], ("mteb/sts12-sts",))],
    ids=lambda value: getattr(value, "name", ""),
)
def test_load_splits_asks_the_hub_for_the_data_set(task, arguments, monkeypatch):
    asked = []
    columns = {name: ["a"] for name in task.columns} | {task.label: [1]}

    def load_dataset(*given):
        asked.append(given)
        return DatasetDict({task.eval_split: Dataset.from_dict(columns)})

    monkeypatch.setattr(tasks, "load_dataset", load_dataset)
    load_splits(task, train=False)
    assert asked == [arguments]


def test_load_splits_explains_a_split_that_the_hub_lacks(monkeypatch):
    monkeypatch.setattr(tasks, "load_dataset", lambda *_: DatasetDict({"train": Dataset.from_dict(SST2)}))
    with pytest.raises(UserError, match="`sst2` has no `validation` split in nyu-mll/glue on the Hub"):
        load_splits(TASKS["sst2"])


def test_load_splits_explains_a_split_without_rows_on_the_hub(monkeypatch):
    empty = Dataset.from_dict({"sentence": [], "label": []})
    monkeypatch.setattr(tasks, "load_dataset", lambda *_: DatasetDict({"validation": empty}))
    with pytest.raises(UserError, match="`sst2`, split `validation` has no rows"):
        load_splits(TASKS["sst2"], train=False)


def numbered(data_dir, rows: int = 40):
    """Writes a training split of SST-2 whose texts are its row numbers; there is no evaluation split."""
    write(
        data_dir / "sst2" / "train.jsonl", {"sentence": [str(i) for i in range(rows)], "label": [0, 1] * (rows // 2)}
    )
    return TASKS["sst2"]


def test_development_rows_come_from_the_training_split(tmp_path):
    train, held = load_development(numbered(tmp_path), tmp_path, 0.25)
    assert (len(train), len(held)) == (30, 10)
    assert sorted(train.texts[0] + held.texts[0], key=int) == [str(i) for i in range(40)]


def test_development_rows_keep_their_labels(tmp_path):
    for part in load_development(numbered(tmp_path), tmp_path, 0.25):
        assert part.labels.tolist() == [int(text) % 2 for text in part.texts[0]]


def test_development_rows_are_drawn_not_cut_off(tmp_path):
    held = load_development(numbered(tmp_path), tmp_path, 0.25)[1].texts[0]
    assert held not in ([str(i) for i in range(10)], [str(i) for i in range(30, 40)])


def test_development_rows_are_the_same_every_time(tmp_path):
    first, second = (load_development(numbered(tmp_path), tmp_path, 0.25)[1].texts for _ in range(2))
    assert first == second


def test_development_rows_are_of_the_rows_that_are_used(tmp_path):
    train, held = load_development(numbered(tmp_path), tmp_path, 0.5, max_train_samples=8)
    assert sorted(train.texts[0] + held.texts[0]) == [str(i) for i in range(8)]


@pytest.mark.parametrize("share", [0.001, 0.999])
def test_development_rows_need_both_parts(tmp_path, share):
    with pytest.raises(UserError, match=r"`sst2`: `validation_share` .* of 40 rows leaves a part empty"):
        load_development(numbered(tmp_path), tmp_path, share)
