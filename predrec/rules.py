"""What single values must be, in tables: the rule in words, the fields, the check."""

import math
from collections.abc import Callable, Container, Iterable, Sequence
from typing import Any, Literal, get_args, get_origin, get_type_hints

from .errors import UserError

Rule = tuple[str, Sequence[str], Callable[[Any], bool]]
Need = tuple[str, Callable[[Any], bool], Sequence[str]]
"""What options need for whatever they say to make a difference: in words, as a check, and the options."""


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
            if value is not None and not _holds(holds, value):
                raise UserError(f"`{name}` is {value!r}; it must be {rule}.")


def _holds(check: Callable[[Any], bool], value: Any) -> bool:
    """Applies a check; a value of another type, such as a number in place of a pair, does not pass."""
    try:
        return check(value)
    except TypeError:
        return False


def check_choices(holder: Any) -> None:
    """Refuses values that are none of those which a `Literal` in the type of their field allows; `None` passes.

    Raises:
        UserError: Naming the field, its value and the choices.
    """
    for name, hint in get_type_hints(type(holder)).items():
        literals = [part for part in (hint, *get_args(hint)) if get_origin(part) is Literal]
        value, choices = getattr(holder, name, None), [choice for literal in literals for choice in get_args(literal)]
        if choices and value is not None and value not in choices:
            raise UserError(f"`{name}` is {value!r}; it must be one of {', '.join(map(str, choices))}.")


def unmet_needs(needs: Iterable[Need], given: Any, changed: Container[str]) -> dict[str, str]:
    """Finds which of the changed options make no difference.

    Args:
        needs: The first that is not met counts.
        given: What the checks look at.
        changed: Names of options that are not at their default.

    Returns:
        `dict`: Of each its name, and what it needs.
    """
    found: dict[str, str] = {}
    for need, holds, names in needs:
        if not holds(given):
            found |= {name: need for name in names if name in changed and name not in found}
    return found
