import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from predrec.data_collators.masked_tokens import (
    MAX_SPAN,
    choose_tokens,
    corrupt_tokens,
    span_start_rate,
    special_token_table,
    word_start_table,
)

MASK = 4
ORDINARY = np.arange(5, 100)


def uniforms(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(shape)


def tokenizer_of(tokens: list[str]) -> PreTrainedTokenizerFast:
    """Returns a tokenizer with this vocabulary, after the special tokens."""
    vocabulary = {token: number for number, token in enumerate(["[PAD]", "[UNK]", "[MASK]", *tokens])}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]")),
        pad_token="[PAD]",
        unk_token="[UNK]",
        mask_token="[MASK]",
    )


def within(count: int, total: int, probability: float, sigmas: float = 5) -> bool:
    """Returns whether a binomial count is near its expectation."""
    return abs(count - total * probability) < sigmas * math.sqrt(total * probability * (1 - probability))


def runs(row: np.ndarray) -> list[tuple[int, int]]:
    """Returns the half-open intervals where a bool row is `True`."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], row.astype(int), [0]])))
    return list(zip(edges[::2], edges[1::2], strict=True))


# Tokens


def test_special_token_table_marks_the_special_tokens(tiny_tokenizer):
    table = special_token_table(tiny_tokenizer)
    assert table.shape == (len(tiny_tokenizer),)
    assert np.flatnonzero(table).tolist() == [0, 1, 2, 3, 4]


def test_special_token_table_covers_added_tokens():
    tokenizer = tokenizer_of(["a", "b"])
    tokenizer.add_special_tokens({"additional_special_tokens": ["[CODE]"]})
    assert np.flatnonzero(special_token_table(tokenizer)).tolist() == [0, 1, 2, 5]


def test_choose_tokens_takes_the_draws_below_the_probability():
    eligible = np.array([[False, True, True, True, False]])
    draws = np.array([[[0.0, 0.1, 0.2, 0.05, 0.0], [0.5] * 5]])
    chosen, decider = choose_tokens(eligible, draws, 0.15, "token", None)
    assert chosen.tolist() == [[False, True, False, True, False]]
    assert decider.tolist() == [[0, 1, 2, 3, 4]]


def test_choose_tokens_meets_the_probability():
    eligible = np.ones((400, 512), dtype=bool)
    chosen, _ = choose_tokens(eligible, uniforms((400, 2, 512)), 0.15, "token", None)
    assert within(chosen.sum(), chosen.size, 0.15)


@pytest.mark.parametrize("unit", ["token", "word", "span"])
@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), probability=st.floats(0.001, 1))
def test_choose_tokens_never_takes_an_ineligible_token(unit, seed, probability):
    eligible = uniforms((4, 40), seed) < 0.8
    starts = uniforms((4, 40), seed + 1) < 0.6
    chosen, _ = choose_tokens(eligible, uniforms((4, 2, 40), seed + 2), probability, unit, starts)
    assert not (chosen & ~eligible).any()


@pytest.mark.parametrize("unit", ["token", "word", "span"])
def test_choose_tokens_takes_at_least_one_token_of_every_row(unit):
    eligible = np.arange(30) < np.arange(1, 31)[:, None]
    starts = np.ones((30, 30), dtype=bool)
    chosen, _ = choose_tokens(eligible, uniforms((30, 2, 30)), 1e-6, unit, starts)
    assert (chosen.sum(1) == 1).all()


def test_choose_tokens_takes_the_smallest_draw_when_none_is_below_the_probability():
    draws = np.array([[[0.1, 0.9, 0.3, 0.5], [0.5] * 4]])
    chosen, _ = choose_tokens(np.array([[False, True, True, True]]), draws, 0.01, "token", None)
    assert chosen.tolist() == [[False, False, True, False]]


def test_choose_tokens_takes_nothing_of_a_row_without_eligible_tokens():
    chosen, _ = choose_tokens(np.zeros((1, 4), dtype=bool), uniforms((1, 2, 4)), 0.5, "token", None)
    assert not chosen.any()


# Words


def test_choose_tokens_takes_words_by_the_draw_of_their_first_token():
    starts = np.array([[True, True, False, False, True, True, False]])
    eligible = np.array([[False, True, True, True, True, True, True]])
    draws = np.array([[[0.0, 0.1, 0.9, 0.9, 0.9, 0.1, 0.9], [0.5] * 7]])
    chosen, decider = choose_tokens(eligible, draws, 0.15, "word", starts)
    assert chosen.tolist() == [[False, True, True, True, False, True, True]]
    assert decider.tolist() == [[0, 1, 2, 3, 4, 5, 6]]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_choose_tokens_takes_all_or_nothing_of_a_word(seed):
    starts = uniforms((4, 60), seed) < 0.5
    starts[:, 0] = True
    chosen, _ = choose_tokens(np.ones((4, 60), dtype=bool), uniforms((4, 2, 60), seed + 1), 0.3, "word", starts)
    words = starts.cumsum(1)
    # A row without any draw below 0.3 gets one single token; with about 30 words that does not occur here.
    for row in range(4):
        for word in np.unique(words[row]):
            assert len(np.unique(chosen[row][words[row] == word])) == 1


def test_choose_tokens_meets_the_probability_with_words():
    starts = uniforms((400, 512), 1) < 0.6
    starts[:, 0] = True
    eligible = np.ones((400, 512), dtype=bool)
    chosen, _ = choose_tokens(eligible, uniforms((400, 2, 512)), 0.15, "word", starts)
    assert within(chosen[starts].sum(), starts.sum(), 0.15)


def test_choose_tokens_ends_a_word_at_a_special_token():
    starts = np.array([[True, True, False, False, False]])
    eligible = np.array([[True, True, True, False, True]])
    draws = np.array([[[0.9, 0.0, 0.9, 0.9, 0.9], [0.5] * 5]])
    chosen, _ = choose_tokens(eligible, draws, 0.15, "word", starts)
    assert chosen.tolist() == [[False, True, True, False, False]]


# Spans


def test_choose_tokens_covers_a_span_of_whole_words():
    # A span begins at the second word. 0.55 lies between 0.8 ** 3 and 0.8 ** 2, so it has 3 words: tokens 2 to 6.
    starts = np.array([[True, False, True, False, True, True, False, True]])
    draws = np.array([[[0.9, 0.0, 0.0, 0.9, 0.9, 0.9, 0.9, 0.9], [0.55] * 8]])
    chosen, decider = choose_tokens(np.ones((1, 8), dtype=bool), draws, 0.15, "span", starts)
    assert np.flatnonzero(chosen[0]).tolist() == [2, 3, 4, 5, 6]
    assert decider[0, 2:7].tolist() == [2] * 5


def test_choose_tokens_cuts_spans_at_the_longest():
    draws = np.full((1, 2, 30), 0.9)
    draws[0, :, 3] = [0.0, 0.0]
    ones = np.ones((1, 30), dtype=bool)
    chosen, _ = choose_tokens(ones, draws, 0.15, "span", ones)
    assert runs(chosen[0]) == [(3, 3 + MAX_SPAN)]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_choose_tokens_begins_and_ends_spans_at_words(seed):
    starts = uniforms((4, 200), seed) < 0.6
    starts[:, 0] = True
    chosen, _ = choose_tokens(np.ones((4, 200), dtype=bool), uniforms((4, 2, 200), seed + 1), 0.3, "span", starts)
    for row in range(4):
        for begin, end in runs(chosen[row]):
            assert starts[row, begin]
            assert end == 200 or starts[row, end]


@pytest.mark.parametrize("probability", [0.05, 0.15, 0.3, 0.5, 0.9])
def test_choose_tokens_meets_the_probability_with_spans(probability):
    shape = (400, 512)
    ones = np.ones(shape, dtype=bool)
    chosen, _ = choose_tokens(ones, uniforms((400, 2, 512)), probability, "span", ones)
    # No span reaches into the first words from before the row. Tokens of a span fall together: at most 10 times the
    # variance of single tokens.
    assert within(chosen[:, MAX_SPAN:].sum(), chosen[:, MAX_SPAN:].size, probability, 5 * math.sqrt(MAX_SPAN))


def single_span_lengths() -> np.ndarray:
    """Returns the lengths of many spans, drawn at so low a rate that they seldom meet."""
    ones = np.ones((20, 50000), dtype=bool)
    chosen, _ = choose_tokens(ones, uniforms((20, 2, 50000)), 0.01, "span", ones)
    return np.array([end - begin for row in chosen for begin, end in runs(row)])


def test_choose_tokens_draws_shorter_spans_more_often():
    # A geometric law: each length up to the cut is 0.8 times as frequent as the one before.
    counts = np.bincount(single_span_lengths())[1:6]
    assert (abs(counts[1:] / counts[:-1] - 0.8) < 5 * np.sqrt(1 / counts[1:] + 1 / counts[:-1])).all()


def test_choose_tokens_draws_spanbert_lengths():
    # SpanBERT, section 3.1: Geo(0.2) on 1 to 10, 3.8 words on average. Meeting spans lengthen the mean by 0.04.
    assert single_span_lengths().mean() == pytest.approx(3.8, abs=0.1)


def test_choose_tokens_decides_once_per_span():
    ones = np.ones((20, 200), dtype=bool)
    draws = uniforms((20, 2, 200))
    chosen, decider = choose_tokens(ones, draws, 0.2, "span", ones)
    begins = draws[:, 0] < span_start_rate(0.2)
    assert np.take_along_axis(begins, decider, 1)[chosen].all()


# Vocabularies


def test_word_start_table_reads_wordpiece():
    table = word_start_table(tokenizer_of(["play", "##ing", "##ed", "work", "er"]))
    assert table.tolist() == [True, True, True, True, False, False, True, True]


def test_word_start_table_reads_byte_level():
    table = word_start_table(tokenizer_of(["Ġplay", "ing", "Ġwork", "er"]))
    assert table.tolist() == [True, True, True, True, False, True, False]


def test_word_start_table_reads_metaspace():
    table = word_start_table(tokenizer_of(["▁play", "ing", "▁work", "er"]))
    assert table.tolist() == [True, True, True, True, False, True, False]


def test_word_start_table_ignores_a_marker_that_is_rare():
    names = [f"Ġ{number}" for number in range(60)] + [str(number) for number in range(60)]
    table = word_start_table(tokenizer_of([*names, "##"]))
    assert table[3:].tolist() == [True] * 60 + [False] * 61


def test_word_start_table_refuses_a_vocabulary_without_markers():
    with pytest.raises(ValueError, match=r"`masking_unit` is word or span, but .* does not mark where words begin"):
        word_start_table(tokenizer_of(["play", "ing", "work", "er"]))


# Corruption


def test_corrupt_tokens_replaces_as_computed_by_hand():
    # Positions 1 to 4 are chosen: mask, random (floor(0.5 * 4) = 2nd of 10, 11, 12, 13), kept, mask at the border.
    input_ids = np.array([[2, 50, 51, 52, 53, 54]])
    chosen = np.array([[False, True, True, True, True, False]])
    draws = np.array([[[0.0, 0.0, 0.85, 0.95, 0.79, 0.0], [0.5] * 6]])
    decider = np.arange(6)[None]
    corrupted = corrupt_tokens(input_ids, chosen, decider, draws, MASK, np.array([10, 11, 12, 13]), 0.8, 0.1)
    assert corrupted.tolist() == [[2, MASK, 12, 52, MASK, 54]]


def test_corrupt_tokens_treats_a_span_as_one():
    draws = np.array([[[0.9, 0.85, 0.0, 0.0, 0.9], [0.0, 0.25, 0.5, 0.75, 0.0]]])
    chosen = np.array([[False, True, True, True, False]])
    decider = np.array([[0, 1, 1, 1, 4]])
    corrupted = corrupt_tokens(np.full((1, 5), 50), chosen, decider, draws, MASK, np.array([10, 11, 12, 13]), 0.8, 0.1)
    assert corrupted.tolist() == [[50, 11, 12, 13, 50]]


def test_corrupt_tokens_leaves_its_input_alone():
    input_ids = np.full((2, 8), 50)
    chosen = np.ones((2, 8), dtype=bool)
    corrupt_tokens(input_ids, chosen, np.arange(8)[None].repeat(2, 0), uniforms((2, 2, 8)), MASK, ORDINARY, 0.5, 0.5)
    assert (input_ids == 50).all()


@pytest.fixture(scope="module")
def corrupted_tokens() -> np.ndarray:
    """200,000 chosen tokens with id 50 after BERT's corruption."""
    shape = (400, 500)
    return corrupt_tokens(
        np.full(shape, 50),
        np.ones(shape, dtype=bool),
        np.broadcast_to(np.arange(500), shape),
        uniforms((400, 2, 500)),
        MASK,
        ORDINARY,
        0.8,
        0.1,
    )


def test_corrupt_tokens_masks_eight_in_ten(corrupted_tokens):
    assert within((corrupted_tokens == MASK).sum(), corrupted_tokens.size, 0.8)


def test_corrupt_tokens_keeps_one_in_ten(corrupted_tokens):
    # A random token is the original one once in 95 draws.
    assert within((corrupted_tokens == 50).sum(), corrupted_tokens.size, 0.1 + 0.1 / len(ORDINARY))


def test_corrupt_tokens_draws_every_ordinary_token_equally_often(corrupted_tokens):
    counts = np.bincount(corrupted_tokens.ravel(), minlength=100)[ORDINARY]
    counts = counts[ORDINARY != 50]
    expected = 0.1 * corrupted_tokens.size / len(ORDINARY)
    assert (abs(counts - expected) < 5 * math.sqrt(expected)).all()


def test_corrupt_tokens_never_draws_another_special_token(corrupted_tokens):
    assert set(np.unique(corrupted_tokens)) <= {MASK, *ORDINARY}
