import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from predrec.data_collators.block_masks import (
    ATTEMPTS,
    MIN_JEPA_LENGTH,
    BlockMasks,
    draw_block_masks,
    num_draws,
    smallest_context,
)

CONTEXT_SCALE, TARGET_SCALE = (0.65, 0.85), (0.10, 0.25)


def special_at_ends(lengths: np.ndarray, sequence_length: int) -> np.ndarray:
    """Returns the special tokens of rows that look like `[CLS] ... [SEP]`."""
    positions = np.arange(sequence_length)
    return (positions == 0) | (positions == np.asarray(lengths)[:, None] - 1)


def draw(
    lengths,
    num_blocks: int = 2,
    seed: int = 0,
    sequence_length: int | None = None,
    special: np.ndarray | None = None,
    context_scale: tuple[float, float] = CONTEXT_SCALE,
    target_scale: tuple[float, float] = TARGET_SCALE,
    min_context_tokens: int = 32,
) -> tuple[BlockMasks, np.ndarray]:
    """Draws masks with the default scales; returns them and where the special tokens are."""
    lengths = np.asarray(lengths)
    special = special_at_ends(lengths, sequence_length or lengths.max()) if special is None else special
    uniforms = np.random.default_rng(seed).random((len(lengths), num_draws(num_blocks)))
    return draw_block_masks(lengths, special, uniforms, context_scale, target_scale, min_context_tokens), special


def target_masks(masks: BlockMasks) -> np.ndarray:
    """Returns `(batch_size, num_blocks, sequence_length)`, `True` inside each block, by a naive loop."""
    inside = np.zeros((*masks.starts.shape, masks.context.shape[1]), dtype=bool)
    for row, block in np.ndindex(masks.starts.shape):
        start = masks.starts[row, block]
        inside[row, block, start : start + masks.lengths[row]] = True
    return inside


batches = st.tuples(
    st.lists(st.integers(2, 300), min_size=1, max_size=8),
    st.integers(1, 4),
    st.integers(0, 2**32 - 1),
    st.integers(0, 40),
)


@settings(max_examples=50, deadline=None)
@given(batches)
def test_draw_block_masks_keeps_context_and_targets_disjoint(batch):
    lengths, num_blocks, seed, padding = batch
    masks, special = draw(lengths, num_blocks, seed, max(lengths) + padding)
    assert not (masks.context[:, None] & target_masks(masks) & ~special[:, None]).any()


@settings(max_examples=50, deadline=None)
@given(batches)
def test_draw_block_masks_never_touches_padding(batch):
    lengths, num_blocks, seed, padding = batch
    masks, _ = draw(lengths, num_blocks, seed, max(lengths) + padding)
    padded = np.arange(masks.context.shape[1]) >= np.array(lengths)[:, None]
    assert not (padded & (masks.context | target_masks(masks).any(1))).any()


@settings(max_examples=50, deadline=None)
@given(batches)
def test_draw_block_masks_never_cuts_a_block(batch):
    lengths, num_blocks, seed, padding = batch
    masks, _ = draw(lengths, num_blocks, seed, max(lengths) + padding)
    lengths = np.array(lengths)
    shortest = np.clip(np.rint(TARGET_SCALE[0] * lengths), 1, None)
    longest = np.rint(TARGET_SCALE[1] * lengths)
    rows = lengths >= MIN_JEPA_LENGTH
    assert (target_masks(masks).sum(2) == masks.lengths[:, None]).all()
    assert ((masks.lengths >= shortest) & (masks.lengths <= longest))[rows].all()


@settings(max_examples=50, deadline=None)
@given(batches)
def test_draw_block_masks_keeps_special_tokens_in_the_context(batch):
    lengths, num_blocks, seed, padding = batch
    masks, special = draw(lengths, num_blocks, seed, max(lengths) + padding)
    assert masks.context[special].all()


@settings(max_examples=50, deadline=None)
@given(batches)
def test_draw_block_masks_keeps_context_sizes_within_bounds(batch):
    lengths, _, seed, padding = batch
    masks, special = draw(lengths, 2, seed, max(lengths) + padding)
    lengths = np.array(lengths)
    rows = lengths >= MIN_JEPA_LENGTH
    most = np.rint(CONTEXT_SCALE[1] * lengths) + special.sum(1)
    least = np.array([smallest_context(length, 32) for length in lengths])
    counts = masks.context.sum(1)
    assert ((counts >= least) & (counts <= most))[rows].all()


@settings(max_examples=30, deadline=None)
@given(batches)
def test_draw_block_masks_does_not_depend_on_padding(batch):
    lengths, num_blocks, seed, padding = batch
    masks, _ = draw(lengths, num_blocks, seed)
    padded, _ = draw(lengths, num_blocks, seed, max(lengths) + padding)
    assert (padded.context[:, : max(lengths)] == masks.context).all()
    assert (padded.starts == masks.starts).all()
    assert (padded.lengths == masks.lengths).all()


def test_draw_block_masks_places_blocks_as_computed_by_hand():
    # Of 20 tokens: context 0.75 * 20 = 15 from floor(0.5 * 6) = 3; targets 0.2 * 20 = 4 from 0 and from
    # floor(0.5 * 17) = 8.
    uniforms = np.zeros((1, num_draws(2)))
    uniforms[0, :5] = [0.5, 0.5, 0.5, 0.0, 0.5]
    special = special_at_ends(np.array([20]), 22)
    masks = draw_block_masks(np.array([20]), special, uniforms, (0.5, 1.0), (0.1, 0.3), 5)
    assert masks.starts.tolist() == [[0, 8]]
    assert masks.lengths.tolist() == [4]
    assert np.flatnonzero(masks.context[0]).tolist() == [0, 4, 5, 6, 7, 12, 13, 14, 15, 16, 17, 19]


def test_draw_block_masks_redraws_when_the_context_is_too_small():
    # First attempt: context 0..39 of 128 tokens, hidden by the target block 0..39. Second: 64..127, target 0..12.
    uniforms = np.zeros((1, ATTEMPTS, 4))
    uniforms[0, 0] = [0.0, 0.999, 0.0, 0.0]
    uniforms[0, 1] = [0.999, 0.0, 0.999, 0.0]
    special = np.zeros((1, 128), dtype=bool)
    masks = draw_block_masks(np.array([128]), special, uniforms.reshape(1, -1), (0.3, 0.5), (0.1, 0.31), 32)
    assert (masks.starts[0, 0], masks.lengths[0]) == (0, 13)
    assert np.flatnonzero(masks.context[0]).tolist() == list(range(64, 128))


def test_draw_block_masks_redraws_when_a_block_holds_special_tokens_only():
    # Tokens 0..9 of 20 are special. The first attempt puts the target block of 2 at 0, the second at 18.
    uniforms = np.zeros((1, ATTEMPTS, 4))
    uniforms[0, :, 0] = 0.999
    uniforms[0, 1, 3] = 0.999
    special = np.arange(20)[None] < 10
    masks = draw_block_masks(np.array([20]), special, uniforms.reshape(1, -1), (0.5, 1.0), (0.1, 0.1), 5)
    assert (masks.starts[0, 0], masks.lengths[0]) == (18, 2)


def test_draw_block_masks_falls_back_to_small_targets_and_a_large_context():
    # In every attempt the target block hides the whole context, as in the first attempt above.
    uniforms = np.tile([0.0, 0.999, 0.0, 0.0], (1, ATTEMPTS))
    special = np.zeros((1, 128), dtype=bool)
    masks = draw_block_masks(np.array([128]), special, uniforms, (0.3, 0.9), (0.1, 0.31), 32)
    assert (masks.starts[0, 0], masks.lengths[0]) == (0, round(0.1 * 128))
    assert np.flatnonzero(masks.context[0]).tolist() == list(range(13, round(0.9 * 128)))


def test_draw_block_masks_gives_short_rows_no_targets():
    masks, _ = draw([MIN_JEPA_LENGTH - 1, MIN_JEPA_LENGTH])
    assert masks.lengths[0] == 0
    assert masks.lengths[1] > 0


def test_draw_block_masks_shows_short_rows_whole():
    masks, _ = draw([MIN_JEPA_LENGTH - 1, 40])
    assert masks.context[0].tolist() == [True] * 15 + [False] * 25


def test_draw_block_masks_holds_the_minimum_in_rows_of_128_tokens():
    # Four blocks of a quarter each would often leave fewer than 32 tokens.
    masks, _ = draw([128] * 2000, num_blocks=4, target_scale=(0.05, 0.25))
    assert masks.context.sum(1).min() == 32


@pytest.mark.parametrize(
    ("length", "expected"), [(512, 32), (128, 32), (127, 31), (100, 25), (64, 16), (17, 4), (16, 4)]
)
def test_smallest_context_is_a_quarter_below_128_tokens(length, expected):
    assert smallest_context(length, 32) == expected


def test_smallest_context_is_never_more_than_the_minimum():
    assert smallest_context(100, 8) == 8


def test_draw_block_masks_agrees_with_smallest_context_in_short_rows():
    masks, _ = draw([100] * 2000, num_blocks=4, target_scale=(0.05, 0.25))
    assert masks.context.sum(1).min() == smallest_context(100, 32)


def test_draw_block_masks_spreads_target_lengths_over_the_scale():
    # With one visible token required, no draw is refused. 14 bins of 10 lengths, each within 5 sigma.
    masks, _ = draw([1000] * 20000, special=np.zeros((20000, 1000), dtype=bool), num_blocks=1, min_context_tokens=1)
    counts, _ = np.histogram(masks.lengths, bins=np.linspace(105, 245, 15))
    expected = 20000 * 10 / 150
    assert (masks.lengths.min(), masks.lengths.max()) == (100, 250)
    assert (abs(counts - expected) < 5 * np.sqrt(expected)).all()


def test_draw_block_masks_spreads_context_lengths_over_the_scale():
    # Tiny targets, so that what is visible is the context block but for at most one token.
    masks, _ = draw(
        [1000] * 20000, special=np.zeros((20000, 1000), dtype=bool), num_blocks=1, target_scale=(0.001, 0.001)
    )
    counts, _ = np.histogram(masks.context.sum(1), bins=np.linspace(655, 845, 20))
    expected = 20000 * 10 / 200
    assert (abs(counts - expected) < 5 * np.sqrt(expected)).all()


def test_draw_block_masks_starts_blocks_uniformly_over_the_row():
    masks, _ = draw([400] * 20000, special=np.zeros((20000, 400), dtype=bool), min_context_tokens=1)
    places = masks.starts / (400 - masks.lengths + 1)[:, None]
    counts, _ = np.histogram(places, bins=np.linspace(0, 1, 11))
    # A start is an integer, which shifts the borders of a bin by at most one place in 300: 1 % of a bin.
    assert (abs(counts - 4000) < 5 * np.sqrt(4000) + 0.01 * 4000 * 2).all()


def test_draw_block_masks_reaches_both_ends_of_the_row():
    masks, _ = draw([64] * 5000, special=np.zeros((5000, 64), dtype=bool), min_context_tokens=1)
    assert masks.starts.min() == 0
    assert (masks.starts + masks.lengths[:, None]).max() == 64


def test_draw_block_masks_lets_target_blocks_overlap():
    masks, _ = draw([128] * 200)
    assert (target_masks(masks).sum(1) == 2).any()


def test_draw_block_masks_draws_one_target_length_per_row():
    masks, _ = draw([128] * 200)
    assert len(np.unique(masks.lengths)) > 10
