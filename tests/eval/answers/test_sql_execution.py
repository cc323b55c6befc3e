"""Execution: what is equal, what is wrong, and that nothing but reading happens."""

import sqlite3
import time

import pytest

from predrec.errors import UserError
from predrec.eval.answers import sql_execution
from predrec.eval.answers.sql_execution import QueryError, SyntheticDatabases, database_of, run_query, same_answer

from .planted import LIBRARY

BOMB = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"


@pytest.fixture
def connection():
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE pet (name TEXT, age INTEGER)")
    connection.executemany("INSERT INTO pet VALUES (?, ?)", [("Rex", 3), ("Tom", 5)])
    connection.commit()
    yield connection
    assert connection.execute("SELECT * FROM pet").fetchall() == [("Rex", 3), ("Tom", 5)]


@pytest.fixture(scope="module")
def databases():
    return SyntheticDatabases([LIBRARY])


def test_run_query_gives_rows_with_rounded_numbers(connection):
    assert run_query(connection, "SELECT name, age / 3.0 FROM pet;") == [("Rex", 1.0), ("Tom", 1.666667)]
    assert run_query(connection, "WITH old AS (SELECT * FROM pet WHERE age > 4) SELECT name FROM old") == [("Tom",)]


@pytest.mark.parametrize(
    "query",
    [
        "DELETE FROM pet",
        "DROP TABLE pet",
        "INSERT INTO pet VALUES ('Kit', 1)",
        "UPDATE pet SET age = 1",
        "CREATE TABLE other (a)",
        "CREATE TEMP TABLE other (a)",
        "ATTACH ':memory:' AS other",
        "PRAGMA query_only = OFF",
        "SELECT * FROM pragma_table_info('pet')",
        "BEGIN",
        "VACUUM",
        "SELECT load_extension('x')",
        "SELECT 1; SELECT 2",
        "SELECT absent FROM pet",
        "",
        ";",
        "-- nothing",
        "SELECT",
        "SELECT '\0'",
        "SELECT '\ud800'",
        ".shell echo",
        BOMB,
        "SELECT count(*) FROM pet a, pet b" + "".join(f", pet c{number}" for number in range(30)),
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 30000) SELECT i FROM n",
        "SELECT CAST(x'ff' AS TEXT)",
    ],
)
def test_run_query_refuses_all_but_one_small_select(connection, query):
    start = time.perf_counter()
    with pytest.raises(QueryError):
        run_query(connection, query)
    assert time.perf_counter() - start < 2 * sql_execution.MAX_SECONDS


@pytest.mark.parametrize(
    ("answer", "gold", "ordered", "verdict"),
    [
        ([(1,), (2,)], [(2,), (1,)], False, True),
        ([(1,), (2,)], [(2,), (1,)], True, False),
        ([(1,), (2,)], [(1,), (2,)], True, True),
        ([(1,), (1,)], [(1,)], False, False),
        ([(1, 2)], [(2, 1)], False, False),
        ([(1.0,)], [(1,)], False, True),
        ([("1",)], [(1,)], False, False),
        ([], [], False, True),
        ([(None,)], [], False, False),
    ],
)
def test_same_answer_compares_multisets_unless_ordered(answer, gold, ordered, verdict):
    assert same_answer(answer, gold, ordered) is verdict


GOLD = "SELECT name FROM Author WHERE age > 40"
ORDERED = "SELECT name FROM Author ORDER BY Author_ID"
EMPTY = "SELECT name FROM Author WHERE 1 = 0"


@pytest.mark.parametrize(
    ("generation", "gold", "verdict"),
    [
        (GOLD, GOLD, True),
        ("select T1.NAME from author as T1 where not T1.age <= 40;", GOLD, True),
        (GOLD + " ORDER BY name", GOLD, True),
        ("SELECT name FROM Author WHERE age > 41", GOLD, False),
        ("SELECT name FROM Author WHERE age > 4", GOLD, False),
        ("SELECT name FROM Author WHERE age >= 40", GOLD, False),
        ("SELECT DISTINCT name FROM Author WHERE age > 40", GOLD, False),
        ("SELECT name, age FROM Author WHERE age > 40", GOLD, False),
        (GOLD + " AND name != 'Ann'", GOLD, False),
        (GOLD + " OR \"Home Town\" = 'Oslo'", GOLD, False),
        ("SELECT name FROM Author", ORDERED, False),
        ("SELECT name FROM Author ORDER BY Author_ID DESC", ORDERED, False),
        ("SELECT name FROM Author ORDER BY 0 + Author_ID", ORDERED, True),
        ("SELECT absent FROM Author", EMPTY, False),
        ("", GOLD, False),
        ("", EMPTY, False),
        ("DROP TABLE Author", EMPTY, False),
        (BOMB, EMPTY, False),
        ("SELECT name FROM Author WHERE age > 10 AND 1 = 0", EMPTY, None),
        ("SELECT 0", "SELECT count(*) FROM Author WHERE 1 = 0", None),
        ("SELECT name FROM Author", EMPTY, False),
        (EMPTY, EMPTY, True),
        ("SELECT count(*) FROM Author", "SELECT count(*) FROM Book", False),
        (
            "SELECT name FROM Author WHERE Author_ID IN (SELECT Author_ID FROM Book WHERE title LIKE '%sea%')",
            "SELECT DISTINCT T1.name FROM Author AS T1 JOIN Book AS T2 ON T1.Author_ID = T2.Author_ID "
            "WHERE T2.title LIKE '%sea%' GROUP BY T1.Author_ID",
            False,
        ),
        (
            "SELECT count(DISTINCT Author_ID) FROM Book WHERE title LIKE '%sea%'",
            "SELECT count(*) FROM Author WHERE Author_ID IN (SELECT Author_ID FROM Book WHERE title LIKE '%sea%')",
            True,
        ),
    ],
)
def test_match_tells_queries_apart(databases, generation, gold, verdict):
    assert databases.match(generation, gold, "library") is verdict


def test_match_is_undecided_when_the_gold_query_does_not_run(databases):
    assert databases.match(GOLD, "SELECT absent FROM Author", "library") is None


def test_what_is_generated_cannot_stop_the_gold_query(databases):
    gold = "SELECT group_concat(a.name) FROM author AS a JOIN author AS b"
    generation = f"SELECT name FROM author WHERE name = '{'x' * 140}'"
    assert databases.match(generation, gold, "library") is False


def test_ties_do_not_make_an_equal_query_wrong():
    databases = SyntheticDatabases([LIBRARY])
    gold = 'SELECT "Home Town" FROM author GROUP BY "Home Town" ORDER BY count(*) DESC LIMIT 1'
    counts = 'SELECT "Home Town" AS town, count(*) AS number FROM author GROUP BY town ORDER BY town DESC'
    same = f"SELECT town FROM ({counts}) ORDER BY number DESC LIMIT 1"
    assert databases.summary([(gold, "library")]).settled == 1
    assert databases.match(same, gold, "library") is True


def test_summary_counts_what_runs_finds_and_settles(databases):
    golds = [
        GOLD,
        EMPTY,
        "SELECT absent FROM Author",
        "SELECT sum(pages) FROM book",
        "SELECT name FROM author LIMIT 1",
    ]
    summary = databases.summary((gold, "library") for gold in golds)
    assert (summary.count, summary.runs, summary.non_empty, summary.settled) == (5, 0.8, 0.6, 0.6)
    assert summary.failures == {golds[2]: "no such column: absent"}


def test_an_unknown_database_is_refused(databases):
    with pytest.raises(UserError, match="no schema of the database 'zoo' among the 1 given"):
        databases.match(GOLD, GOLD, "zoo")


@pytest.mark.parametrize("arguments", [{"rows": 0}, {"databases": 0}, {"databases": 3, "seeds": (1, 2)}])
def test_numbers_that_cannot_work_are_refused(arguments):
    with pytest.raises(UserError, match="at least 1"):
        SyntheticDatabases([LIBRARY], **arguments)


def test_database_of_reads_the_prompt():
    assert database_of("For db_id:[concert_singer]\n\nHow many singers?") == "concert_singer"
    with pytest.raises(UserError, match="names no database"):
        database_of("How many singers?")
