"""What the dialect may say, what it means, and what is refused."""

import pytest

from predrec.eval.answers.regex_language import (
    ANY,
    Boundary,
    Characters,
    Complement,
    Concatenation,
    Intersection,
    RegexSyntaxError,
    RegexTooLargeError,
    Repetition,
    Union,
    parse,
    without,
)


def char(character: str) -> Characters:
    return Characters(((ord(character), ord(character)),))


A, B, C, D = map(char, "abcd")


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("a", A),
        ("()", Concatenation(())),
        ("ab", Concatenation((A, B))),
        ("a|b&cd", Union((A, Intersection((B, Concatenation((C, D))))))),
        ("(a|b)c", Concatenation((Union((A, B)), C))),
        ("~a*", Repetition(Complement(A), 0, None)),
        ("~(a*)", Complement(Repetition(A, 0, None))),
        ("~~a", A),
        ("~(~(a))", Complement(Complement(A))),
        ("a~bc", Concatenation((A, Complement(B), C))),
        ("~(a)&b", Intersection((Complement(A), B))),
        ("ab+", Concatenation((A, Repetition(B, 1, None)))),
        ("a+?", Repetition(Repetition(A, 1, None), 0, 1)),
        ("a{3}", Repetition(A, 3, 3)),
        ("a{3,}", Repetition(A, 3, None)),
        ("a{0,5}", Repetition(A, 0, 5)),
        (".", Characters(ANY)),
        (r"\ba\b", Concatenation((Boundary(), A, Boundary()))),
        (r"\.\\", Concatenation((char("."), char("\\")))),
        ("a b", Concatenation((A, char(" "), B))),
        ("[a-cx]", Characters(((97, 99), (120, 120)))),
        ("[ca-bb]", Characters(((97, 99),))),
        ("[a-]", Characters(((45, 45), (97, 97)))),
        ("[-a]", Characters(((45, 45), (97, 97)))),
        (r"[\]\d]", Characters(((48, 57), (93, 93)))),
        ("[(|&~*]", Characters(((38, 38), (40, 40), (42, 42), (124, 124), (126, 126)))),
        ("[^a]", Characters(((0, 9), (11, 96), (98, 0x10FFFF)))),
        (r"\W", Characters(without(((48, 57), (65, 90), (95, 95), (97, 122))))),
    ],
)
def test_parse_gives_the_tree(text, tree):
    assert parse(text) == tree


def test_parse_can_read_the_boundary_as_a_letter():
    assert parse(r"\ba", boundary_is_letter=True) == Concatenation((B, A))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "operand is missing at position 0"),
        ("a|", "operand is missing at position 2"),
        ("a&&b", "operand is missing at position 2"),
        ("(|a)", "operand is missing at position 1"),
        ("a~", "operand is missing at position 2"),
        ("(a", "open bracket without its closing one at position 0"),
        ("((a)", "open bracket without its closing one at position 0"),
        ("a)", "closing bracket without its open one at position 1"),
        ("*a", "Nothing to repeat at position 0"),
        ("~*a", "Nothing to repeat at position 1"),
        ("(?:a)", "Nothing to repeat at position 1"),
        ("a{}", "No count"),
        ("a{,3}", "No count"),
        ("a{2", "No count"),
        ("a{3,2}", "wrong way round at position 1"),
        ("a]", "has no meaning here at position 1"),
        ("^a$", "has no meaning here at position 0"),
        ("a\nb", "has no meaning here at position 1"),
        ("[a", "class that does not end at position 0"),
        ("[a-", "class that does not end at position 0"),
        ("x[]", "empty class at position 1"),
        ("[z-a]", "range the wrong way round"),
        (r"[\d-z]", "character on both sides"),
        (r"[a-\w]", "character on both sides"),
        (r"(a)\1", "escape that the dialect has not at position 3"),
        ("a\\", "escape that the dialect has not at position 1"),
        (r"[\b]", "escape that the dialect has not at position 1"),
    ],
)
def test_parse_refuses_what_is_no_regex(text, message):
    with pytest.raises(RegexSyntaxError, match=message):
        parse(text)


@pytest.mark.parametrize(
    "text", ["(" * 10_000 + "a" + ")" * 10_000, "(" * 17 + "a" + ")" * 17, "a" * 2001, "a****", "((a*b)*c?*+*)"]
)
def test_parse_reads_nothing_too_large(text):
    with pytest.raises(RegexTooLargeError):
        parse(text)
