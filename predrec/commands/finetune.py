"""Ordinary fine-tuning on GLUE tasks, through `Trainer`: the other mode of `probe_glue`."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import (
    AutoModelForSequenceClassification,
    DataCollatorWithPadding,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Trainer,
    set_seed,
)
from transformers.trainer_utils import SaveStrategy, get_last_checkpoint

from ..configuration import EncoderArguments
from ..configuration.probe_arguments import FINETUNE_DEFAULTS, GlueTrainingArguments, ProbeArguments
from ..errors import UserError
from ..eval.encoder import FrozenEncoder, load_encoder
from ..eval.metrics import load_metric
from ..eval.results import DEVELOPMENT, Results, add_record
from ..eval.tasks import Split, Task
from ..quiet import quiet_loading


def finetune(
    encoder_arguments: EncoderArguments,
    arguments: ProbeArguments,
    training: GlueTrainingArguments,
    given: dict[str, Any],
    tasks: Sequence[Task],
    splits: dict[str, tuple[Split, Split]],
    results: Results,
) -> None:
    """Fine-tunes every model on every task with every seed and records the scores.

    Without `--do_train`, the models must be fine-tuned already, and are only evaluated, each once.
    """
    for name, default in FINETUNE_DEFAULTS.items():
        if name not in given:
            setattr(training, name, default)
    if "save_strategy" not in given:
        training.save_strategy = SaveStrategy.NO
    named, seeds = encoder_arguments.named_models(), range(training.seed, training.seed + arguments.seeds)
    if not training.do_train:
        if given.get("seeds", 1) > 1:
            raise UserError("`seeds` has no effect without `--do_train`: every seed would score the same model.")
        seeds = seeds[:1]
    check_resume(training, len(tasks) * len(seeds) * sum(map(len, named.values())))
    for name, paths in named.items():
        for replicate, path in enumerate(paths):
            # Loaded as an encoder first, which checks it and says what it is.
            encoder = load_encoder(
                path, encoder_arguments.max_seq_length, trust_remote_code=encoder_arguments.trust_remote_code
            )
            results.models.append({"name": name, "replicate": replicate, **encoder.describe()})
            for task in tasks:
                for seed in seeds:
                    folder = Path(training.output_dir) / "finetuned" / f"{name}-{replicate}-{task.name}-{seed}"
                    run = dataclasses.replace(training, output_dir=str(folder), seed=seed)
                    who = {"model": name, "replicate": replicate, "seed": seed}
                    finetune_once(path, encoder, task, splits[task.name], run, encoder_arguments, results, who)


def check_resume(training: GlueTrainingArguments, runs: int) -> None:
    """Refuses to go on from what is no checkpoint, or with several runs from the same.

    Raises:
        UserError: Naming `resume_from_checkpoint`.
    """
    resume = training.resume_from_checkpoint
    if resume and not training.do_train:
        raise UserError("`resume_from_checkpoint` has no effect without `--do_train`: drop it.")
    if isinstance(resume, str):
        if runs > 1:
            raise UserError(
                f"`resume_from_checkpoint`: {runs} runs would all go on from {resume!r}. Give one model, task and "
                "seed, or `true`: every run goes on from its own newest checkpoint."
            )
        if not (Path(resume) / "trainer_state.json").is_file():
            raise UserError(f"`resume_from_checkpoint`: {resume!r} is not a checkpoint directory.")


def checkpoint_of(training: GlueTrainingArguments) -> str | None:
    """Returns the checkpoint that a run goes on from, `None` where it begins."""
    if training.resume_from_checkpoint is True:
        return get_last_checkpoint(training.output_dir) if Path(training.output_dir).is_dir() else None
    return training.resume_from_checkpoint or None


def finetune_once(
    path: str,
    encoder: FrozenEncoder,
    task: Task,
    splits: tuple[Split, Split],
    training: GlueTrainingArguments,
    encoder_arguments: EncoderArguments,
    results: Results,
    who: dict[str, Any],
) -> None:
    """Fine-tunes one model on one task with one seed."""
    set_seed(training.seed)
    model = load_classifier(path, task, training.do_train, encoder_arguments.trust_remote_code)
    datasets = [tokenized(split, encoder.tokenizer, encoder.max_seq_length, task) for split in splits]
    # What attends to padding gives the same states only at the same length.
    whole = getattr(model.config, "attend_to_padding", False)
    padding = {"padding": "max_length", "max_length": encoder.max_seq_length} if whole else {}
    trainer = Trainer(
        model=model,
        args=training,
        data_collator=DataCollatorWithPadding(encoder.tokenizer, **padding),
        train_dataset=datasets[0],
        eval_dataset=datasets[1],
        processing_class=encoder.tokenizer,
    )
    if training.do_train:
        trainer.train(resume_from_checkpoint=checkpoint_of(training))
        if training.save_strategy != SaveStrategy.NO:
            trainer.save_model()
    if training.do_eval:
        output = trainer.predict(datasets[1]).predictions
        record_scores(results, task, splits, np.asarray(output[0] if isinstance(output, tuple) else output), who)


def load_classifier(path: str, task: Task, do_train: bool, trust_remote_code: bool) -> PreTrainedModel:
    """Loads a model with the classifier of a task: a new one, or the one that it was fine-tuned with.

    Raises:
        UserError: If nothing is to be trained and the model has no classifier.
    """
    with quiet_loading():  # The report of a missing classifier is what fine-tuning is about.
        model, info = AutoModelForSequenceClassification.from_pretrained(
            path,
            dtype=torch.float32,  # Not the file's: `bf16` and `fp16` are autocast.
            num_labels=task.num_labels or 1,
            problem_type="regression" if task.is_regression else "single_label_classification",
            trust_remote_code=trust_remote_code,
            use_safetensors=True,
            output_loading_info=True,
        )
    if not do_train and info["missing_keys"]:
        raise UserError(
            f"{path!r} is not fine-tuned ({sorted(info['missing_keys'])[0]} is missing): pass `--do_train`."
        )
    return model


def record_scores(
    results: Results, task: Task, splits: tuple[Split, Split], scores: np.ndarray, who: dict[str, Any]
) -> None:
    """Records the metrics of a task and the predictions.

    Args:
        results ([`Results`]): What they are added to.
        task ([`Task`]): The task.
        splits (`tuple`): What was trained on, and what is scored.
        scores (`np.ndarray` of shape `(num_rows, num_outputs)`): Of the second split.
        who (`dict`): `model`, `replicate` and `seed`.
    """
    if not np.isfinite(scores).all():
        raise UserError(f"Fine-tuning on `{task.name}` diverged: lower `learning_rate`.")
    predicted = scores[:, 0] if task.is_regression else scores.argmax(-1)
    metric = load_metric("glue", task.folder)
    kind, sizes = "finetune" + DEVELOPMENT * splits[1].development, [len(split) for split in splits]
    shared = {"kind": kind, "task": task.name, "num_train": sizes[0], "num_eval": sizes[1], **who}
    for name, value in metric.compute(predictions=predicted.tolist(), references=splits[1].labels.tolist()).items():
        add_record(results, **shared, metric=name, value=value)
    key = f"{kind}|{who['model']}|{who['replicate']}|{task.name}|finetune|-"
    earlier = [results.predictions[key]] if key in results.predictions else []
    results.predictions[key] = np.concatenate([*earlier, predicted[None]])
    results.predictions[f"{kind}|labels|{task.name}"] = splits[1].labels


def tokenized(split: Split, tokenizer: PreTrainedTokenizerBase, max_seq_length: int, task: Task) -> Dataset:
    """Returns the split as `Trainer` takes it; pairs are encoded as one sequence."""
    columns = tokenizer(*split.texts, truncation=True, max_length=max_seq_length)
    labels = split.labels.astype(np.float32) if task.is_regression else split.labels
    return Dataset.from_dict({**columns, "labels": labels.tolist()})
