"""The made-up descriptions and regexes."""

import pytest

from predrec.data_collators.regex_grammar import regex_pairs
from predrec.errors import UserError
from predrec.eval.answers.regex_language import parse


@pytest.mark.parametrize("depth", [0, 1, 2, 3])
def test_descriptions_differ_and_regexes_are_of_the_dialect(depth):
    pairs = regex_pairs(60, 0, depth=depth)
    assert len({description for description, _ in pairs}) == 60
    for _, regex in pairs:
        parse(regex)


def test_a_description_has_one_regex_whoever_draws_it():
    drawn = [pair for seed in range(6) for depth in (0, 1) for pair in regex_pairs(100, seed, depth=depth)]
    regexes = dict(drawn)
    assert len(regexes) < len(drawn)  # Some descriptions were drawn more than once.
    assert all(regexes[description] == regex for description, regex in drawn)


def test_a_description_can_be_read_one_way_only():
    pairs = regex_pairs(3000, 0, depth=3)
    assert all(_read(description) == regex for description, regex in pairs)


NUMBERS = {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6}
ATOMS = {
    "a vowel": "[AEIOUaeiou]",
    "a digit": "[0-9]",
    "a letter": "[A-Za-z]",
    "a capital letter": "[A-Z]",
    "a small letter": "[a-z]",
    "any character": ".",
}
PAIRS = [
    ("either ", " or ", "({})|({})"),
    ("one of ", " and ", "({})|({})"),
    ("both ", " and ", "({})&({})"),
    ("at once ", " and ", "({})&({})"),
    ("first ", " and right after it ", "({})({})"),
    ("directly joined ", " and ", "({})({})"),
    ("first ", " and somewhere later ", "({}).*({})"),
    ("in this order ", " and ", "({}).*({})"),
]
LINES = [
    ("lines with a word of its own that is ", ".*\\b({})\\b.*"),
    ("lines in which a whole word is ", ".*\\b({})\\b.*"),
    ("lines that do not hold ", "~(.*({}).*)"),
    ("lines without ", "~(.*({}).*)"),
    ("lines that hold ", ".*({}).*"),
    ("lines with ", ".*({}).*"),
    ("lines that begin with ", "({})(.*)"),
    ("lines whose start is ", "({})(.*)"),
    ("lines that end in ", "(.*)({})"),
    ("lines whose end is ", "(.*)({})"),
    ("lines that are ", "({})"),
    ("lines made of ", "({})"),
]


def _read(description: str) -> str:
    """Reads a description from left to right, by its markers; fails if there are two ways."""
    marker, frame = next((marker, frame) for marker, frame in LINES if description.startswith(marker))
    (regex,) = [regex for regex, rest in _readings(description[len(marker) :]) if not rest]
    return frame.format(regex)


def _readings(text: str) -> list[tuple[str, str]]:
    """Returns every way to read the beginning of a text, with what is left of it."""
    readings = [(regex, text.removeprefix(atom)) for atom, regex in ATOMS.items() if text.startswith(atom)]
    if text.startswith("the word '"):
        word, _, rest = text.removeprefix("the word '").partition("'")
        readings.append((word, rest))
    for opening, joint, frame in PAIRS:
        if text.startswith(opening):
            for left, rest in _readings(text.removeprefix(opening)):
                if rest.startswith(joint):
                    readings += [
                        (frame.format(left, right), end) for right, end in _readings(rest.removeprefix(joint))
                    ]
    prefixes = {"anything but ": "~({})", "all except ": "~({})"}
    prefixes |= dict.fromkeys(("any number of times ", "zero times or more "), "({})*")
    for word, number in NUMBERS.items():
        prefixes |= dict.fromkeys((f"at least {word} times ", f"{word} times or more "), f"({{}}){{{{{number},}}}}")
        prefixes |= dict.fromkeys((f"exactly {word} times ", f"{word} times "), f"({{}}){{{{{number}}}}}")
    for prefix, frame in prefixes.items():
        if text.startswith(prefix):
            readings += [(frame.format(regex), rest) for regex, rest in _readings(text.removeprefix(prefix))]
    return readings


def test_the_seed_decides():
    assert regex_pairs(50, 1) == regex_pairs(50, 1) != regex_pairs(50, 2)


def test_a_longer_list_begins_with_a_shorter_one():
    assert regex_pairs(300, 0)[:40] == regex_pairs(40, 0)


def test_depth_makes_descriptions_longer():
    lengths = [sum(len(text) for text, _ in regex_pairs(100, 0, depth=depth)) for depth in (0, 1, 2, 3)]
    assert lengths == sorted(lengths) and lengths[3] > 2 * lengths[0]


@pytest.mark.parametrize(("count", "depth"), [(0, 2), (5, -1), (133, 0)])
def test_what_the_grammar_has_not_is_refused(count, depth):
    with pytest.raises(UserError, match="`depth`"):
        regex_pairs(count, 0, depth=depth)
