"""A language model answers records: prompts, outputs and verdicts, one line each, and the mean of every verdict."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from ..data_collators.two_views import TwoViews
from ..data_collators.view_examples import RecordEncoder
from .answers import (
    LETTERS,
    SyntheticDatabases,
    check_gold,
    find_answer_task,
    judge,
    letter_choice,
    letter_token_ids,
)
from .generation import check_lengths, greedy, next_token_logits, stop_token_ids


def check_answerable(
    model: nn.Module,
    encoder: RecordEncoder,
    records: Sequence[TwoViews],
    task: str,
    max_new_tokens: int | None = None,
) -> None:
    """Finds what would stop [`answer`] with these arguments, so that it is known before a model is trained.

    Raises:
        UserError: If a gold answer is none of the task's labels, a prompt leaves no room for its answer, or letters
            are not one token each.
    """
    row = find_answer_task(task)
    for record in records:
        check_gold(row, record.code)
    letters = row.kind == "letters"
    if letters and records:
        _letter_ids(encoder, records[0])
    longest = 1 if letters else max_new_tokens or row.max_new_tokens
    check_lengths(model, [encoder.prompt_ids(record) for record in records], longest)


def answer(
    model: nn.Module,
    encoder: RecordEncoder,
    records: Sequence[TwoViews],
    task: str,
    max_new_tokens: int | None = None,
    batch_size: int = 64,
    databases: SyntheticDatabases | None = None,
) -> list[dict[str, Any]]:
    """Generates for every record, greedily, and judges what comes.

    Args:
        model (`nn.Module`): Causal language model, perhaps with adapters.
        encoder ([`RecordEncoder`]): As in training: prompts are those that the model was trained on.
        records (`Sequence[TwoViews]`): What to answer.
        task (`str`): How answers are judged, see [`find_answer_task`].
        max_new_tokens (`int`, *optional*): Longest answer; the task's own when absent.
        batch_size (`int`, defaults to 64): Prompts at a time.
        databases (`SyntheticDatabases`, *optional*): For `spider`.

    Returns:
        One `dict` per record: `prompt` and `answer` as text, `gold`, and one entry per verdict, `None` where a verdict
        does not apply.

    Raises:
        UserError: As [`check_answerable`].
    """
    check_answerable(model, encoder, records, task, max_new_tokens)
    row = find_answer_task(task)
    prompts = [encoder.prompt_ids(record) for record in records]
    if row.kind == "letters":
        answers = _letters(model, encoder, records, prompts, batch_size)
    else:
        generated = greedy(
            model,
            prompts,
            stop_ids=stop_token_ids(model, encoder.tokenizer, {encoder.stop_id(record) for record in records[:1]}),
            pad_id=encoder.tokenizer.pad_token_id,
            max_new_tokens=max_new_tokens or row.max_new_tokens,
            batch_size=batch_size,
            suppress_ids=encoder.predictor_ids,
        )
        answers = [encoder.tokenizer.decode(ids, skip_special_tokens=True) for ids in generated]
    rows = []
    for record, prompt, text in zip(records, prompts, answers, strict=True):
        verdicts = judge(task, text, record.code, record.text, databases)
        prompt_text = encoder.tokenizer.decode(prompt)
        rows.append({"prompt": prompt_text, "gold": record.code, "answer": text, **verdicts})
    return rows


def _letters(
    model: nn.Module,
    encoder: RecordEncoder,
    records: Sequence[TwoViews],
    prompts: Sequence[Sequence[int]],
    batch_size: int,
) -> list[str]:
    """Returns the most probable letter for every record, by the logits where its answer begins."""
    ids = _letter_ids(encoder, records[0])
    logits = next_token_logits(model, prompts, pad_id=encoder.tokenizer.pad_token_id, batch_size=batch_size)
    return [letter_choice(each, ids) for each in logits]


def _letter_ids(encoder: RecordEncoder, record: TwoViews) -> dict[str, int]:
    return letter_token_ids({x: encoder.generation_ids(replace(record, code=x))[1] for x in LETTERS})


def verdict_means(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Returns the mean of every verdict over the records that it applies to."""
    names = [name for name in rows[0] if name not in ("prompt", "gold", "answer")] if rows else []
    judged = {name: [row[name] for row in rows if row[name] is not None] for name in names}
    return {name: float(np.mean(values)) for name, values in judged.items() if values}


def write_answers(path: str | Path, rows: Iterable[dict[str, Any]]) -> None:
    """Writes one line of JSON per record."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
