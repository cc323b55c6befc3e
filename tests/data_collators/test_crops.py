import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from predrec.data_collators import DataCollatorForPreTraining
from predrec.data_collators.crops import NUM_DRAWS, draw_crops
from predrec.modeling.layout import Layout

from .test_collator import CLS, SEP, by_example, equal, example, row_of

batches = st.tuples(
    st.lists(st.integers(1, 200), min_size=1, max_size=8),
    st.tuples(st.integers(1, 30), st.integers(0, 30)),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)


def drawn(lengths, crop_length, seed=0, special=None):
    lengths = np.asarray(lengths)
    positions = np.arange(lengths.max())
    if special is None:
        special = (positions == 0) | (positions == lengths[:, None] - 1)
    uniforms = np.random.default_rng(seed).random((len(lengths), NUM_DRAWS))
    return draw_crops(lengths, special, uniforms, crop_length), special


@settings(max_examples=100, deadline=None)
@given(batches)
def test_crop_lies_in_the_text_between_its_special_tokens(batch):
    lengths, (shortest, more), marked, seed = batch
    none = None if marked else np.zeros((len(lengths), max(lengths)), dtype=bool)
    masks, special = drawn(lengths, (shortest, shortest + more), seed, none)
    for row, length in enumerate(lengths):
        start, size = masks.starts[row, 0], masks.lengths[row]
        ordinary = np.flatnonzero(~special[row, :length])
        assert min(shortest, len(ordinary)) <= size <= min(shortest + more, len(ordinary))
        crop = set(range(start, start + size))
        assert crop <= set(ordinary.tolist())
        assert set(np.flatnonzero(masks.context[row]).tolist()) == crop | set(np.flatnonzero(special[row, :length]))


def test_crops_have_every_length_and_begin_everywhere():
    masks, _ = drawn([30] * 4000, (3, 5))
    assert sorted(set(masks.lengths.tolist())) == [3, 4, 5]
    assert set(masks.starts[masks.lengths == 3, 0].tolist()) == set(range(1, 27))
    counts = np.bincount(masks.lengths)[3:]
    assert counts.min() > 1200  # A third of 4,000, give or take four standard deviations.


def test_special_token_inside_a_text_belongs_to_the_crop_that_holds_it():
    special = np.zeros((200, 12), dtype=bool)
    special[:, [0, 5, 11]] = True
    masks, _ = drawn([12] * 200, (4, 4), special=special)
    holds = (masks.starts[:, 0] <= 5) & (masks.starts[:, 0] + 4 > 5)
    assert holds.any() and not holds.all() and (masks.context[:, 5] == holds).all()


@pytest.fixture
def collator(tiny_tokenizer) -> DataCollatorForPreTraining:
    return DataCollatorForPreTraining(tiny_tokenizer, crop_length=(4, 9), num_mask_sets=3)


def test_collator_makes_each_crop_its_own_target(collator):
    batch = collator([example(60, number) for number in range(5)])
    assert batch["context_mask"].shape == batch["context_indices"].shape == (15, 16)
    assert batch["target_mask"].shape == batch["target_indices"].shape == (15, 1, 16)
    for context in range(15):
        text = torch.from_numpy(row_of(60, context % 5))
        visible = batch["context_indices"][context][batch["context_mask"][context]]
        targets = batch["target_indices"][context, 0][batch["target_mask"][context, 0]]
        tokens = text[visible].tolist()
        assert (tokens[0], tokens[-1]) == (CLS, SEP) and visible[1:-1].tolist() == targets.tolist()
        assert targets.diff().eq(1).all() and 4 <= len(targets) <= 9


def test_collator_does_not_take_special_tokens_for_targets(collator):
    ids = np.concatenate([row_of(20, 1), row_of(20, 2)[1:]])
    batch = collator([{"input_ids": ids, "example_ids": number, "epoch": 0} for number in range(40)])
    targets = batch["target_indices"][batch["target_mask"]]
    inside = (batch["context_indices"] == 19) & batch["context_mask"]
    assert inside.any() and 19 not in targets and 0 not in targets


def test_crops_of_an_example_depend_on_seed_epoch_and_example_alone(tiny_tokenizer):
    make = DataCollatorForPreTraining(tiny_tokenizer, crop_length=(4, 9))
    together = by_example(make([example(length, length) for length in (20, 64, 33)]))
    alone = {length: by_example(make([example(length, length)]))[length] for length in (20, 64, 33)}
    assert together == alone
    assert not equal(make([example(64, 1, epoch=0)]), make([example(64, 1, epoch=1)]))


def test_crops_leave_the_masks_of_tokens_as_they_are(collator, tiny_tokenizer):
    plain = DataCollatorForPreTraining(tiny_tokenizer)
    rows = [example(60, 1), example(40, 2)]
    for name in ("input_ids", "labels", "label_indices"):
        assert torch.equal(collator(rows)[name], plain(rows)[name])


def test_layout_of_crops_is_that_of_their_masks(collator):
    collator.unpad = True
    batch = collator([example(60, 1), example(3, 2)])
    real = batch["attention_mask"].bool().numpy()
    expected = Layout.of(real, batch["context_mask"].numpy(), batch["target_mask"].numpy())
    assert batch["layout"].context_segments.lengths == expected.context_segments.lengths
    assert torch.equal(batch["layout"].targets, expected.targets)


def test_row_without_ordinary_tokens_has_no_target(collator):
    batch = collator([{"input_ids": np.array([CLS, SEP]), "example_ids": 0, "epoch": 0}, example(30, 1)])
    assert batch["target_mask"].any(-1)[:, 0].tolist() == [False, True] * 3
    assert batch["context_mask"].sum(1)[::2].tolist() == [2, 2, 2]


@pytest.mark.parametrize("value", [(0, 4), (5, 4), (3,), (1.5, 4)])
def test_impossible_crop_lengths_are_refused(tiny_tokenizer, value):
    with pytest.raises(ValueError, match=r"`crop_length` is .*two numbers of tokens"):
        DataCollatorForPreTraining(tiny_tokenizer, crop_length=value)
