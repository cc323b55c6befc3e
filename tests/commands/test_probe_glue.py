"""Heads and fine-tuning on tasks with planted answers, through the command."""

import dataclasses
import itertools
import json
import shutil

import numpy as np
import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from transformers import AutoModel, DataCollatorWithPadding

from predrec.commands.probe_glue import main, record_scores
from predrec.configuration.evaluation_arguments import POOLINGS
from predrec.configuration.probe_arguments import GlueTrainingArguments
from predrec.eval import tasks
from predrec.eval.embeddings import Embedder
from predrec.eval.encoder import load_encoder
from predrec.eval.metrics import load_metric
from predrec.eval.probes import ProbeSettings, train_probe
from predrec.eval.results import BASELINES, Results, read_results
from predrec.eval.tasks import PAPER_TASKS, TASKS, Split, load_splits

from . import planted

SILENT = ["--disable_tqdm", "true"]
THREADS = ["--num_threads", "1"]
MACHINE = [*THREADS, "--encoder_dtype", "float32"]
QUICK = [*MACHINE, "--num_train_epochs", "30", "--learning_rate", "0.05", "--seed", "0", "--seeds", "2"]
METRICS = {"sst2": {"accuracy", "macro_f1"}, "mrpc": {"accuracy", "macro_f1", "f1"}}


def probed(folder, data_dir, *words: str):
    """Runs the command and reads what it wrote into the folder."""
    cache = [] if "--use_embedding_cache" in words else ["--embedding_cache_dir", str(folder / "vectors")]
    assert main(["--data_dir", str(data_dir), "--output_dir", str(folder), *QUICK, *cache, *words]) == 0
    return read_results(folder)


@pytest.fixture
def probe(tmp_path, data_dir, encoder_dir):
    """Runs the command on SST-2 with one tiny encoder; every call has the same folder."""

    def run(*words: str):
        return probed(tmp_path / "run", data_dir, "--models", f"tiny={encoder_dir}", "--tasks", "sst2", *words)

    return run


@pytest.fixture(scope="module")
def several(tmp_path_factory, tiny_encoder, data_dir):
    """Two checkpoints of `a` and one of `b`, of another type and size, on two tasks."""
    folder = tmp_path_factory.mktemp("several")
    first, second = (tiny_encoder(folder / f"a{seed}", seed=seed) for seed in (1, 2))
    third = tiny_encoder(folder / "b", "bert", hidden_size=24)
    words = ["--models", f"a={first},{second}", f"b={third}", "--tasks", "sst2", "mrpc"]
    return probed(folder / "run", data_dir, *words)


@pytest.fixture(scope="module")
def paper(tmp_path_factory, encoder_dir, data_dir):
    """One encoder on the tasks that are the default."""
    return probed(tmp_path_factory.mktemp("paper"), data_dir, "--models", f"tiny={encoder_dir}")


@pytest.fixture(scope="module")
def all_poolings(tmp_path_factory, encoder_dir, data_dir):
    """One encoder with every pooling; two attention draws for three seeds."""
    words = ["--models", f"tiny={encoder_dir}", "--tasks", "sst2", "--seeds", "3", "--num_attention_draws", "2"]
    return probed(tmp_path_factory.mktemp("poolings"), data_dir, *words, "--pooling", *POOLINGS)


def headline(results, task: str, **wanted) -> dict[int, float]:
    """Returns the headline metric after the last epoch, by seed."""
    wanted = {"variant": None, **wanted}
    return {record.seed: record.value for record in results.select(task=task, metric=TASKS[task].metric, **wanted)}


def test_results_have_one_record_per_checkpoint_task_seed_and_metric(several):
    found = [(r.model, r.replicate, r.task, r.seed, r.metric) for r in several.select(kind="probe", variant=None)]
    expected = [
        (*who, task, seed, metric)
        for who, (task, metrics), seed in itertools.product([("a", 0), ("a", 1), ("b", 0)], METRICS.items(), (0, 1))
        for metric in metrics
    ]
    assert sorted(row for row in found if row[0] not in BASELINES) == sorted(expected)


def test_results_have_both_baselines_for_every_task_and_metric(several):
    found = {(r.model, r.task, r.metric) for r in several.records if r.model in BASELINES}
    assert found == {(name, task, metric) for name in BASELINES for task in METRICS for metric in METRICS[task]}


def test_results_measure_baselines_once(several):
    assert len(several.select(model="majority", task="sst2", metric="accuracy")) == 1


def test_directories_after_a_comma_are_replicates(several):
    assert [(model["name"], model["replicate"]) for model in several.models] == [("a", 0), ("a", 1), ("b", 0)]


def test_replicates_are_different_encoders(several):
    assert len({model["weights"] for model in several.models}) == 3


def test_records_say_how_the_heads_were_trained(several):
    record = several.select(model="b", task="mrpc", seed=1, variant=None)[0]
    found = (record.num_train, record.num_eval, record.num_epochs, record.batch_size, record.pooling, record.head)
    assert found == (planted.NUM_TRAIN, planted.NUM_EVAL, 30, 256, "mean", "linear")


@pytest.mark.parametrize(
    "key", ["probe|a|0|sst2|mean|linear", "probe|a|1|mrpc|mean|linear", "probe|b|0|sst2|mean|linear"]
)
def test_predictions_have_one_row_per_seed(several, key):
    assert several.predictions[key].shape == (2, planted.NUM_EVAL)


def test_labels_stand_beside_the_predictions(several, data_dir):
    labels = load_splits(TASKS["mrpc"], data_dir, train=False)[1].labels
    np.testing.assert_array_equal(several.predictions["probe|labels|mrpc"], labels)


@pytest.mark.parametrize("task", METRICS)
def test_predictions_give_the_recorded_scores(several, task):
    for seed, predictions in enumerate(several.predictions[f"probe|a|1|{task}|mean|linear"]):
        scores = load_metric("glue", task).compute(
            predictions=predictions.tolist(), references=several.predictions[f"probe|labels|{task}"].tolist()
        )
        recorded = several.select(model="a", replicate=1, task=task, seed=seed, variant=None)
        assert {record.metric: record.value for record in recorded} == scores


def test_command_in_the_results_names_no_folder_of_the_machine(several, data_dir):
    assert several.commands[0].startswith("predrec probe ") and str(data_dir.parent) not in several.commands[0]


def test_tasks_of_the_paper_are_the_default(paper):
    assert {record.task for record in paper.records} == set(PAPER_TASKS)


@pytest.mark.parametrize("task", PAPER_TASKS)
def test_probe_beats_the_majority_class(paper, task):
    (majority,) = headline(paper, task, model="majority").values()
    assert min(headline(paper, task, model="tiny").values()) > majority + 0.1


def test_probe_finds_the_planted_word(paper):
    assert min(headline(paper, "sst2", model="tiny").values()) > 0.8


@pytest.mark.parametrize("task", PAPER_TASKS)
def test_best_epoch_is_not_worse_than_the_last(paper, task):
    best, last = (headline(paper, task, model="tiny", variant=variant) for variant in ("best_on_eval", None))
    assert best.keys() == last.keys() and all(best[seed] >= last[seed] for seed in last)


def test_best_epoch_is_that_of_each_seed():
    right = np.array([[2, 4, 1], [1, 3, 2]])  # Of four rows, by seed and epoch.
    epochs = [(np.arange(4) >= count[:, None]).astype(int) for count in right.T]
    splits = Split((["a"] * 4,), np.zeros(4, int)), Split((["b"] * 4,), np.zeros(4, int))
    results = Results()
    settings = ProbeSettings(num_epochs=3)
    record_scores(results, "m", 0, TASKS["sst2"], splits, "mean", settings, [7, 8], epochs, 1, whitened=False)
    assert headline(results, "sst2", variant="best_on_eval") == {7: 1.0, 8: 0.75}
    assert headline(results, "sst2") == {7: 0.25, 8: 0.5}


def test_best_epoch_is_recorded_for_the_headline_metric_alone(paper):
    assert {record.metric for record in paper.select(variant="best_on_eval", task="cola")} == {"matthews_correlation"}


def test_one_epoch_has_no_best_epoch(probe):
    assert not probe("--num_train_epochs", "1").select(variant="best_on_eval")


def test_console_shows_models_and_the_next_command(probe, capsys):
    probe()
    printed = capsys.readouterr().out
    assert all(
        word in printed for word in ("majority class", "tiny", "mean linear", "sst2 (accuracy)", "predrec report")
    )


def test_arguments_of_run_glue_work(tmp_path, data_dir, encoder_dir):
    words = ["--model_name_or_path", str(encoder_dir), "--task_name", "sst2", "--do_train", "--do_eval"]
    assert probed(tmp_path, data_dir, *words).model_names == [encoder_dir.name]


def test_arguments_of_run_glue_give_the_same_scores(tmp_path, data_dir, encoder_dir, probe):
    words = ["--model_name_or_path", str(encoder_dir), "--task_name", "sst2", "--do_train", "--do_eval"]
    found = probed(tmp_path / "glue", data_dir, *words)
    assert headline(found, "sst2", model=encoder_dir.name) == headline(probe(), "sst2", model="tiny")


def test_same_command_gives_the_same_scores(probe):
    assert probe().records == probe().records


def test_seeds_begin_at_the_seed(probe):
    assert set(headline(probe("--seed", "5"), "sst2", model="tiny")) == {5, 6}


def test_score_of_a_seed_does_not_depend_on_the_others(probe):
    together, alone = (probe(*words) for words in ((), ("--seed", "1", "--seeds", "1")))
    assert headline(together, "sst2", model="tiny")[1] == headline(alone, "sst2", model="tiny")[1]


HEADS = [
    ["--pooling", "mean"],
    ["--pooling", "attention"],
    ["--pooling", "attention-trained"],
    ["--pooling", "weighted-trained"],
    ["--head", "mlp"],
]


@pytest.mark.parametrize("words", HEADS, ids=" ".join)
def test_evaluation_alone_takes_the_saved_heads(probe, words):
    trained = headline(probe(*words), "sst2", model="tiny")
    assert headline(probe(*words, "--do_eval"), "sst2", model="tiny") == trained


def test_evaluation_alone_predicts_the_same(probe):
    key = "probe|tiny|0|sst2|mean|linear"
    np.testing.assert_array_equal(probe().predictions[key], probe("--do_eval").predictions[key])


def test_evaluation_alone_takes_the_saved_scores_of_pairs(tmp_path, data_dir, encoder_dir):
    words = ["--models", f"tiny={encoder_dir}", "--tasks", "stsb"]
    trained = probed(tmp_path, data_dir, *words).predictions["probe|tiny|0|stsb|mean|linear"]
    again = probed(tmp_path, data_dir, *words, "--do_eval").predictions["probe|tiny|0|stsb|mean|linear"]
    np.testing.assert_array_equal(again, trained)


def test_training_alone_records_no_score(probe):
    assert not probe("--do_train").records


def test_training_alone_saves_heads_for_evaluation(probe):
    probe("--do_train")
    assert min(headline(probe("--do_eval"), "sst2", model="tiny").values()) > 0.8


@pytest.fixture
def refused(refusal, tmp_path, data_dir, encoder_dir):
    """Runs the command on SST-2 into the folder of `probe`, expects that it refuses, and returns the message."""

    def run(*words: str) -> str:
        machine = THREADS if "finetune" in words else MACHINE
        common = ["--data_dir", data_dir, "--output_dir", tmp_path / "run", "--seed", "0", *machine]
        return refusal(main, *common, "--models", f"tiny={encoder_dir}", "--tasks", "sst2", *words)

    return run


def test_evaluation_alone_explains_that_there_are_no_heads(refused):
    message = refused("--do_eval")
    assert "There are no trained heads" in message and "`--do_train`" in message


def test_evaluation_alone_refuses_heads_of_another_number_of_seeds(probe, refused):
    probe()
    assert "another seeds" in refused("--do_eval", "--seeds", "3")


def test_evaluation_alone_refuses_heads_of_an_encoder_of_another_size(probe, refused, tiny_encoder, tmp_path):
    probe()
    other = tiny_encoder(tmp_path / "other", hidden_size=24)
    assert "another encoder" in refused("--do_eval", "--seeds", "2", "--models", f"tiny={other}")


def test_evaluation_alone_refuses_heads_of_another_encoder_of_the_same_size(probe, refused, tiny_encoder, tmp_path):
    probe()
    other = tiny_encoder(tmp_path / "other", seed=1)
    assert "another encoder" in refused("--do_eval", "--seeds", "2", "--models", f"tiny={other}")


def test_evaluation_alone_refuses_heads_of_other_seeds(probe, refused):
    probe()
    assert "seeds" in refused("--do_eval", "--seeds", "2", "--seed", "7")


def test_evaluation_alone_records_the_epochs_of_the_training(tmp_path, data_dir, encoder_dir):
    words = ["--data_dir", str(data_dir), "--output_dir", str(tmp_path), "--models", f"tiny={encoder_dir}"]
    words += ["--tasks", "sst2", "--seeds", "1", *MACHINE]
    assert main([*words, "--num_train_epochs", "3"]) == 0
    assert main([*words, "--do_eval"]) == 0
    assert {r.num_epochs for r in read_results(tmp_path).select(model="tiny")} == {3}


@pytest.mark.parametrize("words", [["--max_train_samples", "10"], ["--validation_share", "0.3"]])
def test_evaluation_alone_refuses_heads_of_another_number_of_rows(probe, refused, words):
    """Rows that are held out now, the heads may have learned by heart."""
    probe("--do_train", "--do_eval")
    message = refused("--do_eval", "--seeds", "2", *words)
    assert f"another num_train: {planted.NUM_TRAIN}, not " in message and "`--do_train`" in message


def test_evaluation_alone_refuses_heads_of_as_many_other_rows(probe, refused, data_dir, tmp_path):
    probe("--do_train")
    other = shutil.copytree(data_dir, tmp_path / "data")
    path = other / "sst2" / "train.parquet"
    rows = Dataset.from_parquet(str(path), cache_dir=str(tmp_path)).to_list()
    Dataset.from_list([rows[0] | {"label": 1 - rows[0]["label"]}, *rows[1:]]).to_parquet(path)
    assert "another training rows" in refused("--do_eval", "--seeds", "2", "--data_dir", str(other))


def test_evaluation_alone_refuses_heads_of_texts_that_were_read_otherwise(probe, refused):
    """Cut to another length, an encoder gives other vectors."""
    probe("--do_train")
    assert "another encoder or way to read texts with it" in refused(
        "--do_eval", "--seeds", "2", "--max_seq_length", "8"
    )


def test_evaluation_alone_refuses_heads_of_other_draws_of_attention(probe, refused):
    probe("--do_train", "--pooling", "attention", "--num_attention_draws", "3")
    words = ["--do_eval", "--seeds", "2", "--pooling", "attention", "--num_attention_draws", "2"]
    assert "another number of draws: 3, not 2" in refused(*words)


@pytest.mark.parametrize("words", [["--do_eval", "false"], ["--do_train", "false", "--do_eval", "false"]])
def test_probe_of_nothing_to_do_is_refused(refused, words):
    assert "there is nothing to do" in refused(*words)


def test_evaluation_alone_explains_damaged_heads(probe, refused, tmp_path):
    probe()
    (path,) = (tmp_path / "run" / "heads").rglob("*.safetensors")
    path.write_bytes(b"damaged")
    assert "There are no trained heads" in refused("--do_eval", "--seeds", "2")


def test_heads_of_all_seeds_are_saved(probe, tmp_path):
    probe()
    (path,) = (tmp_path / "run" / "heads").rglob("*.safetensors")
    assert all(len(tensor) == 2 for tensor in load_file(path).values())


def test_second_head_does_not_need_the_encoder(probe, no_encoding):
    probe()
    no_encoding()
    assert len(headline(probe("--head", "mlp"), "sst2", model="tiny")) == 2


def test_second_untrained_pooling_does_not_need_the_encoder(probe, no_encoding):
    probe("--pooling", "mean")
    no_encoding()
    assert len(headline(probe("--pooling", "max", "weighted", "cls"), "sst2", model="tiny")) == 2


def test_second_run_without_the_cache_needs_the_encoder(probe, no_encoding):
    probe("--use_embedding_cache", "false")
    no_encoding()
    with pytest.raises(AssertionError, match="The encoder ran"):
        probe("--use_embedding_cache", "false")


def test_every_text_is_encoded_once_for_all_poolings(probe, encoded, data_dir):
    probe("--pooling", *POOLINGS)
    texts = {text for split in load_splits(TASKS["sst2"], data_dir) for text in split.texts[0]}
    assert sum(encoded) == len(texts)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_pooling_is_recorded_for_every_seed(all_poolings, pooling):
    assert set(headline(all_poolings, "sst2", pooling=pooling)) == {0, 1, 2}


@pytest.mark.parametrize("pooling", POOLINGS)
def test_pooling_beats_the_majority_class(all_poolings, pooling):
    (majority,) = headline(all_poolings, "sst2", model="majority").values()
    assert min(headline(all_poolings, "sst2", pooling=pooling).values()) > majority + 0.1


def test_untrained_attention_records_the_draw_of_each_seed(all_poolings):
    records = all_poolings.select(pooling="attention", variant=None, metric="accuracy")
    assert {record.seed: record.draw for record in records} == {0: 0, 1: 1, 2: 0}


def test_other_poolings_have_no_draw(all_poolings):
    assert all(record.draw is None for record in all_poolings.records if record.pooling != "attention")


def test_weighted_pooling_at_its_start_scores_as_the_mean(all_poolings):
    scores = [headline(all_poolings, "sst2", pooling=pooling) for pooling in ("weighted", "mean")]
    assert scores[0] == scores[1]


def test_head_of_a_seed_is_trained_on_its_own_draw(all_poolings, encoder_dir, data_dir):
    """As by hand: the vectors of draw 1 and the head of seed 1."""
    embedder = Embedder(load_encoder(encoder_dir, dtype="float32"), num_draws=2, progress=False)
    train, evaluation = load_splits(TASKS["sst2"], data_dir)
    inputs = [(embedder.vectors(split.texts[0], "attention")[:, 1],) for split in (train, evaluation)]
    settings = ProbeSettings(num_epochs=30, learning_rate=0.05)
    _, history = train_probe(inputs[0], train.labels, 2, settings, [1], inputs[1])
    found = all_poolings.predictions["probe|tiny|0|sst2|attention|linear"][1]
    np.testing.assert_array_equal(found, history[-1][0].argmax(-1))


def test_heads_with_a_hidden_layer_beat_the_majority_class(probe):
    results = probe("--head", "mlp", "--mlp_size", "32")
    (majority,) = headline(results, "sst2", model="majority").values()
    assert min(headline(results, "sst2", head="mlp").values()) > majority + 0.1


def test_hidden_layer_has_the_given_size(probe, tmp_path):
    probe("--head", "mlp", "--mlp_size", "8")
    (path,) = (tmp_path / "run" / "heads").rglob("*.safetensors")
    assert load_file(path)["0.heads.classifier.weight"].shape == (2, 2, 8)


def test_hidden_layer_predicts_scores_of_pairs(tmp_path, data_dir, encoder_dir):
    words = ["--models", f"tiny={encoder_dir}", "--tasks", "stsb", "--head", "mlp", "--num_train_epochs", "2"]
    assert len(headline(probed(tmp_path, data_dir, *words), "stsb", head="mlp")) == 2


def test_both_validation_splits_of_mnli_are_tasks(tmp_path, data_dir, encoder_dir):
    words = ["--models", f"tiny={encoder_dir}", "--tasks", "mnli", "mnli_mismatched"]
    results = probed(tmp_path, data_dir, *words)
    assert headline(results, "mnli", model="tiny") and headline(results, "mnli_mismatched", model="tiny")


def test_part_of_the_training_set_is_noted_as_not_comparable(tmp_path, data_dir, encoder_dir):
    words = ["--models", f"tiny={encoder_dir}", "--tasks", "mnli", "--num_train_epochs", "1"]
    note = probed(tmp_path, data_dir, *words).notes["probe|mnli"]
    assert "60 of 392,702" in note and "not comparable" in note


def test_training_set_in_two_splits_counts_as_a_whole(tmp_path, data_dir, encoder_dir, monkeypatch):
    for task, split in (("mnli", "train"), ("mnli", "train_no_periods"), ("mnli", "validation_matched")):
        columns = planted.inferences(np.random.default_rng(0), 30)
        planted.write_split(tmp_path / "data", task, split, columns)
    monkeypatch.setitem(tasks.TASKS, "mnli", dataclasses.replace(TASKS["mnli"], full_train_size=60, full_eval_size=30))
    words = ["--models", f"tiny={encoder_dir}", "--tasks", "mnli", "--num_train_epochs", "1"]
    assert not probed(tmp_path / "run", tmp_path / "data", *words).notes


def test_note_is_shown(probe, capsys):
    probe("--max_train_samples", "20")
    cut = f"trained on 20 of 67,349 rows and scored on {planted.NUM_EVAL} of 872 rows: not comparable"
    assert cut in capsys.readouterr().out


def test_part_of_the_evaluation_rows_is_noted(probe, monkeypatch):
    whole = dataclasses.replace(TASKS["sst2"], full_train_size=planted.NUM_TRAIN, full_eval_size=planted.NUM_EVAL)
    monkeypatch.setitem(tasks.TASKS, "sst2", whole)
    assert probe().notes == {}
    note = f"scored on 10 of {planted.NUM_EVAL} rows: not comparable with published scores"
    assert probe("--max_eval_samples", "10").notes == {"probe|sst2": note}


def test_number_of_rows_can_be_limited(probe):
    record = probe("--max_train_samples", "20", "--max_eval_samples", "10").select(model="tiny")[0]
    assert (record.num_train, record.num_eval) == (20, 10)


def test_validation_share_never_reads_the_evaluation_split(tmp_path, encoder_dir, data_dir):
    """Choices made with it cannot have been made on the rows that are reported."""
    shutil.copytree(data_dir / "sst2", tmp_path / "data" / "sst2")
    for path in (tmp_path / "data" / "sst2").glob("validation*"):
        path.write_bytes(b"nothing that could be read")
    words = ["--models", f"tiny={encoder_dir}", "--tasks", "sst2", "--validation_share", "0.2"]
    results = probed(tmp_path / "run", tmp_path / "data", *words)
    record = results.select(model="tiny")[0]
    assert {one.kind for one in results.records} == {"probe-development"}
    assert record.num_eval == round(0.2 * (record.num_eval + record.num_train))
    assert f"scored on {record.num_eval} rows held out of the training split" in results.notes[f"{record.kind}|sst2"]


def test_validation_share_has_no_best_epoch(probe):
    """Which is shown beside published numbers alone."""
    assert not probe("--validation_share", "0.2").select(variant="best_on_eval")


def test_validation_share_holds_for_fine_tuning(tmp_path, data_dir, encoder_dir):
    words = ["--models", f"tiny={encoder_dir}", "--tasks", "sst2", "--mode", "finetune", "--validation_share", "0.2"]
    words += ["--max_steps", "1", "--seeds", "1", "--num_threads", "1", "--output_dir", str(tmp_path / "run")]
    assert main(["--data_dir", str(data_dir), *words]) == 0
    assert {one.kind for one in read_results(tmp_path / "run").records} == {"finetune-development"}


@pytest.mark.parametrize("share", ["0", "1", "-0.1"])
def test_validation_share_is_a_share(refused, share):
    assert "must be strictly between 0 and 1" in refused("--validation_share", share)


def test_validation_share_refuses_another_number_of_rows(refused):
    assert "`max_eval_samples` has no effect" in refused("--validation_share", "0.1", "--max_eval_samples", "5")


@pytest.mark.parametrize(
    "words",
    [
        ["--warmup_steps", "5"],
        ["--max_steps", "5"],
        ["--gradient_accumulation_steps", "2"],
        ["--save_strategy", "epoch"],
        ["--max_grad_norm", "1"],
        ["--resume_from_checkpoint", "anywhere"],
    ],
    ids=lambda words: words[0],
)
def test_probe_refuses_what_only_fine_tuning_follows(refused, words):
    message = refused(*words)
    assert f"`{words[0][2:]}` has no effect" in message and "--mode finetune" in message


@pytest.mark.parametrize(
    "words",
    [
        ["--head", "mlp"],
        ["--pooling", "mean"],
        ["--dropout", "0.1"],
        ["--mlp_size", "8"],
        ["--vectors", "raw"],
        ["--encoder_dtype", "float32"],
        ["--num_attention_draws", "2"],
        ["--embedding_cache_dir", "anywhere"],
        ["--use_embedding_cache", "false"],
    ],
    ids=lambda words: words[0],
)
def test_fine_tuning_refuses_what_only_a_probe_follows(refused, words):
    message = refused("--mode", "finetune", "--seeds", "1", "--max_steps", "1", *SILENT, *words)
    assert f"`{words[0][2:]}` has no effect" in message and "--mode probe" in message


@pytest.mark.parametrize("epochs", ["0", "1.5", "-1"])
def test_probe_trains_whole_epochs(refused, epochs):
    assert f"`num_train_epochs` is {float(epochs)}" in refused("--num_train_epochs", epochs)


@pytest.fixture
def finetune(tmp_path, data_dir):
    """Fine-tunes a directory on a task with one seed, one epoch unless told otherwise."""

    def run(directory, task: str = "sst2", *words: str):
        common = ["--data_dir", str(data_dir), "--output_dir", str(tmp_path / "run"), "--seed", "0", *THREADS]
        options = ["--mode", "finetune", "--seed", "0", "--seeds", "1", "--num_train_epochs", "1"]
        assert main([*common, *options, "--models", f"tiny={directory}", "--tasks", task, *SILENT, *words]) == 0
        return read_results(tmp_path / "run")

    return run


@pytest.mark.parametrize("model_type", ["predrec", "bert"])
def test_fine_tuning_records_every_metric(finetune, tiny_encoder, tmp_path, model_type):
    records = finetune(tiny_encoder(tmp_path / "encoder", model_type)).select(kind="finetune")
    assert {record.metric for record in records} == METRICS["sst2"]


def test_fine_tuning_pads_as_far_as_an_encoder_attends(finetune, tiny_encoder, tmp_path, monkeypatch):
    """What attends to padding would score a text by what else is in its batch."""
    folder, seen = tiny_encoder(tmp_path / "encoder", "predrec"), []
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"attend_to_padding": True}))
    kept = DataCollatorWithPadding.__call__
    monkeypatch.setattr(
        DataCollatorWithPadding,
        "__call__",
        lambda self, rows: (batch := kept(self, rows), seen.append(batch["input_ids"].shape[1]))[0],
    )
    finetune(folder, "sst2", "--max_seq_length", "24")
    assert set(seen) == {24}


def test_fine_tuning_records_who_was_trained(finetune, encoder_dir):
    record = finetune(encoder_dir).records[0]
    found = (record.model, record.replicate, record.task, record.seed, record.num_train, record.num_eval)
    assert found == ("tiny", 0, "sst2", 0, planted.NUM_TRAIN, planted.NUM_EVAL)


def test_fine_tuning_records_no_pooling(finetune, encoder_dir):
    assert all(record.pooling is None and record.head is None for record in finetune(encoder_dir).records)


@pytest.mark.parametrize("model_type", ["predrec", "bert"])
def test_fine_tuning_learns_the_planted_word(finetune, tiny_encoder, tmp_path, model_type):
    words = ["--num_train_epochs", "5", "--learning_rate", "1e-2"]
    results = finetune(tiny_encoder(tmp_path / "encoder", model_type), "sst2", *words)
    assert headline(results, "sst2", kind="finetune")[0] > 0.9


def test_fine_tuning_trains_float32_weights_of_a_bfloat16_checkpoint(finetune, encoder_dir, tmp_path):
    folder = shutil.copytree(encoder_dir, tmp_path / "encoder")
    AutoModel.from_pretrained(folder, dtype=torch.bfloat16).save_pretrained(folder)
    finetune(folder, "sst2", "--save_strategy", "epoch")
    (path,) = (tmp_path / "run").glob("finetuned/*/model.safetensors")
    assert {tensor.dtype for tensor in load_file(path).values()} == {torch.float32}


@pytest.mark.parametrize("task", ["mrpc", "mnli", "stsb"])
def test_fine_tuning_takes_pairs(finetune, encoder_dir, task):
    assert len(headline(finetune(encoder_dir, task), task, kind="finetune")) == 1


def test_fine_tuning_predicts_scores(finetune, encoder_dir):
    predicted = finetune(encoder_dir, "stsb").predictions["finetune|tiny|0|stsb|finetune|-"]
    assert predicted.shape == (1, planted.NUM_EVAL) and np.issubdtype(predicted.dtype, np.floating)


def test_fine_tuning_keeps_predictions_of_every_seed(finetune, encoder_dir):
    results = finetune(encoder_dir, "sst2", "--seeds", "2")
    accuracy = (
        results.predictions["finetune|tiny|0|sst2|finetune|-"] == results.predictions["finetune|labels|sst2"]
    ).mean(1)
    np.testing.assert_allclose(accuracy, list(headline(results, "sst2", kind="finetune").values()))


def test_fine_tuning_shows_its_scores(finetune, encoder_dir, capsys):
    score = headline(finetune(encoder_dir), "sst2", kind="finetune")[0]
    assert f"{score:.3f}" in next(line for line in capsys.readouterr().out.splitlines() if line.startswith("tiny "))


def test_fine_tuning_keeps_no_model_unless_told(finetune, encoder_dir, tmp_path):
    finetune(encoder_dir)
    assert not list((tmp_path / "run").rglob("*.safetensors"))


def test_fine_tuning_leaves_the_encoder_alone(finetune, encoder_dir):
    before = (encoder_dir / "model.safetensors").read_bytes()
    finetune(encoder_dir, "sst2", "--save_strategy", "epoch")
    assert (encoder_dir / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize("model_type", ["predrec", "bert"])
def test_fine_tuned_model_is_evaluated_alone(finetune, tiny_encoder, tmp_path, model_type):
    encoder = tiny_encoder(tmp_path / "encoder", model_type)
    words = ["--save_strategy", "epoch", "--num_train_epochs", "2", "--learning_rate", "1e-2"]
    trained = headline(finetune(encoder, "sst2", *words), "sst2", kind="finetune")
    model = tmp_path / "run" / "finetuned" / "tiny-0-sst2-0"
    assert headline(finetune(model, "sst2", "--do_eval"), "sst2", kind="finetune") == trained


@pytest.mark.parametrize("model_type", ["predrec", "bert"])
def test_evaluation_alone_refuses_a_model_that_is_not_fine_tuned(refused, tiny_encoder, tmp_path, model_type):
    encoder = tiny_encoder(tmp_path / "encoder", model_type)
    message = refused("--mode", "finetune", "--do_eval", "--seeds", "1", "--models", f"tiny={encoder}")
    assert "is not fine-tuned" in message and "`--do_train`" in message


def test_evaluation_alone_scores_a_fine_tuned_model_once(finetune, encoder_dir, tmp_path, data_dir):
    finetune(encoder_dir, "sst2", "--save_strategy", "epoch")
    model = tmp_path / "run" / "finetuned" / "tiny-0-sst2-0"
    words = ["--data_dir", str(data_dir), "--output_dir", str(tmp_path / "run"), "--tasks", "sst2", *SILENT, *THREADS]
    assert main([*words, "--mode", "finetune", "--do_eval", "--models", f"tiny={model}"]) == 0
    results = read_results(tmp_path / "run")
    assert len(results.select(metric="accuracy")) == len(results.predictions["finetune|tiny|0|sst2|finetune|-"]) == 1


def test_evaluation_alone_refuses_several_seeds_of_one_model(refused):
    assert "`seeds` has no effect" in refused("--mode", "finetune", "--do_eval", "--seeds", "2")


BEST = ["--eval_strategy", "epoch", "--save_strategy", "epoch", "--load_best_model_at_end", "true"]


def test_fine_tuning_does_not_choose_by_the_split_that_is_reported(refused):
    message = refused("--mode", "finetune", *BEST)
    assert "`load_best_model_at_end`" in message and "`--validation_share`" in message


def test_fine_tuning_chooses_on_rows_that_are_held_out(finetune, encoder_dir):
    records = finetune(encoder_dir, "sst2", *BEST, "--validation_share", "0.2").records
    assert {record.kind for record in records} == {"finetune-development"}


def test_fine_tuning_goes_on_from_the_newest_checkpoint_of_every_seed(finetune, encoder_dir, tmp_path):
    words = ["--seeds", "2", "--num_train_epochs", "2", "--save_strategy", "epoch"]
    expected = finetune(encoder_dir, "sst2", *words).predictions
    runs = [tmp_path / "run" / "finetuned" / f"tiny-0-sst2-{seed}" for seed in (0, 1)]
    for run in runs:
        shutil.rmtree(run / "checkpoint-16")
    first = [(run / "checkpoint-8" / "trainer_state.json").stat().st_mtime_ns for run in runs]
    again = finetune(encoder_dir, "sst2", *words, "--resume_from_checkpoint", "true").predictions
    key = "finetune|tiny|0|sst2|finetune|-"
    np.testing.assert_array_equal(again[key], expected[key])
    # Begun anew, it would have been written anew.
    assert [(run / "checkpoint-8" / "trainer_state.json").stat().st_mtime_ns for run in runs] == first
    assert all((run / "checkpoint-16").is_dir() for run in runs)


def test_fine_tuning_with_nothing_to_resume_begins(finetune, encoder_dir):
    assert finetune(encoder_dir, "sst2", "--resume_from_checkpoint", "true").records


def test_fine_tuning_refuses_one_checkpoint_for_several_runs(refused):
    message = refused("--mode", "finetune", "--seeds", "3", "--resume_from_checkpoint", "outputs/checkpoint-5")
    assert "`resume_from_checkpoint`: 3 runs would all go on" in message


def test_fine_tuning_refuses_what_is_no_checkpoint(refused):
    message = refused("--mode", "finetune", "--seeds", "1", "--resume_from_checkpoint", "nowhere")
    assert "`resume_from_checkpoint`: 'nowhere' is not a checkpoint" in message


def test_evaluation_alone_refuses_to_resume(refused):
    message = refused("--mode", "finetune", "--do_eval", "--resume_from_checkpoint", "true")
    assert "`resume_from_checkpoint` has no effect without `--do_train`" in message


@pytest.mark.parametrize("mode", [[], ["--mode", "finetune", "--seeds", "1"]])
def test_several_processes_are_refused(refused, monkeypatch, mode):
    """All would write the same results."""
    monkeypatch.setattr(GlueTrainingArguments, "world_size", property(lambda self: 8))
    assert "takes one process" in refused(*mode)


def test_fine_tuning_on_several_gpus_is_refused(refused, monkeypatch):
    """The stock Trainer would train on batches that are as many times as large."""
    monkeypatch.setattr(GlueTrainingArguments, "n_gpu", property(lambda self: 8))
    assert "takes one GPU" in refused("--mode", "finetune", "--seeds", "1")


def test_frozen_encoders_are_probed_beside_other_gpus(probe, monkeypatch):
    monkeypatch.setattr(GlueTrainingArguments, "n_gpu", property(lambda self: 8))
    assert probe().records
