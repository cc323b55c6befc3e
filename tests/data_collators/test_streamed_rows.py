"""Streamed rows are the rows on disk, and go on from any row as if nothing had stopped."""

import gzip
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset

from predrec.data_collators import (
    DataCollatorForPreTraining,
    DocumentRows,
    PackedRows,
    PlacedCollator,
    StreamedRows,
    load_corpus,
    streamed_rows,
    tokenize_documents,
)
from predrec.errors import UserError

from .test_rows import TEXTS, contents, documents


@pytest.fixture(scope="module")
def tokenized(tiny_tokenizer) -> Dataset:
    return tokenize_documents(documents(), tiny_tokenizer)


def streamed(tiny_tokenizer, texts: list[str], length: int, packing: bool = True) -> StreamedRows:
    return StreamedRows(documents(texts).to_iterable_dataset(), tiny_tokenizer, length, packing)


@pytest.mark.parametrize("length", [16, 17, 40])
@pytest.mark.parametrize(("packing", "kind"), [(True, PackedRows), (False, DocumentRows)])
def test_streamed_rows_equal_rows_on_disk(tiny_tokenizer, tokenized, length, packing, kind):
    rows = kind(tokenized, tiny_tokenizer, length)
    first_pass = itertools.islice(streamed(tiny_tokenizer, TEXTS, length, packing), len(rows))
    assert [row["input_ids"].tolist() for row in first_pass] == contents(rows)


def test_streamed_rows_equal_rows_on_disk_across_reads(tiny_tokenizer):
    # The stream is read 256 documents at a time.
    texts = TEXTS * 40
    rows = PackedRows(tokenize_documents(documents(texts), tiny_tokenizer), tiny_tokenizer, 50)
    first_pass = itertools.islice(streamed(tiny_tokenizer, texts, 50), len(rows))
    assert [row["input_ids"].tolist() for row in first_pass] == contents(rows)


def test_streamed_rows_begin_anew(tiny_tokenizer, tokenized):
    size = len(PackedRows(tokenized, tiny_tokenizer, 16))
    rows = list(itertools.islice(streamed(tiny_tokenizer, TEXTS, 16), 2 * size + 1))
    assert [(row["epoch"], row["example_ids"]) for row in rows] == [
        *((0, index) for index in range(size)),
        *((1, index) for index in range(size)),
        (2, 0),
    ]


def test_streamed_rows_repeat_their_tokens(tiny_tokenizer, tokenized):
    size = len(PackedRows(tokenized, tiny_tokenizer, 16))
    rows = [row["input_ids"].tolist() for row in itertools.islice(streamed(tiny_tokenizer, TEXTS, 16), 2 * size)]
    assert rows[:size] == rows[size:]


def test_streamed_rows_leave_blank_documents_out(tiny_tokenizer):
    texts = ["", "the cat", "  \n", None, "a dog", "\u200b"]
    rows = itertools.islice(streamed(tiny_tokenizer, texts, 16, packing=False), 3)
    assert [len(row["input_ids"]) for row in rows] == [4, 4, 4]


@pytest.mark.parametrize("texts", [[" ", ""], ["the cat"]])
def test_streamed_rows_refuse_a_stream_without_a_row(tiny_tokenizer, texts):
    with pytest.raises(UserError, match="`streaming`: the corpus is empty, or holds less than one row of 16 tokens"):
        next(iter(streamed(tiny_tokenizer, texts, 16)))


def test_streamed_rows_get_the_masks_of_rows_on_disk(tiny_tokenizer, tokenized):
    collator = DataCollatorForPreTraining(tiny_tokenizer)
    on_disk = collator([PackedRows(tokenized, tiny_tokenizer, 16)[index] for index in range(4)])
    from_stream = collator(list(itertools.islice(streamed(tiny_tokenizer, TEXTS, 16), 4)))
    assert np.array_equal(on_disk["labels"], from_stream["labels"])


# Going on


def rows_of(stream: StreamedRows, first: int, last: int) -> list[tuple]:
    """What the collator sees of some rows."""
    found = itertools.islice(stream, last - first)
    return [(row["input_ids"].tolist(), row["example_ids"], row["epoch"], row["number"]) for row in found]


def place_after(stream: StreamedRows, rows: int) -> dict:
    """The state after so many rows, through JSON, as a checkpoint holds it."""
    last = next(itertools.islice(stream, rows - 1, None))
    place = PlacedCollator(lambda features: {})([last])["place"]
    return json.loads(json.dumps(place.state(rows)))


def as_text(folder: Path, texts: list[str]) -> list[str]:
    (folder / "a.txt").write_text("\n".join(texts[:20]))
    (folder / "b.txt").write_text("\n".join(texts[20:]))
    return [str(folder / "*.txt")]


def as_gzip(folder: Path, texts: list[str]) -> list[str]:
    (folder / "a.txt.gz").write_bytes(gzip.compress("\n".join(texts).encode()))
    return [str(folder / "a.txt.gz")]


def as_json(folder: Path, texts: list[str]) -> list[str]:
    (folder / "a.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    return [str(folder / "a.jsonl")]


def as_parquet(folder: Path, texts: list[str]) -> list[str]:
    """Two files of several row groups each."""
    for name, part in (("a", texts[:20]), ("b", texts[20:])):
        Dataset.from_dict({"text": part, "other": part}).to_parquet(folder / f"{name}.parquet", batch_size=6)
    return [str(folder / "*.parquet")]


FORMATS = (as_text, as_gzip, as_json, as_parquet)


@pytest.mark.parametrize("validation", ["held out", "file"])
@pytest.mark.parametrize("packing", [True, False], ids=["packed", "not packed"])
@pytest.mark.parametrize("write", FORMATS, ids=lambda write: write.__name__)
def test_stream_goes_on_from_any_row(tiny_tokenizer, tmp_path, monkeypatch, write, packing, validation):
    """Across reads, files, row groups and passes."""
    monkeypatch.setattr(streamed_rows, "READ", 4)
    texts = [f"{text} {number}" for number, text in enumerate(TEXTS * 3)]
    (tmp_path / "held.txt").write_text("the cat\na dog")
    held_out = [str(tmp_path / "held.txt")] if validation == "file" else []
    (tmp_path / "data").mkdir()
    train = load_corpus(write(tmp_path / "data", texts), held_out, streaming=True).train

    def stream():
        return StreamedRows(train, tiny_tokenizer, 20, packing)

    expected = rows_of(stream(), 0, 120)
    assert {epoch for _, _, epoch, _ in expected} >= {0, 1, 2}
    for stop in (1, 2, 3, 7, 11, 25, 38, 44, 45, 46, 47, 70, 100):
        resumed = stream()
        resumed.go_on_from(place_after(stream(), stop))
        assert rows_of(resumed, stop, 120) == expected[stop:], stop


def test_stream_goes_on_after_rows_that_other_processes_read(tiny_tokenizer):
    """The place is that of a row of the first process; the checkpoint counts those of all."""
    expected = rows_of(streamed(tiny_tokenizer, TEXTS, 16), 0, 40)
    state = place_after(streamed(tiny_tokenizer, TEXTS, 16), 4) | {"rows": 24}
    resumed = streamed(tiny_tokenizer, TEXTS, 16)
    resumed.go_on_from(state)
    assert rows_of(resumed, 24, 40) == expected[24:]


def test_stream_that_goes_on_tokenizes_no_more_than_a_read_again(tiny_tokenizer, monkeypatch):
    texts, seen = TEXTS * 200, []
    state = place_after(streamed(tiny_tokenizer, texts, 16), 1500)
    resumed = streamed(tiny_tokenizer, texts, 16)
    resumed.go_on_from(state)
    tokenize = streamed_rows.tokenize_texts
    monkeypatch.setattr(
        streamed_rows, "tokenize_texts", lambda texts, *rest: seen.extend(texts) or tokenize(texts, *rest)
    )
    assert next(iter(resumed))["number"] == 1500
    assert len(seen) <= 2 * streamed_rows.READ


def test_stream_begins_anew_without_a_place(tiny_tokenizer):
    rows = streamed(tiny_tokenizer, TEXTS, 16)
    rows.go_on_from(place_after(streamed(tiny_tokenizer, TEXTS, 16), 5))
    rows.go_on_from(None)
    assert next(iter(rows))["number"] == 0


def test_stream_of_other_documents_is_refused(tiny_tokenizer):
    state = place_after(streamed(tiny_tokenizer, TEXTS, 16), 5)
    other = streamed(tiny_tokenizer, list(reversed(TEXTS)), 16)
    other.go_on_from(state)
    with pytest.raises(UserError, match="`train_file`: the stream is not what the run was trained on: row 4"):
        next(iter(other))
