"""Does a generated query answer what the gold query answers? Asked of databases that are made up for the gold query.

Spider publishes its schemas apart from its rows. On empty tables nearly every valid query equals every other, and an
invalid one equals the gold one if both "print nothing". So each gold query gets several small databases of its schema,
filled at random with rows that it finds something in, and a generated query must give the same rows in all of them.
The metric is called `synthetic_execution_match`, because it is not Spider's execution accuracy: rows are not
Spider's, and a difference that shows in none of the databases is not seen.
"""

import re
import sqlite3
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from ...errors import UserError
from .sql_literals import compared, orders_rows
from .sql_rows import generate_rows
from .sql_schema import Schema, quoted, read_schema

MAX_SECONDS = 2.0
"""Time of one query, in seconds of the clock: a guard, the limit that counts is the next."""

MAX_STEPS = 5_000_000
"""Instructions of SQLite's machine for one query, the same on every computer; about half a second."""

MAX_ROWS = 20_000
"""Rows of an answer."""

MAX_LENGTH = 10_000
"""Bytes of a value or a row, and of a query."""

_ALLOWED = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
_STEPS = 1_000
_DB_ID = re.compile(r"db_id:\s*\[([^\]]*)\]")

Answer = list[tuple[Any, ...]]


class QueryError(Exception):
    """A query that gives no answer: not valid, not only reading, too slow, too much."""


def run_query(connection: sqlite3.Connection, query: str) -> Answer:
    """Returns the rows of one SELECT, with numbers rounded to six places.

    Nothing but reading is allowed: no writes, no PRAGMA, no ATTACH, no extensions, one statement.

    Raises:
        QueryError: If it fails, or passes `MAX_SECONDS`, `MAX_STEPS`, `MAX_ROWS` or `MAX_LENGTH`.
    """
    deadline, steps = time.monotonic() + MAX_SECONDS, 0

    def expired() -> bool:
        nonlocal steps
        steps += _STEPS
        return steps > MAX_STEPS or time.monotonic() > deadline

    connection.set_authorizer(_authorized)
    connection.set_progress_handler(expired, _STEPS)
    try:
        with closing(connection.execute(query)) as cursor:
            if cursor.description is None:  # An empty text, or a comment, runs and gives no rows.
                raise QueryError("no query")
            rows = cursor.fetchmany(MAX_ROWS + 1)
    except (sqlite3.Error, sqlite3.Warning, ValueError, OverflowError) as error:
        raise QueryError(str(error)) from error
    finally:
        connection.set_progress_handler(None, 0)
        connection.set_authorizer(None)
    if len(rows) > MAX_ROWS:
        raise QueryError(f"more than {MAX_ROWS} rows")
    return [tuple(round(value, 6) if isinstance(value, float) else value for value in row) for row in rows]


def _authorized(action: int, first: str | None, second: str | None, *_: str | None) -> int:
    extension = action == sqlite3.SQLITE_FUNCTION and (second or "").lower() == "load_extension"
    return sqlite3.SQLITE_OK if action in _ALLOWED and not extension else sqlite3.SQLITE_DENY


def same_answer(answer: Answer, gold: Answer, ordered: bool) -> bool:
    """Have both answers the same rows, as often each, and in the same order if `ordered`?"""
    return answer == gold if ordered else Counter(answer) == Counter(gold)


def database_of(prompt: str) -> str:
    """Returns the database that a prompt names, as in `For db_id:[concert_singer]`.

    Raises:
        UserError: If it names none.
    """
    found = _DB_ID.search(prompt)
    if not found:
        raise UserError(f"The prompt names no database as `db_id:[name]`: {prompt[:200]!r}.")
    return found[1].strip()


@dataclass
class GoldSummary:
    """What gold queries do on their databases.

    Args:
        count (`int`): Queries.
        runs (`float`): Share that runs; of the others nothing can be said.
        non_empty (`float`): Share of all with a value, other than NULL and 0, in at least one database.
        settled (`float`): Share of all whose answers do not depend on the order in which tables are read.
        failures (`dict[str, str]`): Messages of those that do not run.
    """

    count: int
    runs: float
    non_empty: float
    settled: float
    failures: dict[str, str]


class SyntheticDatabases:
    """Databases in memory, made up for each gold query.

    Their rows hold what the gold query compares columns with, in every second database also what the generated query
    does: `age > 20` and `age > 30` differ only where somebody is 25.

    A query whose answer depends on the order in which SQLite happens to read a table (`LIMIT 1` where several come
    first, `ORDER BY` with ties, a bare column of a group) would call an equally good one wrong. So the gold query runs
    a second time with tables read backwards, and databases in which that matters are passed over while there are
    others.

    Args:
        schemas (`list[dict]`): Entries of `tables.json`, as from [`load_schemas`].
        rows (`int`, defaults to 30): Of the largest tables; others have down to half as many.
        seeds (`Sequence[int]`, defaults to 0 to 15): One database per seed is made up until `databases` are found.
        databases (`int`, defaults to 8): For each gold query.

    Raises:
        UserError: If an argument is out of range or a schema is broken.
    """

    def __init__(
        self,
        schemas: list[Mapping[str, Any]],
        rows: int = 30,
        seeds: Sequence[int] = tuple(range(16)),
        databases: int = 8,
    ):
        if rows < 1 or not 1 <= databases <= len(seeds):
            raise UserError(
                f"`rows` ({rows}) and `databases` ({databases}) must be at least 1, and there must be as many `seeds` "
                f"({len(seeds)}) as databases."
            )
        self.schemas = {schema.name: schema for schema in map(read_schema, schemas)}
        self.rows, self.seeds, self.databases = rows, tuple(seeds), databases

    def match(self, generation: str, gold: str, db_id: str) -> bool | None:
        """Does the generated query give the gold query's rows in all databases?

        Rows are compared as multisets, in order if the gold query's outermost ORDER BY asks for one; names of columns
        do not count, their order does. An invalid query, a query that does more than read, and one that reaches a
        limit is wrong, whatever the gold query gives.

        Args:
            generation, gold (`str`): One SELECT each; a semicolon at the end is allowed.
            db_id (`str`): Which schema.

        Returns:
            `None` when the gold query does not run, or another one agrees with it where it finds nothing: other than
            NULL and 0, no database holds a value for it, and any query that returns nothing would be right.

        Raises:
            UserError: If there is no such schema.
        """
        ordered, found = orders_rows(gold), generation == gold
        try:
            for connection, answer, _ in self._prepared(gold, db_id, generation):
                found = found or _holds_a_value(answer)
                if not same_answer(run_query(connection, generation), answer, ordered):
                    return False
        except _GoldError:
            return None
        except QueryError:
            return False
        return True if found else None

    def summary(self, golds: Iterable[tuple[str, str]]) -> GoldSummary:
        """Tries gold queries, given with their `db_id`. Returns how many are of use."""
        count = runs = non_empty = settled = 0
        failures = {}
        for gold, db_id in golds:
            count += 1
            try:
                answers = [(answer, steady) for _, answer, steady in self._prepared(gold, db_id)]
            except _GoldError as error:
                failures[gold] = str(error)
                continue
            runs += 1
            non_empty += any(_holds_a_value(answer) for answer, _ in answers)
            settled += all(steady for _, steady in answers)
        total = max(1, count)
        return GoldSummary(count, runs / total, non_empty / total, settled / total, failures)

    def _prepared(
        self, gold: str, db_id: str, generation: str = ""
    ) -> Iterator[tuple[sqlite3.Connection, Answer, bool]]:
        """Gives databases with the gold query's answer, and whether that is settled; settled ones first."""
        if db_id not in self.schemas:
            raise UserError(f"There is no schema of the database {db_id!r} among the {len(self.schemas)} given.")
        schema, ordered = self.schemas[db_id], orders_rows(gold)
        wanted = compared(gold, schema)
        both = wanted | compared(generation[:MAX_LENGTH], schema)
        found, passed_over = 0, []
        for number, seed in enumerate(self.seeds):
            extended = bool(generation) and number % 2 == 1
            rows = generate_rows(schema, both if extended else wanted, self.rows, f"{seed} {db_id}")
            with closing(_filled(schema, rows)) as connection:
                try:
                    answer, backwards = _both_ways(connection, gold)
                except _GoldError:
                    if extended:  # What was generated must not be able to stop the gold query.
                        continue
                    raise
                if same_answer(answer, backwards, ordered):
                    found += 1
                    yield connection, answer, True
                else:
                    passed_over.append(rows)
            if found == self.databases:
                return
        for rows in passed_over[: self.databases - found]:
            with closing(_filled(schema, rows)) as connection:
                yield connection, _both_ways(connection, gold)[0], False


def _holds_a_value(answer: Answer) -> bool:
    return any(value not in (None, 0) for row in answer for value in row)


class _GoldError(Exception):
    """The gold query does not run."""


def _both_ways(connection: sqlite3.Connection, gold: str) -> tuple[Answer, Answer]:
    """Returns the gold query's answer, and that with tables read backwards."""
    answers = []
    for pragma in ("OFF", "ON"):
        connection.execute(f"PRAGMA reverse_unordered_selects = {pragma}")
        try:
            answers.append(run_query(connection, gold))
        except QueryError as error:
            raise _GoldError(str(error)) from error
    connection.execute("PRAGMA reverse_unordered_selects = OFF")
    return answers[0], answers[1]


def _filled(schema: Schema, rows: Mapping[str, list[tuple]]) -> sqlite3.Connection:
    """Returns a database in memory that is not to be written to any more."""
    connection = sqlite3.connect(":memory:", cached_statements=0)
    for statement in schema.statements():
        connection.execute(statement)
    for table, values in rows.items():
        marks = ", ".join("?" * len(values[0]))
        connection.executemany(f"INSERT INTO {quoted(table)} VALUES ({marks})", values)
    connection.commit()
    connection.execute("PRAGMA query_only = ON")
    for limit, value in (
        (sqlite3.SQLITE_LIMIT_LENGTH, MAX_LENGTH),
        (sqlite3.SQLITE_LIMIT_SQL_LENGTH, MAX_LENGTH),
        (sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 200),
    ):
        connection.setlimit(limit, value)
    return connection
