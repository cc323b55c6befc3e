"""Similarity on pairs whose score is the number of shared words, through the command."""

import sys
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

from predrec.commands.evaluate_sts import main
from predrec.eval.embeddings import Embedder
from predrec.eval.encoder import load_encoder
from predrec.eval.results import read_results
from predrec.eval.sts import VARIANTS, similarity_scores
from predrec.eval.tasks import STS_TASKS, load_splits

from . import planted

MACHINE = ["--num_threads", "1", "--encoder_dtype", "float32", "--num_attention_draws", "2"]
POOLINGS = ("mean", "max", "weighted", "attention", "cls", "embeddings")


def evaluated(folder, data_dir, *words: str):
    """Runs the command and reads what it wrote into the folder."""
    cache = ["--embedding_cache_dir", str(folder / "vectors")]
    assert main(["--data_dir", str(data_dir), "--output_dir", str(folder), *MACHINE, *cache, *words]) == 0
    return read_results(folder)


@pytest.fixture(scope="module")
def similar(tmp_path_factory) -> str:
    """A data directory of STS-B without a training split, and of STS-12 with a `score` and a `genre`."""
    folder = tmp_path_factory.mktemp("similar")
    generator = np.random.default_rng(0)
    planted.write_split(folder, "stsb", "validation", planted.similarities(generator, 30))
    columns = planted.similarities(generator, 30, "score") | {"genre": ["news", "forum", "news"] * 10}
    planted.write_split(folder, "sts12", "test", columns)
    return folder


@pytest.fixture(scope="module")
def found(tmp_path_factory, similar, encoder_dir):
    """One encoder on both tasks with all poolings."""
    words = ["--models", f"tiny={encoder_dir}", "--tasks", "stsb", "sts12", "--pooling", *POOLINGS]
    return evaluated(tmp_path_factory.mktemp("found"), similar, *words)


@pytest.fixture
def evaluate(tmp_path, similar, encoder_dir):
    """Runs the command with one encoder."""

    def run(*words: str):
        return evaluated(tmp_path / "run", similar, "--models", f"tiny={encoder_dir}", *words)

    return run


@pytest.fixture
def refused(refusal, tmp_path, encoder_dir):
    """Runs the command, expects that it refuses, and returns the message."""
    return partial(refusal, main, "--models", f"tiny={encoder_dir}", "--output_dir", tmp_path / "run", *MACHINE)


@pytest.mark.parametrize("model_type", ["predrec", "bert"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_similarity_is_found(tmp_path, similar, tiny_encoder, model_type, variant):
    encoder = tiny_encoder(tmp_path / "encoder", model_type)
    results = evaluated(tmp_path / "run", similar, "--models", f"tiny={encoder}")
    assert results.values(variant=variant, metric="spearmanr")[0] > 0.4


@pytest.mark.parametrize("task", ["stsb", "sts12"])
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("pooling", POOLINGS)
def test_every_variant_is_recorded(found, task, pooling, variant):
    draws = [record.draw for record in found.select(task=task, pooling=pooling, variant=variant, metric="spearmanr")]
    assert draws == ([0, 1] if pooling == "attention" else [None])


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("pooling", ["mean", "max", "cls"])
def test_value_is_that_of_the_function(found, similar, encoder_dir, pooling, variant):
    embedder = Embedder(load_encoder(encoder_dir, dtype="float32"), progress=False)
    split = load_splits(STS_TASKS["sts12"], similar, train=False)[1]
    vectors = [embedder.vectors(column, pooling) for column in split.texts]
    records = found.select(task="sts12", pooling=pooling, variant=variant)
    expected = similarity_scores(*vectors, split.labels, split.groups, variant)
    assert {record.metric: record.value for record in records} == pytest.approx(expected)


def test_value_of_an_attention_draw_is_that_of_the_function(found, similar, encoder_dir):
    embedder = Embedder(load_encoder(encoder_dir, dtype="float32"), num_draws=2, progress=False)
    split = load_splits(STS_TASKS["stsb"], similar, train=False)[1]
    first, second = (embedder.vectors(column, "attention")[:, 1] for column in split.texts)
    (value,) = found.values(task="stsb", pooling="attention", draw=1, variant="raw")
    assert value == pytest.approx(similarity_scores(first, second, split.labels)["spearmanr"])


def test_weighted_pooling_at_its_start_scores_as_the_mean(found):
    np.testing.assert_array_equal(found.values(pooling="weighted"), found.values(pooling="mean"))


def test_task_with_genres_has_the_mean_of_its_groups(found):
    assert found.values(task="sts12", pooling="mean", variant="raw", metric="spearmanr_mean_of_groups").size == 1


def test_task_without_genres_has_no_mean_of_groups(found):
    assert {record.metric for record in found.select(task="stsb")} == {"spearmanr"}


def test_records_name_the_number_of_pairs(found):
    assert {record.num_eval for record in found.records} == {30}


def test_records_are_of_their_own_kind(found):
    assert {record.kind for record in found.records} == {"sts"}


def test_similarity_task_of_glue_is_the_default(evaluate):
    assert {record.task for record in evaluate().records} == {"stsb"}


def test_label_column_may_be_called_score(tmp_path, encoder_dir, evaluate):
    planted.write_split(tmp_path, "stsb", "validation", planted.similarities(np.random.default_rng(0), 30, "score"))
    same = evaluated(tmp_path / "same", tmp_path, "--models", f"tiny={encoder_dir}").values(variant="centred")
    np.testing.assert_array_equal(same, evaluate().values(variant="centred"))


def test_fewer_sentences_than_features_are_not_whitened(evaluate, capsys):
    results = evaluate("--max_eval_samples", "5", "--pooling", "mean", "max")
    assert {record.variant for record in results.records} == {"raw", "centred"}
    assert capsys.readouterr().err.count("note: stsb: no scores of whitened vectors") == 1


def test_enough_sentences_are_whitened_without_a_word(evaluate, capsys):
    assert evaluate().select(variant="whitened")
    assert "note:" not in capsys.readouterr().err


def test_number_of_pairs_can_be_limited(evaluate):
    assert {record.num_eval for record in evaluate("--max_eval_samples", "12").records} == {12}


@pytest.mark.parametrize("variant", VARIANTS)
def test_collapsed_encoder_scores_zero(tmp_path, similar, last_norm, variant):
    results = evaluated(tmp_path / "run", similar, "--models", f"tiny={last_norm(0.0, 1.0)}")
    assert results.values(variant=variant).tolist() == [0.0]


def test_replicates_are_evaluated_each(tmp_path, similar, encoder_dir, tiny_encoder):
    other = tiny_encoder(tmp_path / "other", seed=1)
    results = evaluated(tmp_path / "run", similar, "--models", f"tiny={encoder_dir},{other}")
    assert [record.replicate for record in results.select(variant="raw")] == [0, 1]


def test_every_sentence_is_encoded_once_for_all_poolings(evaluate, encoded, similar):
    evaluate("--pooling", *POOLINGS)
    first, second = load_splits(STS_TASKS["stsb"], similar, train=False)[1].texts
    assert sum(encoded) == len({*first, *second})


def test_second_run_does_not_need_the_encoder(evaluate, no_encoding):
    evaluate("--pooling", *POOLINGS)
    no_encoding()
    assert evaluate("--pooling", *POOLINGS).records


def test_console_shows_every_variant(evaluate, capsys):
    evaluate()
    printed = capsys.readouterr().out
    assert all(word in printed for word in ("stsb", "tiny", *VARIANTS))


def test_rows_for_training_are_refused(refused, similar):
    message = refused("--data_dir", str(similar), "--max_train_samples", "5")
    assert "`max_train_samples` has no effect" in message


@pytest.mark.parametrize("pooling", ["attention-trained", "weighted-trained"])
def test_trained_pooling_is_refused(refused, similar, pooling):
    message = refused("--data_dir", str(similar), "--pooling", pooling)
    assert f"`pooling` '{pooling}' is not one of mean, max, weighted, attention, cls, embeddings." in message


def test_task_of_classes_is_refused(refused, data_dir):
    assert "Unknown task `mrpc`" in refused("--data_dir", str(data_dir), "--tasks", "mrpc")


@pytest.fixture
def without_mteb(monkeypatch):
    """The library is not installed."""
    monkeypatch.setitem(sys.modules, "mteb", None)
    monkeypatch.delitem(sys.modules, "predrec.eval.mteb_model", raising=False)


def test_missing_library_is_named_with_its_extra(refused, without_mteb):
    assert "pip install 'predrec[mteb]'" in refused("--mteb")


def test_test_split_of_mteb_has_a_name_of_its_own(evaluate_mteb, capsys):
    """STS-B is GLUE's validation split otherwise; the others are the same data."""
    results = evaluate_mteb("--tasks", "stsb", "sts12")
    assert [(record.task, record.value) for record in results.records] == [("stsb_test", 0.1), ("sts12", 0.2)]
    assert "stsb_test" in capsys.readouterr().out


@pytest.fixture
def evaluate_mteb(tmp_path, encoder_dir, monkeypatch):
    """Runs the command with a library that knows the scores."""
    scores = {"stsb": 0.1, "sts12": 0.2}
    module = SimpleNamespace(evaluate_with_mteb=lambda embedder, name, pooling, tasks: {t: scores[t] for t in tasks})
    monkeypatch.setitem(sys.modules, "predrec.eval.mteb_model", module)

    def run(*words: str):
        given = ["--models", f"tiny={encoder_dir}", "--output_dir", str(tmp_path / "run"), *MACHINE, "--mteb", *words]
        assert main(given) == 0
        return read_results(tmp_path / "run")

    return run


def test_missing_library_leaves_no_results(refused, without_mteb, tmp_path):
    refused("--mteb")
    assert not (tmp_path / "run").exists()
