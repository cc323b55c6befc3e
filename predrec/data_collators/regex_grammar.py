"""Descriptions of lines with their regular expressions, made up: the embedded data set of LLM-JEPA.

A small grammar in the manner of NL-RX (Locascio et al., 2016), with words, wordings and productions of our own. A
description says its tree with markers in front (`either A or B`, `first A and then B`, `both A and B`), so that it can
be read one way only. Every production has two wordings, so that many descriptions share a regex. The dialect is that
of [`predrec.eval.answers.regex_language`].
"""

import random
from collections.abc import Callable

from ..errors import UserError

WORDS = ("moon", "river", "stone", "lamp", "fox")

_CLASSES = (
    ("a vowel", "[AEIOUaeiou]"),
    ("a digit", "[0-9]"),
    ("a letter", "[A-Za-z]"),
    ("a capital letter", "[A-Z]"),
    ("a small letter", "[a-z]"),
    ("any character", "."),
)
_ATOMS = (*_CLASSES, *((f"the word '{word}'", word) for word in WORDS))

_COUNTS = {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6}

Pair = tuple[str, str]

_UNARY: tuple[tuple[tuple[str, str], str], ...] = (
    (("anything but {a}", "all except {a}"), "~({a})"),
    (("at least {n} times {a}", "{n} times or more {a}"), "({a}){{{k},}}"),
    (("exactly {n} times {a}", "{n} times {a}"), "({a}){{{k}}}"),
    (("any number of times {a}", "zero times or more {a}"), "({a})*"),
)
_BINARY: tuple[tuple[tuple[str, str], str], ...] = (
    (("either {a} or {b}", "one of {a} and {b}"), "({a})|({b})"),
    (("both {a} and {b}", "at once {a} and {b}"), "({a})&({b})"),
    (("first {a} and right after it {b}", "directly joined {a} and {b}"), "({a})({b})"),
    (("first {a} and somewhere later {b}", "in this order {a} and {b}"), "({a}).*({b})"),
)
_LINES: tuple[tuple[tuple[str, str], str], ...] = (
    (("lines with {a}", "lines that hold {a}"), ".*({a}).*"),
    (("lines without {a}", "lines that do not hold {a}"), "~(.*({a}).*)"),
    (("lines that begin with {a}", "lines whose start is {a}"), "({a})(.*)"),
    (("lines that end in {a}", "lines whose end is {a}"), "(.*)({a})"),
    (("lines that are {a}", "lines made of {a}"), "({a})"),
    (("lines in which a whole word is {a}", "lines with a word of its own that is {a}"), ".*\\b({a})\\b.*"),
)


def regex_pairs(count: int, seed: int, *, depth: int = 3) -> list[Pair]:
    """Makes pairs of a description and its regex.

    All descriptions differ, so that any split of the list shares none; every description has exactly one regex. A
    regex may have several descriptions: of the regexes in the last tenth of 8,000 pairs, 4 % are among the others, too
    (8 % with depth 2, 84 % with depth 1). The first pairs of a longer list are those of a shorter one.

    Args:
        count (`int`): Number of pairs.
        seed (`int`): Chooses them.
        depth (`int`, defaults to 3):
            Most operators inside one another below the line's own, which makes descriptions and regexes longer. A
            Llama of 0.9 million weights, trained on 6,000 pairs in batches of 64, writes 23 % of unseen regexes
            exactly after 500 updates; with depth 2, it writes 50 % after 250 and 95 % after 500.

    Raises:
        UserError: If an argument is out of range, or the grammar has not as many descriptions of this depth.
    """
    if count < 1 or depth < 0:
        raise UserError(f"`count` ({count}) must be at least 1, and `depth` ({depth}) at least 0.")
    draw = random.Random(f"{seed} {depth}")
    pairs: dict[str, str] = {}
    misses = 0
    while len(pairs) < count:
        description, regex = _line(draw, depth)
        if description in pairs:
            misses += 1
            if misses > 1000 + 50 * count:
                raise UserError(
                    f"There are hardly more than {len(pairs)} descriptions of `depth` {depth}; {count} asked."
                )
        else:
            pairs[description] = regex
    return list(pairs.items())


def _line(draw: random.Random, depth: int) -> Pair:
    return _filled(draw, _LINES, lambda: _part(draw, depth))


def _part(draw: random.Random, depth: int) -> Pair:
    """Draws what a line holds: an atom, or an operator on smaller parts."""
    if depth == 0 or draw.random() < 0.25:
        return draw.choice(_ATOMS)
    table = _BINARY if draw.random() < 0.6 else _UNARY
    return _filled(draw, table, lambda: _part(draw, depth - 1))


def _filled(draw: random.Random, table: tuple[tuple[tuple[str, str], str], ...], part: Callable[[], Pair]) -> Pair:
    """Draws a production of the table, with one of its wordings, and what stands in its places."""
    wordings, regex = draw.choice(table)
    wording = draw.choice(wordings)
    first, second = part(), part() if "{b}" in regex else ("", "")
    number = draw.choice(tuple(_COUNTS))
    description = wording.format(a=first[0], b=second[0], n=number)
    return description, regex.format(a=first[1], b=second[1], k=_COUNTS[number])
