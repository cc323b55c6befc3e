"""What a query compares columns with: values without which a made-up database would answer nothing."""

import re
from dataclasses import dataclass, field
from typing import TypeAlias

from .sql_schema import Schema

Literal: TypeAlias = str | int | float | None

Key: TypeAlias = tuple[str, str]
"""Table and column, in lower case."""

MAX_LITERAL = 150
"""Characters of a literal; longer ones are passed over."""

SUMMED = 50
"""A number for columns that are summed up: Spider calls some of them texts."""

_TOKEN = re.compile(
    r"""(?P<text>'(?:[^']|'')*'|"(?:[^"]|"")*")|(?P<number>\d+\.?\d*|\.\d+)|(?P<name>\w+|`[^`]*`|\[[^\]]*\])"""
    r"""|(?P<sign>[<>=!]+|[^\s\w])"""
)
_ARITHMETIC = {"sum", "avg"}
_FORGET = {"select", "from", "where", "having", "or", "on", "limit", "group", "order", "by"}


def tokens(query: str) -> list[tuple[str, str]]:
    """Returns kind (`text`, `number`, `name`, `sign`) and text of every token; quotation marks stay."""
    return [(match.lastgroup or "", match[0]) for match in _TOKEN.finditer(query)]


def orders_rows(query: str) -> bool:
    """Does the outermost query say in which order its rows come?"""
    depth, before = 0, ""
    for _, text in tokens(query):
        depth += (text == "(") - (text == ")")
        if depth == 0 and before == "order" and text.lower() == "by":
            return True
        before = text.lower()
    return False


@dataclass
class Comparisons:
    """What a query compares.

    Args:
        literals (`dict`): For table and column, in lower case, the literals that it is held against, in order.
        columns (`list`): Pairs of columns that are held against each other with `=`.
    """

    literals: dict[Key, list[Literal]] = field(default_factory=dict)
    columns: list[tuple[Key, Key]] = field(default_factory=list)

    def __or__(self, other: "Comparisons") -> "Comparisons":
        keys = [*self.literals, *(key for key in other.literals if key not in self.literals)]
        literals = {key: self.literals.get(key, []) + other.literals.get(key, []) for key in keys}
        return Comparisons(literals, self.columns + other.columns)


def compared(query: str, schema: Schema) -> Comparisons:
    """Reads what a query compares columns with.

    A literal belongs to the last column named before it in the same clause: in `WHERE T1.age > 20`, in `BETWEEN 2 AND
    3`, in `LIKE '%a%'` (with its wild cards), in `IN ('a', 'b')`, in `HAVING max(age) > 20`, in `age IS NULL`. A
    column without its table is taken for that of every table in the query that has one of that name. A column that is
    summed up or averaged is held against a number. Nothing is asked of the query, it may be no SQL at all.
    """
    read = tokens(query.encode("utf-8", "replace").decode())
    names = {column.name.lower() for column in schema.columns}
    aliases = _aliases(read, {table.lower() for table in schema.tables})
    found = Comparisons()
    owners: list[Key] = []
    for number, (kind, text) in enumerate(read):
        name = _bare(text).lower()
        before = [token for _, token in read[max(0, number - 2) : number]]
        if name in names and (kind == "name" or (kind == "text" and text[0] == '"')):
            qualified = before[1:] == ["."]
            previous, owners = owners, _owners(name, before[0] if qualified else None, aliases, schema)
            before = [token for _, token in read[max(0, number - 4) : number - 2]] if qualified else before
            if before[1:] == ["="] and previous and owners:
                found.columns.append((previous[0], owners[0]))
            if before[1:] == ["("] and before[0].lower() in _ARITHMETIC:
                _add(found, owners, SUMMED)
        elif kind == "name" and name in _FORGET:
            owners = []
        elif kind == "name" and name == "null":
            _add(found, owners, None)
        elif kind in ("text", "number") and len(text) <= MAX_LITERAL:
            negative = kind == "number" and before[1:] == ["-"] and read[number - 2][0] == "sign"
            _add(found, owners, _value(kind, text, negative))
    return found


def _add(found: Comparisons, owners: list[Key], literal: Literal) -> None:
    for owner in owners:
        found.literals.setdefault(owner, []).append(literal)


def _owners(name: str, qualifier: str | None, aliases: dict[str, str], schema: Schema) -> list[Key]:
    """Returns the columns that a name may stand for."""
    tables = {aliases.get(_bare(qualifier).lower())} if qualifier else set(aliases.values())
    return [column.key for column in schema.columns if column.key[1] == name and column.key[0] in tables]


def _aliases(read: list[tuple[str, str]], tables: set[str]) -> dict[str, str]:
    """Returns which table a name stands for."""
    aliases = {}
    for number, (kind, text) in enumerate(read):
        table = _bare(text).lower()
        before = read[number - 1][1].lower() if number else ""
        if kind == "sign" or table not in tables or before not in ("from", "join", ","):
            continue
        aliases[table] = table
        following = [_bare(token).lower() for _, token in read[number + 1 : number + 3]]
        if len(following) == 2 and following[0] == "as":
            aliases[following[1]] = table
    return aliases


def _bare(text: str) -> str:
    """Returns a token without its quotation marks."""
    return text[1:-1] if text[0] in "'\"`[" and len(text) > 1 else text


def _value(kind: str, text: str, negative: bool) -> Literal:
    if kind == "text":
        return _bare(text).replace(text[0] * 2, text[0])
    number = float(text)
    if number >= 1e15:  # More than SQLite, or a float, can hold exactly.
        return text
    number = number if "." in text else int(number)
    return -number if negative else number
