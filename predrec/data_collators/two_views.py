"""Records with two views of one thing, for LLM-JEPA: a description and its code, a question and its answer."""

import gzip
import json
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np

from ..errors import UserError


@dataclass(frozen=True)
class TwoViews:
    """One record.

    Args:
        text, code (`str`): The two views: what is asked, and what is generated.
        system (`str`, *optional*): Instruction in front of the generated sequence; never part of a view.
        jepa_text, jepa_code (`str`, *optional*): The pair for the latent loss where it is not `text` and `code`.
    """

    text: str
    code: str
    system: str | None = None
    jepa_text: str | None = None
    jepa_code: str | None = None

    @property
    def pair(self) -> tuple[str, str]:
        """The two views that the latent loss compares."""
        return (
            self.text if self.jepa_text is None else self.jepa_text,
            self.code if self.jepa_code is None else self.jepa_code,
        )


def load_records(path: str | Path, group_column: str = "captions", cyclic: bool = False) -> list[TwoViews]:
    """Reads records from a file, by what its rows have.

    | a row has | and is |
    |---|---|
    | `messages` | a chat: an optional system turn, a user turn (`text`), an assistant turn (`code`) |
    | `text` and `code` | a pair, perhaps with `system`, `jepa_text` and `jepa_code` |
    | `group_column` | a group of paraphrases: each predicts the next one (Huang et al., 2025) |

    Args:
        path (`str`): jsonl or parquet; jsonl perhaps with gzip.
        group_column (`str`, defaults to `"captions"`): Column with lists of paraphrases.
        cyclic (`bool`, defaults to `False`): The last paraphrase of a group predicts the first one, too.

    Raises:
        UserError: If the file cannot be read or a row is none of these; with its number.
    """
    records = []
    for number, row in enumerate(_rows(Path(path)), start=1):
        try:
            records += _records_of(row, group_column, cyclic)
        except UserError as error:
            raise UserError(f"`{path}`, row {number}: {error}") from None
    if not records:
        raise UserError(f"`{path}` has no records.")
    return records


def _rows(path: Path) -> Iterable[dict[str, Any]]:
    if not path.is_file():
        raise UserError(f"{str(path)!r} does not exist.")
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes[-1:] == [".parquet"]:
        try:
            return datasets.load_dataset("parquet", data_files={"train": [str(path)]}, split="train").to_list()
        except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
            raise UserError(f"{str(path)!r} cannot be read as parquet: {error}") from error
    if not {".jsonl", ".json"} & set(suffixes[-2:]):
        raise UserError(f"{str(path)!r} is neither jsonl, jsonl.gz nor parquet.")
    return _json_lines(path)


def _json_lines(path: Path) -> Iterable[dict[str, Any]]:
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    try:
                        yield json.loads(line)
                    except json.JSONDecodeError as error:
                        raise UserError(f"`{path}`, line {number} is not JSON: {error}") from error
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise UserError(f"{str(path)!r} cannot be read: {error}") from error


def _records_of(row: Any, group_column: str, cyclic: bool) -> list[TwoViews]:
    if not isinstance(row, dict):
        raise UserError(f"a row must be a mapping, not {type(row).__name__}.")
    if "messages" in row:
        return [_from_chat(row["messages"], row)]
    if "text" in row and "code" in row:
        return [_checked(row["text"], row["code"], row.get("system"), row)]
    if isinstance(row.get(group_column), list):
        return paraphrase_pairs(row[group_column], cyclic)
    raise UserError(f"has none of `messages`, `text` and `code`, or a list `{group_column}`: only {sorted(row)}.")


def _from_chat(messages: Any, row: dict[str, Any]) -> TwoViews:
    try:
        turns = [(message["role"], message["content"]) for message in messages]
    except (TypeError, KeyError):
        raise UserError("`messages` must be a list of turns with `role` and `content`.") from None
    system = turns[0][1] if turns and turns[0][0] == "system" else None
    roles = [role for role, _ in turns[system is not None :]]
    if roles != ["user", "assistant"]:
        raise UserError(
            f"`messages` must be a user turn and an assistant turn, after at most one system turn; the roles are "
            f"{[role for role, _ in turns]}."
        )
    return _checked(turns[-2][1], turns[-1][1], system, row)


def _checked(text: Any, code: Any, system: Any, row: dict[str, Any]) -> TwoViews:
    optional = {name: row.get(name) for name in ("jepa_text", "jepa_code")}
    for name, value in {"text": text, "code": code}.items():
        if not isinstance(value, str) or not value.strip():
            raise UserError(f"`{name}` (the {'user' if name == 'text' else 'assistant'} turn) is {value!r}: no text.")
    for name, value in {"system": system, **optional}.items():
        if value is not None and not isinstance(value, str):
            raise UserError(f"`{name}` is {value!r}: no text.")
    return TwoViews(text, code, system, **optional)


def paraphrase_pairs(group: Sequence[str], cyclic: bool = False) -> list[TwoViews]:
    """Turns paraphrases of one thing into ordered pairs: each one and the next.

    Args:
        group (`Sequence[str]`): At least two texts.
        cyclic (`bool`, defaults to `False`): The last one and the first make a pair, too.

    Raises:
        UserError: If there are fewer than two, or one is empty.
    """
    if len(group) < 2:
        raise UserError(f"a group of paraphrases needs two texts; it has {len(group)}.")
    following = [*group[1:], group[0]] if cyclic and len(group) > 2 else group[1:]
    return [_checked(first, second, None, {}) for first, second in zip(group, following, strict=False)]


def hold_out(records: Sequence[TwoViews], share: float, seed: int) -> tuple[list[TwoViews], list[TwoViews]]:
    """Splits records into training and development ones; equal texts stay together.

    Args:
        records (`Sequence[TwoViews]`): All of them.
        share (`float`): Of the texts, for development; at least one.
        seed (`int`): Chooses them.
    """
    texts = list(dict.fromkeys(record.text for record in records))
    if len(texts) < 2:
        raise UserError("`train_file`: all records have one text, so none can be held out.")
    count = min(len(texts) - 1, max(1, round(share * len(texts))))
    chosen = {texts[index] for index in np.random.default_rng(seed).permutation(len(texts))[:count]}
    return [r for r in records if r.text not in chosen], [r for r in records if r.text in chosen]
