"""What single values must be."""

import math
from types import SimpleNamespace

import pytest

from predrec.errors import UserError
from predrec.rules import at_least, at_most, check_values, not_negative, positive, proper_share, share, share_below_one


@pytest.mark.parametrize(
    ("rule", "taken", "refused"),
    [
        (at_least(2, "x"), [2, 3, math.inf], [1, math.nan]),
        (at_most(2, "x"), [2, -1], [3, math.nan]),
        (positive("x"), [1e-9, 5], [0, -1, math.inf, math.nan]),
        (not_negative("x"), [0, 5], [-1e-9, math.inf, math.nan]),
        (share("x"), [0, 0.5, 1], [-0.1, 1.1, math.nan]),
        (share_below_one("x"), [0, 0.5], [-0.1, 1, math.nan]),
        (proper_share("x"), [0.5], [0, 1, math.nan]),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_rule_takes_and_refuses(rule, taken, refused):
    check_values(SimpleNamespace(x=None), [rule])
    for value in taken:
        check_values(SimpleNamespace(x=value), [rule])
    for value in refused:
        with pytest.raises(UserError, match=r"`x` is .*; it must be "):
            check_values(SimpleNamespace(x=value), [rule])


def test_rule_is_in_the_message():
    with pytest.raises(UserError, match=r"^`x` is 2000001; it must be at most 1,000,000\.$"):
        check_values(SimpleNamespace(x=2_000_001), [at_most(10**6, "x")])


def test_every_name_of_a_rule_is_a_field():
    with pytest.raises(AttributeError):
        check_values(SimpleNamespace(x=1), [at_least(0, "y")])
