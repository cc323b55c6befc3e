"""Geometry of frozen encoders: `python scripts/analyze_representations.py --models hybrid=DIR mlm=DIR`."""

import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..configuration import EncoderArguments, TaskArguments
from ..configuration.analysis_arguments import AnalysisArguments
from ..errors import UserError
from ..eval.claims import in_paper_convention
from ..eval.classical import in_parallel, semantic_probe, token_probe
from ..eval.embeddings import Embedder
from ..eval.geometry import measure_geometry
from ..eval.probes import ProbeSettings, train_probe
from ..eval.results import Results, add_record, write_results
from ..eval.tasks import PAPER_TASKS, Split, Task, find_task, load_splits
from .entry import command
from .evaluation import embedders, joined, run, set_threads, table
from .invocation import next_command

ARGUMENTS = (EncoderArguments, TaskArguments, AnalysisArguments)
SCORE_CUTS = (1.0, 2.0, 3.0, 4.0)
"""Where the paper cuts similarity scores into classes."""

POOLER_TRAINING = {"rows": 5000, "epochs": 3}
"""Poolings that are trained learn the task, with a linear head, on the first training rows."""

SHOWN = ("uniformity", "alignment", "spectral_entropy", "effective_rank", "stable_rank", "probe_gap")


@command
def main(argv: list[str]) -> int:
    """Runs the command; returns its exit code: 0, or 2 for what the user can mend."""
    return run("analyze_representations", argv, ARGUMENTS, analyze)


def analyze(parsed: list[Any], given: dict[str, Any], typed: str) -> int:
    """Measures geometry and writes `results.json`."""
    encoder_arguments, task_arguments, arguments = parsed
    started = time.perf_counter()
    processes = set_threads(encoder_arguments)
    tasks = [find_task(name) for name in task_arguments.names(PAPER_TASKS)]
    splits = {task.name: read_task(task, task_arguments, arguments) for task in tasks}
    for task in tasks:
        if len(splits[task.name][1]) < 2:
            raise UserError(f"`{task.name}` has one row; geometry needs at least 2.")
    results = Results(commands=[typed])
    for name, replicate, embedder in embedders(encoder_arguments, results):
        # What is trained is trained first; then every text goes through the encoder once, for all poolings.
        probing = []
        for task in tasks:
            train, evaluation = splits[task.name]
            probing += measure_task(results, (name, replicate), embedder, task, train, evaluation, arguments)
        jobs = [job for _, job in probing]
        for (fields, _), measured in zip(probing, in_parallel(probe_vectors, jobs, processes), strict=True):
            for metric, value in measured.items():
                add_record(results, **fields, metric=metric, value=value)
    same_as_mean(results, arguments.pooling)
    path = write_results(arguments.output_dir, results)
    print(summary(results, tasks))
    print(f"\n{path}  ({time.perf_counter() - started:.0f} s)\nnext:")
    report = next_command("report", "python scripts/report.py")
    print(f"  {report} {arguments.output_dir} --output {arguments.output_dir}/report")
    return 0


def read_task(task: Task, task_arguments: TaskArguments, arguments: AnalysisArguments) -> tuple[Split | None, Split]:
    """Reads the rows that are measured, and those that poolings are trained on, where there are any."""
    trained = any(pooling.endswith("-trained") for pooling in arguments.pooling)
    if task_arguments.max_train_samples is not None and not trained:
        raise UserError("`max_train_samples` has no effect without a pooling that is trained: drop it.")
    given_eval, given_train = task_arguments.max_eval_samples, task_arguments.max_train_samples
    most = arguments.num_examples if given_eval is None else min(given_eval, arguments.num_examples)
    most_train = POOLER_TRAINING["rows"] if given_train is None else given_train
    return load_splits(task, task_arguments.data_dir, trained, most_train, most)


def measure_task(
    results: Results,
    who: tuple[str, int],
    embedder: Embedder,
    task: Task,
    train: Split | None,
    evaluation: Split,
    arguments: AnalysisArguments,
) -> list[tuple[dict[str, Any], tuple]]:
    """Measures geometry with every pooling; returns what is left to probe: fields of the records, and arguments."""
    texts = joined(evaluation)
    classes = torch.from_numpy(class_labels(evaluation.labels, task))
    # At its uniform start the weighted pooling is the mean, so it is not measured twice.
    poolings = [name for name in arguments.pooling if name != "weighted" or "mean" not in arguments.pooling]
    plain = [pooling for pooling in poolings if not pooling.endswith("-trained")]
    embedder.encode(texts, embedder.groups_for(plain, len(plain) < len(poolings)))
    ids = embedder.encoder.tokenize(texts)
    special = set(embedder.encoder.tokenizer.all_special_ids)
    probing = []
    for pooling in poolings:
        for draw, vectors in vectors_for(embedder, task, train, texts, pooling, arguments.seed):
            fields = {
                "kind": "geometry",
                "model": who[0],
                "replicate": who[1],
                "task": task.name,
                "pooling": pooling,
                "draw": draw,
                "num_eval": len(evaluation),
            }
            for variant in ("raw", "centred"):
                measured, values = measure_geometry(vectors, classes, center=variant == "centred")
                for metric, value in measured.items():
                    add_record(results, **fields, variant=variant, metric=metric, value=value)
            if not draw:
                spectrum = {"model": who[0], "replicate": who[1], "task": task.name, "pooling": pooling}
                results.spectra.append(spectrum | {"values": values.tolist()})
            probing.append((fields, (vectors.numpy(), evaluation.labels, task, ids, special)))
    return probing


def vectors_for(
    embedder: Embedder, task: Task, train: Split | None, texts: list, pooling: str, seed: int
) -> list[tuple[int | None, Tensor]]:
    """Returns the vectors of a pooling, `(num_texts, hidden_size)`, each with its number where there are draws."""
    if pooling.endswith("-trained"):
        states = (embedder.token_states(joined(train)),)
        settings = ProbeSettings(num_epochs=POOLER_TRAINING["epochs"])
        kind = pooling.removesuffix("-trained")
        labels, count = train.labels, task.num_labels
        probe, _ = train_probe(states, labels, count, settings, [seed], None, task.label_range, kind)
        evaluation = embedder.token_states(texts)
        parts = []
        with torch.inference_mode():
            for rows in torch.arange(len(texts)).split(256):
                padded, mask = evaluation.rows(rows)
                parts.append(probe.pooler(padded[None], mask[None])[0])
        return [(None, torch.cat(parts))]
    vectors = embedder.vectors(texts, pooling)
    if pooling == "attention":
        return [(draw, vectors[:, draw]) for draw in range(vectors.shape[1])]
    return [(None, vectors)]


def class_labels(labels: np.ndarray, task: Task) -> np.ndarray:
    """Returns classes; scores are cut at 1, 2, 3 and 4."""
    return np.digitize(labels, SCORE_CUTS) if task.is_regression else labels


def probe_vectors(
    vectors: np.ndarray, labels: np.ndarray, task: Task, ids: list[list[int]], special: set[int]
) -> dict[str, float]:
    """Runs both cross-validated probes and their gap."""
    measured = semantic_probe(vectors, labels, task) | token_probe(vectors, ids, special)
    if {"semantic_probe", "token_probe"} <= measured.keys():
        measured["probe_gap"] = measured["semantic_probe"] - measured["token_probe"]
    return measured


def same_as_mean(results: Results, poolings: Sequence[str]) -> None:
    """Copies records and spectra of mean pooling for weighted pooling at its uniform start, which is the same."""
    if "weighted" in poolings and "mean" in poolings:
        for record in results.select(pooling="mean"):
            add_record(results, **(vars(record) | {"pooling": "weighted"}))
        means = [spectrum for spectrum in results.spectra if spectrum["pooling"] == "mean"]
        results.spectra += [spectrum | {"pooling": "weighted"} for spectrum in means]


def summary(results: Results, tasks: Sequence[Task]) -> str:
    """Lays out the paper's six measures, in its conventions, with means over draws and checkpoints."""
    rows = []
    poolings = dict.fromkeys(record.pooling for record in results.records)
    for task in tasks:
        for pooling in poolings:
            for model in results.model_names:
                wanted = {"kind": "geometry", "model": model, "task": task.name, "pooling": pooling}
                found = [results.sample(in_paper_convention, metric=metric, **wanted) for metric in SHOWN]
                rows.append([task.name, str(pooling), model, *(f"{v.mean():.3f}" if len(v) else "-" for v in found)])
    return "\n" + table(["task", "pooling", "model", *SHOWN], rows)


if __name__ == "__main__":
    sys.exit(main())
