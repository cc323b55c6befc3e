"""Made-up rows for a schema, such that a given query finds something in them."""

import random
import re
import string

from .sql_literals import Comparisons, Key, Literal
from .sql_schema import Column, Schema

HIT_SHARE = 0.4
"""Share of a table's rows whose columns take the values that the query asks for, together."""

DISTINCT = (3, 6, 12, 30)
"""How many values a column has, at most: one of these, so that some columns group rows and others name them."""

_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_SYLLABLES = ("ba", "ce", "di", "fo", "gu", "ka", "le", "mi", "no", "ru", "sa", "te", "vi", "zo")

Rows = dict[str, list[tuple[Literal, ...]]]


def generate_rows(schema: Schema, comparisons: Comparisons, rows: int, seed: str) -> Rows:
    """Returns rows for every table.

    - Values have the type of their column. Columns of the same name and type draw from the same few values, some of
      them more often than others, so that joins, groups and intersections find partners.
    - A reference holds values of the column that it refers to, some of which nothing refers to. So does a column that
      the query holds against another. A unique column has no value twice.
    - Where the query compares a column with literals, 2 of 5 rows have one of them, or a number next to it, or a text
      that matches the pattern, in all such columns at once; references of such rows prefer such rows. The others may
      have them, too.
    - Nothing is NULL unless the query asks for it.

    Args:
        schema (`Schema`): Of the database.
        comparisons (`Comparisons`): From [`compared`].
        rows (`int`): Of the largest tables; others have down to half as many.
        seed (`str`): All that differs between two sets of rows.
    """
    return _Rows(schema, comparisons, rows, seed).filled()


class _Rows:
    def __init__(self, schema: Schema, comparisons: Comparisons, rows: int, seed: str):
        self.schema, self.seed = schema, seed
        self.random = random.Random(seed)
        self.columns = {column.key: column for column in schema.columns}
        self.parents: dict[Key, Key] = {}
        for key, column in self.columns.items():
            if column.parent in self.columns and self.root(column.parent) != key:  # References may go in circles.
                self.parents[key] = column.parent
        for left, right in comparisons.columns:
            self.join(self.root(left), self.root(right))
        self.literals: dict[Key, list[Literal]] = {}
        for key, values in comparisons.literals.items():
            # What a reference is compared with must exist where it points.
            self.literals.setdefault(self.root(key), []).extend(values)
        self.counts = {table.lower(): self.random.randint(max(1, rows // 2), rows) for table in schema.tables}
        self.hits = {table: max(1, round(HIT_SHARE * count)) for table, count in self.counts.items()}
        self.values: dict[Key, list[Literal]] = {}

    def root(self, key: Key) -> Key:
        """Returns the column at the end of a chain of references."""
        while key in self.parents:
            key = self.parents[key]
        return key

    def join(self, left: Key, right: Key) -> None:
        """Makes one column refer to the other, unless both are unique."""
        if self.columns[right].unique:
            left, right = right, left
        if left != right and not self.columns[right].unique:
            self.parents[right] = left

    def filled(self) -> Rows:
        for key in self.columns:
            self.fill(key)
        filled = {}
        for table, columns in self.schema.tables.items():
            order = self.random.sample(range(self.counts[table.lower()]), self.counts[table.lower()])
            filled[table] = [tuple(self.values[column.key][row] for column in columns) for row in order]
        return filled

    def fill(self, key: Key) -> None:
        """Fills a column after the one that it refers to."""
        if key in self.values:
            return
        if key not in self.parents:
            self.values[key] = self.own(self.columns[key])
        else:
            self.fill(self.parents[key])
            self.values[key] = self.references(self.columns[key], self.parents[key])

    def own(self, column: Column) -> list[Literal]:
        """Returns values of a column that refers to nothing. The first rows of a table are the hits."""
        table = column.key[0]
        count, hits = self.counts[table], self.hits[table]
        around = [self.near(column, literal) for literal in self.literals.get(column.key, [])]
        wanted = [value for values in around for value in values]
        pool = self.pool(column)
        weights = [1 / (rank + 1) for rank in range(len(pool))]
        values = []
        for row in range(count):
            if wanted and self.random.random() < (0.85 if row < hits else 0.15):
                values.append(self.random.choice(wanted))
            else:
                values.append(self.random.choices(pool, weights)[0])
        if not column.unique:
            return values
        values[: len(around)] = [literal for literal, *_ in around][:count]
        return self.distinct(column, values)

    def references(self, column: Column, parent: Key) -> list[Literal]:
        """Returns values of the column referred to; a fifth of its rows is left alone."""
        values, hits = self.values[parent], self.hits[parent[0]]
        chosen = self.random.sample(range(len(values)), max(1, len(values) * 4 // 5))
        steepness = self.random.choice((0.7, 1.5))
        weights = [(rank + 1) ** -steepness * (4 if row < hits else 1) for rank, row in enumerate(chosen)]
        drawn = []
        for row in range(self.counts[column.key[0]]):
            if row < self.hits[column.key[0]] and self.random.random() < 0.5:
                referred = self.random.randrange(hits)
            else:
                referred = self.random.choices(chosen, weights)[0]
            drawn.append(values[referred])
        return drawn

    def pool(self, column: Column) -> list[Literal]:
        """Returns the values of all columns of this name and type in this set of rows."""
        draw = random.Random(f"{self.seed} {column.key[1]} {column.type}")
        size = draw.choice(DISTINCT)
        if column.type == "boolean":
            return [0, 1]
        if column.type == "number":
            scale = draw.choice((1, 1, 1, 0.5))
            numbers = draw.sample(range(1, 120), size)
            return [number if scale == 1 else number * scale for number in numbers]
        if column.type == "time":
            return [self.date(draw) for _ in range(size)]
        return [self.word(draw) for _ in range(size)]

    def near(self, column: Column, literal: Literal) -> list[Literal]:
        """Returns a literal with what lies around it, in the column's type."""
        if literal is None:
            return [None]
        if isinstance(literal, str):
            number = _number(literal) if column.type == "number" else None
            if number is not None:
                return self.near(column, number)
            values: list[Literal] = [literal]
            if "%" in literal or "_" in literal:
                values = [self.matching(literal) for _ in range(3)]
            if _DATE.fullmatch(literal[:10]):
                values += [self.date(self.random)[: len(literal)] for _ in range(2)]
            return values
        around = [literal, literal, literal - 1, literal + 1, literal + self.random.randint(2, 40)]
        around.append(max(0, literal - self.random.randint(2, 40)) if literal >= 0 else literal * 2)
        return around if column.type in ("number", "boolean") else [str(value) for value in around]

    def matching(self, pattern: str) -> str:
        """Returns a text that a LIKE pattern matches."""
        drawn = {"%": lambda: self.word(self.random), "_": lambda: self.random.choice(string.ascii_lowercase)}
        return "".join(drawn[mark]() if mark in drawn else mark for mark in pattern)

    def distinct(self, column: Column, values: list[Literal]) -> list[Literal]:
        """Replaces what occurs again."""
        seen: set[Literal] = set()
        fresh = 1000
        for row, value in enumerate(values):
            if value in seen:
                fresh += 1
                value = fresh if column.type in ("number", "boolean") else f"{value or ''}{fresh}"
            seen.add(value)
            values[row] = value
        return values

    @staticmethod
    def word(draw: random.Random) -> str:
        return "".join(draw.choices(_SYLLABLES, k=draw.randint(2, 3))).capitalize()

    @staticmethod
    def date(draw: random.Random) -> str:
        return (
            f"{draw.randint(1990, 2022)}-{draw.randint(1, 12):02}-{draw.randint(1, 28):02} "
            f"{draw.randint(0, 23):02}:{draw.randint(0, 59):02}:00"
        )


def _number(text: str) -> int | float | None:
    """Returns a text as a number, if it is one that SQLite can hold exactly."""
    try:
        number = float(text)
    except ValueError:
        return None
    if not abs(number) < 1e15:
        return None
    return int(number) if number.is_integer() else number
