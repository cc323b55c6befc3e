"""Verdicts on what a language model answers: text, numbers, labels, letters, regexes, SQL; a table of tasks."""

from .letters import LETTERS, letter_choice, letter_token_ids
from .sql_execution import GoldSummary, SyntheticDatabases, database_of
from .sql_schema import load_schemas
from .tasks import METRICS, TASKS, AnswerTask, Verdict, check_gold, find_answer_task, judge

__all__ = [
    "LETTERS",
    "METRICS",
    "TASKS",
    "AnswerTask",
    "GoldSummary",
    "SyntheticDatabases",
    "Verdict",
    "check_gold",
    "database_of",
    "find_answer_task",
    "judge",
    "letter_choice",
    "letter_token_ids",
    "load_schemas",
]
