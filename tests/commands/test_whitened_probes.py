"""Probes on whitened vectors, through the command."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from predrec.commands import probe_heads
from predrec.commands.probe_glue import main
from predrec.eval.embeddings import Embedder
from predrec.eval.encoder import load_encoder
from predrec.eval.probes import ProbeSettings, train_probe
from predrec.eval.results import read_results
from predrec.eval.tasks import TASKS, load_splits
from predrec.eval.whitening import fit_whitening

from . import planted

QUICK = ["--num_threads", "1", "--encoder_dtype", "float32", "--num_train_epochs", "30", "--learning_rate", "0.05"]
KEY = "probe|tiny|0|sst2|mean|linear"
SENTENCES = "The cat sat on the mat and ran. A dog sat on a cat and then ran. The mat and the dog then sat on a cat."


@pytest.fixture
def run(tmp_path, data_dir, encoder_dir):
    """Runs the command on SST-2, or on other tasks, with the seeds 0 and 1; returns its exit code."""

    def call(*words: str, folder: str = "run") -> int:
        tasks = [] if "--tasks" in words else ["--tasks", "sst2"]
        place = ["--data_dir", str(data_dir), "--output_dir", str(tmp_path / folder), "--seed", "0", "--seeds", "2"]
        return main([*place, *QUICK, "--models", f"tiny={encoder_dir}", *tasks, *words])

    return call


@pytest.fixture
def probe(run, tmp_path):
    """Runs the command and reads what it wrote."""

    def call(*words: str, folder: str = "run"):
        assert run(*words, folder=folder) == 0
        return read_results(tmp_path / folder)

    return call


@pytest.fixture
def fitted(monkeypatch) -> list[int]:
    """How many vectors each map was fitted on."""
    sizes: list[int] = []

    def fit(vectors, epsilon):
        sizes.append(len(vectors))
        return fit_whitening(vectors, epsilon)

    monkeypatch.setattr(probe_heads, "fit_whitening", fit)
    return sizes


@pytest.fixture
def text_file(tmp_path):
    """Three sentences of the right length in one line, and a short one."""
    path = tmp_path / "texts.txt"
    path.write_text(f"{SENTENCES}\nToo short.\n", encoding="utf-8")
    return path


def test_heads_take_vectors_whitened_by_the_training_rows(probe, encoder_dir, data_dir):
    """As by hand."""
    embedder = Embedder(load_encoder(encoder_dir, dtype="float32"), progress=False)
    train, evaluation = load_splits(TASKS["sst2"], data_dir)
    vectors = [embedder.vectors(split.texts[0], "mean") for split in (train, evaluation)]
    change = fit_whitening(vectors[0])
    settings = ProbeSettings(num_epochs=30, learning_rate=0.05)
    _, history = train_probe((change(vectors[0]),), train.labels, 2, settings, [0, 1], (change(vectors[1]),))
    found = probe("--vectors", "whitened").predictions[f"{KEY}|whitened"]
    np.testing.assert_array_equal(found, history[-1].argmax(-1))


def test_raw_vectors_score_the_same_beside_whitened_ones(probe):
    alone, beside = (probe("--vectors", *words) for words in (["raw"], ["raw", "whitened"]))
    np.testing.assert_array_equal(beside.predictions[KEY], alone.predictions[KEY])
    assert not np.array_equal(beside.predictions[f"{KEY}|whitened"], beside.predictions[KEY])


def test_scores_of_whitened_vectors_are_labelled(probe):
    results = probe("--vectors", "raw", "whitened")
    kinds = {variant: len(results.select(model="tiny", variant=variant)) for variant in (None, "whitened")}
    assert kinds[None] == kinds["whitened"] > 0
    assert len(results.select(variant="best_on_eval")) == 2  # Of the raw ones, one for each seed.


@pytest.mark.parametrize(("task", "columns"), [("sst2", 1), ("stsb", 2)])
def test_map_is_fitted_on_the_training_rows_alone(probe, fitted, task, columns):
    probe("--vectors", "whitened", "--tasks", task)
    assert fitted == [columns * planted.NUM_TRAIN]


def test_map_is_fitted_on_the_sentences_of_a_file(run, fitted, text_file, tmp_path):
    assert run("--vectors", "whitened", folder="rows") == 0
    assert run("--vectors", "whitened", "--whitening_file", str(text_file), folder="file") == 0
    assert fitted == [planted.NUM_TRAIN, 3]
    heads = [
        load_file(tmp_path / folder / "heads/tiny-0/sst2-mean-linear-whitened.safetensors")
        for folder in ("rows", "file")
    ]
    assert not any(torch.equal(heads[0][name], heads[1][name]) for name in heads[0])


def test_map_is_fitted_for_each_draw_of_untrained_attention(probe, fitted):
    results = probe("--vectors", "whitened", "--pooling", "attention", "--num_attention_draws", "2")
    assert fitted == [planted.NUM_TRAIN] * 2
    assert {record.draw for record in results.select(model="tiny")} == {0, 1}


def test_map_follows_epsilon(run, tmp_path):
    for epsilon in ("0.01", "0.1"):
        assert run("--vectors", "whitened", "--whitening_epsilon", epsilon, folder=epsilon) == 0
    path = "heads/tiny-0/sst2-mean-linear-whitened.safetensors"
    heads = [load_file(tmp_path / folder / path) for folder in ("0.01", "0.1")]
    assert not any(torch.equal(heads[0][name], heads[1][name]) for name in heads[0])


def test_evaluation_alone_takes_the_heads_of_whitened_vectors(probe):
    trained = probe("--vectors", "raw", "whitened")
    again = probe("--vectors", "raw", "whitened", "--do_eval")
    for key in (KEY, f"{KEY}|whitened"):
        np.testing.assert_array_equal(again.predictions[key], trained.predictions[key])


def test_evaluation_alone_refuses_heads_of_vectors_whitened_otherwise(run, text_file, capsys):
    assert run("--vectors", "whitened") == 0
    for words in (["--whitening_file", str(text_file)], ["--whitening_epsilon", "0.1"]):
        assert run("--vectors", "whitened", *words, "--do_eval") == 2
        assert "are for another whitening" in capsys.readouterr().err


def test_console_shows_both(probe, capsys):
    probe("--vectors", "raw", "whitened")
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("tiny")]
    assert [row[:3] for row in rows] == [["tiny", "mean", "linear"]] * 2
    assert [row[3] == "whitened" for row in rows] == [False, True]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--vectors", "white"], "`vectors` 'white' is not one of raw, whitened"),
        (["--whitening_file", "texts.txt"], "`whitening_file` has no effect without `--vectors whitened`"),
        (["--whitening_epsilon", "0.1"], "`whitening_epsilon` has no effect without `--vectors whitened`"),
        (["--vectors", "whitened", "--whitening_epsilon", "-1"], "`whitening_epsilon` is -1.0; it must be at least 0"),
        (["--vectors", "whitened", "--pooling", "attention-trained"], "`pooling attention-trained` pools while it"),
        (["--vectors", "whitened", "--whitening_file", "absent.txt"], "`whitening_file`: 'absent.txt' does not exist"),
    ],
    ids=["unknown", "no file", "no epsilon", "negative", "trained pooling", "absent"],
)
def test_what_cannot_be_had_is_refused(run, capsys, words, message):
    assert run(*words) == 2
    assert message in capsys.readouterr().err


def test_file_without_sentences_is_refused(run, tmp_path, capsys):
    path = tmp_path / "short.txt"
    path.write_text("Too short.\n", encoding="utf-8")
    assert run("--vectors", "whitened", "--whitening_file", str(path)) == 2
    assert "has fewer than 2 sentences of 6 to 20 words" in capsys.readouterr().err
