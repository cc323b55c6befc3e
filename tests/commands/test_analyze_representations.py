"""What the command records is what the functions of geometry say of the vectors."""

import itertools
import math

import numpy as np
import pytest
import torch
from transformers import BertTokenizer

from predrec.commands.analyze_representations import main
from predrec.eval import geometry
from predrec.eval.embeddings import Embedder
from predrec.eval.encoder import load_encoder
from predrec.eval.results import read_results
from predrec.eval.tasks import TASKS, load_splits
from tests.conftest import tiny_vocabulary

from . import planted

MACHINE = ["--num_threads", "1", "--encoder_dtype", "float32", "--num_attention_draws", "2"]
POOLINGS = ("mean", "max", "weighted", "attention", "cls", "embeddings")
SPECTRAL = {"spectral_entropy", "spectral_entropy_singular", "effective_rank", "stable_rank", "rank_90"}
PAIRWISE = {"uniformity", "mean_cosine"}
BY_CLASS = {"alignment", "alignment_outside", "intra_inter_ratio"}
SEMANTIC = {"semantic_probe", "semantic_macro_f1"}
TOKEN = {"token_probe", "token_probe_majority"}
GEOMETRY = SPECTRAL | PAIRWISE | BY_CLASS


def analysed(folder, data_dir, *words: str):
    """Runs the command and reads what it wrote into the folder."""
    cache = ["--embedding_cache_dir", str(folder / "vectors")]
    assert main(["--data_dir", str(data_dir), "--output_dir", str(folder), *MACHINE, *cache, *words]) == 0
    return read_results(folder)


@pytest.fixture(scope="module")
def directories(tmp_path_factory, tiny_encoder, encoder_dir):
    """A predrec and a bert encoder with another tokenizer and another hidden size."""
    words = [*tiny_vocabulary(), "cats", "dogs"]
    other = BertTokenizer(vocab={word: number for number, word in enumerate(reversed(words))}, model_max_length=64)
    folder = tmp_path_factory.mktemp("second") / "bert"
    return {
        "first": encoder_dir,
        "second": tiny_encoder(
            folder, "bert", hidden_size=24, tokenizer=other, pad_token_id=other.pad_token_id, vocab_size=len(other)
        ),
    }


@pytest.fixture(scope="module")
def both(tmp_path_factory, data_dir, directories):
    """Both encoders on a task of classes and one of scores."""
    words = ["--tasks", "sst2", "stsb", "--pooling", *POOLINGS]
    models = [f"{name}={path}" for name, path in directories.items()]
    return analysed(tmp_path_factory.mktemp("both"), data_dir, "--models", *models, *words)


@pytest.fixture
def analyse(tmp_path, data_dir, encoder_dir):
    """Runs the command on SST-2 with one encoder and mean pooling."""

    def run(*words: str):
        model = ["--models", f"tiny={encoder_dir}"]
        return analysed(tmp_path / "run", data_dir, *model, "--tasks", "sst2", "--pooling", "mean", *words)

    return run


def vectors_of(path, data_dir, pooling: str, task: str = "sst2") -> torch.Tensor:
    """Returns the vectors that the command should measure, straight from the embedder."""
    embedder = Embedder(load_encoder(path, dtype="float32"), num_draws=2, progress=False)
    texts = load_splits(TASKS[task], data_dir, train=False)[1].texts
    texts = list(texts[0]) if len(texts) == 1 else list(zip(*texts, strict=True))
    return embedder.vectors(texts, pooling).double()


@pytest.mark.parametrize("task", ["sst2", "stsb"])
@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("model", ["first", "second"])
def test_every_measure_is_recorded_raw_and_centred(both, model, task, pooling):
    records = both.select(model=model, task=task, pooling=pooling)
    found = {(record.variant, record.metric) for record in records if record.variant}
    assert found == set(itertools.product(("raw", "centred"), GEOMETRY))


@pytest.mark.parametrize("pooling", POOLINGS)
def test_every_number_is_recorded_once(both, pooling):
    draws = 2 if pooling == "attention" else 1
    assert len(both.select(model="first", task="sst2", pooling=pooling, metric="uniformity", variant="raw")) == draws


MEASURES = {
    "spectral_entropy": geometry.spectral_entropy,
    "spectral_entropy_singular": lambda vectors, center: geometry.spectral_entropy(vectors, "singular", center),
    "effective_rank": geometry.effective_rank,
    "stable_rank": geometry.stable_rank,
    "rank_90": lambda vectors, center: geometry.rank_for_variance(vectors, 0.9, center),
}
OF_VECTORS = {"uniformity": geometry.uniformity, "mean_cosine": geometry.mean_cosine}
OF_CLASSES = {
    "alignment": geometry.alignment,
    "alignment_outside": lambda vectors, labels: geometry.alignment(vectors, labels, power="outside"),
    "intra_inter_ratio": geometry.intra_inter_ratio,
}


def expected(metric: str, vectors: torch.Tensor, labels: torch.Tensor, variant: str) -> float:
    """Takes a measure by its own function."""
    if metric in MEASURES:
        return float(MEASURES[metric](vectors, center=variant == "centred"))
    vectors = vectors - vectors.mean(0) if variant == "centred" else vectors
    if metric in OF_VECTORS:
        return float(OF_VECTORS[metric](vectors))
    return float(OF_CLASSES[metric](vectors, labels))


@pytest.mark.parametrize("variant", ["raw", "centred"])
@pytest.mark.parametrize("metric", sorted(GEOMETRY))
def test_value_is_that_of_the_function(both, directories, data_dir, metric, variant):
    labels = torch.from_numpy(load_splits(TASKS["sst2"], data_dir, train=False)[1].labels)
    for model, pooling in itertools.product(directories, ("mean", "max", "cls")):
        vectors = vectors_of(directories[model], data_dir, pooling)
        (found,) = both.values(model=model, task="sst2", pooling=pooling, metric=metric, variant=variant)
        assert found == pytest.approx(expected(metric, vectors, labels, variant), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("metric", ["uniformity", "effective_rank", "alignment"])
def test_value_of_an_attention_draw_is_that_of_the_function(both, directories, data_dir, metric):
    labels = torch.from_numpy(load_splits(TASKS["sst2"], data_dir, train=False)[1].labels)
    vectors = vectors_of(directories["second"], data_dir, "attention")
    wanted = {"model": "second", "task": "sst2", "pooling": "attention", "metric": metric, "variant": "raw"}
    for draw in (0, 1):
        (found,) = both.values(**wanted, draw=draw)
        assert found == pytest.approx(expected(metric, vectors[:, draw], labels, "raw"), rel=1e-6)


def test_pairs_are_measured_as_one_text(both, encoder_dir, data_dir):
    (found,) = both.values(model="first", task="stsb", pooling="mean", metric="effective_rank", variant="centred")
    vectors = vectors_of(encoder_dir, data_dir, "mean", "stsb")
    assert found == pytest.approx(float(geometry.effective_rank(vectors)), rel=1e-6)


def test_scores_are_cut_into_classes(both, encoder_dir, data_dir):
    """At 1, 2, 3 and 4, as in the paper: whole scores from 0 to 5 give 0, 1, 2, 3, 4, 4."""
    scores = load_splits(TASKS["stsb"], data_dir, train=False)[1].labels
    classes = torch.tensor([min(int(score), 4) for score in scores])
    (found,) = both.values(model="first", task="stsb", pooling="mean", metric="alignment", variant="raw")
    vectors = vectors_of(encoder_dir, data_dir, "mean", "stsb")
    assert found == pytest.approx(float(geometry.alignment(vectors, classes)), rel=1e-6)


def test_attention_records_its_draws(both):
    assert {record.draw for record in both.select(pooling="attention")} == {0, 1}


def test_other_poolings_have_no_draw(both):
    assert all(record.draw is None for record in both.records if record.pooling != "attention")


def test_weighted_pooling_at_its_start_measures_as_the_mean(both):
    weighted, mean = (
        [(r.model, r.task, r.metric, r.variant, r.value) for r in both.select(pooling=pooling)]
        for pooling in ("weighted", "mean")
    )
    assert weighted == mean


def test_weighted_pooling_alone_measures_as_the_mean(both, analyse):
    found = analyse("--pooling", "weighted").values(metric="effective_rank", variant="raw")
    assert found == both.values(model="first", task="sst2", pooling="mean", metric="effective_rank", variant="raw")


@pytest.mark.parametrize("pooling", POOLINGS)
def test_spectrum_of_every_pooling_is_kept(both, pooling):
    found = {(s["model"], s["task"]) for s in both.spectra if s["pooling"] == pooling}
    assert found == set(itertools.product(("first", "second"), ("sst2", "stsb")))


def test_spectrum_holds_the_singular_values_after_centring(both, encoder_dir, data_dir):
    (found,) = (s["values"] for s in both.spectra if (s["model"], s["task"], s["pooling"]) == ("first", "sst2", "max"))
    values = geometry.singular_values(vectors_of(encoder_dir, data_dir, "max"))
    np.testing.assert_allclose(found, values, rtol=1e-4)


def test_records_name_the_number_of_rows(both):
    assert {record.num_eval for record in both.records} == {planted.NUM_EVAL}


def test_probes_are_recorded_for_classes(both):
    found = {r.metric for r in both.select(model="second", task="sst2", pooling="max", variant=None)}
    assert found == SEMANTIC | TOKEN | {"probe_gap"}


def test_semantic_probe_finds_the_planted_word(both):
    assert both.values(model="first", task="sst2", pooling="mean", metric="semantic_probe")[0] > 0.7


def test_probe_gap_is_the_difference_of_the_probes(both):
    gap, semantic, token = (
        both.values(model="first", task="sst2", pooling="mean", metric=metric)[0]
        for metric in ("probe_gap", "semantic_probe", "token_probe")
    )
    assert gap == pytest.approx(semantic - token)


@pytest.mark.parametrize("pooling", ["attention-trained", "weighted-trained"])
def test_trained_pooling_is_measured(analyse, pooling):
    records = analyse("--pooling", pooling).select(pooling=pooling)
    assert {record.metric for record in records if record.variant == "raw"} == GEOMETRY


def test_trained_pooling_is_not_the_untrained(analyse):
    results = analyse("--pooling", "mean", "weighted-trained")
    mean, trained = (
        results.values(pooling=pooling, metric="uniformity", variant="raw") for pooling in ("mean", "weighted-trained")
    )
    assert mean[0] != trained[0]


def test_trained_pooling_depends_on_the_seed(analyse):
    values = [
        analyse("--pooling", "attention-trained", "--seed", seed).values(metric="uniformity", variant="raw")[0]
        for seed in ("0", "1")
    ]
    assert values[0] != values[1]


def test_trained_pooling_learns_pairs_as_one_text(tmp_path, data_dir, encoder_dir):
    words = ["--models", f"tiny={encoder_dir}", "--tasks", "stsb", "--pooling", "attention-trained"]
    assert analysed(tmp_path, data_dir, *words).select(metric="uniformity")


def test_untrained_poolings_need_no_training_split(tmp_path, encoder_dir):
    planted.write_split(tmp_path, "sst2", "validation", planted.single_texts(np.random.default_rng(0), 12))
    words = ["--models", f"tiny={encoder_dir}", "--tasks", "sst2", "--pooling", "mean"]
    assert analysed(tmp_path / "run", tmp_path, *words).records


@pytest.fixture
def measured(tmp_path, encoder_dir):
    """Measures an evaluation split that the test brings, with mean pooling: names of metrics to values."""

    def run(columns: dict[str, list], path=encoder_dir) -> dict[str, float]:
        planted.write_split(tmp_path / "own", "sst2", "validation", columns)
        words = ["--models", f"tiny={path}", "--tasks", "sst2", "--pooling", "mean"]
        records = analysed(tmp_path / "run", tmp_path / "own", *words).records
        return {record.metric: record.value for record in records if record.variant != "raw"}

    return run


@pytest.fixture
def twenty():
    """Twenty rows with a planted word."""
    return planted.single_texts(np.random.default_rng(0), 20)


def test_one_class_has_no_measures_by_class(measured, twenty):
    assert set(measured(twenty | {"label": [1] * 20})) == SPECTRAL | PAIRWISE | TOKEN


def test_classes_of_one_row_have_no_measures_by_class(measured):
    found = measured({"sentence": ["the cat sat", "a dog ran"], "label": [0, 1]})
    assert set(found) == SPECTRAL | PAIRWISE


def test_small_class_has_no_semantic_probe(measured, twenty):
    found = measured(twenty | {"label": [0] * 16 + [1] * 4})
    assert not (SEMANTIC & set(found)) and set(found) >= BY_CLASS


def test_texts_without_a_common_token_have_no_token_probe(measured):
    texts = [f"{letter} {letter} the" for letter in "bcdefghijklmnopq"]
    found = measured({"sentence": texts, "label": [0, 1] * 8})
    assert set(found) == GEOMETRY | SEMANTIC


@pytest.mark.parametrize("count", [2, 5, 10])
def test_fewer_rows_than_features_are_measured(analyse, count):
    results = analyse("--num_examples", str(count))
    (found,) = results.values(metric="effective_rank", variant="centred")
    assert 1 <= found <= count - 1 + 1e-9


def test_spectrum_has_no_more_values_than_rows(analyse):
    assert len(analyse("--num_examples", "5").spectra[0]["values"]) == 5


@pytest.mark.parametrize(("weight", "bias"), [(0.0, 1.0), (0.0, 0.0)], ids=["constant", "zero"])
def test_collapsed_encoder_has_finite_measures(measured, twenty, last_norm, weight, bias):
    assert all(math.isfinite(value) for value in measured(twenty, last_norm(weight, bias)).values())


@pytest.mark.parametrize("metric", ["spectral_entropy", "effective_rank", "stable_rank", "rank_90"])
def test_collapsed_encoder_has_no_direction(measured, twenty, last_norm, metric):
    assert measured(twenty, last_norm(0.0, 1.0))[metric] == 0


def test_every_text_is_encoded_once_for_all_poolings(analyse, encoded, data_dir):
    analyse("--pooling", *POOLINGS)
    (texts,) = load_splits(TASKS["sst2"], data_dir, train=False)[1].texts
    assert sum(encoded) == len(set(texts))


def test_every_text_is_encoded_once_for_trained_poolings(analyse, encoded, data_dir):
    analyse("--pooling", *POOLINGS, "attention-trained", "weighted-trained")
    texts = {text for split in load_splits(TASKS["sst2"], data_dir) for text in split.texts[0]}
    assert sum(encoded) == len(texts)


def test_second_run_does_not_need_the_encoder(analyse, no_encoding):
    analyse("--pooling", *POOLINGS)
    no_encoding()
    assert analyse("--pooling", *POOLINGS).records


def test_second_run_measures_the_same(analyse):
    assert analyse("--pooling", *POOLINGS).records == analyse("--pooling", *POOLINGS).records


@pytest.mark.slow
def test_several_processes_measure_the_same(analyse):
    alone, several = (analyse("--pooling", *POOLINGS, "--num_threads", count).records for count in ("1", "2"))
    torch.set_num_threads(1)
    found = {(r.metric, r.pooling, r.variant, r.draw): r.value for r in several}
    assert {(r.metric, r.pooling, r.variant, r.draw): r.value for r in alone} == pytest.approx(found)


@pytest.mark.parametrize("option", ["--num_examples", "--max_eval_samples"])
def test_number_of_rows_can_be_limited(analyse, option):
    assert {record.num_eval for record in analyse(option, "12").records} == {12}


def test_replicates_are_measured_each(tmp_path, data_dir, encoder_dir, tiny_encoder):
    other = tiny_encoder(tmp_path / "other", seed=1)
    words = ["--models", f"tiny={encoder_dir},{other}", "--tasks", "sst2", "--pooling", "mean"]
    results = analysed(tmp_path / "run", data_dir, *words)
    assert {record.replicate for record in results.select(metric="uniformity", variant="raw")} == {0, 1}


def test_console_shows_the_measures_of_the_paper_and_the_next_command(analyse, capsys):
    analyse()
    printed = capsys.readouterr().out
    assert all(word in printed for word in ("uniformity", "spectral_entropy", "probe_gap", "tiny", "predrec report"))


def test_console_shows_spectra_after_centring(analyse, capsys):
    (value,) = analyse().values(metric="stable_rank", variant="centred")
    assert f"{value:.3f}" in capsys.readouterr().out


def test_one_row_is_refused(tmp_path, encoder_dir, capsys):
    planted.write_split(tmp_path, "sst2", "validation", {"sentence": ["a cat"], "label": [0]})
    words = ["--models", f"tiny={encoder_dir}", "--tasks", "sst2", "--data_dir", str(tmp_path), *MACHINE]
    assert main([*words, "--output_dir", str(tmp_path / "run")]) == 2
    assert "`sst2` has one row" in capsys.readouterr().err
