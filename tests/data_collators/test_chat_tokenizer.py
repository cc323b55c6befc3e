"""The tokenizer for models from random weights: nothing is lost, contents cannot forge turns, runs agree."""

import pytest
from transformers import AutoTokenizer

from predrec.data_collators.chat_format import find_format
from predrec.data_collators.chat_tokenizer import train_chat_tokenizer
from predrec.data_collators.view_examples import RecordEncoder

from .. import causal


@pytest.fixture(scope="module")
def tokenizer():
    return train_chat_tokenizer(causal.TEXTS, 400, 128)


@pytest.mark.parametrize(
    "text", ["([A-Z])&([a-z]){2,}", "~((dog.*[0-9].*){3,})", "Ünïcode 🙂", " two  spaces ", "\\b.*\n"]
)
def test_text_comes_back_as_it_was(tokenizer, text):
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode(tokenizer("A")["input_ids"]) == "A"


def test_punctuation_stays_apart(tokenizer):
    pieces = [tokenizer.decode([token]) for token in tokenizer(".*dog.*")["input_ids"]]
    assert pieces[:2] == [".", "*"] and pieces[-2:] == [".", "*"]


def test_the_same_texts_give_the_same_tokenizer(tokenizer):
    again = train_chat_tokenizer(causal.TEXTS, 400, 128)
    assert again.get_vocab() == tokenizer.get_vocab()


def test_it_survives_saving(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    for record in causal.RECORDS:
        made, again = (RecordEncoder(each, find_format(each)).encode(record) for each in (tokenizer, loaded))
        assert made == again
    assert loaded.decode(made.input_ids[-1:]) == "<|end|>"


def test_a_sequence_is_as_the_template_says(tokenizer):
    record = causal.RECORDS[0]
    example = RecordEncoder(tokenizer, find_format(tokenizer)).encode(record)
    expected = (
        f"<|begin|><|system|>{record.system}<|end|><|user|>{record.text}<|end|><|assistant|>{record.code}<|end|>"
    )
    assert tokenizer.decode(example.input_ids) == expected
