import itertools
import sys
from dataclasses import fields

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerFast

from predrec.data_collators import DataCollatorForPreTraining
from predrec.modeling.layout import Layout, Segments

CLS, SEP, MASK = 2, 3, 4
JEPA_KEYS = {"original_input_ids", "context_indices", "context_mask", "target_indices", "target_mask"}
MLM_KEYS = {"input_ids", "labels", "label_indices", "example_ids"}


def row_of(length: int, example_id: int) -> np.ndarray:
    """Returns `[CLS] ... [SEP]` with ordinary tokens that differ between examples."""
    ordinary = np.random.default_rng(example_id).integers(5, 150, max(0, length - 2))
    return np.concatenate([[CLS], ordinary, [SEP]])


def example(length: int, example_id: int = 0, epoch: int = 0) -> dict:
    return {"input_ids": row_of(length, example_id), "example_ids": example_id, "epoch": epoch}


class Rows(torch.utils.data.Dataset):
    """Rows of different lengths, in one epoch."""

    lengths = [20, 64, 33, 128, 17, 128, 90, 41, 128, 128, 15, 77]

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> dict:
        return example(self.lengths[index], index, epoch=1)


def by_example(batch: dict[str, torch.Tensor]) -> dict[int, tuple]:
    """Returns all that was drawn for each example, without padding."""
    drawn = {}
    labelled = set(batch["label_indices"].tolist())
    real = batch["attention_mask"].bool() if "attention_mask" in batch else torch.ones_like(batch["labels"]).bool()
    width = batch["labels"].shape[1]
    for row, example_id in enumerate(batch["example_ids"].tolist()):
        labels = batch["labels"][row][real[row]].tolist()
        drawn[example_id] = (
            batch["input_ids"][row][real[row]].tolist(),
            labels,
            [
                position
                for position, label in enumerate(labels)
                if label != -100 and row * width + position in labelled
            ],
            batch["context_indices"][row][batch["context_mask"][row]].tolist(),
            [
                indices[mask].tolist()
                for indices, mask in zip(batch["target_indices"][row], batch["target_mask"][row], strict=True)
            ],
        )
    return drawn


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.fixture
def collator(tiny_tokenizer) -> DataCollatorForPreTraining:
    return DataCollatorForPreTraining(tiny_tokenizer)


# The form of a batch


def test_collator_returns_the_documented_tensors(collator):
    batch = collator([example(128, number) for number in range(4)])
    assert {key: value.dtype for key, value in batch.items()} == {
        "input_ids": torch.int64,
        "labels": torch.int64,
        "label_indices": torch.int64,
        "example_ids": torch.int64,
        "original_input_ids": torch.int64,
        "context_indices": torch.int64,
        "context_mask": torch.bool,
        "target_indices": torch.int64,
        "target_mask": torch.bool,
    }


def test_collator_returns_the_documented_shapes(collator):
    batch = collator([example(128, number) for number in range(4)])
    context_width, target_width = batch["context_mask"].shape[1], batch["target_mask"].shape[2]
    assert {key: tuple(value.shape) for key, value in batch.items()} == {
        "input_ids": (4, 128),
        "labels": (4, 128),
        "label_indices": (128,),
        "example_ids": (4,),
        "original_input_ids": (4, 128),
        "context_indices": (4, context_width),
        "context_mask": (4, context_width),
        "target_indices": (4, 2, target_width),
        "target_mask": (4, 2, target_width),
    }
    assert (context_width % 16, target_width % 8) == (0, 0)


def test_collator_shows_the_shapes_of_its_docstring(collator):
    batch = collator([example(128, 7)])
    assert {key: tuple(value.shape) for key, value in batch.items()} == {
        "input_ids": (1, 128),
        "labels": (1, 128),
        "label_indices": (64,),
        "example_ids": (1,),
        "original_input_ids": (1, 128),
        "context_indices": (1, 64),
        "context_mask": (1, 64),
        "target_indices": (1, 2, 32),
        "target_mask": (1, 2, 32),
    }


def test_collator_adds_an_attention_mask_to_padded_batches(collator):
    batch = collator([example(20, 0), example(24, 1)])
    expected = torch.zeros(2, 64, dtype=torch.int64)
    expected[0, :20], expected[1, :24] = 1, 1
    assert torch.equal(batch["attention_mask"], expected)


def test_collator_leaves_the_attention_mask_out_when_nothing_is_padded(collator):
    assert "attention_mask" not in collator([example(50, 0), example(50, 1)])


@pytest.mark.parametrize(("lengths", "expected"), [([50, 50], 50), ([50, 64], 64), ([50, 65], 128), ([3, 4], 64)])
def test_collator_pads_to_a_multiple(collator, lengths, expected):
    batch = collator([example(length, number) for number, length in enumerate(lengths)])
    assert batch["input_ids"].shape == (2, expected)


@pytest.mark.parametrize(("longest", "expected"), [(65, 100), (100, 100), (110, 110)])
def test_collator_pads_no_further_than_the_longest_row_allowed(tiny_tokenizer, longest, expected):
    collator = DataCollatorForPreTraining(tiny_tokenizer, max_seq_length=100)
    assert collator([example(50, 0), example(longest, 1)])["input_ids"].shape == (2, expected)


def test_collator_pads_with_the_padding_token(collator):
    batch = collator([example(20, 0), example(24, 1)])
    assert (batch["input_ids"][batch["attention_mask"] == 0] == 0).all()
    assert (batch["original_input_ids"][batch["attention_mask"] == 0] == 0).all()


def test_collator_keeps_the_original_tokens(collator):
    batch = collator([example(20, 0), example(24, 1)])
    assert batch["original_input_ids"][0, :20].tolist() == row_of(20, 0).tolist()


def test_collator_without_target_blocks_leaves_the_jepa_keys_out(tiny_tokenizer):
    collator = DataCollatorForPreTraining(tiny_tokenizer, num_target_blocks=0)
    assert collator([example(64)]).keys() == MLM_KEYS


def test_collator_with_target_blocks_adds_the_jepa_keys(collator):
    assert collator([example(64)]).keys() == MLM_KEYS | JEPA_KEYS


def test_collator_gives_the_batch_worked_out_by_hand(tiny_tokenizer, monkeypatch):
    # Draws per row: 4 x length numbers for tokens (choice, span, action, replacement), then 8 x 5 for blocks.
    # Row 0: token 3 is masked, token 9 becomes id 5 + floor(0.5 * 149) = 79, token 12 is kept.
    # Context 0.75 * 20 = 15 from 0.5 * 6 = 3; blocks of 0.2 * 20 = 4 at 0 and at floor(0.5 * 17) = 8.
    # Row 1 has 10 tokens: no targets, all in the context; no draw is below 0.15, so the lowest, of token 5, is taken.
    tokens = np.full((4, 20), 0.99)
    tokens[0, [3, 9, 12]], tokens[2, [3, 9, 12]], tokens[3, 9] = 0.1, [0.5, 0.85, 0.95], 0.5
    short = np.full((4, 10), 0.9)
    short[0, 5], short[2, 5] = 0.6, 0.0
    blocks = np.tile([0.5, 0.5, 0.5, 0.0, 0.5], 8)

    class Draws:
        def __init__(self, example_id: int):
            self.numbers = iter([tokens if example_id == 0 else short, blocks])

        def random(self, shape, dtype=np.float64):
            numbers = next(self.numbers)
            assert numbers.shape == (shape if isinstance(shape, tuple) else (shape,))
            return numbers.astype(dtype)

    monkeypatch.setattr(
        "predrec.data_collators.collator.example_generator", lambda seed, epoch, example_id, part: Draws(example_id)
    )
    collator = DataCollatorForPreTraining(
        tiny_tokenizer, context_scale=(0.5, 1.0), target_scale=(0.1, 0.3), pad_to_multiple_of=4
    )
    first = [CLS, *range(20, 38), SEP]
    second = [CLS, *range(40, 48), SEP]
    batch = collator(
        [
            {"input_ids": first, "example_ids": 0, "epoch": 0},
            {"input_ids": second, "example_ids": 1, "epoch": 0},
        ]
    )
    none = -100
    filler = [0] * (40 - 4)
    expected = {
        "input_ids": [
            [2, 20, 21, 4, 23, 24, 25, 26, 27, 79, 29, 30, 31, 32, 33, 34, 35, 36, 37, 3],
            [2, 40, 41, 42, 43, 4, 45, 46, 47, 3] + [0] * 10,
        ],
        "labels": [
            [none] * 3 + [22] + [none] * 5 + [28] + [none] * 2 + [31] + [none] * 7,
            [none] * 5 + [44] + [none] * 14,
        ],
        "label_indices": [3, 9, 12, 25, *filler],
        "example_ids": [0, 1],
        "attention_mask": [[1] * 20, [1] * 10 + [0] * 10],
        "original_input_ids": [first, second + [0] * 10],
        "context_indices": [
            [0, 4, 5, 6, 7, 12, 13, 14, 15, 16, 17, 19, 1, 2, 3, 8],
            [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
        ],
        "context_mask": [[True] * 12 + [False] * 4, [True] * 10 + [False] * 6],
        "target_indices": [
            [[0, 1, 2, 3, 4, 5, 6, 7], [8, 9, 10, 11, 12, 13, 14, 15]],
            [[0, 1, 2, 3, 4, 5, 6, 7]] * 2,
        ],
        "target_mask": [
            [[False, True, True, True] + [False] * 4, [True] * 4 + [False] * 4],
            [[False] * 8] * 2,
        ],
    }
    assert {key: value.tolist() for key, value in batch.items()} == expected


# What is masked


@settings(max_examples=30, deadline=None)
@given(lengths=st.lists(st.integers(3, 200), min_size=1, max_size=6), seed=st.integers(0, 2**31))
def test_collator_labels_exactly_the_original_tokens(tiny_tokenizer, lengths, seed):
    collator = DataCollatorForPreTraining(tiny_tokenizer, seed=seed)
    batch = collator([example(length, number) for number, length in enumerate(lengths)])
    labelled = batch["labels"] != -100
    assert torch.equal(batch["labels"][labelled], batch["original_input_ids"][labelled])
    assert torch.equal(batch["input_ids"][~labelled], batch["original_input_ids"][~labelled])


@settings(max_examples=30, deadline=None)
@given(lengths=st.lists(st.integers(3, 200), min_size=1, max_size=6), seed=st.integers(0, 2**31))
def test_collator_labels_ordinary_tokens_of_every_row(tiny_tokenizer, lengths, seed):
    collator = DataCollatorForPreTraining(tiny_tokenizer, seed=seed)
    labels = collator([example(length, number) for number, length in enumerate(lengths)])["labels"]
    assert (labels[labels != -100] > MASK).all()
    assert (labels != -100).any(1).all()


@settings(max_examples=30, deadline=None)
@given(
    lengths=st.lists(st.integers(3, 200), min_size=1, max_size=6),
    seed=st.integers(0, 2**31),
    view=st.sampled_from(["full", "context"]),
)
def test_collator_points_at_every_label_once(tiny_tokenizer, lengths, seed, view):
    collator = DataCollatorForPreTraining(tiny_tokenizer, seed=seed, label_view=view)
    batch = collator([example(length, number) for number, length in enumerate(lengths)])
    flat = batch["labels"].flatten()
    if view == "context":
        flat = batch["labels"].gather(1, batch["context_indices"]).where(batch["context_mask"], -100).flatten()
    indices = batch["label_indices"]
    labelled = flat[indices] != -100
    assert indices[labelled].tolist() == torch.nonzero(flat != -100).flatten().tolist()


def test_collator_label_view_changes_the_label_indices_only(tiny_tokenizer):
    examples = [example(64, number) for number in range(3)]
    full = DataCollatorForPreTraining(tiny_tokenizer)(examples)
    context = DataCollatorForPreTraining(tiny_tokenizer, label_view="context")(examples)
    assert [key for key in full if not torch.equal(full[key], context[key])] == ["label_indices"]


def test_collator_points_at_labels_when_every_token_has_one(tiny_tokenizer):
    collator = DataCollatorForPreTraining(tiny_tokenizer, mlm_probability=1.0)
    batch = collator([{"input_ids": list(range(10, 30)), "example_ids": 0, "epoch": 0}])
    assert batch["label_indices"].tolist() == list(range(20))


@settings(max_examples=30, deadline=None)
@given(lengths=st.lists(st.integers(3, 200), min_size=1, max_size=6), seed=st.integers(0, 2**31))
def test_collator_keeps_context_and_targets_disjoint(tiny_tokenizer, lengths, seed):
    collator = DataCollatorForPreTraining(tiny_tokenizer, seed=seed)
    batch = collator([example(length, number) for number, length in enumerate(lengths)])
    for row in range(len(lengths)):
        context = set(batch["context_indices"][row][batch["context_mask"][row]].tolist())
        targets = set(batch["target_indices"][row][batch["target_mask"][row]].tolist())
        assert context.isdisjoint(targets)
        assert context | targets <= set(range(lengths[row]))


@settings(max_examples=30, deadline=None)
@given(lengths=st.lists(st.integers(3, 200), min_size=1, max_size=6), seed=st.integers(0, 2**31))
def test_collator_never_targets_a_special_token(tiny_tokenizer, lengths, seed):
    collator = DataCollatorForPreTraining(tiny_tokenizer, seed=seed)
    batch = collator([example(length, number) for number, length in enumerate(lengths)])
    rows = torch.arange(len(lengths))[:, None, None]
    assert (batch["original_input_ids"][rows, batch["target_indices"]][batch["target_mask"]] > MASK).all()


def test_collator_leaves_a_separator_inside_a_block_out_of_the_targets(tiny_tokenizer):
    # Every other token is a separator, so every block of two tokens or more holds some.
    row = [CLS, *[20, SEP] * 31, SEP]
    batch = DataCollatorForPreTraining(tiny_tokenizer)([{"input_ids": row, "example_ids": 0, "epoch": 0}])
    targets = batch["target_indices"][batch["target_mask"]]
    context = batch["context_indices"][batch["context_mask"]].tolist()
    assert set(batch["original_input_ids"][0, targets].tolist()) == {20}
    assert {position for position, token in enumerate(row) if token in (CLS, SEP)} <= set(context)


@settings(max_examples=30, deadline=None)
@given(lengths=st.lists(st.integers(3, 200), min_size=1, max_size=6), seed=st.integers(0, 2**31))
def test_collator_gives_indices_that_can_be_gathered(tiny_tokenizer, lengths, seed):
    collator = DataCollatorForPreTraining(tiny_tokenizer, seed=seed)
    batch = collator([example(length, number) for number, length in enumerate(lengths)])
    for key in ("context_indices", "target_indices"):
        assert batch[key].min() >= 0
        assert batch[key].max() < batch["input_ids"].shape[1]


def test_collator_gives_short_rows_no_targets(collator):
    batch = collator([example(15, 0), example(60, 1)])
    assert batch["target_mask"].any((1, 2)).tolist() == [False, True]


def test_collator_masks_whole_words(tiny_tokenizer):
    row = tiny_tokenizer("the cats ran unknown walking dogs sat and then walked on a mat " * 6)["input_ids"]
    collator = DataCollatorForPreTraining(tiny_tokenizer, masking_unit="word", mlm_probability=0.3)
    labels = collator([{"input_ids": row, "example_ids": 0, "epoch": 0}])["labels"][0].tolist()
    words = []
    for token, label in zip(tiny_tokenizer.convert_ids_to_tokens(row), labels, strict=True):
        if token.startswith("##"):
            words[-1].add(label != -100)
        else:
            words.append({label != -100})
    assert {frozenset(word) for word in words} == {frozenset([True]), frozenset([False])}


def test_collator_masks_spans(tiny_tokenizer):
    collator = DataCollatorForPreTraining(tiny_tokenizer, masking_unit="span")
    labels = collator([example(400, number) for number in range(50)])["labels"].numpy() != -100
    runs = (labels[:, 1:] & ~labels[:, :-1]).sum()
    # Single tokens at 15 % form runs of 1.2 on average; spans of words, of more than 3.
    assert labels.sum() / runs > 3


# Where the masks come from


def test_collator_repeats_itself(collator):
    examples = [example(64, 0), example(40, 1)]
    assert equal(collator(examples), collator(examples))


def test_collator_draws_the_same_for_an_example_in_any_batch(collator):
    examples = [example(length, number) for number, length in enumerate(Rows.lengths)]
    together = by_example(collator(examples))
    alone = {}
    for entry in examples:
        alone |= by_example(collator([entry]))
    assert alone == together


def test_collator_draws_the_same_in_any_order(collator):
    examples = [example(length, number) for number, length in enumerate(Rows.lengths)]
    assert by_example(collator(examples[::-1])) == by_example(collator(examples))


def test_collator_draws_the_same_for_any_padding(tiny_tokenizer, collator):
    examples = [example(length, number) for number, length in enumerate(Rows.lengths)]
    wide = DataCollatorForPreTraining(tiny_tokenizer, pad_to_multiple_of=500)
    assert by_example(wide(examples)) == by_example(collator(examples))


@pytest.mark.parametrize("unit", ["word", "span"])
def test_collator_draws_the_same_for_any_batch_with_words(tiny_tokenizer, unit):
    collator = DataCollatorForPreTraining(tiny_tokenizer, masking_unit=unit)
    examples = [example(length, number) for number, length in enumerate(Rows.lengths)]
    alone = {}
    for entry in examples:
        alone |= by_example(collator([entry]))
    assert alone == by_example(collator(examples))


@pytest.mark.slow
@pytest.mark.parametrize("persistent", [False, True])
def test_collator_draws_the_same_in_worker_processes(collator, persistent):
    def batches(**options) -> list[dict[str, torch.Tensor]]:
        loader = DataLoader(Rows(), batch_size=3, shuffle=False, collate_fn=collator, **options)
        return [batch for _ in range(2) for batch in loader]

    here = batches(num_workers=0)
    there = batches(num_workers=2, persistent_workers=persistent)
    assert len(here) == len(there)
    assert all(equal(one, other) for one, other in zip(here, there, strict=True))


@pytest.mark.parametrize("key", ["labels", "context_indices", "target_indices"])
@pytest.mark.parametrize("change", [{"example_ids": 1}, {"epoch": 1}])
def test_collator_draws_anew_for_another_example_or_epoch(collator, key, change):
    entry = example(128)
    assert not torch.equal(collator([entry])[key], collator([entry | change])[key])


@pytest.mark.parametrize("key", ["labels", "context_indices", "target_indices"])
def test_collator_draws_anew_for_another_seed(tiny_tokenizer, collator, key):
    other = DataCollatorForPreTraining(tiny_tokenizer, seed=43)
    assert not torch.equal(collator([example(128)])[key], other([example(128)])[key])


def test_collator_draws_anew_for_every_document_of_a_row(collator):
    row = {"input_ids": np.tile(row_of(64, 0), 2), "document_lengths": [64, 64], "example_ids": 0, "epoch": 0}
    batch = collator([row])
    assert torch.equal(*batch["original_input_ids"])
    assert not torch.equal(*batch["labels"])
    assert masks_of(batch, 0) != masks_of(batch, 1)


def test_collator_ignores_the_global_generators(collator):
    np.random.seed(1)
    torch.manual_seed(1)
    first = collator([example(128)])
    np.random.seed(2)
    torch.manual_seed(2)
    assert equal(first, collator([example(128)]))


@pytest.mark.parametrize("unit", ["token", "word", "span"])
def test_collator_masks_the_same_tokens_with_and_without_target_blocks(tiny_tokenizer, unit):
    examples = [example(length, number) for number, length in enumerate(Rows.lengths)]
    hybrid = DataCollatorForPreTraining(tiny_tokenizer, masking_unit=unit)(examples)
    mlm = DataCollatorForPreTraining(tiny_tokenizer, masking_unit=unit, num_target_blocks=0)(examples)
    assert all(torch.equal(mlm[key], hybrid[key]) for key in mlm)


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"mlm_probability": 0.5},
        {"mask_replace_prob": 0.1},
        {"random_replace_prob": 0.2},
        {"masking_unit": "word"},
        {"masking_unit": "span"},
        {"context_scale": (0.4, 0.5)},
        {"target_scale": (0.05, 0.06)},
        {"num_target_blocks": 3},
        {"min_context_tokens": 120},
        {"label_view": "context"},
        {"pad_to_multiple_of": 300},
        {"max_seq_length": 220},
    ],
    ids=str,
)
def test_collator_uses_every_argument(tiny_tokenizer, collator, change):
    examples = [example(length, number) for number, length in enumerate([200, 190, 180, 170])]
    assert not equal(collator(examples), DataCollatorForPreTraining(tiny_tokenizer, **change)(examples))


# Shapes, speed, errors


@pytest.mark.parametrize(("length", "batch_size"), [(128, 32), (512, 16)])
def test_collator_makes_few_different_shapes(collator, length, batch_size):
    shapes = {"context_indices": set(), "target_indices": set(), "label_indices": set()}
    numbers = itertools.count()
    for _ in range(200):
        batch = collator([example(length, next(numbers)) for _ in range(batch_size)])
        for key, seen in shapes.items():
            seen.add(tuple(batch[key].shape))
    assert max(len(seen) for seen in shapes.values()) <= 3


def test_collator_runs_no_python_per_token(collator):
    """It counts instructions, not seconds, so that other processes do not matter."""

    def instructions(length: int) -> int:
        examples, count = [example(length, number) for number in range(64)], 0

        def trace(frame, event, argument):
            nonlocal count
            frame.f_trace_opcodes, frame.f_trace_lines = True, False
            count += event == "opcode"
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            collator(examples)
        finally:
            sys.settrace(before)
        return count

    # Redraws of block masks, and with them a few instructions, depend on the row.
    assert instructions(512) < 1.2 * instructions(128)


def test_collator_gives_no_label_to_a_row_of_special_tokens(collator):
    empty = {"input_ids": [CLS, SEP], "example_ids": 7, "epoch": 0}
    labels = collator([example(64, 3), empty])["labels"]
    assert (labels != -100).any(1).tolist() == [True, False]


@pytest.mark.parametrize(("missing", "given"), [("mask", {}), ("pad", {"mask_token": "[UNK]"})])
def test_collator_refuses_a_tokenizer_without_a_token_that_it_needs(missing, given):
    vocabulary = {"[PAD]": 0, "[UNK]": 1, "a": 2}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]")), unk_token="[UNK]", **given
    )
    with pytest.raises(ValueError, match=f"`tokenizer` has no {missing} token"):
        DataCollatorForPreTraining(tokenizer)


def test_collator_refuses_what_is_no_tokenizer():
    with pytest.raises(ValueError, match="`tokenizer` is str; load it with AutoTokenizer"):
        DataCollatorForPreTraining("google-bert/bert-base-uncased")


class ArticlesOnly(DataCollatorForPreTraining):
    """Masks one token of the vocabulary, with a state of its own."""

    def __init__(self, tokenizer, article, **options):
        super().__init__(tokenizer, **options)
        self.article = article

    def choose_masked_tokens(self, ids, maskable, uniforms):
        places = np.broadcast_to(np.arange(ids.shape[1]), ids.shape)
        return np.ones_like(maskable) if self.article is None else ids == self.article, places


def test_a_rule_of_ones_own_chooses_tokens_but_never_special_ones(tiny_tokenizer):
    feature = {"input_ids": [2, 7, 9, 7, 3], "example_ids": 0, "epoch": 0}
    collator = ArticlesOnly(tiny_tokenizer, 7, num_target_blocks=0)
    assert collator([feature])["labels"].tolist() == [[-100, 7, -100, 7, -100]]
    other = collator.changed(fixed_epoch=3)
    assert (other.article, other.fixed_epoch, collator.fixed_epoch) == (7, 3, None)
    collator.article = None
    labels = collator([feature])["labels"][0]
    special = [id_ in tiny_tokenizer.all_special_ids for id_ in feature["input_ids"]]
    assert labels.eq(-100).tolist() == special


def test_changes_are_checked(tiny_tokenizer):
    with pytest.raises(ValueError, match="`label_view` is 'whole'"):
        DataCollatorForPreTraining(tiny_tokenizer).changed(label_view="whole")


@pytest.mark.parametrize("given", [{"context_scale": 0.7}, {"crop_length": 8}, {"target_scale": None, "seed": "x"}])
def test_values_of_another_type_are_refused_by_name(tiny_tokenizer, given):
    name = list(given)[-1]
    with pytest.raises(ValueError, match=f"`{name}` is {given[name]!r}; it must be"):
        DataCollatorForPreTraining(tiny_tokenizer, **given)


def test_collator_refuses_words_without_word_boundaries():
    vocabulary = {"[PAD]": 0, "[UNK]": 1, "[MASK]": 2, "a": 3, "b": 4}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]")),
        unk_token="[UNK]",
        pad_token="[PAD]",
        mask_token="[MASK]",
    )
    with pytest.raises(ValueError, match="`masking_unit` is word or span"):
        DataCollatorForPreTraining(tokenizer, masking_unit="word")


# Layouts


MIXED = [example(length, number) for number, length in enumerate([64, 40, 15, 90])]  # The third has no targets.


def parts(layout: Layout) -> dict[str, list]:
    """What a layout says, as lists that can be compared."""
    values = {field.name: getattr(layout, field.name) for field in fields(layout)}
    return {
        name: (value.lengths, value.boundaries.tolist(), value.limit)
        if isinstance(value, Segments)
        else value.tolist()
        for name, value in values.items()
        if value is not None
    }


def without_layout(batch: dict) -> dict[str, torch.Tensor]:
    return {key: value for key, value in batch.items() if key != "layout"}


def test_collator_adds_no_layout_unless_told(collator):
    assert "layout" not in collator(MIXED)


@pytest.mark.parametrize("num_mask_sets", [1, 3])
def test_collator_layout_agrees_with_the_masks(tiny_tokenizer, num_mask_sets):
    batch = DataCollatorForPreTraining(tiny_tokenizer, unpad=True, num_mask_sets=num_mask_sets)(MIXED)
    masks = (batch[key].bool().numpy() for key in ("attention_mask", "context_mask", "target_mask"))
    layout = batch["layout"]
    assert parts(layout) == parts(Layout.of(*masks))
    assert layout.text_segments.lengths == [64, 40, 15, 90]
    positions = batch["context_indices"].flatten()[layout.context]
    assert positions.tolist() == batch["context_indices"][batch["context_mask"]].tolist()
    assert len(layout.predicted) == batch["target_mask"].sum()


def test_collator_layout_of_rows_of_one_length_has_no_text(tiny_tokenizer):
    batch = DataCollatorForPreTraining(tiny_tokenizer, unpad=True)([example(64, 0), example(64, 1)])
    assert batch["layout"].text is None
    assert parts(batch["layout"]) == parts(
        Layout.of(None, batch["context_mask"].numpy(), batch["target_mask"].numpy())
    )


def test_collator_layout_without_target_blocks_has_the_text_only(tiny_tokenizer):
    collator = DataCollatorForPreTraining(tiny_tokenizer, unpad=True, num_target_blocks=0)
    assert parts(collator(MIXED)["layout"]).keys() == {"text", "text_segments", "text_places"}
    assert "layout" not in collator([example(64, 0), example(64, 1)])


@pytest.mark.parametrize("view", ["full", "context"])
def test_collator_layout_changes_nothing_but_the_positions_of_labels_in_contexts(tiny_tokenizer, view):
    padded = DataCollatorForPreTraining(tiny_tokenizer, label_view=view)(MIXED)
    unpadded = DataCollatorForPreTraining(tiny_tokenizer, label_view=view, unpad=True)(MIXED)
    assert [*unpadded] == [*padded, "layout"]
    changed = [key for key in padded if not torch.equal(padded[key], unpadded[key])]
    assert changed == (["label_indices"] if view == "context" else [])


@settings(max_examples=30, deadline=None)
@given(
    lengths=st.lists(st.integers(3, 200), min_size=1, max_size=6),
    seed=st.integers(0, 2**31),
    num_mask_sets=st.integers(1, 3),
)
def test_collator_points_at_every_label_of_the_contexts_laid_end_to_end(tiny_tokenizer, lengths, seed, num_mask_sets):
    collator = DataCollatorForPreTraining(
        tiny_tokenizer, seed=seed, label_view="context", unpad=True, num_mask_sets=num_mask_sets
    )
    batch = collator([example(length, number) for number, length in enumerate(lengths)])
    laid_out = []
    for context, (indices, mask) in enumerate(zip(batch["context_indices"], batch["context_mask"], strict=True)):
        laid_out += batch["labels"][context % len(lengths), indices[mask]].tolist()
    assert len(laid_out) == len(batch["layout"].context)
    expected = [place for place, label in enumerate(laid_out) if label != -100]
    pointed = batch["label_indices"].tolist()
    assert [place for place in pointed if laid_out[place] != -100] == expected


# Several sets of masks


@settings(max_examples=30, deadline=None)
@given(
    lengths=st.lists(st.integers(3, 200), min_size=1, max_size=5),
    seed=st.integers(0, 2**31),
    num_mask_sets=st.integers(2, 4),
)
def test_collator_makes_every_mask_set_for_the_row_it_is_of(tiny_tokenizer, lengths, seed, num_mask_sets):
    """Context `i` belongs to row `i % batch_size`: inside it, disjoint from its targets, no special token hidden."""
    collator = DataCollatorForPreTraining(tiny_tokenizer, seed=seed, num_mask_sets=num_mask_sets)
    batch = collator([example(length, number) for number, length in enumerate(lengths)])
    assert len(batch["context_mask"]) == len(batch["target_mask"]) == num_mask_sets * len(lengths)
    assert len(batch["input_ids"]) == len(batch["labels"]) == len(lengths)
    for number in range(num_mask_sets * len(lengths)):
        row = number % len(lengths)
        context = batch["context_indices"][number][batch["context_mask"][number]].tolist()
        targets = batch["target_indices"][number][batch["target_mask"][number]].tolist()
        assert len(context) == len(set(context)) and set(context).isdisjoint(targets)
        assert {0, lengths[row] - 1} <= set(context) and max([*context, *targets]) < lengths[row]
        assert (batch["original_input_ids"][row, targets] > MASK).all()
        assert bool(targets) == (lengths[row] >= 16)


def masks_of(batch: dict[str, torch.Tensor], number: int) -> tuple:
    """One set of masks, without padding."""
    blocks = zip(batch["target_indices"][number], batch["target_mask"][number], strict=True)
    return (
        batch["context_indices"][number][batch["context_mask"][number]].tolist(),
        [indices[mask].tolist() for indices, mask in blocks],
    )


def test_collator_draws_the_first_mask_set_as_if_it_were_alone(tiny_tokenizer, collator):
    several, one = DataCollatorForPreTraining(tiny_tokenizer, num_mask_sets=3)(MIXED), collator(MIXED)
    assert [masks_of(several, row) for row in range(4)] == [masks_of(one, row) for row in range(4)]
    for key in ("input_ids", "labels", "label_indices", "original_input_ids", "attention_mask"):
        assert torch.equal(several[key], one[key])


def test_collator_draws_every_mask_set_anew(tiny_tokenizer):
    batch = DataCollatorForPreTraining(tiny_tokenizer, num_mask_sets=3)([example(128, 0), example(128, 1)])
    drawn = [masks_of(batch, number) for number in range(6)]
    assert all(one != other for one, other in itertools.combinations(drawn, 2))


def test_collator_draws_the_same_mask_sets_for_an_example_in_any_batch(tiny_tokenizer):
    collator = DataCollatorForPreTraining(tiny_tokenizer, num_mask_sets=2)
    together = collator(MIXED)
    for row, entry in enumerate(MIXED):
        alone = collator([entry])
        assert [masks_of(alone, 0), masks_of(alone, 1)] == [masks_of(together, row), masks_of(together, row + 4)]


@pytest.mark.parametrize("view", ["full", "context"])
def test_collator_makes_the_same_layouts_in_worker_processes(tiny_tokenizer, view):
    collator = DataCollatorForPreTraining(tiny_tokenizer, unpad=True, num_mask_sets=2, label_view=view)
    here, there = (list(DataLoader(Rows(), batch_size=3, collate_fn=collator, num_workers=n)) for n in (0, 2))
    assert len(here) == len(there) == 4
    for one, other in zip(here, there, strict=True):
        assert parts(one["layout"]) == parts(other["layout"])
        assert equal(without_layout(one), without_layout(other))


def test_changed_collator_is_as_one_made_so(tiny_tokenizer):
    examples = [{"input_ids": [2, *range(5, 45), 3], "example_ids": 3, "epoch": 1}]
    made = DataCollatorForPreTraining(tiny_tokenizer, masking_unit="word", mlm_probability=0.5)(examples)
    changed = DataCollatorForPreTraining(tiny_tokenizer).changed(masking_unit="word", mlm_probability=0.5)(examples)
    assert all(torch.equal(made[name], changed[name]) for name in made) and made.keys() == changed.keys()
    with pytest.raises(ValueError, match="`tokenizer` is str"):
        DataCollatorForPreTraining(tiny_tokenizer).changed(tokenizer="bert-base-uncased")
