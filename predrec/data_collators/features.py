"""What the collator is given, checked where it comes in: anything else would become a mask of something else."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

NEEDED = ("input_ids", "example_ids", "epoch")
"""Keys of a feature: token ids, the number of the example, and the epoch, from which its masks are drawn."""


def checked_features(features: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns the features of a batch with token ids as arrays, without the padding that an `attention_mask` names.

    Raises:
        ValueError: If there is none, a key is missing, token ids are no row of whole numbers, a number is negative,
            padding lies within a row, or `document_lengths` do not add up to the row.
    """
    if not len(features):
        raise ValueError("the batch has no rows: give at least one.")
    return [_checked(feature) for feature in features]


def check_vocabulary(ids: np.ndarray, size: int) -> None:
    """Raises `ValueError` if a token id, of any shape, is none of a vocabulary of this size."""
    for id_ in (ids.min(), ids.max()):
        if not 0 <= id_ < size:
            raise ValueError(
                f"`input_ids` holds {id_}, but the vocabulary has {size:,} tokens: tokenize with the tokenizer of the "
                "collator."
            )


def _checked(feature: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(feature, Mapping):
        raise ValueError(f"a feature is {type(feature).__name__}, not a mapping with {', '.join(NEEDED)}.")
    missing = [name for name in NEEDED if name not in feature]
    if missing:
        raise ValueError(
            f"`{missing[0]}` is missing from a feature, which has {', '.join(map(repr, feature)) or 'nothing'}: masks "
            "are drawn from the number of the example and the epoch."
        )
    for name in ("example_ids", "epoch"):
        number = feature[name]
        if not isinstance(number, int | np.integer) or isinstance(number, bool) or not 0 <= number < 2**63:
            raise ValueError(f"`{name}` is {number!r}; it must be a whole number, not negative.")
    example = int(feature["example_ids"])
    checked = {"input_ids": _row("input_ids", feature["input_ids"], example)}
    checked |= {name: feature[name] for name in ("example_ids", "epoch")}
    if feature.get("attention_mask") is not None:
        checked["input_ids"] = _unpadded(checked["input_ids"], np.asarray(feature["attention_mask"]), example)
    if feature.get("document_lengths") is not None:
        lengths, tokens = _row("document_lengths", feature["document_lengths"], example), len(checked["input_ids"])
        if lengths.min() < 1 or lengths.max() > tokens or lengths.sum() != tokens:
            raise ValueError(
                f"`document_lengths` of example {example} is {lengths.tolist()}; positive lengths must add up to its "
                f"{tokens} tokens."
            )
        checked["document_lengths"] = lengths
    return checked


def _unpadded(row: np.ndarray, mask: np.ndarray, example: int) -> np.ndarray:
    """Cuts off padding: rows are padded anew, and masks are drawn for what is text."""
    places = np.flatnonzero(mask)
    if mask.shape != row.shape or not len(places) or places[-1] - places[0] + 1 != len(places):
        raise ValueError(
            f"`attention_mask` of example {example} must be as long as its {len(row)} tokens and leave one piece of "
            "text, with padding before or behind it."
        )
    return row[places[0] : places[-1] + 1]


def _row(name: str, values: Any, example: int) -> np.ndarray:
    try:
        row = np.asarray(values)
    except ValueError as error:
        raise ValueError(f"`{name}` of example {example} is no row of numbers: {error}.") from error
    if row.ndim != 1 or not len(row) or row.dtype.kind not in "iu":
        raise ValueError(
            f"`{name}` of example {example} has shape {row.shape} and type {row.dtype}; it must be a row of whole "
            "numbers, at least one."
        )
    return row
