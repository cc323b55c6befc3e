"""Records from files of every kind, and what is no record."""

import gzip
import json

import datasets
import pytest

from predrec.data_collators.two_views import TwoViews, hold_out, load_records, paraphrase_pairs
from predrec.errors import UserError

CHAT = [
    {"role": "system", "content": "Answer."},
    {"role": "user", "content": "question"},
    {"role": "assistant", "content": "answer"},
]


def write(path, *rows):
    text = "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


@pytest.mark.parametrize("name", ["chats.jsonl", "chats.jsonl.gz", "chats.json"])
def test_chats(tmp_path, name):
    path = write(tmp_path / name, {"messages": CHAT}, {"messages": CHAT[1:], "jepa_code": "the ending"}, "")
    assert load_records(path) == [
        TwoViews("question", "answer", "Answer."),
        TwoViews("question", "answer", None, None, "the ending"),
    ]


def test_pairs(tmp_path):
    row = {"text": "t", "code": "c", "system": "s", "jepa_text": "u"}
    record = load_records(write(tmp_path / "pairs.jsonl", row))[0]
    assert record == TwoViews("t", "c", "s", "u") and record.pair == ("u", "c")


def test_paraphrases_from_parquet(tmp_path):
    groups = {"captions": [["a", "b", "c"], ["d", "e"]], "image": ["1", "2"]}
    datasets.Dataset.from_dict(groups).to_parquet(tmp_path / "groups.parquet")
    found = load_records(tmp_path / "groups.parquet")
    assert [(record.text, record.code) for record in found] == [("a", "b"), ("b", "c"), ("d", "e")]
    closed = load_records(tmp_path / "groups.parquet", cyclic=True)
    assert [(record.text, record.code) for record in closed] == [("a", "b"), ("b", "c"), ("c", "a"), ("d", "e")]


def test_a_column_of_another_name(tmp_path):
    path = write(tmp_path / "x.jsonl", {"sentences": ["a", "b"]})
    assert len(load_records(path, group_column="sentences")) == 1


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"messages": CHAT[:2]}, r"row 2: .*the roles are \['system', 'user'\]"),
        ({"messages": [*CHAT, CHAT[1]]}, "the roles are"),
        ({"messages": "question"}, "must be a list of turns"),
        ({"messages": [{"role": "user"}]}, "must be a list of turns"),
        ({"messages": []}, "the roles are"),
        ({"messages": [CHAT[1], {"role": "assistant", "content": " "}]}, "`code` .the assistant turn. is ' '"),
        ({"messages": [{"role": "user", "content": None}, CHAT[2]]}, "`text` .the user turn. is None"),
        ({"text": "t", "code": 3}, "`code`.*is 3"),
        ({"text": "t", "code": "c", "jepa_text": 1}, "`jepa_text` is 1"),
        ({"captions": ["alone"]}, "needs two texts; it has 1"),
        ({"captions": ["a", ""]}, "`code`"),
        ({"question": "q"}, r"only \['question'\]"),
        ([1], "must be a mapping"),
        ("{broken", "line 2 is not JSON"),
    ],
    ids=str,
)
def test_rows_that_are_no_records_are_named(tmp_path, row, message):
    with pytest.raises(UserError, match=message):
        load_records(write(tmp_path / "x.jsonl", {"messages": CHAT}, row))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.jsonl", None, "does not exist"),
        ("x.csv", b"a,b", "neither jsonl"),
        ("x.jsonl", b"", "no records"),
        ("x.jsonl", b"\xff\xfe", "cannot be read"),
        ("x.jsonl.gz", b"not gzip", "cannot be read"),
        ("x.jsonl.gz", gzip.compress(b'{"text": "t"}' * 99, mtime=0)[:-9], "cannot be read"),
        ("x.parquet", b"not parquet", "cannot be read as parquet"),
    ],
)
def test_files_that_cannot_be_read_are_named(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        load_records(tmp_path / name)
    assert name in str(error.value)


def test_groups_need_two():
    assert len(paraphrase_pairs(["a", "b"], cyclic=True)) == 1
    with pytest.raises(UserError, match="needs two texts; it has 0"):
        paraphrase_pairs([])


def test_equal_texts_are_held_out_together():
    records = [TwoViews(f"text {number // 2}", f"code {number}") for number in range(40)]
    train, development = hold_out(records, 0.1, seed=42)
    assert len(development) == 4 and len(train) == 36
    assert not {r.text for r in train} & {r.text for r in development}
    assert hold_out(records, 0.1, seed=42) == (train, development) != hold_out(records, 0.1, seed=43)
    with pytest.raises(UserError, match="one text"):
        hold_out(records[:2], 0.1, 0)
