"""How long evaluation takes at paper size: `python benchmarks/evaluation.py --data_dir DIR --tokenizer_name NAME`.

A random encoder of the paper's size (512 wide, 6 layers) costs what a trained one costs. DIR holds GLUE as
`<task>/<split>.parquet`. Prints the rows of the table in README.md.
"""

import argparse
import tempfile
import time
from pathlib import Path

import torch
from transformers import AutoTokenizer

from predrec import PredRecConfig, PredRecModel
from predrec.commands.analyze_representations import main as analyze
from predrec.eval.embeddings import Embedder
from predrec.eval.encoder import load_encoder
from predrec.eval.probes import ProbeSettings, train_probe
from predrec.eval.tasks import TASKS, load_splits


def build_encoder(folder: Path, tokenizer_name: str, seed: int) -> Path:
    """Saves a random encoder of the paper's size."""
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_name)
    torch.manual_seed(seed)
    PredRecModel(PredRecConfig(vocab_size=len(tokenizer))).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def row(what: str, seconds: float, note: str) -> None:
    """Prints a row of the table."""
    print(f"| {what} | {seconds:.0f} s | {note} |", flush=True)


def main() -> None:
    """Measures the SST-2 probe and the geometry analysis, each from an empty cache."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], allow_abbrev=False)
    parser.add_argument("--data_dir", required=True, help="GLUE as <task>/<split>.parquet")
    parser.add_argument("--tokenizer_name", default="google-bert/bert-base-uncased", help="Hub id or folder")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        paths = [build_encoder(Path(folder) / name, arguments.tokenizer_name, seed) for seed, name in enumerate("ab")]
        task = TASKS["sst2"]
        train, evaluation = load_splits(task, arguments.data_dir)

        started = time.perf_counter()
        embedder = Embedder(load_encoder(paths[0]), Path(folder) / "cache", progress=False)
        vectors = [(embedder.vectors(split.texts[0], "mean"),) for split in (train, evaluation)]
        encoded = time.perf_counter()
        dtype = str(embedder.encoder.dtype).removeprefix("torch.")
        row("SST-2, encode", encoded - started, f"{embedder.num_encoded:,} different sentences, {dtype}")
        settings = ProbeSettings(task.num_epochs)
        train_probe(vectors[0], train.labels, task.num_labels, settings, range(5), vectors[1])
        headed = time.perf_counter()
        row("SST-2, heads", headed - encoded, f"{settings.num_epochs} epochs, 5 seeds, batches of 256")
        embedder = Embedder(load_encoder(paths[0]), Path(folder) / "cache", progress=False)
        for split in (train, evaluation):
            embedder.vectors(split.texts[0], "mean")
        row("SST-2, vectors again", time.perf_counter() - headed, f"{embedder.num_encoded} sentences encoded")

        started = time.perf_counter()
        models = [f"{path.name}={path}" for path in paths]
        options = [
            "--no_use_embedding_cache",
            "--data_dir",
            arguments.data_dir,
            "--output_dir",
            str(Path(folder) / "out"),
        ]
        if analyze(["--models", *models, *options]):
            raise SystemExit("the analysis failed")
        row(
            "geometry",
            time.perf_counter() - started,
            "2 encoders, 5 tasks, 4 poolings, 8 draws of attention, both probes",
        )


if __name__ == "__main__":
    main()
