"""Probes on data of one's own: texts and labels in, predictions out."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import UserError
from .embeddings import Embedder
from .encoder import FrozenEncoder, Text
from .probes import ProbeSettings, train_probe

POOLINGS = ("mean", "max", "cls", "embeddings")


def probe(
    encoder: FrozenEncoder | Embedder,
    train: tuple[Sequence[Text], Sequence[Any]],
    evaluation_texts: Sequence[Text],
    pooling: str = "mean",
    seeds: Sequence[int] = (0, 1, 2),
    settings: ProbeSettings | None = None,
) -> np.ndarray:
    """Trains heads on the frozen vectors of texts, as the GLUE probes do, and predicts for others.

    Args:
        encoder ([`FrozenEncoder`]): From [`load_encoder`]; or an [`Embedder`] of it, which keeps vectors for the next
            call.
        train (`tuple`): Texts, or pairs of them as tuples, and their labels: whole numbers from 0 for classes, floats
            for scores.
        evaluation_texts (`Sequence`): As the first of `train`. Predictions are of the last epoch: nothing is chosen on
            these texts.
        pooling (`str`, defaults to `"mean"`): `mean`, `max`, `cls`, or `embeddings`, the words that the encoder has
            not read: what it has to beat.
        seeds (`Sequence[int]`): One head each.
        settings ([`ProbeSettings`], *optional*): How; 15 epochs when absent.

    Returns:
        `np.ndarray` of shape `(num_seeds, num_texts)`: classes or scores.

    Raises:
        UserError: If texts, labels or pooling are none.
    """
    texts, labels = list(train[0]), np.asarray(train[1])
    if len(texts) != len(labels) or labels.ndim != 1 or labels.dtype.kind not in "iuf" or not len(texts):
        raise UserError(
            f"`train` has {len(texts)} texts and labels of shape {labels.shape} and type {labels.dtype}; it must have "
            "a number for each text."
        )
    if pooling not in POOLINGS:
        raise UserError(f"`pooling` is {pooling!r}; it must be one of {', '.join(POOLINGS)}.")
    scores = labels.dtype.kind == "f"
    if not scores and labels.min() < 0:
        raise UserError(f"`train` has the class {labels.min()}; classes are numbered from 0.")
    embedder = encoder if isinstance(encoder, Embedder) else Embedder(encoder, progress=False)

    def vectors(rows: list[Text]) -> tuple:
        # The two texts of a pair are encoded by themselves.
        columns = zip(*rows, strict=True) if isinstance(rows[0], tuple) else [rows]
        return tuple(embedder.vectors(list(column), pooling) for column in columns)

    _, history = train_probe(
        vectors(texts),
        labels.astype(np.float32 if scores else np.int64),
        0 if scores else int(labels.max()) + 1,
        settings or ProbeSettings(num_epochs=15),
        seeds,
        vectors(list(evaluation_texts)),
        (float(labels.min()), float(labels.max())),
    )
    return history[-1][..., 0] if scores else history[-1].argmax(-1)
