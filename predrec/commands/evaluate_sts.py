"""Sentence similarity of frozen encoders: `python scripts/evaluate_sts.py --models hybrid=DIR --tasks stsb`."""

import sys
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from ..configuration import EncoderArguments, TaskArguments
from ..configuration.analysis_arguments import STSArguments
from ..errors import UserError
from ..eval.embeddings import Embedder
from ..eval.results import Results, add_record, write_results
from ..eval.sts import VARIANTS, similarity_scores
from ..eval.tasks import STS_TASKS, Split, Task, find_task, load_splits
from .entry import command
from .evaluation import embedders, run, set_threads, table

ARGUMENTS = (EncoderArguments, TaskArguments, STSArguments)

MTEB_SPLITS = {"stsb": "stsb_test"}
"""Tasks that mteb has another split of, and what its scores are called."""


@command
def main(argv: list[str]) -> int:
    """Runs the command; returns its exit code: 0, or 2 for what the user can mend."""
    return run("evaluate_sts", argv, ARGUMENTS, evaluate_sts)


def evaluate_sts(parsed: list[Any], given: dict[str, Any], typed: str) -> int:
    """Measures similarity and writes `results.json`."""
    encoder_arguments, task_arguments, arguments = parsed
    if task_arguments.max_train_samples is not None:
        raise UserError("`max_train_samples` has no effect here: nothing is trained.")
    started = time.perf_counter()
    set_threads(encoder_arguments)
    tasks = [find_task(name, STS_TASKS) for name in task_arguments.names(("stsb",))]
    results = Results(commands=[typed])
    if arguments.mteb:
        with_mteb(encoder_arguments, task_arguments, arguments, tasks, results)
    else:
        splits = {
            task.name: load_splits(task, task_arguments.data_dir, False, None, task_arguments.max_eval_samples)[1]
            for task in tasks
        }
        for name, replicate, embedder in embedders(encoder_arguments, results):
            for task in tasks:
                measure_task(results, name, replicate, embedder, task, splits[task.name], arguments.pooling)
        raw, whitened = (Counter(r.task for r in results.select(variant=name)) for name in ("raw", "whitened"))
        if raw - whitened:
            few = ", ".join(raw - whitened)
            why = "so few sentences for the features would all be equally far apart"
            print(f"note: {few}: no scores of whitened vectors: {why}.", file=sys.stderr)
    path = write_results(arguments.output_dir, results)
    print(summary(results))
    print(f"\n{path}  ({time.perf_counter() - started:.0f} s)")
    return 0


def measure_task(
    results: Results, name: str, replicate: int, embedder: Embedder, task: Task, split: Split, poolings: Sequence[str]
) -> None:
    """Measures one task with every pooling and variant."""
    embedder.encode([*split.texts[0], *split.texts[1]], embedder.groups_for(poolings))
    for pooling in poolings:
        first, second = (embedder.vectors(column, pooling) for column in split.texts)
        draws = range(first.shape[1]) if pooling == "attention" else [None]
        for draw in draws:
            pair = (first, second) if draw is None else (first[:, draw], second[:, draw])
            for variant in VARIANTS:
                for metric, value in similarity_scores(*pair, split.labels, split.groups, variant).items():
                    add_record(
                        results,
                        kind="sts",
                        model=name,
                        replicate=replicate,
                        task=task.name,
                        pooling=pooling,
                        draw=draw,
                        variant=variant,
                        metric=metric,
                        value=value,
                        num_eval=len(split),
                    )


def with_mteb(
    encoder_arguments: EncoderArguments,
    task_arguments: TaskArguments,
    arguments: STSArguments,
    tasks: Sequence[Task],
    results: Results,
) -> None:
    """Lets `mteb` evaluate the models on its own copies of the tasks."""
    try:
        from ..eval.mteb_model import evaluate_with_mteb
    except ImportError as error:
        raise UserError(f"`mteb` needs the optional library: pip install 'predrec[mteb]' ({error}).") from error
    if task_arguments.data_dir or task_arguments.max_eval_samples:
        raise UserError("`data_dir` and `max_eval_samples` have no effect with `mteb`, which loads its own data.")
    for name, replicate, embedder in embedders(encoder_arguments, results):
        for pooling in arguments.pooling:
            if pooling == "attention":
                raise UserError("`pooling=attention` is several untrained draws; with `mteb` choose another.")
            for task, value in evaluate_with_mteb(embedder, name, pooling, [task.name for task in tasks]).items():
                shared = {"model": name, "replicate": replicate, "pooling": pooling, "variant": "raw"}
                shared["task"] = MTEB_SPLITS.get(task, task)
                add_record(results, kind="sts", metric="spearmanr", value=value, **shared)


def summary(results: Results) -> str:
    """Lays out Spearman's correlations, means over draws and checkpoints."""
    tasks = list(dict.fromkeys(record.task for record in results.records))
    keys = dict.fromkeys((record.model, record.pooling, record.variant) for record in results.records)
    rows = []
    for model, pooling, variant in keys:
        cells = []
        for task in tasks:
            values = results.values(model=model, pooling=pooling, variant=variant, task=task, metric="spearmanr")
            cells.append(f"{values.mean():.3f}" if len(values) else "-")
        rows.append([model, str(pooling), str(variant), *cells])
    return "\n" + table(["model", "pooling", "vectors", *tasks], rows)


if __name__ == "__main__":
    sys.exit(main())
