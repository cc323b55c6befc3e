"""What all model cards are put together from."""

import platform
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from typing import Any

import yaml
from huggingface_hub import ModelCardData

LIBRARIES = ("predrec", "torch", "transformers", "accelerate", "datasets", "tokenizers")


def compose(data: ModelCardData, title: str, *sections: str) -> str:
    """Puts a card together: what the Hub reads, the title, and the sections that are not empty."""
    return "\n".join([f"---\n{data.to_yaml()}\n---\n", f"# {title}\n", *filter(None, sections)])


def table(rows: Iterable[tuple[str, str]], header: str = "| | |") -> str:
    """Lays out two columns."""
    return f"{header}\n|---|---|\n" + "\n".join(f"| {name} | {value} |" for name, value in rows) + "\n"


def block(language: str, text: str) -> str:
    """Returns a block of code."""
    return f"```{language}\n{text}```\n"


def recipe_block(recipe: Mapping[str, Any]) -> str:
    """Returns a recipe as a block."""
    return block("yaml", yaml.safe_dump(dict(recipe), sort_keys=False, allow_unicode=True))


def last_values(history: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the last value of every metric in a log history."""
    values: dict[str, Any] = {}
    for entry in history:
        values |= entry
    return values


def measured(values: Mapping[str, float], measures: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Returns the rows of those `(name, label)` that have a value."""
    return [(label, f"{values[name]:.4g}") for name, label in measures if name in values]


def versions() -> str:
    """Names the versions of the libraries and of Python."""
    libraries = ", ".join(f"{library} {version(library)}" for library in LIBRARIES)
    return f"{libraries}, Python {platform.python_version()}"
