"""Where the tokens of a padded batch lie when they are put end to end, against loops over rows, blocks and tokens."""

import pickle
from dataclasses import fields

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from predrec.modeling.layout import Layout, Segments

from .tiny import segments_of

LENGTHS = [[3, 1, 4], [5], [0, 2, 0, 0, 1, 0], [1, 1], [0, 0], []]


@st.composite
def batches(draw):
    """Masks of a batch: real tokens, contexts, target blocks; some rows and some blocks have no targets."""
    num_rows, num_sets, length = draw(st.integers(1, 4)), draw(st.integers(1, 2)), draw(st.integers(1, 9))
    num_blocks, width, block_width = draw(st.integers(1, 3)), draw(st.integers(1, 6)), draw(st.integers(1, 4))
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    real = np.arange(length) < generator.integers(1, length + 1, size=(num_rows, 1))
    context = np.arange(width) < generator.integers(0, width + 1, size=(num_sets * num_rows, 1))
    # Special tokens inside a block are no targets, so what is left of it has holes.
    targets = generator.random((num_sets * num_rows, num_blocks, block_width)) < 0.6
    targets &= generator.random((num_sets * num_rows, num_blocks, 1)) < 0.7
    targets &= generator.random((num_sets * num_rows, 1, 1)) < 0.7
    return real, context, targets


def naive_indices(mask: np.ndarray) -> list[int]:
    return [number for number, chosen in enumerate(mask.flatten().tolist()) if chosen]


def naive_paired(context: np.ndarray, targets: np.ndarray) -> tuple[list[int], list[int], list[int], list[int]]:
    """Goes from block to block, its context first: tokens, lengths, places of the targets, lengths of the blocks."""
    names, number = {}, 0
    for mask in (context, targets):
        for place in np.ndindex(mask.shape):
            if mask[place]:
                names[place], number = number, number + 1
    paired, lengths, predicted, block_lengths = [], [], [], []
    for row in range(len(context)):
        for block in range(targets.shape[1]):
            of_context = [names[row, i] for i in range(context.shape[1]) if context[row, i]]
            of_block = [names[row, block, i] for i in range(targets.shape[2]) if targets[row, block, i]]
            if of_block:
                predicted += [len(paired) + len(of_context) + i for i in range(len(of_block))]
                paired += of_context + of_block
                lengths.append(len(of_context) + len(of_block))
                block_lengths.append(len(of_block))
    return paired, lengths, predicted, block_lengths


# Segments


@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
def test_segments_keep_lengths_and_boundaries(lengths):
    segments = segments_of(lengths, limit=7)
    assert segments.lengths == lengths and all(type(length) is int for length in segments.lengths)
    assert segments.boundaries.tolist() == [sum(lengths[:i]) for i in range(len(lengths) + 1)]
    # What kernels for sequences of different length want.
    assert segments.boundaries.dtype == torch.int32 and segments.limit == 7


@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
@pytest.mark.parametrize("more", [0, 2])
def test_rows_equal_naive_twin(lengths, more):
    limit = max([1, *lengths]) + more
    tokens, real = segments_of(lengths, limit).rows()
    assert tokens.shape == real.shape == (len(lengths), limit)
    for number, length in enumerate(lengths):
        begin = sum(lengths[:number])
        assert real[number].tolist() == [place < length for place in range(limit)]
        assert tokens[number, :length].tolist() == list(range(begin, begin + length))


@pytest.mark.parametrize("lengths", [lengths for lengths in LENGTHS if sum(lengths)], ids=str)
def test_rows_point_at_tokens_only(lengths):
    tokens, _ = segments_of(lengths, limit=9).rows()
    assert tokens.min() >= 0 and tokens.max() < sum(lengths)


@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
def test_places_equal_naive_twin(lengths):
    numbers, places = segments_of(lengths).places(sum(lengths))
    expected = [(number, place) for number, length in enumerate(lengths) for place in range(length)]
    assert list(zip(numbers.tolist(), places.tolist(), strict=True)) == expected


@settings(max_examples=50, deadline=None)
@given(lengths=st.lists(st.integers(0, 6), min_size=1, max_size=8).filter(any), more=st.integers(0, 3))
def test_places_undo_rows(lengths, more):
    segments = segments_of(lengths, max(lengths) + more)
    tokens, _ = segments.rows()
    assert tokens[segments.places(sum(lengths))].tolist() == list(range(sum(lengths)))


# Layouts


def test_layout_worked_out_by_hand():
    real = np.array([[1, 1, 1, 1], [1, 1, 0, 0]], dtype=bool)
    context = np.array([[1, 1, 0], [1, 0, 0]], dtype=bool)
    targets = np.array([[[1, 0], [1, 1]], [[0, 0], [0, 1]]], dtype=bool)
    layout = Layout.of(real, context, targets)
    assert layout.text.tolist() == [0, 1, 2, 3, 4, 5]
    assert layout.context.tolist() == [0, 1, 3]
    assert layout.targets.tolist() == [0, 2, 3, 7]
    # Contexts are 0 1 | 2, targets 3 | 4 5 | 6: the first context twice, the third block left out.
    assert layout.paired.tolist() == [0, 1, 3, 0, 1, 4, 5, 2, 6]
    assert layout.predicted.tolist() == [2, 5, 6, 8]
    lengths = {
        "text_segments": ([4, 2], 4),
        "context_segments": ([2, 1], 3),
        "target_segments": ([3, 1], 4),
        "paired_segments": ([3, 4, 2], 5),
        "predicted_segments": ([1, 2, 1], 2),
    }
    for name, expected in lengths.items():
        assert (getattr(layout, name).lengths, getattr(layout, name).limit) == expected, name


@settings(max_examples=100, deadline=None)
@given(masks=batches())
def test_layout_equals_naive_twin(masks):
    real, context, targets = masks
    layout = Layout.of(real, context, targets)
    paired, lengths, predicted, block_lengths = naive_paired(context, targets)
    assert layout.text.tolist() == naive_indices(real)
    assert layout.context.tolist() == naive_indices(context)
    assert layout.targets.tolist() == naive_indices(targets)
    assert (layout.paired.tolist(), layout.predicted.tolist()) == (paired, predicted)
    assert layout.paired_segments.lengths == lengths
    assert layout.predicted_segments.lengths == block_lengths
    assert layout.text_segments.lengths == [int(row.sum()) for row in real]
    assert layout.context_segments.lengths == [int(row.sum()) for row in context]
    assert layout.target_segments.lengths == [int(row.sum()) for row in targets]


@settings(max_examples=50, deadline=None)
@given(masks=batches())
def test_predicted_targets_come_in_the_order_of_the_targets(masks):
    _, context, targets = masks
    layout = Layout.of(*masks)
    beside = torch.cat([torch.full((context.sum(),), -1), torch.from_numpy(np.flatnonzero(targets))])
    assert beside[layout.paired][layout.predicted].tolist() == layout.targets.tolist()


@settings(max_examples=50, deadline=None)
@given(masks=batches())
def test_places_in_the_text_equal_naive_twin(masks):
    real = masks[0].flatten()
    layout = Layout.of(*masks)
    places = layout.in_text(torch.arange(real.size))
    assert [place for place, kept in zip(places.tolist(), real, strict=True) if kept] == list(range(real.sum()))
    # Those of padding are any, but there must be something there.
    assert places.min() >= 0 and places.max() < real.sum()


def test_places_in_the_text_of_padding_in_front_are_places():
    assert Layout.of(np.array([[False, False, True, True]])).text_places.tolist() == [0, 0, 0, 1]


def test_places_in_the_text_of_a_batch_without_padding_stay():
    layout = Layout.of(None, np.ones((1, 2), dtype=bool), np.ones((1, 1, 1), dtype=bool))
    assert layout.in_text(torch.tensor([3, 0])).tolist() == [3, 0]


@settings(max_examples=50, deadline=None)
@given(masks=batches())
def test_segments_cover_every_token_within_the_limit(masks):
    layout = Layout.of(*masks)
    parts = {name: getattr(layout, name + "_segments") for name in ("text", "context", "paired", "predicted")}
    for tokens, segments in (parts | {"targets": layout.target_segments}).items():
        assert sum(segments.lengths) == segments.boundaries[-1] == len(getattr(layout, tokens))
        assert max(segments.lengths, default=0) <= segments.limit


def test_limits_depend_on_the_shapes_only():
    """A kernel that compiles for its limits must not compile again for every batch."""
    shapes = (2, 8), (2, 5), (2, 3, 4)
    generator = np.random.default_rng(0)
    limits = set()
    for _ in range(5):
        layout = Layout.of(*(generator.random(shape) < 0.5 for shape in shapes))
        parts = [getattr(layout, field.name) for field in fields(layout)]
        limits.add(tuple(part.limit for part in parts if isinstance(part, Segments)))
    assert len(limits) == 1


def test_layout_of_a_batch_without_padding_has_no_text():
    layout = Layout.of(None, np.ones((1, 2), dtype=bool), np.ones((1, 1, 1), dtype=bool))
    assert layout.text is layout.text_segments is None
    assert layout.context.tolist() == [0, 1]


def test_layout_of_a_batch_without_blocks_has_the_text_only():
    layout = Layout.of(np.array([[True, False]]))
    present = {field.name for field in fields(layout) if getattr(layout, field.name) is not None}
    assert present == {"text", "text_segments", "text_places"}


def test_layout_of_a_batch_without_any_target_has_empty_pairs():
    layout = Layout.of(None, np.ones((2, 3), dtype=bool), np.zeros((2, 2, 4), dtype=bool))
    assert len(layout.targets) == len(layout.paired) == len(layout.predicted) == 0
    assert layout.paired_segments.lengths == [] and layout.paired_segments.boundaries.tolist() == [0]
    assert layout.target_segments.lengths == [0, 0]


def test_layout_indices_are_long():
    layout = Layout.of(np.ones((1, 2), dtype=bool), np.ones((1, 2), dtype=bool), np.ones((1, 1, 1), dtype=bool))
    for name in ("text", "text_places", "context", "targets", "paired", "predicted"):
        assert getattr(layout, name).dtype == torch.int64, name


def tensors(layout: Layout) -> dict[str, torch.Tensor]:
    """All that lies on a device, by name."""
    parts = {field.name: getattr(layout, field.name) for field in fields(layout)}
    return {
        name: part.boundaries if isinstance(part, Segments) else part
        for name, part in parts.items()
        if part is not None
    }


@pytest.mark.parametrize("with_text", [True, False])
def test_layout_moves_as_a_whole(with_text):
    real = np.array([[True, False]]) if with_text else None
    layout = Layout.of(real, np.ones((1, 2), dtype=bool), np.ones((1, 1, 2), dtype=bool))
    moved = layout.to("meta", non_blocking=True)
    assert tensors(moved).keys() == tensors(layout).keys()
    assert {tensor.device.type for tensor in tensors(moved).values()} == {"meta"}
    assert {tensor.device.type for tensor in tensors(layout).values()} == {"cpu"}
    assert moved.paired_segments.lengths == layout.paired_segments.lengths == [4]
    assert moved.paired_segments.limit == layout.paired_segments.limit


def test_layout_survives_pickling():
    layout = Layout.of(np.array([[True, False]]), np.ones((1, 2), dtype=bool), np.ones((1, 1, 2), dtype=bool))
    copy = pickle.loads(pickle.dumps(layout))
    assert all(torch.equal(tensors(copy)[name], tensor) for name, tensor in tensors(layout).items())
    assert copy.text_segments.lengths == [1]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="Memory is pinned for a GPU.")
def test_layout_is_pinned_as_a_whole():
    layout = Layout.of(None, np.ones((1, 2), dtype=bool), np.ones((1, 1, 2), dtype=bool)).pin_memory()
    assert all(tensor.is_pinned() for tensor in tensors(layout).values())
