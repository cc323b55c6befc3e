"""The heads of `probe_glue`: trained and saved, or loaded and scored again."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..configuration.probe_arguments import GlueTrainingArguments
from ..errors import UserError
from ..eval.embeddings import Embedder
from ..eval.probes import Inputs, Probe, ProbeSettings, build_probe, predict_probe, train_probe
from ..eval.tasks import Split, Task
from ..eval.whitening import Fit, fit_whitening


def run_heads(
    embedder: Embedder,
    task: Task,
    splits: tuple[Split, Split],
    pooling: str,
    settings: ProbeSettings,
    seeds: list[int],
    path: Path,
    training: GlueTrainingArguments,
    fit: Fit | None,
) -> tuple[list[np.ndarray], ProbeSettings]:
    """Trains heads and saves them, or loads them; on whitened vectors, where it is said how.

    Returns:
        Predictions, `(num_seeds, num_rows)`, after each epoch, and how the heads were trained.
    """
    # Untrained attention is another draw, so other vectors, for every seed; otherwise all seeds train together.
    together = [[seed] for seed in seeds] if pooling == "attention" else [seeds]
    state: dict[str, Any] = {}
    history: list[list[np.ndarray]] = []
    about = about_heads(embedder, splits[0], pooling, seeds, fit)
    saved = None
    if not training.do_train:
        saved, known = load_heads(path)
        check_heads(path, known, about)
        trained = {"num_epochs": int(known["num_epochs"]), "batch_size": int(known["batch_size"])}
        settings = dataclasses.replace(settings, **trained)
    for number, group in enumerate(together):
        draw = (group[0] - training.seed) % embedder.num_draws
        train, evaluation = (inputs_for(embedder, split, pooling, draw) for split in splits)
        if fit is not None:
            change = fit_whitening(pooled(embedder, fit.texts, pooling, draw), fit.epsilon)
            train, evaluation = (tuple(map(change, inputs)) for inputs in (train, evaluation))
        kind = pooling.removesuffix("-trained") if pooling.endswith("-trained") else None
        if saved is None:
            probe, epochs = train_probe(
                train, splits[0].labels, task.num_labels, settings, group, evaluation, task.label_range, kind
            )
        else:
            probe = build_probe(train, task.num_labels, settings, group, task.label_range, kind)
            fill(probe, saved, number, path)
            epochs = [predict_probe(probe, evaluation)]
        state |= {f"{number}.{key}": value.contiguous() for key, value in probe.state_dict().items()}
        history.append([classes(scores, task) for scores in epochs])
    if saved is None:
        path.parent.mkdir(parents=True, exist_ok=True)
        about |= {"num_epochs": str(settings.num_epochs), "batch_size": str(settings.batch_size)}
        save_file(state, path, metadata=about)
    return [np.concatenate(parts) for parts in zip(*history, strict=True)], settings


def about_heads(embedder: Embedder, train: Split, pooling: str, seeds: list[int], fit: Fit | None) -> dict[str, str]:
    """Says what heads are for; those that were trained for something else are not evaluated."""
    about = {
        "encoder or way to read texts with it": embedder.encoder.fingerprint,
        "seeds": " ".join(map(str, seeds)),
        "num_train": str(len(train)),
        "training rows": train.fingerprint,
    }
    if pooling == "attention":
        about["number of draws"] = str(embedder.num_draws)
    if fit is not None:
        about["whitening"] = fit.name
    return about


def check_heads(path: Path, known: dict[str, str], about: dict[str, str]) -> None:
    """Raises `UserError` if saved heads are for something else."""
    for name, value in about.items():
        if known.get(name) != value:
            raise UserError(
                f"The heads at {str(path)!r} are for another {name}: {known.get(name)}, not {value}. Give what "
                "they were trained with, or pass `--do_train`, too."
            )


def load_heads(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Loads heads that an earlier call trained, and what it said of them."""
    try:
        with safe_open(path, "pt") as file:
            names = file.keys()
            return {name: file.get_tensor(name) for name in names}, file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"There are no trained heads at {str(path)!r} ({error}): pass `--do_train`, too, or the same `output_dir`."
        ) from error


def fill(probe: Probe, saved: dict[str, Any], number: int, path: Path) -> None:
    """Puts saved weights into heads."""
    own = {key.split(".", 1)[1]: value for key, value in saved.items() if key.split(".", 1)[0] == str(number)}
    try:
        probe.load_state_dict(own)
    except RuntimeError as error:
        raise UserError(f"The heads at {str(path)!r} are for another encoder, head or number of seeds.") from error


def inputs_for(embedder: Embedder, split: Split, pooling: str, draw: int) -> Inputs:
    """Returns what heads take: vectors or token states, one per text column."""
    if pooling.endswith("-trained"):
        return tuple(embedder.token_states(column) for column in split.texts)
    return tuple(pooled(embedder, column, pooling, draw) for column in split.texts)


def pooled(embedder: Embedder, texts: Sequence[str], pooling: str, draw: int) -> Tensor:
    """Returns one vector per text, `(num_texts, hidden_size)`."""
    vectors = embedder.vectors(texts, pooling)
    return vectors[:, draw] if pooling == "attention" else vectors


def classes(scores: np.ndarray, task: Task) -> np.ndarray:
    """Turns the scores of heads, `(num_seeds, num_rows, num_outputs)`, into classes or, for regression, scores."""
    if not np.isfinite(scores).all():
        raise UserError(f"The heads of `{task.name}` diverged: lower `learning_rate`.")
    return scores[..., 0] if task.is_regression else scores.argmax(-1)
