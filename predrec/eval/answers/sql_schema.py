"""Database schemas as Spider publishes them, in `tables.json`."""

import gzip
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import UserError

AFFINITIES = {"text": "TEXT", "number": "NUMERIC", "time": "TEXT", "boolean": "NUMERIC"}
"""Declared types in SQLite, so that `'2014' = 2014` holds in a column of numbers; any other type has none."""


@dataclass(frozen=True)
class Column:
    """A column.

    Args:
        table, name (`str`): As in the queries.
        type (`str`): `"text"`, `"number"`, `"time"`, `"boolean"` or another.
        unique (`bool`): No value occurs twice: the primary key, alone in its table and no reference.
        parent (`tuple[str, str]`, *optional*): Table and name of the column that this one refers to, in lower case.
    """

    table: str
    name: str
    type: str
    unique: bool
    parent: tuple[str, str] | None

    @property
    def key(self) -> tuple[str, str]:
        """Table and name in lower case: SQL does not tell cases apart."""
        return self.table.lower(), self.name.lower()


@dataclass(frozen=True)
class Schema:
    """Tables of a database, each with its columns."""

    name: str
    tables: dict[str, list[Column]]

    @property
    def columns(self) -> list[Column]:
        return [column for columns in self.tables.values() for column in columns]

    def statements(self) -> list[str]:
        """Returns a `CREATE TABLE` per table, without constraints, which generated rows meet anyway."""
        return [
            f"CREATE TABLE {quoted(table)} ("
            + ", ".join(f"{quoted(column.name)} {AFFINITIES.get(column.type, '')}" for column in columns)
            + ")"
            for table, columns in self.tables.items()
        ]


def quoted(name: str) -> str:
    """Returns an SQL identifier in quotation marks."""
    return '"' + name.replace('"', '""') + '"'


def read_schema(entry: Mapping[str, Any]) -> Schema:
    """Returns one entry of `tables.json`. SQLite's own tables, which some entries list, are left out.

    Raises:
        UserError: If a field is missing or does not fit the others.

    Reference:
        Yu et al., 2018, https://arxiv.org/abs/1809.08887
    """
    try:
        name, tables, columns = entry["db_id"], entry["table_names_original"], entry["column_names_original"]
        keys = [key for group in entry["primary_keys"] for key in (group if isinstance(group, list) else [group])]
        parents = {child: _key(tables, columns[parent]) for child, parent in entry["foreign_keys"]}
        owners = [columns[key][0] for key in keys]
        read: dict[str, list[Column]] = {table: [] for table in tables if not table.lower().startswith("sqlite_")}
        for number, (table, column) in enumerate(columns):
            if table >= 0 and tables[table] in read:
                unique = number in keys and number not in parents and owners.count(table) == 1
                kind = entry["column_types"][number]
                read[tables[table]].append(Column(tables[table], column, kind, unique, parents.get(number)))
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise UserError(f"A database schema is not as in Spider's `tables.json`: {error!r}.") from error
    return Schema(name, {table: columns for table, columns in read.items() if columns})


def _key(tables: list[str], column: tuple[int, str]) -> tuple[str, str]:
    return tables[column[0]].lower(), column[1].lower()


def load_schemas(path: str | Path) -> list[dict[str, Any]]:
    """Reads `tables.json`, or `tables.json.gz`.

    Raises:
        UserError: If there is no such file, or it holds no list of schemas.
    """
    try:
        data = Path(path).read_bytes()
        entries = json.loads(gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"Cannot read database schemas from {str(path)!r}: {error}.") from error
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise UserError(f"{str(path)!r} holds no list of schemas.")
    return entries
