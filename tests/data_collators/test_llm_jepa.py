"""Batches for LLM-JEPA: what carries a label."""

import pytest
import torch

from predrec.data_collators.chat_format import find_format
from predrec.data_collators.llm_jepa import DataCollatorForLLMJepa
from predrec.data_collators.view_examples import RecordEncoder, ViewDataset, ViewExample, encode_records

from .. import causal

PAD = 7
SHORT = ViewExample((5, PAD, 6, PAD), 2, (5,), (6,), 0, 0, 0)
LONG = ViewExample((5, 6, 8, 9, 10, 11), 3, (5,), (8,), 0, 0, 1)
"""The padding token also stands in the prompt, and ends the completion, of the first one."""


def labels_of(*examples, **options):
    items = [{"example": example, "example_id": number} for number, example in enumerate(examples)]
    return DataCollatorForLLMJepa(PAD, **options)(items)["labels"].tolist()


@pytest.mark.parametrize("views", [True, False])
def test_labels_leave_out_prompt_and_padding_only(views):
    assert labels_of(SHORT, LONG, views=views) == [[-100, -100, 6, PAD, -100, -100], [-100, -100, -100, 9, 10, 11]]


def test_on_request_tokens_equal_to_padding_have_no_label():
    labels = labels_of(SHORT, LONG, mask_eos_like_pad=True)
    assert labels == [[-100, -100, 6, -100, -100, -100], [-100, -100, -100, 9, 10, 11]]


def test_the_stop_token_is_learned_unless_it_counts_as_padding():
    tokenizer = causal.tokenizer("olmo", pad_is_eos=True)
    dataset = ViewDataset(encode_records(causal.RECORDS, RecordEncoder(tokenizer, find_format(tokenizer)))[0])
    ends = [len(example.input_ids) - 1 for example in dataset.examples]
    for masked in (False, True):
        batch = DataCollatorForLLMJepa(tokenizer.pad_token_id, mask_eos_like_pad=masked)(list(dataset))
        found = batch["labels"][torch.arange(len(ends)), ends]
        assert (found == (-100 if masked else tokenizer.eos_token_id)).all()


def test_rows_are_as_long_as_they_must_be():
    assert len(labels_of(LONG, pad_to_length=9)[0]) == 9
    assert len(labels_of(LONG, pad_to_length=4)[0]) == 6
