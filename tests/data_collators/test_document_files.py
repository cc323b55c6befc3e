"""Files of every format: what is read, what is refused, and that nothing is read twice or kept half."""

import bz2
import gzip
import json
import lzma
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from predrec.data_collators import document_files, json_files, parquet_files
from predrec.data_collators.document_files import DocumentFiles, read_files
from predrec.errors import UserError


@pytest.fixture(autouse=True)
def working_directory(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)


def read(*paths: str, kind: str = "text", streaming: bool = False, column: str = "text") -> list[str]:
    return [row["text"] for row in read_files("train_file", paths, kind, streaming, column, "line")]


def write_json(path: str, value: object) -> None:
    Path(path).write_text(json.dumps(value), encoding="utf-8")


# Text


@pytest.mark.parametrize("streaming", [False, True])
def test_several_files_are_read_in_order(streaming):
    for name in "ba":
        Path(f"{name}.txt").write_text(f"{name} one\n\n{name} two\n")
    assert read("b.txt", "a.txt", streaming=streaming) == ["b one", "b two", "a one", "a two"]


def test_names_are_not_taken_for_patterns():
    Path("a[1].txt").write_text("right")
    Path("a1.txt").write_text("wrong")
    assert read("a[1].txt") == ["right"]


def test_text_of_any_kind_is_read_as_it_is():
    odd = ["שלום עולם", "مرحبا", "👩‍👩‍👧‍👦 🏳️‍🌈", "a\x00b\x07c\x1b[31m", "e\u0301 \u202eevil", "\ufeff in between"]
    Path("odd.txt").write_text("\n".join(odd), encoding="utf-8")
    assert read("odd.txt") == odd


@pytest.mark.parametrize(("suffix", "module"), [("gz", gzip), ("bz2", bz2), ("xz", lzma)])
def test_compressed_file_that_is_cut_short_is_refused(suffix, module):
    content = module.compress(b"some text that is long enough\n" * 2000)
    Path(f"cut.txt.{suffix}").write_bytes(content[: len(content) // 2])
    with pytest.raises(
        UserError, match=rf"`train_file`: cannot read 'cut.txt.{suffix}' as text: Compressed file ended"
    ):
        read(f"cut.txt.{suffix}")


def test_file_that_is_refused_leaves_nothing_in_the_cache():
    Path("bad.txt").write_bytes(b"good line\n" * 1000 + b"\xff")
    for _ in range(2):
        with pytest.raises(UserError, match="it is not UTF-8"):
            read("bad.txt")
    Path("bad.txt").write_bytes(b"good line\n")
    assert read("bad.txt") == ["good line"]


def test_file_is_read_once(monkeypatch):
    Path("text.txt").write_text("one\ntwo")
    read("text.txt")
    monkeypatch.setattr(DocumentFiles, "_documents", lambda self, paths: pytest.fail("It was read again."))
    assert read("text.txt") == ["one", "two"]


def test_file_that_another_version_of_the_reader_has_read_is_read_again(monkeypatch):
    Path("text.txt").write_text("one")
    read("text.txt")
    monkeypatch.setattr(document_files, "READER", document_files.READER + 1)
    monkeypatch.setattr(DocumentFiles, "_documents", lambda self, paths: iter(["as the new one reads it"]))
    assert read("text.txt") == ["as the new one reads it"]


def test_file_that_has_changed_is_read_again():
    Path("text.txt").write_text("one")
    read("text.txt")
    Path("text.txt").write_text("two and more")
    assert read("text.txt") == ["two and more"]


def test_full_cache_is_named(monkeypatch):
    Path("text.txt").write_text("one")

    def full(self, *args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(DocumentFiles, "_prepare_split", full)
    with pytest.raises(UserError, match=r"The cache in .* cannot be written: .*No space left"):
        read("text.txt")


# JSON


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_lines_of_json_may_lack_the_text(end):
    Path("a.jsonl").write_text(end.join(['{"text": "one"}', "", '{"other": 1}', '{"text": null}', '{"text": "two"}']))
    assert read("a.jsonl", kind="json") == ["one", "two"]


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("chunk", [1, 7, 2**16])
def test_list_of_objects_is_read(monkeypatch, indent, chunk):
    monkeypatch.setattr(json_files, "CHUNK", chunk)
    texts = ["one", 'a "quoted" } brace', "größe", "x" * 300]
    Path("a.json").write_text(json.dumps([{"n": 1, "text": text} for text in texts], indent=indent), encoding="utf-8")
    assert read("a.json", kind="json") == texts


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"text": "a"}\n{"text": ', "line 2 is not JSON"),
        ('{"text": "a"}\n[1]', r"line 2 is list, not an object such as"),
        ('{"text": "a"}\n{"text": 5}', r"`text_column`: the column holds int in line 2, not text"),
        ('{"text": ["a"]}', "the column holds list in line 1"),
        ('{"text": "\\ud83d"}', r"line 1 holds \\ud83d, half of a character of UTF-16"),
        ('{"body": "a"}', "`text_column`: the data of `train_file` has no column 'text', but 'body'"),
        ("{}", "has no column 'text', but none at all"),
        ("[" * 100_000, "entry 1 is not an object"),
        ('{"text": ' + "[" * 100_000, "line 1 is nested too deep"),
        ('[{"text": ' + "[" * 100_000, "entry 1 is nested too deep"),
        ('[{"text": "a"}, 5]', "entry 2 is not an object: '5]'"),
        ('[{"text": "a"}', "entry 2 is not JSON"),
        ('[{"text": "a"}, {"text"', "entry 2 is not JSON"),
        ('[{"text": "a"}]\n[{"text": "b"}]', "there is more after the end of the list"),
        ('[{"text": "a"}] garbage', "there is more after the end of the list: 'garbage'"),
        ('[{"text": "a"}]' + " " * 200_000 + "x", "there is more after the end of the list: 'x'"),
        ('{\n "text": "a"\n}', "line 1 is not JSON"),
        ('{"text": NaN}', "the column holds float in line 1"),
        ('{"text": ' + "9" * 5000 + "}", "line 1 is not JSON: Exceeds the limit"),
    ],
)
def test_json_that_cannot_be_read_is_named_with_its_place(content, message):
    Path("a.json").write_text(content)
    with pytest.raises(UserError, match=message):
        read("a.json", kind="json")


@pytest.mark.parametrize("content", [b'{"text": "\xff"}', b'[{"text": "\xff"}]', '{"text": "a"}'.encode("utf-16")])
def test_json_that_is_not_utf8_is_refused(content):
    Path("a.json").write_bytes(content)
    with pytest.raises(UserError, match="UTF-"):
        read("a.json", kind="json")


@pytest.mark.parametrize("begin", ["", "["])
def test_object_that_is_too_long_is_refused(monkeypatch, begin):
    monkeypatch.setattr(json_files, "LONGEST_OBJECT", 2**20)
    monkeypatch.setattr(json_files, "CHUNK", 2**16)
    Path("a.json").write_text(begin + '{"text": "' + "x" * 2**21)
    with pytest.raises(UserError, match=r"(line|entry) 1 has more than 1 MiB, .* give it as txt"):
        read("a.json", kind="json")


# Parquet


def test_parquet_may_hold_categories():
    table = pa.table({"text": pa.array(["one", None, "two", "one"]).dictionary_encode()})
    pq.write_table(table, "a.parquet")
    assert read("a.parquet", kind="parquet") == ["one", "two", "one"]


def test_parquet_reads_the_text_column_alone(monkeypatch):
    datasets.Dataset.from_dict({"body": ["one", "two"], "image": [b"x" * 1000] * 2}).to_parquet("a.parquet")
    assert read("a.parquet", kind="parquet", column="body") == ["one", "two"]


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        (pa.array([1, 2]), "int64"),
        (pa.array([b"a", b"b"]), "binary"),
        (pa.array([["a"], ["b"]]), r"list<.*string>"),
        (pa.array([{"a": "b"}]), r"struct<a: string>"),
        (pa.array([None, None]), "null"),
        (pa.array([1, 2]).dictionary_encode(), "int64"),
    ],
    ids=str,
)
def test_parquet_of_another_type_is_refused(column, kind):
    pq.write_table(pa.table({"text": column}), "a.parquet")
    with pytest.raises(UserError, match=rf"`text_column`: the column holds {kind}, not text \('a.parquet'\)"):
        read("a.parquet", kind="parquet")


def test_parquet_that_is_damaged_inside_is_refused():
    pq.write_table(pa.table({"text": ["some text"] * 1000}), "a.parquet", compression="gzip")
    content = bytearray(Path("a.parquet").read_bytes())
    content[4:60] = b"\xff" * 56
    Path("a.parquet").write_bytes(content)
    with pytest.raises(UserError, match=r"`train_file`: cannot read 'a\.parquet' as parquet"):
        read("a.parquet", kind="parquet")


@pytest.mark.parametrize("others", [0, 100])
def test_parquet_with_a_text_that_is_too_long_is_refused(monkeypatch, others):
    monkeypatch.setattr(parquet_files, "LONGEST_VALUE", 1000)
    pq.write_table(pa.table({"text": ["x" * 5000, *["short"] * others]}), "a.parquet")
    with pytest.raises(UserError, match=r"cannot read 'a.parquet' as parquet: a document has more than"):
        read("a.parquet", kind="parquet")
