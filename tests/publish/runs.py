"""Finished runs to publish: trained once per process, copied per test."""

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path

from predrec.commands import pretrain, report
from predrec.eval.encoder import load_encoder
from predrec.eval.results import write_results
from predrec.publish.repository import assemble
from tests.commands.test_pretrain import TINY
from tests.eval.made import add_geometry, add_probes, results_of
from tests.training import corpus

CODE = {"configuration_predrec.py", "modeling_predrec.py"}
FILES = {
    *("README.md", "recipe.yaml", "training_curves.png", "config.json", "model.safetensors"),
    *("tokenizer.json", "tokenizer_config.json"),
}
"""What is published of a run that was not evaluated, beyond code of its own."""

MEASURED = {"results.json", ".eval_results/glue.yaml"}
"""What an evaluation adds, beyond pictures."""


@cache
def _home() -> Path:
    folder = tempfile.mkdtemp(prefix="predrec-runs-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


@cache
def text_file() -> Path:
    """Text to train on."""
    path = _home() / "corpus.txt"
    path.write_text("\n".join(corpus()), encoding="utf-8")
    return path


def finished_run(model_type: str = "predrec") -> Path:
    """Returns the output directory of a tiny run, checkpoints included; tests read it and do not change it."""
    return _finished_run(model_type)


@cache
def _finished_run(model_type: str) -> Path:
    folder = _home() / model_type
    words = ["--train_file", str(text_file()), "--output_dir", str(folder), *TINY, "--model_type", model_type]
    assert pretrain.main(words) == 0
    return folder


@cache
def evaluated_run() -> Path:
    """Returns a copy of a tiny run, without checkpoints, whose card shows results."""
    folder = copied(finished_run(), _home() / "evaluated")
    results = results_of(hybrid=1, mlm=1)
    results.models[0]["weights"] = load_encoder(folder).weights
    add_probes(results)
    add_geometry(results, tasks=["sst2"], poolings=["mean"])
    results.commands = [f"predrec probe --models hybrid={folder} --output_dir {_home() / 'probes'}"]
    write_results(_home() / "results", results)
    words = ["--output", str(_home() / "report"), "--model_cards", f"hybrid={folder}"]
    assert report.main([str(_home() / "results"), *words]) == 0
    return folder


@cache
def assembled_run() -> Path:
    """Returns the folder to publish of a tiny run, made for `me/tiny`."""
    assemble(finished_run(), _home() / "assembled", "me/tiny")
    return _home() / "assembled"


def copied(source: Path, target: Path) -> Path:
    """Copies a run without its checkpoints."""
    return Path(shutil.copytree(source, target, ignore=shutil.ignore_patterns("checkpoint-*")))


def files_in(folder: Path) -> set[str]:
    """Returns every file below a folder, relative to it."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
