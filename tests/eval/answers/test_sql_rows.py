"""Laws that made-up rows obey."""

from hypothesis import given, settings
from hypothesis import strategies as st

from predrec.eval.answers.sql_literals import Comparisons
from predrec.eval.answers.sql_rows import generate_rows
from predrec.eval.answers.sql_schema import read_schema

from .planted import LIBRARY

SCHEMA = read_schema(LIBRARY)
NO_QUERY = Comparisons()


def column(rows, table: str, name: str) -> list:
    position = [column.name for column in SCHEMA.tables[table]].index(name)
    return [row[position] for row in rows[table]]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 40))
def test_keys_are_unique_and_references_refer(seed, count):
    rows = generate_rows(SCHEMA, NO_QUERY, count, str(seed))
    authors, books = column(rows, "Author", "Author_ID"), column(rows, "Book", "Book_ID")
    assert len(set(authors)) == len(authors) and len(set(books)) == len(books)
    assert set(column(rows, "Book", "Author_ID")) <= set(authors)
    assert set(column(rows, "Loan", "Book_ID")) <= set(books)
    assert all(count // 2 <= len(rows[table]) <= count for table in rows)


def test_values_have_the_type_of_their_column():
    rows = generate_rows(SCHEMA, NO_QUERY, 30, "0")
    assert all(isinstance(value, (int, float)) for value in column(rows, "Book", "Price"))
    assert all(isinstance(value, str) for value in column(rows, "Author", "Name") + column(rows, "Author", "Born"))
    assert set(column(rows, "Book", "Lent")) == {0, 1}


def test_the_seed_decides():
    first, again, other = (generate_rows(SCHEMA, NO_QUERY, 30, seed) for seed in ("0", "0", "1"))
    assert first == again != other


def test_two_rows_in_five_have_what_the_query_asks_for_together():
    wanted = Comparisons({("author", "name"): ["Ann"], ("author", "home town"): ["%os%"]})
    rows = [row for seed in range(30) for row in generate_rows(SCHEMA, wanted, 30, str(seed))["Author"]]
    share = sum(row[1] == "Ann" and "os" in row[4] for row in rows) / len(rows)
    assert abs(share - 0.4 * 0.85**2 - 0.6 * 0.15**2) < 0.05


def test_numbers_lie_on_both_sides_of_a_literal():
    rows = generate_rows(SCHEMA, Comparisons({("author", "age"): [500]}), 30, "0")
    ages = column(rows, "Author", "Age")
    assert 500 in ages and any(age > 500 for age in ages) and any(200 < age < 500 for age in ages)


def test_a_reference_held_against_a_literal_finds_it_where_it_refers():
    wanted = Comparisons({("book", "author_id"): [777]})
    sets = [generate_rows(SCHEMA, wanted, 30, str(seed)) for seed in range(150)]
    assert all(777 in column(rows, "Author", "Author_ID") for rows in sets)
    assert sum(777 in column(rows, "Book", "Author_ID") for rows in sets) >= 75


def test_columns_held_against_each_other_share_values():
    pairs = Comparisons(columns=[(("author", "name"), ("loan", "reader"))])
    rows = generate_rows(SCHEMA, pairs, 30, "0")
    assert set(column(rows, "Loan", "Reader")) <= set(column(rows, "Author", "Name"))


def test_null_is_there_only_when_asked_for():
    asked = generate_rows(SCHEMA, Comparisons({("author", "age"): [None]}), 30, "0")
    assert None in column(asked, "Author", "Age")
    plain = generate_rows(SCHEMA, NO_QUERY, 30, "0")
    assert not any(None in row for rows in plain.values() for row in rows)


def test_references_in_a_circle_are_filled():
    circle = read_schema({**LIBRARY, "foreign_keys": [[8, 1], [1, 8], [3, 3]]})
    rows = generate_rows(circle, NO_QUERY, 10, "0")
    assert [len(row) for row in rows["Author"]] == [5] * len(rows["Author"])
