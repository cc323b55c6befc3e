"""What a run will take on the disk is said before it begins, and is so."""

import re
from pathlib import Path

import pytest

from predrec.commands import pretrain
from predrec.commands.pretrain import main
from predrec.trainers.disk import DiskEstimate, checkpoints_kept, estimate, size, total_updates
from tests import training
from tests.commands.test_pretrain import TINY

LARGER = {"encoder": training.encoder_config(hidden_size=192, intermediate_size=768)}
"""Of some megabytes, so that curves and card do not decide."""


def bytes_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"objective": "mlm"},
        {"jepa_loss": "sigreg"},
        {"optim": "sgd"},
        {"optim": "adafactor"},
        {"save_only_model": True},
        {"save_total_limit": 1},
        {"save_total_limit": 0, "save_steps": 1},
        {"eval_strategy": "steps", "eval_steps": 2},
        {"save_strategy": "epoch", "max_steps": -1, "num_train_epochs": 1},
    ],
    ids=str,
)
def test_estimate_is_what_a_run_leaves(tmp_path, options):
    options = {"save_strategy": "steps", "save_steps": 2, "max_steps": 4, **LARGER, **options}
    trainer = training.trainer(tmp_path, **options)
    expected = estimate(trainer.args, trainer.model, trainer.processing_class, len(trainer.train_dataset))
    trainer.train()
    trainer.save_model()
    kept = [path for path in tmp_path.iterdir() if path.name.startswith("checkpoint-")]
    assert len(kept) == expected.checkpoints
    for checkpoint in kept:
        assert bytes_in(checkpoint) == pytest.approx(expected.checkpoint, rel=0.05)
    assert bytes_in(tmp_path) == pytest.approx(expected.total, rel=0.15)


def test_command_says_at_its_start_what_it_leaves(tmp_path, capfd):
    (tmp_path / "corpus.txt").write_text("\n".join(training.corpus()), encoding="utf-8")
    words = ["--train_file", str(tmp_path / "corpus.txt"), "--output_dir", str(tmp_path / "run"), *TINY]
    assert main([*words, "--hidden_size", "192", "--intermediate_size", "768"]) == 0
    printed = capfd.readouterr().out
    said = re.search(r"^output_dir: about ([\d.]+) MB: 2 checkpoints of", printed, flags=re.MULTILINE)
    assert printed.index(said[0]) < printed.index("'loss'")
    assert bytes_in(tmp_path / "run") == pytest.approx(float(said[1]) * 1e6, rel=0.15)


def test_command_warns_of_a_disk_that_is_too_small(tmp_path, monkeypatch, capfd):
    (tmp_path / "corpus.txt").write_text("\n".join(training.corpus()), encoding="utf-8")
    monkeypatch.setattr(pretrain, "free_bytes", lambda output_dir: 1000)
    assert main(["--train_file", str(tmp_path / "corpus.txt"), "--output_dir", str(tmp_path / "run"), *TINY]) == 0
    assert "1 KB free, which is TOO LITTLE\n" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("options", "rows", "expected"),
    [
        ({"max_steps": 7}, 1000, 7),
        ({"max_steps": 7}, None, 7),
        ({"max_steps": -1, "num_train_epochs": 2}, 1000, 250),
        ({"max_steps": -1, "num_train_epochs": 0.5, "gradient_accumulation_steps": 2}, 1000, 32),
    ],
)
def test_total_updates(tmp_path, options, rows, expected):
    assert total_updates(training.training_arguments(tmp_path, **options), rows) == expected


@pytest.mark.parametrize(
    ("options", "evaluations", "expected"),
    [
        ({"save_strategy": "no"}, 5, 0),
        ({"save_strategy": "steps", "save_steps": 10}, 0, 2),
        ({"save_strategy": "steps", "save_steps": 60}, 0, 2),
        ({"save_strategy": "steps", "save_steps": 100}, 0, 1),
        ({"save_strategy": "steps", "save_steps": 10, "save_total_limit": 1}, 0, 1),
        ({"save_strategy": "steps", "save_steps": 10, "save_total_limit": 1}, 5, 2),
        ({"save_strategy": "steps", "save_steps": 10, "save_total_limit": 0}, 0, 10),
        ({"save_strategy": "steps", "save_steps": 0.25, "save_total_limit": 0}, 0, 4),
        ({"save_strategy": "steps", "save_steps": 30, "save_total_limit": 0}, 0, 4),
        ({"save_strategy": "best", "eval_strategy": "steps", "eval_steps": 20}, 5, 2),
        ({"save_strategy": "epoch", "num_train_epochs": 3, "save_total_limit": 0}, 0, 3),
    ],
    ids=str,
)
def test_checkpoints_kept(tmp_path, options, evaluations, expected):
    arguments = training.training_arguments(tmp_path, **{"save_total_limit": 2, "max_steps": 100, **options})
    assert checkpoints_kept(arguments, 100, evaluations) == expected


def test_estimate_reads_as_a_line():
    line = DiskEstimate(checkpoint=500_000_000, checkpoints=2, export=123_456_789).describe(free=9 * 10**9)
    parts = "2 checkpoints of 500 MB, the encoder of 123 MB"
    assert line == f"about 1.12 GB: {parts}; 1.62 GB while a checkpoint is written; 9 GB free"


def test_estimate_without_checkpoints_reads_as_a_line():
    assert DiskEstimate(1, 0, 1500).describe(free=2000) == "about 1.5 KB: the encoder of 1.5 KB; 2 KB free"


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 bytes"), (999, "999 bytes"), (999_999, "1 MB"), (1.5e15, "1,500.0 TB")]
)
def test_size(count, text):
    assert size(count) == text
