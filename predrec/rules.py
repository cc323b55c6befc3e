"""What single values must be, in tables: the rule in words, the fields, the check."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from .errors import UserError

Rule = tuple[str, Sequence[str], Callable[[Any], bool]]


def at_least(least: int, *names: str) -> Rule:
    """A rule for numbers with a lower bound."""
    return f"at least {least:,}", names, lambda value: value >= least


def at_most(most: int, *names: str) -> Rule:
    """A rule for numbers with an upper bound: beyond lies no machine, but a slip of the finger."""
    return f"at most {most:,}", names, lambda value: value <= most


def positive(*names: str) -> Rule:
    """A rule for finite numbers above 0."""
    return "positive and finite", names, lambda value: 0 < value < math.inf


def not_negative(*names: str) -> Rule:
    """A rule for finite numbers from 0."""
    return "not negative, and finite", names, lambda value: 0 <= value < math.inf


def share(*names: str) -> Rule:
    """A rule for shares that may be none or all."""
    return "in [0, 1]", names, lambda value: 0 <= value <= 1


def share_below_one(*names: str) -> Rule:
    """A rule for shares that may be none, not all."""
    return "in [0, 1)", names, lambda value: 0 <= value < 1


def proper_share(*names: str) -> Rule:
    """A rule for shares that are neither none nor all."""
    return "strictly between 0 and 1", names, lambda value: 0 < value < 1


def check_values(holder: Any, rules: Iterable[Rule]) -> None:
    """Refuses values against the rules; `None` passes.

    Raises:
        UserError: Naming the field, its value and the rule.
    """
    for rule, names, holds in rules:
        for name in names:
            value = getattr(holder, name)
            if value is not None and not holds(value):
                raise UserError(f"`{name}` is {value!r}; it must be {rule}.")
