"""The table of tasks, and judging by it."""

import pytest

from predrec.errors import UserError
from predrec.eval.answers import METRICS, TASKS, SyntheticDatabases, find_answer_task, judge

from .planted import LIBRARY

SQL = "SELECT name FROM Author WHERE age > 40"
PROMPT = "For db_id:[library]\n\nWhich authors are older than 40?"


@pytest.mark.parametrize(
    ("task", "generation", "gold", "verdicts"),
    [
        ("exact_match", "a ", "a", {"exact_match": True}),
        ("startswith", "dogdog", "dog", {"startswith": True, "exact_match": False}),
        ("startswith", "dog", "", {"startswith": None, "exact_match": False}),
        ("synth", "(dog)|(cat)", "(dog)|(cat)", {"exact_match": True, "startswith": True, "regex_equivalence": True}),
        (
            "synth",
            "(cat)|(dog)",
            "(dog)|(cat)",
            {"exact_match": False, "startswith": False, "regex_equivalence": True},
        ),
        ("turk", "(cat", "cat", {"exact_match": False, "startswith": False, "regex_equivalence": False}),
        ("turk", "", "cat", {"exact_match": False, "startswith": False, "regex_equivalence": False}),
        ("turk", "^cat$", "^dog$", {"exact_match": False, "startswith": False, "regex_equivalence": None}),
        ("turk", "^cat$", "^cat$", {"exact_match": True, "startswith": True, "regex_equivalence": True}),
        (
            "turk",
            "(.*a.{25}&.*b.{25})|dog",
            "dog",
            {"exact_match": False, "startswith": False, "regex_equivalence": False},
        ),
        # The gold one is too large itself, whatever it is compared with.
        (
            "turk",
            ".*a.{20}.{5}",
            ".*a.{25}",
            {"exact_match": False, "startswith": False, "regex_equivalence": None},
        ),
        ("gsm8k", "1,000 + 80\n#### 1080", "#### 1,080", {"final_number": True}),
        ("gsm8k", "", "#### 1,080", {"final_number": False}),
        (
            "nq_open",
            "in Oslo in 1957",
            "Bergen; Oslo",
            {"contains_answer": True, "contains_substring": True, "exact_match": False},
        ),
        ("nq_open", "1957", "5", {"contains_answer": False, "contains_substring": True, "exact_match": False}),
        ("nq_open", "", "Oslo", {"contains_answer": False, "contains_substring": False, "exact_match": False}),
        ("rotten_tomatoes", "Good.", "Good", {"label": True}),
        ("rotten_tomatoes", "", "Good", {"label": False}),
        ("yelp", "Very Good", "Good", {"label": False}),
        ("yelp", "Very Good", "Very Good", {"label": True}),
        ("hellaswag", "B", "B", {"choice": True}),
        ("hellaswag", "A", "B", {"choice": False}),
    ],
)
def test_judge_gives_every_metric_of_the_task(task, generation, gold, verdicts):
    assert judge(task, generation, gold, "") == verdicts
    assert list(verdicts) == list(TASKS[task].metrics)


@pytest.mark.parametrize(
    ("generation", "verdict"), [(SQL + ";", True), ("SELECT name FROM Author", False), ("", False), ("age", False)]
)
def test_judge_runs_sql_on_the_database_of_the_prompt(generation, verdict):
    verdicts = judge("spider", generation, SQL, PROMPT, SyntheticDatabases([LIBRARY]))
    assert verdicts == {"synthetic_execution_match": verdict, "exact_match": False}


def test_judge_says_nothing_of_sql_without_databases():
    assert judge("spider", SQL, SQL, PROMPT) == {"synthetic_execution_match": None, "exact_match": True}


def test_judge_needs_to_know_the_database():
    with pytest.raises(UserError, match="names no database"):
        judge("spider", SQL, SQL, "Which authors?", SyntheticDatabases([LIBRARY]))


def test_a_gold_answer_that_is_no_label_is_refused():
    with pytest.raises(UserError, match="`yelp`: the gold answer 'Great' is none of 'Very Good'"):
        judge("yelp", "Good", "Great", "")


def test_a_task_is_a_name_and_not_a_path():
    with pytest.raises(UserError, match=r"Unknown task `data/synth_test\.jsonl`"):
        judge("data/synth_test.jsonl", "", "", "")
    with pytest.raises(UserError, match="did you mean `gsm8k`"):
        find_answer_task("gsm8")


def test_every_metric_and_task_is_in_its_table():
    assert {metric for task in TASKS.values() for metric in task.metrics} == set(METRICS)
    assert all(task.name == name and task.max_new_tokens > 0 for name, task in TASKS.items())
    assert [name for name, task in TASKS.items() if task.kind == "letters"] == ["hellaswag"]
