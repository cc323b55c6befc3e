import hashlib
import os
import subprocess
import sys

import pytest
from datasets import Dataset
from tokenizers import Tokenizer, models
from transformers import BertTokenizer, PreTrainedTokenizerFast

from predrec.data_collators import load_tokenizer, sample_documents, tokenizers, train_tokenizer
from predrec.data_collators.tokenizers import MAX_ALPHABET, check_tokenizer, separator_id, start_id
from predrec.errors import UserError

TEXTS = [
    "The cat sat on the mat and then the dog ran after the cat.",
    "Walking dogs walked where walkers walk; talking cats talked where talkers talk.",
    "Ähnliche Wörter ähneln ähnlichen Wörtern.",
] * 20


def tokenizer_with(**special_tokens: str) -> PreTrainedTokenizerFast:
    vocabulary = {token: number for number, token in enumerate(["a", "b", *special_tokens.values()])}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(vocabulary, unk_token="a")), **special_tokens
    )


@pytest.fixture(scope="module")
def trained() -> BertTokenizer:
    return train_tokenizer(TEXTS, vocab_size=85, max_seq_length=64)


def test_load_tokenizer_reads_a_directory(tiny_tokenizer, tmp_path):
    tiny_tokenizer.save_pretrained(tmp_path)
    assert load_tokenizer(tmp_path).get_vocab() == tiny_tokenizer.get_vocab()


def test_load_tokenizer_explains_what_it_cannot_load(tmp_path):
    with pytest.raises(UserError, match="`tokenizer_name`: cannot load a tokenizer from 'nobody/nothing'"):
        load_tokenizer("nobody/nothing")


def test_load_tokenizer_explains_an_empty_directory(tmp_path):
    with pytest.raises(UserError, match="`tokenizer_name`: cannot load a tokenizer from"):
        load_tokenizer(tmp_path)


def test_load_tokenizer_refuses_a_tokenizer_without_a_mask_token(tmp_path):
    tokenizer_with(pad_token="<pad>", eos_token="</s>").save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"`tokenizer_name`: .* has no mask token; .* such as google-bert"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize(
    ("special_tokens", "missing"),
    [
        ({"mask_token": "<m>", "eos_token": "</s>"}, "padding token"),
        ({"mask_token": "<m>", "pad_token": "<p>"}, r"separator \(sep or eos\) token"),
        ({"eos_token": "</s>"}, "mask and no padding token"),
    ],
)
def test_check_tokenizer_names_what_is_missing(special_tokens, missing):
    with pytest.raises(UserError, match=f"`tokenizer_name`: 'mine' has no {missing}"):
        check_tokenizer(tokenizer_with(**special_tokens), "mine")


def test_separator_id_prefers_the_separator():
    tokenizer = tokenizer_with(sep_token="<sep>", eos_token="</s>")
    assert separator_id(tokenizer) == tokenizer.sep_token_id


def test_separator_id_falls_back_to_the_end_token():
    tokenizer = tokenizer_with(eos_token="</s>")
    assert separator_id(tokenizer) == tokenizer.eos_token_id


def test_start_id_prefers_the_class_token():
    tokenizer = tokenizer_with(cls_token="<cls>", bos_token="<s>")
    assert start_id(tokenizer) == tokenizer.cls_token_id


def test_start_id_falls_back_to_the_begin_token():
    tokenizer = tokenizer_with(bos_token="<s>")
    assert start_id(tokenizer) == tokenizer.bos_token_id


def test_start_id_may_be_absent():
    assert start_id(tokenizer_with(eos_token="</s>")) is None


def test_train_tokenizer_numbers_the_special_tokens_as_bert_does(trained):
    tokens = trained.convert_ids_to_tokens(range(5))
    assert tokens == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def test_train_tokenizer_takes_no_piece_for_a_special_token(trained):
    assert sorted(trained.all_special_ids) == [0, 1, 2, 3, 4]


def test_train_tokenizer_makes_a_tokenizer_that_masked_lm_training_accepts(trained):
    assert check_tokenizer(trained, "trained") is trained


def test_train_tokenizer_keeps_to_the_vocabulary_size(trained):
    assert len(trained) == 85


def test_train_tokenizer_may_find_fewer_tokens():
    assert len(train_tokenizer(["a b c"], vocab_size=1000, max_seq_length=64)) < 20


def test_train_tokenizer_always_has_room_for_the_alphabet():
    tokenizer = train_tokenizer(TEXTS, vocab_size=10, max_seq_length=64)
    assert tokenizer.unk_token_id not in tokenizer(" ".join(TEXTS))["input_ids"]


def test_train_tokenizer_knows_its_corpus(trained):
    assert trained.unk_token not in trained.tokenize(" ".join(TEXTS))


def test_train_tokenizer_learns_words_of_the_corpus(trained):
    assert trained.tokenize("the cat") == ["the", "cat"]


def test_train_tokenizer_ignores_case(trained):
    assert trained.tokenize("THE CAT") == trained.tokenize("the cat")


def test_train_tokenizer_sets_the_length(trained):
    assert trained.model_max_length == 64


def test_train_tokenizer_limits_the_alphabet():
    # One character more than fits, which is the rarest one.
    characters = [chr(0x4E00 + number) for number in range(MAX_ALPHABET)]
    texts = [" ".join(characters)] * 2 + ["z"]
    tokenizer = train_tokenizer(texts, vocab_size=3000, max_seq_length=64)
    assert "z" not in tokenizer.get_vocab()


def test_train_tokenizer_survives_saving(trained, tmp_path):
    trained.save_pretrained(tmp_path)
    assert load_tokenizer(tmp_path)(TEXTS)["input_ids"] == trained(TEXTS)["input_ids"]


def test_train_tokenizer_learns_nothing_from_words_that_are_always_unknown():
    noise = "".join(chr(97 + (7 * number * number) % 26) for number in range(50_000))
    tokenizer = train_tokenizer([*TEXTS, noise], vocab_size=85, max_seq_length=64)
    assert tokenizer.get_vocab() == train_tokenizer(TEXTS, vocab_size=85, max_seq_length=64).get_vocab()


def test_train_tokenizer_reads_scripts_without_spaces():
    tokenizer = train_tokenizer(["日本語の文章" * 100], vocab_size=100, max_seq_length=64)
    assert "日" in tokenizer.get_vocab()


def test_train_tokenizer_reads_no_further_than_its_limit(monkeypatch):
    monkeypatch.setattr(tokenizers, "MAX_TRAINING_CHARACTERS", sum(map(len, TEXTS)))
    assert "q" not in train_tokenizer([*TEXTS, "qqq"], vocab_size=85, max_seq_length=64).get_vocab()


@pytest.mark.parametrize(("characters", "expected"), [(1000, 100), (500, 50), (100, 10), (1, 1)])
def test_sample_documents_takes_evenly_spread_ones(characters, expected):
    documents = Dataset.from_dict({"text": [f"{number:010d}" for number in range(100)]})
    sample = sample_documents(documents, characters)
    assert len(sample) == expected
    assert list(sample) == [f"{number:010d}" for number in range(0, 100, 100 // expected)]


@pytest.mark.slow
def test_train_tokenizer_gives_the_same_in_every_process(tmp_path):
    # Hash maps are seeded per process, in Python by PYTHONHASHSEED and in Rust at random; ties must not show it.
    program = (
        "import sys\n"
        "from predrec.data_collators import train_tokenizer\n"
        "texts = [f'{a}{b}{c} {c}{a}{b}' for a in 'abcde' for b in 'fghij' for c in 'klmno'] * 3\n"
        "train_tokenizer(texts, 300, 64).save_pretrained(sys.argv[1])\n"
    )
    running = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path / seed)], env=os.environ | {"PYTHONHASHSEED": seed}
        )
        for seed in ("1", "2")
    ]
    assert [process.wait() for process in running] == [0, 0]
    digests = {hashlib.sha256((tmp_path / seed / "tokenizer.json").read_bytes()).digest() for seed in ("1", "2")}
    assert len(digests) == 1
