import itertools
import pickle

import datasets
import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerFast

from predrec.data_collators import (
    DataCollatorForPreTraining,
    DocumentRows,
    IsolatedRows,
    PackedRows,
    TokenRows,
    rows,
    tokenize_documents,
)
from predrec.data_collators.documents import LONGEST
from predrec.data_collators.rows import TokenStream, tokenize_texts
from predrec.errors import UserError

PAD, UNK, CLS, SEP, MASK = range(5)
TEXTS = [
    "the cat sat on the mat",
    "a dog ran",
    "the unknown dogs walked and then the cats ran",
    "a",
    "and then the dog sat on a cat and the cat sat on a mat and then all of them ran",
] * 3


def documents(texts: list[str] = TEXTS) -> Dataset:
    return Dataset.from_dict({"text": texts})


@pytest.fixture(scope="module")
def tokenized(tiny_tokenizer) -> Dataset:
    return tokenize_documents(documents(), tiny_tokenizer)


@pytest.fixture(scope="module")
def stream(tokenized) -> list[int]:
    """All tokens of all documents, one after the other."""
    return [token for document in tokenized["input_ids"] for token in document]


def in_chunks(tokenized: Dataset, sizes: list[int]) -> Dataset:
    """Returns the same documents in one arrow chunk per part."""
    borders = [0, *itertools.accumulate(sizes), len(tokenized)]
    parts = [
        Dataset.from_list(tokenized.select(range(a, b)).to_list(), features=tokenized.features)
        for a, b in itertools.pairwise(borders)
        if b > a
    ]
    joined = datasets.concatenate_datasets(parts)
    assert joined.data.column("input_ids").num_chunks == len(parts)
    return joined


def fits(sizes: list[int]) -> bool:
    """Returns whether there are documents for parts of these sizes."""
    return sum(sizes) <= len(TEXTS)


def contents(rows: TokenRows) -> list[list[int]]:
    return [rows[index]["input_ids"].tolist() for index in range(len(rows))]


# Tokenizing


def test_tokenize_documents_ends_every_document_with_the_separator(tiny_tokenizer):
    tokenized = tokenize_documents(documents(["the cat", "a dog ran"]), tiny_tokenizer)
    expected = [tiny_tokenizer.convert_tokens_to_ids([*text.split(), "[SEP]"]) for text in ("the cat", "a dog ran")]
    assert tokenized["input_ids"][:] == expected


def test_tokenize_documents_takes_written_special_tokens_for_text(tiny_tokenizer):
    tokenized = tokenize_documents(documents(["the [SEP] cat [MASK]"]), tiny_tokenizer)
    expected = tiny_tokenizer.convert_tokens_to_ids(
        ["the", "[", "s", "##e", "##p", "]", "cat", "[", "m", "##a", "##s", "##k", "]", "[SEP]"]
    )
    assert tokenized["input_ids"][0] == expected


def test_tokenize_documents_leaves_out_documents_without_tokens(tiny_tokenizer):
    # A zero-width space is not blank to Python; the tokenizer drops it.
    tokenized = tokenize_documents(documents(["the cat", "\u200b", "a dog"]), tiny_tokenizer)
    assert len(tokenized) == 2


@pytest.mark.parametrize(("size", "expected"), [(100, "uint16"), (70000, "int32")])
def test_tokenize_documents_stores_as_few_bytes_as_the_vocabulary_allows(tiny_tokenizer, monkeypatch, size, expected):
    monkeypatch.setattr(type(tiny_tokenizer), "__len__", lambda self: size)
    tokenized = tokenize_documents(documents(), tiny_tokenizer)
    assert tokenized.features["input_ids"].feature.dtype == expected


@pytest.mark.slow
def test_tokenize_documents_does_not_depend_on_the_number_of_processes(tiny_tokenizer, tokenized):
    in_parallel = tokenize_documents(documents(), tiny_tokenizer, num_proc=2)
    assert in_parallel["input_ids"][:] == tokenized["input_ids"][:]


def test_tokenize_documents_refuses_a_corpus_of_unknown_tokens(tiny_tokenizer):
    with pytest.raises(UserError, match=r"`tokenizer_name`: .* every token is \[UNK\]: .* `--train_tokenizer`"):
        tokenize_documents(documents(["日本", "語"]), tiny_tokenizer)


def test_tokenize_documents_accepts_some_unknown_tokens(tiny_tokenizer):
    assert len(tokenize_documents(documents(["日本", "the cat"]), tiny_tokenizer)) == 2


def test_tokenize_documents_refuses_a_corpus_without_tokens(tiny_tokenizer):
    with pytest.raises(UserError, match="`train_file`: the corpus has no tokens"):
        tokenize_documents(documents(["\u200b"]), tiny_tokenizer)


@pytest.mark.parametrize("at_once", [1, 30, 2**19])
def test_tokenize_texts_does_not_depend_on_how_much_is_done_at_once(tiny_tokenizer, monkeypatch, at_once):
    expected = tokenize_texts(TEXTS, tiny_tokenizer, "uint16")["input_ids"]
    monkeypatch.setattr(rows, "AT_ONCE", at_once)
    found = tokenize_texts(TEXTS, tiny_tokenizer, "uint16")["input_ids"]
    assert [ids.tolist() for ids in found] == [ids.tolist() for ids in expected]


def test_tokenize_documents_counts_a_document_that_is_too_long_as_several(tiny_tokenizer):
    text = "the cat " * (LONGEST // 8) + "a dog"
    tokenized = tokenize_documents(documents([text, "a dog"]), tiny_tokenizer)
    assert [len(ids) for ids in tokenized["input_ids"]] == [LONGEST // 4 + 1, 3, 3]


def test_tokenize_texts_explains_a_tokenizer_that_fails():
    broken = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"a": 0}, unk_token="?")))
    with pytest.raises(UserError, match=r"`tokenizer_name`: the tokenizer fails on the corpus: WordLevel error"):
        tokenize_texts(["a b"], broken, "uint16")


# Packed rows


@pytest.mark.parametrize("length", [16, 17, 40])
def test_packed_rows_equal_naive_packing(tiny_tokenizer, tokenized, stream, length):
    rows = PackedRows(tokenized, tiny_tokenizer, length)
    content = length - 1
    expected = [[CLS, *stream[i * content : (i + 1) * content]] for i in range(len(stream) // content)]
    assert contents(rows) == expected


@settings(max_examples=30, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 4), max_size=5).filter(fits),
    length=st.integers(2, 200),
)
def test_packed_rows_span_chunks(tiny_tokenizer, tokenized, sizes, length):
    rows = PackedRows(in_chunks(tokenized, sizes), tiny_tokenizer, length)
    assert contents(rows) == contents(PackedRows(tokenized, tiny_tokenizer, length))


@settings(max_examples=30, deadline=None)
@given(length=st.integers(2, 400))
def test_packed_rows_lose_nothing_but_the_tail(tiny_tokenizer, tokenized, stream, length):
    kept = [token for row in contents(PackedRows(tokenized, tiny_tokenizer, length)) for token in row[1:]]
    assert kept == stream[: len(kept)]
    assert len(stream) - len(kept) < length - 1


def test_packed_rows_keep_a_corpus_shorter_than_a_row(tiny_tokenizer, tokenized, stream):
    assert contents(PackedRows(tokenized, tiny_tokenizer, 10000)) == [[CLS, *stream]]


def test_packed_rows_without_a_start_token_hold_documents_only(tiny_tokenizer, tokenized, stream, monkeypatch):
    monkeypatch.setattr("predrec.data_collators.rows.start_id", lambda tokenizer: None)
    assert contents(PackedRows(tokenized, tiny_tokenizer, 16))[0] == stream[:16]


@pytest.mark.parametrize("kind", [PackedRows, DocumentRows])
def test_token_rows_survive_pickling(tiny_tokenizer, tokenized, kind):
    rows = kind(tokenized, tiny_tokenizer, 16)
    assert contents(pickle.loads(pickle.dumps(rows))) == contents(rows)


def test_token_stream_pickles_without_its_tokens(tokenized):
    stream = TokenStream(tokenized)
    assert stream.chunks
    assert stream.__getstate__()["_chunks"] is None


def test_token_stream_copies_nothing(tokenized):
    assert not any(chunk.flags.owndata for chunk in TokenStream(tokenized).chunks)


@settings(max_examples=50, deadline=None)
@given(sizes=st.lists(st.integers(0, 4), max_size=5).filter(fits), begin=st.integers(0, 300), size=st.integers(1, 300))
def test_token_stream_reads_any_range(tokenized, stream, sizes, begin, size):
    begin = min(begin, len(stream) - 1)
    chunked = TokenStream(in_chunks(tokenized, sizes))
    assert chunked.read(begin, begin + size).tolist() == stream[begin : begin + size]


def test_token_stream_counts_its_tokens(tokenized, stream):
    assert len(TokenStream(tokenized)) == len(stream)


@pytest.mark.parametrize("sizes", [[], [4, 5], [1] * 10])
def test_token_stream_knows_where_documents_begin(tokenized, sizes):
    lengths = [len(document) for document in tokenized["input_ids"]]
    bounds = TokenStream(in_chunks(tokenized, sizes)).document_bounds()
    assert bounds.tolist() == [0, *itertools.accumulate(lengths)]


@pytest.mark.parametrize("kind", [PackedRows, DocumentRows])
@pytest.mark.parametrize("view", [lambda data: data.shuffle(seed=1), lambda data: data.select(range(2, 9))])
def test_token_rows_follow_a_view_of_the_documents(tiny_tokenizer, tokenized, kind, view):
    copied = Dataset.from_list(view(tokenized).to_list(), features=tokenized.features)
    assert contents(kind(view(tokenized), tiny_tokenizer, 16)) == contents(kind(copied, tiny_tokenizer, 16))


@pytest.mark.parametrize("index", [-1, 10**6])
def test_token_rows_refuse_an_index_outside(tiny_tokenizer, tokenized, index):
    with pytest.raises(IndexError):
        PackedRows(tokenized, tiny_tokenizer, 16)[index]


def test_token_rows_name_example_and_epoch(tiny_tokenizer, tokenized):
    rows = PackedRows(tokenized, tiny_tokenizer, 16)
    rows.set_epoch(3)
    assert (rows[2]["example_ids"], rows[2]["epoch"]) == (2, 3)


@pytest.mark.slow
def test_token_rows_tell_running_workers_the_epoch(tiny_tokenizer, tokenized):
    rows = PackedRows(tokenized, tiny_tokenizer, 32)
    loader = DataLoader(
        rows,
        batch_size=2,
        num_workers=2,
        persistent_workers=True,
        collate_fn=DataCollatorForPreTraining(tiny_tokenizer),
    )
    alone = DataLoader(rows, batch_size=2, collate_fn=loader.collate_fn)
    for epoch in range(3):
        rows.set_epoch(epoch)
        for here, there in zip(alone, loader, strict=True):
            assert here["labels"].tolist() == there["labels"].tolist()


# Document rows


@pytest.mark.parametrize("length", [16, 17, 24, 64])
def test_isolated_rows_hold_every_token_once_and_in_order(tiny_tokenizer, tokenized, stream, length):
    rows = IsolatedRows(tokenized, tiny_tokenizer, length)
    pieces = [piece for index in range(len(rows)) for piece in rows.documents(index)]
    assert all(piece[0] == CLS and len(piece) > 1 for piece in pieces)
    kept = [token for piece in pieces for token in piece[1:]]
    assert kept == stream[: len(kept)]
    assert len(stream) - len(kept) < length


@pytest.mark.parametrize("length", [16, 24, 64])
def test_isolated_rows_are_full(tiny_tokenizer, tokenized, length):
    rows = IsolatedRows(tokenized, tiny_tokenizer, length)
    assert all(length - 2 <= len(rows.row(index)) <= length for index in range(len(rows)))


def test_isolated_rows_never_join_documents(tiny_tokenizer, tokenized):
    rows = IsolatedRows(tokenized, tiny_tokenizer, 24)
    for index in range(len(rows)):
        for piece in rows.documents(index):
            assert SEP not in piece[:-1]
            assert CLS not in piece[1:]


def test_isolated_rows_say_how_long_their_documents_are(tiny_tokenizer, tokenized):
    row = IsolatedRows(tokenized, tiny_tokenizer, 24)[1]
    assert sum(row["document_lengths"]) == len(row["input_ids"])
    assert len(row["document_lengths"]) > 1


def test_isolated_rows_without_a_start_token_are_packed_rows(tiny_tokenizer, tokenized, monkeypatch):
    monkeypatch.setattr("predrec.data_collators.rows.start_id", lambda tokenizer: None)
    isolated, packed = (kind(tokenized, tiny_tokenizer, 24) for kind in (IsolatedRows, PackedRows))
    assert len(isolated) == len(packed)
    assert all((isolated.row(index) == packed.row(index)).all() for index in range(len(packed)))


def test_document_rows_hold_a_document_each(tiny_tokenizer, tokenized):
    rows = DocumentRows(tokenized, tiny_tokenizer, 100)
    assert contents(rows) == [[CLS, *document] for document in tokenized["input_ids"]]


def test_document_rows_cut_and_end_with_the_separator(tiny_tokenizer, tokenized):
    rows = DocumentRows(tokenized, tiny_tokenizer, 8)
    assert contents(rows)[4] == [CLS, *tokenized[4]["input_ids"][:6], SEP]


def test_document_rows_do_not_change_the_documents(tiny_tokenizer):
    tokenized = tokenize_documents(documents(), tiny_tokenizer)
    contents(DocumentRows(tokenized, tiny_tokenizer, 8))
    assert contents(DocumentRows(tokenized, tiny_tokenizer, 100)) == [[CLS, *ids] for ids in tokenized["input_ids"]]


@pytest.mark.parametrize("kind", [PackedRows, DocumentRows, IsolatedRows])
def test_rows_of_documents_that_have_special_tokens_already_are_refused(tiny_tokenizer, kind):
    """They would begin with two start tokens."""
    usual = documents().map(lambda row: {"input_ids": tiny_tokenizer(row["text"])["input_ids"]}, remove_columns="text")
    with pytest.raises(ValueError, match="`tokenized` has special tokens: use `tokenize_documents`"):
        kind(usual, tiny_tokenizer, 16)
