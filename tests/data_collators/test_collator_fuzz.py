"""Whatever rows the collator is given: masks keep to their rules, or the rows are refused."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from predrec.data_collators import DataCollatorForPreTraining
from tests.data_collators.test_collator import equal

FIXED = settings(deadline=None, derandomize=True, max_examples=150)
SPECIAL = 5
"""Ids 0 ([PAD]) to 4 ([MASK]) are special; every other one is ordinary."""

TOKENS = st.integers(0, 80) | st.sampled_from(range(SPECIAL))
ROWS = st.lists(
    st.lists(TOKENS, min_size=1, max_size=60) | st.lists(st.sampled_from(range(SPECIAL)), min_size=1, max_size=20),
    min_size=1,
    max_size=5,
)
OPTIONS = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 2**32),
        "mlm_probability": st.floats(0.01, 1),
        "masking_unit": st.sampled_from(["token", "word", "span"]),
        "num_target_blocks": st.integers(0, 3),
        "num_mask_sets": st.integers(1, 3),
        "label_view": st.sampled_from(["full", "context"]),
        "min_context_tokens": st.integers(1, 8),
        "pad_to_multiple_of": st.sampled_from([1, 8, 64]),
    }
)


def features(rows: list[list[int]], epoch: int = 3) -> list[dict]:
    return [{"input_ids": np.array(row), "example_ids": 7 * i, "epoch": epoch} for i, row in enumerate(rows)]


@FIXED
@given(rows=ROWS, options=OPTIONS)
def test_masked_tokens_keep_to_their_rules(tiny_tokenizer, rows, options):
    batch = DataCollatorForPreTraining(tiny_tokenizer, **options)(features(rows))
    longest = max(map(len, rows))
    assert batch["input_ids"].shape == batch["labels"].shape
    assert batch["labels"].shape[0] == len(rows) and batch["labels"].shape[1] >= longest
    for row, labels, corrupted in zip(rows, batch["labels"], batch["input_ids"], strict=True):
        chosen = labels != -100
        original = torch.zeros_like(labels)
        original[: len(row)] = torch.tensor(row)
        ordinary = original >= SPECIAL
        assert not (chosen & ~ordinary).any()
        assert chosen.any() == ordinary.any()
        assert torch.equal(labels[chosen], original[chosen])
        assert torch.equal(corrupted[~chosen], original[~chosen])
        assert not ((corrupted < SPECIAL) & (corrupted != 4) & chosen).any()


@FIXED
@given(rows=ROWS, options=OPTIONS.map(lambda options: options | {"num_target_blocks": 2}))
def test_blocks_keep_to_their_rules(tiny_tokenizer, rows, options):
    batch = DataCollatorForPreTraining(tiny_tokenizer, **options)(features(rows))
    contexts = zip(batch["context_indices"], batch["context_mask"], strict=True)
    targets = zip(batch["target_indices"], batch["target_mask"], strict=True)
    assert len(batch["context_indices"]) == len(batch["target_indices"]) == len(rows) * options["num_mask_sets"]
    for number, ((visible, is_visible), (aims, is_aim)) in enumerate(zip(contexts, targets, strict=True)):
        row = rows[number % len(rows)]
        seen, hidden = set(visible[is_visible].tolist()), set(aims[is_aim].tolist())
        assert not seen & hidden
        assert seen | hidden <= set(range(len(row)))
        assert all(row[position] >= SPECIAL for position in hidden)
        assert len(row) >= 16 or not hidden
        assert seen


@FIXED
@given(rows=ROWS, options=OPTIONS)
def test_masks_depend_on_nothing_but_the_example(tiny_tokenizer, rows, options):
    """Neither on another call, nor on the rows beside it and the padding that they bring."""
    collator = DataCollatorForPreTraining(tiny_tokenizer, **options)
    together = collator(features(rows))
    assert equal(together, collator(features(rows)))
    for number, (feature, row) in enumerate(zip(features(rows), rows, strict=True)):
        alone = collator([feature])
        for key in ("input_ids", "labels"):
            assert torch.equal(alone[key][0, : len(row)], together[key][number, : len(row)])


@FIXED
@given(rows=ROWS, options=OPTIONS)
def test_label_indices_name_every_label(tiny_tokenizer, rows, options):
    batch = DataCollatorForPreTraining(tiny_tokenizer, **options | {"label_view": "full"})(features(rows))
    flat = batch["labels"].flatten()
    named = set(batch["label_indices"].tolist())
    assert {position for position in named if flat[position] != -100} == set((flat != -100).nonzero()[:, 0].tolist())


ANYTHING = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.binary(max_size=3)
NUMBERS = st.integers(-(2**70), 2**70) | st.integers(0, 200)
VALUES = ANYTHING | NUMBERS | st.lists(ANYTHING | NUMBERS | st.lists(NUMBERS, max_size=2), max_size=4)
KEYS = st.sampled_from(["input_ids", "example_ids", "epoch", "document_lengths", "document", "other"])
GOOD = st.fixed_dictionaries(
    {
        "input_ids": st.lists(TOKENS, min_size=1, max_size=9),
        "example_ids": st.integers(0, 9),
        "epoch": st.integers(0, 9),
    }
)
BROKEN = GOOD.flatmap(lambda good: st.dictionaries(KEYS, VALUES, max_size=2).map(lambda bad: {**good, **bad}))


@settings(FIXED, max_examples=400)
@given(batch=st.lists(BROKEN | st.dictionaries(KEYS, VALUES, max_size=4) | VALUES, max_size=3))
def test_anything_is_a_batch_or_a_value_error(tiny_tokenizer, batch):
    collator = DataCollatorForPreTraining(tiny_tokenizer)
    try:
        made = collator(batch)
    except ValueError as error:
        assert str(error)
    else:
        assert made["input_ids"].shape[0] >= len(batch)
        assert (made["input_ids"] >= 0).all() and (made["input_ids"] < len(tiny_tokenizer)).all()
