"""The tasks whose answers are generated: one row per task, and one function that judges an answer."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from ...configuration.suggestions import did_you_mean
from ...errors import UserError
from .letters import LETTERS
from .regex_automaton import decidable, equivalent
from .regex_language import RegexSyntaxError
from .sql_execution import SyntheticDatabases, database_of
from .text import POLARITY, STARS, contains_answer, exact_match, same_final_number, same_label, starts_with

Verdict: TypeAlias = bool | None
"""`None` where nothing can be said: not part of a mean, but of what is counted."""


@dataclass(frozen=True)
class AnswerTask:
    """One row of the table.

    Args:
        name (`str`): As on the command line. It is always given, and never guessed from the name of a file.
        metrics (`tuple[str, ...]`): Keys of `METRICS`; the first is the task's headline.
        max_new_tokens (`int`, defaults to 128): Longest answer that is generated.
        labels (`tuple[str, ...]`): What answers may be, where they are labels or letters.
        kind (`"generate"` or `"letters"`, defaults to `"generate"`):
            The answer is what the model writes, or the most probable of `labels` as its first token.
    """

    name: str
    metrics: tuple[str, ...]
    max_new_tokens: int = 128
    labels: tuple[str, ...] = ()
    kind: Literal["generate", "letters"] = "generate"


@dataclass(frozen=True)
class Answer:
    """What is judged: an answer, the gold one, and what else a metric may need."""

    task: AnswerTask
    generation: str
    gold: str
    prompt: str
    databases: SyntheticDatabases | None


def _starts_with(answer: Answer) -> Verdict:
    return starts_with(answer.generation, answer.gold) if answer.gold.strip() else None


def _same_language(answer: Answer) -> Verdict:
    generation, gold = answer.generation.strip(), answer.gold.strip()
    try:
        found = equivalent(gold, generation)
        # An answer too large to be decided is none that somebody could use; a gold one that is decides nothing.
        return False if found is None and decidable(gold) else found
    except RegexSyntaxError:
        # A gold regex of another dialect decides nothing, except that it equals itself.
        return generation == gold or (False if _is_regex(gold) else None)


def _is_regex(text: str) -> bool:
    try:
        equivalent(text, text)
    except RegexSyntaxError:
        return False
    return True


def _execution(answer: Answer) -> Verdict:
    if answer.databases is None:
        return None
    return answer.databases.match(answer.generation.strip(), answer.gold.strip(), database_of(answer.prompt))


METRICS: dict[str, Callable[[Answer], Verdict]] = {
    "exact_match": lambda answer: exact_match(answer.generation, answer.gold),
    "startswith": _starts_with,
    "regex_equivalence": _same_language,
    "final_number": lambda answer: same_final_number(answer.generation, answer.gold),
    "synthetic_execution_match": _execution,
    "contains_answer": lambda answer: contains_answer(answer.generation, answer.gold),
    "contains_substring": lambda answer: contains_answer(answer.generation, answer.gold, whole_words=False),
    "label": lambda answer: same_label(answer.generation, answer.gold, answer.task.labels),
    "choice": lambda answer: exact_match(answer.generation, answer.gold),
}
"""Metrics by name. `contains_substring` is the paper's for NQ-Open, `contains_answer` asks for whole words."""

REGEX = ("exact_match", "startswith", "regex_equivalence")

TASKS = {
    task.name: task
    for task in (
        AnswerTask("exact_match", ("exact_match",)),
        AnswerTask("startswith", ("startswith", "exact_match")),
        AnswerTask("synth", REGEX),
        AnswerTask("turk", REGEX),
        AnswerTask("gsm8k", ("final_number",), max_new_tokens=512),
        AnswerTask("spider", ("synthetic_execution_match", "exact_match"), max_new_tokens=256),
        AnswerTask("nq_open", ("contains_answer", "contains_substring", "exact_match"), max_new_tokens=64),
        AnswerTask("rotten_tomatoes", ("label",), max_new_tokens=16, labels=POLARITY),
        AnswerTask("yelp", ("label",), max_new_tokens=16, labels=STARS),
        AnswerTask("hellaswag", ("choice",), max_new_tokens=1, labels=LETTERS, kind="letters"),
    )
}
"""The data sets of arXiv 2509.14252, and two plain comparisons for others."""


def find_answer_task(name: str) -> AnswerTask:
    """Returns a row of the table.

    Raises:
        UserError: With the nearest name.
    """
    if name not in TASKS:
        raise UserError(f"Unknown task `{name}`" + did_you_mean(name, list(TASKS)))
    return TASKS[name]


def check_gold(task: AnswerTask, gold: str) -> None:
    """Raises `UserError` if a gold answer is none of the task's labels."""
    if task.labels and gold.strip() not in task.labels:
        raise UserError(f"`{task.name}`: the gold answer {gold!r} is none of {', '.join(map(repr, task.labels))}.")


def judge(
    task: str,
    generation: str,
    gold: str,
    prompt: str,
    databases: SyntheticDatabases | None = None,
) -> dict[str, Verdict]:
    """Judges one answer by all metrics of its task.

    Args:
        task (`str`): A name in `TASKS`, said by whoever knows what is asked.
        generation (`str`): What the model wrote, or the letter that it chose.
        gold (`str`): The right answer.
        prompt (`str`): What was asked; a prompt of Spider names its database.
        databases (`SyntheticDatabases`, *optional*): For Spider; without them its execution match is `None`.

    Returns:
        A verdict per metric, the headline first.

    Raises:
        UserError: If there is no such task, the gold answer is none of the task's labels, or a prompt of Spider names
            no known database.
    """
    row = find_answer_task(task)
    check_gold(row, gold)
    answer = Answer(row, generation, gold, prompt, databases)
    return {name: METRICS[name](answer) for name in row.metrics}
