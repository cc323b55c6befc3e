"""Data files that hold no text, too much of it, or something that is named like it."""

import gzip
import io
import json
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from .cases import Case, Made, ProcessCase, tiny


def file(name: str, content: str | bytes | Callable[[], bytes], *words: str) -> Callable[[Path, Made], list[str]]:
    """A tiny run on one file with this content."""

    def arrange(folder: Path, made: Made) -> list[str]:
        found = content() if callable(content) else content
        (folder / name).write_bytes(found.encode("utf-8", "surrogatepass") if isinstance(found, str) else found)
        return tiny("--train_file", name, *words)

    return arrange


def zipped(name: str = "../../escaped.txt") -> bytes:
    """An archive whose only member wants to be written outside."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, "text\n" * 100)
    return buffer.getvalue()


def tarred(name: str = "../../escaped.txt") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        member = tarfile.TarInfo(name)
        member.size = 500
        archive.addfile(member, io.BytesIO(b"text\n" * 100))
    return buffer.getvalue()


def parquet(values: pa.Array) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table({"text": values}), buffer)
    return buffer.getvalue()


def link_to_nothing(folder: Path, made: Made) -> list[str]:
    (folder / "link.txt").symlink_to("nowhere.txt")
    return tiny("--train_file", "link.txt")


def text_lines(count: int) -> bytes:
    return b"a line of text\n" * count


PARQUET = "cannot read 'bad.parquet' as parquet"
CASES = (
    ProcessCase(
        "not UTF-8",
        file("bad.txt", text_lines(10) + b"caf\xe9\n"),
        ("`train_file`", "'bad.txt'", "byte 0xe9 at position 153", "iconv"),
    ),
    Case("UTF-16", file("bad.txt", "text\n".encode("utf-16")), ("'bad.txt'", "it is UTF-16", "iconv -f UTF-16")),
    ProcessCase("zip by another name", file("bad.txt", zipped), ("'bad.txt'", "it is a zip archive", "unpack it")),
    Case("zip", file("bad.zip", zipped), ("`train_file`: 'bad.zip' is an archive", "unpack it")),
    ProcessCase("tar by another name", file("bad.txt", tarred), ("'bad.txt'", "it is a tar archive", "unpack it")),
    Case("tar in gzip", file("bad.tar.gz", lambda: gzip.compress(tarred())), ("'bad.tar.gz' is an archive",)),
    Case("tar in gzip by another name", file("a.txt.gz", lambda: gzip.compress(tarred())), ("a tar archive",)),
    Case("gzip by another name", file("bad.txt", gzip.compress(b"text")), ("compressed by gzip", "name it .gz")),
    Case("text named gzip", file("bad.txt.gz", text_lines(10)), ("'bad.txt.gz'", "Not a gzipped file")),
    Case(
        "gzip cut short",
        file("bad.txt.gz", gzip.compress(bytes(range(256)) * 50)[:300]),
        ("'bad.txt.gz'", "cannot read"),
    ),
    Case("parquet by another name", file("bad.txt", parquet(pa.array(["a"]))), ("it is a parquet file",)),
    ProcessCase(
        "parquet of numbers",
        file("bad.parquet", lambda: parquet(pa.array([1, 2, 3]))),
        ("`text_column`", "int64", "'bad.parquet'"),
    ),
    Case("parquet of lists", file("bad.parquet", parquet(pa.array([["a"], ["b"]]))), ("`text_column`", "list<")),
    Case("parquet that is text", file("bad.parquet", "text"), ("`train_file`", PARQUET)),
    Case(
        "parquet cut short",
        file("bad.parquet", lambda: parquet(pa.array(["text"] * 99))[:-20]),
        ("`train_file`", PARQUET),
    ),
    ProcessCase(
        "JSON nested too deep",
        file("bad.jsonl", '{"text": "a"}\n{"text": ' + "[" * 200_000),
        ("`train_file`", "'bad.jsonl'", "line 2 is nested too deep"),
    ),
    Case("JSON of numbers", file("bad.jsonl", '{"text": "a"}\n{"text": 5}'), ("`text_column`", "int in line 2")),
    Case("half a character", file("bad.jsonl", '{"text": "\\udc00"}'), ("line 1 holds \\udc00", "repair it")),
    Case("object that is no text", file("bad.json", '{"text": {"a": 1}}'), ("`text_column`", "dict in line 1")),
    Case("list without an end", file("bad.json", '[{"text": "a"},'), ("'bad.json'", "entry 2 is not JSON")),
    Case("column that is not there", file("bad.jsonl", json.dumps({"body": "a"})), ("`text_column`", "'body'")),
    Case("link to nothing", link_to_nothing, ("`train_file`: 'link.txt' does not exist",)),
    Case("name too long", file("a.txt", "a", "--train_file", "x" * 5000 + ".txt"), ("`train_file`", "not exist")),
    Case("empty name", file("a.txt", "a", "--train_file", ""), ("`train_file`: '' is a directory", "give files")),
    Case("address", file("a.txt", "a", "--train_file", "https://example.org/a.txt"), ("does not exist",)),
    Case(
        "file inside an archive",
        file("a.zip", zipped, "--train_file", "zip://escaped.txt::a.zip"),
        ("`train_file`: 'zip://escaped.txt::a.zip' does not exist",),
    ),
    Case("nothing but white space", file("bad.txt", " \n\u3000\t\n\n"), ("`train_file`", "no document has any text")),
    Case("one document", file("a.txt", "word " * 9, "--sample_by", "document"), ("`sample_by`", "give `validation_")),
)
