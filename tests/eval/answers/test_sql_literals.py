"""What is read out of a query."""

import pytest

from predrec.eval.answers.sql_literals import SUMMED, compared, orders_rows
from predrec.eval.answers.sql_schema import read_schema

from .planted import LIBRARY

SCHEMA = read_schema(LIBRARY)
NAME, AGE, TOWN = ("author", "name"), ("author", "age"), ("author", "home town")
PRICE, PAGES = ("book", "price"), ("book", "pages")


@pytest.mark.parametrize(
    ("query", "ordered"),
    [
        ("SELECT name FROM author ORDER BY age", True),
        ("select name from author order\n by age limit 1", True),
        ("SELECT name FROM author", False),
        ("SELECT name FROM (SELECT * FROM author ORDER BY age LIMIT 3)", False),
        ("SELECT name FROM author WHERE age = (SELECT age FROM author ORDER BY age LIMIT 1) ORDER BY name", True),
        ("SELECT 'ORDER BY', \"order by\" FROM author", False),
    ],
)
def test_only_the_outermost_order_counts(query, ordered):
    assert orders_rows(query) is ordered


@pytest.mark.parametrize(
    ("where", "literals"),
    [
        ("age > 20", {AGE: [20]}),
        ("T1.age >= 20.5 AND T1.name = 'Ann'", {AGE: [20.5], NAME: ["Ann"]}),
        ("age BETWEEN 20 AND 30", {AGE: [20, 30]}),
        ("NAME IN ('Ann', \"Bob\")", {NAME: ["Ann", "Bob"]}),
        ("name LIKE '%nn%'", {NAME: ["%nn%"]}),
        ("name = 'O''Hara'", {NAME: ["O'Hara"]}),
        ("`Home Town` = 'Oslo'", {TOWN: ["Oslo"]}),
        ('"Home Town" = "Oslo"', {TOWN: ["Oslo"]}),
        ("age < -5", {AGE: [-5]}),
        ("age IS NULL", {AGE: [None]}),
        ("name = 'Ann' GROUP BY name HAVING count(*) > 3 ORDER BY age LIMIT 7", {NAME: ["Ann"]}),
        ("name = 'Ann' GROUP BY name HAVING max(age) > 3", {NAME: ["Ann"], AGE: [3]}),
        ("name = 'Ann' OR 5 < 3", {NAME: ["Ann"]}),
        (f"name = '{'x' * 200}' AND age = 99999999999999999999", {AGE: ["99999999999999999999"]}),
    ],
)
def test_a_literal_belongs_to_the_column_before_it(where, literals):
    assert compared(f"SELECT T1.name FROM Author AS T1 WHERE {where}", SCHEMA).literals == literals


def test_a_column_without_its_table_is_of_the_tables_in_the_query():
    query = "SELECT * FROM loan JOIN book WHERE book_id = 3"
    assert compared(query, SCHEMA).literals == {("book", "book_id"): [3], ("loan", "book_id"): [3]}


def test_columns_held_against_each_other_are_pairs():
    query = "SELECT * FROM author AS a JOIN loan AS b ON a.name = b.reader WHERE a.age > 3"
    assert compared(query, SCHEMA).columns == [(NAME, ("loan", "reader"))]


def test_what_is_summed_up_is_held_against_a_number():
    assert compared("SELECT sum(T1.pages), avg(price) FROM book AS T1", SCHEMA).literals == {
        PAGES: [SUMMED],
        PRICE: [SUMMED],
    }


def test_both_queries_give_their_literals():
    first, second = (compared(f"SELECT * FROM author WHERE {text}", SCHEMA) for text in ("age = 1", "age = 2"))
    assert (first | second).literals == {AGE: [1, 2]}


@pytest.mark.parametrize(
    "query", ["", "(((", "'", "age", ". . age = = 5 from", "from author as", "\ud800 age = '\ud800'"]
)
def test_what_is_no_query_is_read_all_the_same(query):
    assert compared(query, SCHEMA).columns == []
