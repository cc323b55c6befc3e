"""Reading of schemas."""

import gzip
import json
import sqlite3

import pytest

from predrec.errors import UserError
from predrec.eval.answers.sql_schema import load_schemas, read_schema

from .planted import LIBRARY


def test_read_schema_gives_tables_with_keys_and_references():
    schema = read_schema(LIBRARY)
    assert list(schema.tables) == ["Author", "Book", "Loan"]
    assert [column.key for column in schema.columns if column.unique] == [("author", "author_id"), ("book", "book_id")]
    parents = {column.key: column.parent for column in schema.columns if column.parent}
    assert parents == {("book", "author_id"): ("author", "author_id"), ("loan", "book_id"): ("book", "book_id")}


def test_columns_of_numbers_compare_with_texts():
    connection = sqlite3.connect(":memory:")
    for statement in read_schema(LIBRARY).statements():
        connection.execute(statement)
    connection.execute("INSERT INTO Author VALUES (1, 'Ann', 30, '1990-01-01', 'Oslo')")
    assert connection.execute("""SELECT "Home Town" FROM Author WHERE Age = '30'""").fetchall() == [("Oslo",)]


def test_a_key_of_two_columns_makes_neither_unique():
    schema = read_schema({**LIBRARY, "primary_keys": [1, [6, 7]]})
    assert [column.key for column in schema.columns if column.unique] == [("author", "author_id")]


@pytest.mark.parametrize(
    "change", [{"foreign_keys": [[8, 99]]}, {"column_types": []}, {"primary_keys": None}, {"foreign_keys": [[8]]}]
)
def test_a_broken_schema_is_refused(change):
    with pytest.raises(UserError, match=r"as in Spider's `tables.json`"):
        read_schema({**LIBRARY, **change})


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_load_schemas_reads_plain_and_packed_files(tmp_path, pack):
    path = tmp_path / "tables.json"
    path.write_bytes(pack(json.dumps([LIBRARY]).encode()))
    assert load_schemas(path) == [LIBRARY]


@pytest.mark.parametrize("content", [None, b"{", b'{"db_id": "a"}', b"[1]", b"\x1f\x8bbroken"])
def test_load_schemas_refuses_what_is_no_list_of_schemas(tmp_path, content):
    if content is not None:
        (tmp_path / "tables.json").write_bytes(content)
    with pytest.raises(UserError, match=r"tables\.json"):
        load_schemas(tmp_path / "tables.json")
