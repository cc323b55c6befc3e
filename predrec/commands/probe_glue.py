"""GLUE on a frozen encoder: `python scripts/probe_glue.py --models hybrid=DIR mlm=DIR --tasks sst2 mrpc`."""

import itertools
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..configuration import EncoderArguments, TaskArguments
from ..configuration.probe_arguments import GlueTrainingArguments, ProbeArguments, check_mode
from ..data_collators.corpus import load_files
from ..errors import UserError
from ..eval.classical import bag_of_words_predictions, majority_predictions
from ..eval.embeddings import Embedder
from ..eval.metrics import load_metric
from ..eval.probes import ProbeSettings
from ..eval.results import BASELINES, BEST_ON_EVAL, DEVELOPMENT, Results, add_record, write_results
from ..eval.tasks import PAPER_TASKS, Split, Task, find_task, load_development, load_splits
from ..eval.whitening import EPSILON, Fit, sentences
from .entry import command
from .evaluation import embedders, run, set_threads, table
from .finetune import finetune
from .invocation import next_command
from .probe_heads import run_heads

ARGUMENTS = (EncoderArguments, TaskArguments, ProbeArguments, GlueTrainingArguments)


@command
def main(argv: list[str]) -> int:
    """Runs the command; returns its exit code: 0, or 2 for what the user can mend."""
    return run("probe_glue", argv, ARGUMENTS, probe_glue)


def probe_glue(parsed: list[Any], given: dict[str, Any], typed: str) -> int:
    """Trains and evaluates heads, or fine-tunes, and writes `results.json`."""
    encoder_arguments, task_arguments, probe_arguments, training = parsed
    check_mode(probe_arguments.mode, given, training)
    if not given.keys() & {"do_train", "do_eval"}:  # Evaluating while it trains sets the second by itself.
        training.do_train = training.do_eval = True
    if not (training.do_train or training.do_eval):
        raise UserError("`do_train` and `do_eval` are false: there is nothing to do. Pass one of them, or neither.")
    if training.world_size > 1:
        raise UserError("This command takes one process: start it without a launcher.")
    if training.n_gpu > 1 and probe_arguments.mode == "finetune":
        raise UserError("Fine-tuning takes one GPU, or batches would be larger: set CUDA_VISIBLE_DEVICES=0.")
    started = time.perf_counter()
    set_threads(encoder_arguments)
    tasks = [find_task(name) for name in task_arguments.names(PAPER_TASKS)]
    splits = {task.name: read_task(task, task_arguments, probe_arguments.validation_share) for task in tasks}
    results = Results(commands=[typed])
    for task in tasks:
        note(results, probe_arguments.mode, task, splits[task.name], probe_arguments.validation_share)
    if probe_arguments.mode == "finetune":
        finetune(encoder_arguments, probe_arguments, training, given, tasks, splits, results)
    else:
        for task in tasks:
            if training.do_eval:
                add_baselines(results, task, *splits[task.name])
        texts = read_whitening_texts(probe_arguments)
        for name, replicate, embedder in embedders(encoder_arguments, results):
            for task in tasks:
                one = (name, replicate, embedder, task, splits[task.name])
                probe_task(results, *one, probe_arguments, training, given, texts)
    path = write_results(training.output_dir, results)
    print(summary(results, tasks, kind_of(probe_arguments.mode, splits[tasks[0].name][1])))
    print(f"\n{path}  ({time.perf_counter() - started:.0f} s)\nnext:")
    report = next_command("report", "python scripts/report.py")
    print(f"  {report} {training.output_dir} --output {training.output_dir}/report")
    return 0


def read_task(task: Task, arguments: TaskArguments, validation_share: float | None) -> tuple[Split, Split]:
    """Reads what a task is trained on, and what it is scored on."""
    if validation_share is None:
        train, evaluation = load_splits(
            task, arguments.data_dir, True, arguments.max_train_samples, arguments.max_eval_samples
        )
        return train, evaluation
    if arguments.max_eval_samples is not None:
        raise UserError("`max_eval_samples` has no effect with `validation_share`, which sets their number: drop one.")
    return load_development(task, arguments.data_dir, validation_share, arguments.max_train_samples)


def note(results: Results, mode: str, task: Task, splits: tuple[Split, Split], validation_share: float | None) -> None:
    """Notes where a score cannot be compared with published ones."""
    train, evaluation = splits
    key = f"{kind_of(mode, evaluation)}|{task.name}"
    if validation_share is not None:
        results.notes[key] = (
            f"scored on {len(evaluation):,} rows held out of the training split, trained on {len(train):,} others: "
            "for choices, not comparable with published scores"
        )
        return
    parts = (("trained", train, task.full_train_size), ("scored", evaluation, task.full_eval_size))
    cut = [f"{what} on {len(split):,} of {full:,} rows" for what, split, full in parts if len(split) != full]
    if cut:
        results.notes[key] = f"{' and '.join(cut)}: not comparable with published scores"


def kind_of(mode: str, evaluation: Split) -> str:
    """Returns the kind of scores on a split."""
    return mode + DEVELOPMENT if evaluation.development else mode


def read_whitening_texts(arguments: ProbeArguments) -> list[str] | None:
    """Reads the sentences that whitening is fitted on; `None` for the training rows of each task."""
    if arguments.whitening_file is None:
        return None
    documents = load_files("whitening_file", [arguments.whitening_file], "text", "line", True)
    texts = sentences(row["text"] for row in documents)
    if len(texts) < 2:
        raise UserError(f"`whitening_file` {arguments.whitening_file!r} has fewer than 2 sentences of 6 to 20 words.")
    return texts


def add_baselines(results: Results, task: Task, train: Split, evaluation: Split) -> None:
    """Measures what needs no encoder."""
    predictors = {"majority": majority_predictions, "bag-of-words": bag_of_words_predictions}
    for name in BASELINES:
        scores = glue_scores(task, predictors[name](train, evaluation, task), evaluation)
        for metric, value in scores.items():
            add_record(
                results,
                kind=kind_of("probe", evaluation),
                model=name,
                task=task.name,
                metric=metric,
                value=value,
                num_train=len(train),
                num_eval=len(evaluation),
            )


def glue_scores(task: Task, predictions: np.ndarray, evaluation: Split) -> dict[str, float]:
    """Computes the task's metrics with its `evaluate` module."""
    metric = load_metric("glue", task.folder)
    return metric.compute(predictions=predictions.tolist(), references=evaluation.labels.tolist())


def settings_for(task: Task, arguments: ProbeArguments, training: GlueTrainingArguments, given: dict) -> ProbeSettings:
    """Puts together how the heads of a task are trained."""
    epochs = training.num_train_epochs if "num_train_epochs" in given else task.num_epochs
    if epochs != int(epochs) or epochs < 1:
        raise UserError(f"`num_train_epochs` is {epochs}; a probe trains whole epochs, at least one.")
    return ProbeSettings(
        num_epochs=int(epochs),
        batch_size=training.per_device_train_batch_size,
        learning_rate=training.learning_rate,
        weight_decay=training.weight_decay,
        dropout=arguments.dropout,
        head=arguments.head,
        mlp_size=arguments.mlp_size,
    )


def probe_task(
    results: Results,
    name: str,
    replicate: int,
    embedder: Embedder,
    task: Task,
    splits: tuple[Split, Split],
    arguments: ProbeArguments,
    training: GlueTrainingArguments,
    given: dict[str, Any],
    whitening_texts: list[str] | None = None,
) -> None:
    """Trains the heads of one model and task with every pooling and kind of vectors, and records their scores."""
    settings = settings_for(task, arguments, training, given)
    seeds = list(range(training.seed, training.seed + arguments.seeds))
    plain = [pooling.removesuffix("-trained") for pooling in arguments.pooling if not pooling.endswith("-trained")]
    trained = any(pooling.endswith("-trained") for pooling in arguments.pooling)
    groups = embedder.groups_for(plain, trained)
    embedder.encode([text for split in splits for column in split.texts for text in column], groups)
    fitted_on = whitening_texts or [text for column in splits[0].texts for text in column]
    epsilon = EPSILON if arguments.whitening_epsilon is None else arguments.whitening_epsilon
    for pooling, kind in itertools.product(arguments.pooling, arguments.vectors):
        whitened = kind == "whitened"
        folder = Path(training.output_dir) / "heads" / f"{name}-{replicate}"
        path = folder / f"{task.name}-{pooling}-{arguments.head}{'-whitened' if whitened else ''}.safetensors"
        heads = (embedder, task, splits, pooling, settings, seeds, path, training)
        epochs, settings = run_heads(*heads, Fit(fitted_on, epsilon) if whitened else None)
        if not training.do_eval:
            continue
        scores = (results, name, replicate, task, splits, pooling, settings, seeds, epochs, embedder.num_draws)
        record_scores(*scores, whitened)


def record_scores(
    results: Results,
    name: str,
    replicate: int,
    task: Task,
    splits: tuple[Split, Split],
    pooling: str,
    settings: ProbeSettings,
    seeds: list[int],
    epochs: list[np.ndarray],
    num_draws: int,
    whitened: bool,
) -> None:
    """Records the scores after the last epoch and, labelled so, those of the best epoch on the evaluation split.

    Those of whitened vectors are labelled so, too, and have no best epoch: no published number stands beside them.
    """
    variant = "whitened" if whitened else None
    shared = {
        "kind": kind_of("probe", splits[1]),
        "model": name,
        "replicate": replicate,
        "task": task.name,
        "pooling": pooling,
        "head": settings.head,
        "num_train": len(splits[0]),
        "num_eval": len(splits[1]),
        "num_epochs": settings.num_epochs,
        "batch_size": settings.batch_size,
    }
    for index, seed in enumerate(seeds):
        draw = {"draw": index % num_draws} if pooling == "attention" else {}
        for metric, value in glue_scores(task, epochs[-1][index], splits[1]).items():
            add_record(results, **shared, **draw, seed=seed, metric=metric, value=value, variant=variant)
        if len(epochs) > 1 and not (whitened or splits[1].development):
            best = max(headline(task, predictions[index], splits[1]) for predictions in epochs)
            add_record(results, **shared, **draw, seed=seed, metric=task.metric, value=best, variant=BEST_ON_EVAL)
    kind, way = shared["kind"], [pooling, settings.head, *([variant] if variant else [])]
    results.predictions["|".join([kind, name, str(replicate), task.name, *way])] = epochs[-1]
    results.predictions[f"{kind}|labels|{task.name}"] = splits[1].labels


def headline(task: Task, predictions: np.ndarray, evaluation: Split) -> float:
    """Computes the headline metric without the file that `compute` writes and reads: it is called every epoch."""
    return load_metric("glue", task.folder)._compute(predictions, evaluation.labels)[task.metric]


def summary(results: Results, tasks: Sequence[Task], kind: str) -> str:
    """Lays out mean and standard deviation over seeds and checkpoints."""
    names = [name for name in BASELINES if results.select(model=name)] + results.model_names
    own = [r for r in results.records if r.model in results.model_names and r.variant != BEST_ON_EVAL]
    keys = dict.fromkeys((r.pooling, r.head, r.variant) for r in own)
    rows = []
    for name in names:
        for pooling, head, variant in keys if name not in BASELINES else [(None, None, None)]:
            cells = []
            for task in tasks:
                how = {"pooling": pooling, "head": head, "variant": variant}
                values = results.values(kind=kind, model=name, task=task.name, metric=task.metric, **how)
                spread = f" ± {values.std(ddof=1):.3f}" if len(values) > 1 else ""
                cells.append(f"{values.mean():.3f}{spread}" if len(values) else "-")
            words = " ".join(str(word) for word in (pooling, head, variant) if word)
            rows.append([BASELINES.get(name, name), words, *cells])
    notes = [f"{key.split('|')[1]}: {text}" for key, text in results.notes.items()]
    header = ["", "", *(f"{task.name} ({task.metric})" for task in tasks)]
    return "\n".join(["", table(header, rows), *notes])


if __name__ == "__main__":
    sys.exit(main())
