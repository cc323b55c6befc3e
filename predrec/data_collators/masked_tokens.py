"""BERT masks: which tokens are reconstructed, and what stands in their place."""

from functools import lru_cache
from typing import Literal

import numpy as np
from transformers import PreTrainedTokenizerBase

MaskingUnit = Literal["token", "word", "span"]

MAX_SPAN = 10
SPAN_CONTINUES = 0.8
"""SpanBERT draws span lengths from a geometric law with p = 0.2 on 1 to 10: 3.8 words on average."""


def special_token_table(tokenizer: PreTrainedTokenizerBase) -> np.ndarray:
    """Returns `(vocab_size,)` bool, `True` at ids that are never masked and never put in a masked token's place."""
    table = np.zeros(len(tokenizer), dtype=bool)
    table[[i for i in tokenizer.all_special_ids if i < len(table)]] = True
    return table


def word_start_table(tokenizer: PreTrainedTokenizerBase) -> np.ndarray:
    """Returns `(vocab_size,)` bool, `True` at ids that begin a word.

    Raises:
        ValueError: If the vocabulary does not mark word boundaries (WordPiece `##`, byte-level `Ġ`, Metaspace `▁`).
    """
    tokens = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    tokens = ["" if token is None else token for token in tokens]
    for continues in (
        [token.startswith("##") for token in tokens],
        [not token.startswith("Ġ") for token in tokens],
        [not token.startswith("▁") for token in tokens],
    ):
        # A real marker splits the vocabulary; one that the tokenizer does not use leaves it all on one side.
        if 0.02 < np.mean(continues) < 0.98:
            return ~np.array(continues) | special_token_table(tokenizer)
    raise ValueError(
        "`masking_unit` is word or span, but this tokenizer's vocabulary does not mark where words begin: use "
        "`masking_unit=token`."
    )


@lru_cache(maxsize=8)
def span_start_rate(coverage: float) -> float:
    """Returns the probability that a span starts at a word, such that spans cover `coverage` of the words."""
    tail = SPAN_CONTINUES**MAX_SPAN
    survival = (SPAN_CONTINUES ** np.arange(MAX_SPAN) - tail) / (1 - tail)
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        if 1 - np.prod(1 - middle * survival) < coverage:
            low = middle
        else:
            high = middle
    return high


def choose_tokens(
    eligible: np.ndarray, uniforms: np.ndarray, probability: float, unit: MaskingUnit, word_starts: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Chooses the tokens to reconstruct: at least one in every row that has an eligible token.

    Args:
        eligible (`np.ndarray` of shape `(batch_size, sequence_length)`, bool): Real tokens that are not special.
        uniforms (`np.ndarray` of shape `(batch_size, 2, sequence_length)`): Numbers in [0, 1).
        probability (`float`): Expected share of the units that are chosen.
        unit (`"token"`, `"word"` or `"span"`): What is chosen together; spans are runs of whole words.
        word_starts (`np.ndarray` of shape `(batch_size, sequence_length)`, bool, *optional*):
            `True` where a word begins; needed for words and spans.

    Returns:
        The chosen tokens and, for each token, the position whose draw decides what replaces it: both of shape
        `(batch_size, sequence_length)`. A span is replaced as one (SpanBERT), other tokens one by one (BERT).

    Reference:
        Devlin et al., 2019, https://arxiv.org/abs/1810.04805; Joshi et al., 2020, https://arxiv.org/abs/1907.10529
    """
    positions = np.broadcast_to(np.arange(eligible.shape[1]), eligible.shape)
    if unit == "token":
        decider, chosen = positions, uniforms[:, 0] < probability
    else:
        # A special token is a word of its own: no word continues across it. A span may, and leaves it out.
        starts = word_starts | ~eligible
        starts[:, 0] = True
        decider = np.maximum.accumulate(np.where(starts, positions, 0), axis=1)
        if unit == "word":
            chosen, decider = np.take_along_axis(uniforms[:, 0], decider, 1) < probability, positions
        else:
            chosen, decider = _spans(starts, decider, uniforms, probability)
    chosen = chosen & eligible

    empty = ~chosen.any(1) & eligible.any(1)
    if empty.any():
        lowest = np.where(eligible[empty], uniforms[empty, 0], 2.0).argmin(1)
        chosen[np.flatnonzero(empty), lowest] = True
    return chosen, decider


def _spans(
    starts: np.ndarray, first_token: np.ndarray, uniforms: np.ndarray, probability: float
) -> tuple[np.ndarray, np.ndarray]:
    """Starts spans at words at a fixed rate, with geometric lengths; returns coverage and each token's span start."""
    word = starts.cumsum(1) - 1
    begins = starts & (uniforms[:, 0] < span_start_rate(probability))
    # The geometric law, renormalised on 1 to MAX_SPAN, by inversion.
    tail = SPAN_CONTINUES**MAX_SPAN
    lengths = 1 + np.floor(np.log(tail + (1 - tail) * uniforms[:, 1]) / np.log(SPAN_CONTINUES))
    ends = np.where(begins, word + np.clip(lengths, 1, MAX_SPAN), 0)
    covered = word < np.maximum.accumulate(ends, axis=1)
    latest = np.maximum.accumulate(np.where(begins, first_token, 0), axis=1)
    return covered, latest


def corrupt_tokens(
    input_ids: np.ndarray,
    chosen: np.ndarray,
    decider: np.ndarray,
    uniforms: np.ndarray,
    mask_token_id: int,
    replacement_ids: np.ndarray,
    mask_replace_prob: float,
    random_replace_prob: float,
) -> np.ndarray:
    """Replaces chosen tokens by the mask token, by a random ordinary token, or leaves them.

    Args:
        input_ids (`np.ndarray` of shape `(batch_size, sequence_length)`, int): Original tokens.
        chosen, decider: From [`choose_tokens`].
        uniforms (`np.ndarray` of shape `(batch_size, 2, sequence_length)`): What to do, and which random token.
        mask_token_id (`int`): The mask token.
        replacement_ids (`np.ndarray` of shape `(num_ordinary,)`): Ids a random replacement is drawn from.
        mask_replace_prob, random_replace_prob (`float`): 0.8 and 0.1 in BERT; the rest stays as it is.

    Returns:
        `np.ndarray` of shape `(batch_size, sequence_length)`.
    """
    action = np.take_along_axis(uniforms[:, 0], decider, 1)
    to_mask = chosen & (action < mask_replace_prob)
    to_random = chosen & ~to_mask & (action < mask_replace_prob + random_replace_prob)
    corrupted = np.where(to_mask, mask_token_id, input_ids)
    pick = (uniforms[:, 1][to_random] * len(replacement_ids)).astype(np.int64)
    corrupted[to_random] = replacement_ids[np.minimum(pick, len(replacement_ids) - 1)]
    return corrupted
