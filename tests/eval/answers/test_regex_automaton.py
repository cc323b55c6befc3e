"""Equivalence against Python's `re`, against the laws of Boolean algebra, and against cases by hand."""

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from predrec.eval.answers.regex_automaton import equivalent
from predrec.eval.answers.regex_language import RegexSyntaxError

# Our own, in the manner of NL-RX: a regex, and the same language in other words.
EQUAL = [
    ("(cat)|(bird)", "(bird)|(cat)"),
    ("[A-Z]", "[AB-YZ]"),
    ("[A-Za-z]", "([A-Z])|([a-z])"),
    ("([a-z])&([AEIOUaeiou])", "[aeiou]"),
    ("([A-Z])&([a-z])", "(cat)&(bird)"),
    (".*(cat).*", ".*cat.*"),
    ("((.*)(cat))(.*)", ".*cat.*.*"),
    (".*(cat)&([a-z]).*", "(.*cat)&([a-z].*)"),
    ("(cat).*(bird).*", "(cat)(.*(bird).*)"),
    ("((cat)*)*", "(cat)*"),
    ("((cat)+)*", "(cat)*"),
    ("(cat){2,}", "catcat(cat)*"),
    ("([0-9]){3,}", "[0-9][0-9]([0-9])+"),
    ("(.*[0-9].*){3,}", "(.*[0-9]){3}.*"),
    ("(.){5,}", "~(.{0,4})"),
    ("~(.*cat.*)", "~((.*)(cat).*)"),
    ("~(cat)&~(bird)", "~((cat)|(bird))"),
    ("~(~(cat))", "cat"),
    ("~([0-9])", "(.{2,})|(~(.))|([^0-9])"),
    ("(~(cat))|(cat)", ".*"),
    ("(~(cat))&(cat)", "([0-9])&([a-z])"),
    ("((cat)|(bird))*", "((cat)*(bird)*)*"),
    ("(cat)?", "(cat)|()"),
    ("(.*)(.*)", ".*"),
    ("(.)+", "~()"),
    ("(.+)(.*)", "(.*)(.+)"),
    ("((.*)([0-9]))&((.*)(5))", ".*5"),
    ("(.*a.*)&(.*b.*)", "(.*a.*b.*)|(.*b.*a.*)"),
    (".*[AEIOUaeiou].*[0-9].*", ".*[aeiouAEIOU](.*[0-9]).*"),
    ("([a-z]*)&([A-Z]*)", "()"),
    (r"\bcat\b", "cat"),
    (r"\b(cat)\b", r"\b(cat)&(cat)\b"),
    (r"\b([a-z])&([aeiouAEIOU])\b", "[aeiou]"),
    (r"(\b(cat)\b)*", "(cat)?"),
    (r".*\bcat.*", r"(cat.*)|(.*\Wcat.*)"),
    (r"(.*)(\bcat\b)(.*)", r"(.*\W)?cat(\W.*)?"),
    (r"a\b[a-z]", "(cat)&(bird)"),
    (r"(\b)*", "()"),
    (r"~(\b.*)", r"(\W.*)?"),
    (r"(a|\b){2}", "a{1,2}"),
    (r"a(\b){7}", "a"),
    (r"(\b|a-){2}", "a-(a-)?"),
    (r"[A-Za-z0-9_]", r"\w"),
]

DIFFERENT = [
    ("(cat)|(bird)", "cat"),
    ("(cat)&(bird)", "(cat)(bird)"),
    ("[A-Z]", "[a-z]"),
    (".*cat", "cat.*"),
    ("(cat){2,}", "(cat){3,}"),
    ("(cat)+", "(cat)*"),
    ("a|b&c", "(a|b)&c"),
    (".&bc", "(.&b)c"),
    ("~ab", "~(ab)"),
    ("~a*", "~(a*)"),
    ("(.*)&(cat)", ".*"),
    (r"\bcat", r"\Wcat"),
    (r".*\bcat.*", ".*cat.*"),
    ("a", " a"),
]


@pytest.mark.parametrize(("first", "second"), EQUAL)
def test_equivalent_knows_the_same_language_in_other_words(first, second):
    assert equivalent(first, second) is True


@pytest.mark.parametrize(("first", "second"), DIFFERENT)
def test_equivalent_tells_different_languages_apart(first, second):
    assert equivalent(first, second) is False


def test_equivalent_can_read_the_boundary_as_a_letter():
    assert equivalent(r"\bcat", "bcat", boundary_is_letter=True) is True
    assert equivalent(r"\bcat", "cat", boundary_is_letter=True) is False


@pytest.mark.parametrize(("first", "second"), [("(cat", "cat"), ("cat", "cat)")])
def test_equivalent_refuses_what_is_no_regex(first, second):
    with pytest.raises(RegexSyntaxError):
        equivalent(first, second)


@pytest.mark.parametrize(
    ("first", "second", "verdict"),
    [
        ("((a{1000}){1000}){1000}", "((a{1000}){1000}){999}", None),
        ("((a{1000}){1000}){1000}", "((a{1000}){1000}){1000}", True),
        ("((a{1000}){1000}){1000}", "b", False),
        ("(.*a.{24})&(.*b.{23})", "(.*a.{24})&(.*b.{23})&(.*)", True),
        ("~(.*a.{24})|(.*b.{23})c*", "~(.*a.{24}c*)|(.*b.{23})", False),
        ("(a|b)*c" * 250, "(a*b*)*c" * 250, None),
        ("(" * 10_000 + "a" + ")" * 10_000, "a", None),
        ("(~(" * 8 + "a" + "b))" * 8, "a", False),
        ("(~" * 16 + "a" + "*?+.&.*|b)" * 16, "(~" * 16 + "a" + "*?+.&.*|c)" * 16, None),
    ],
)
def test_equivalent_gives_up_rather_than_hang(first, second, verdict):
    start = time.perf_counter()
    assert equivalent(first, second) is verdict
    assert time.perf_counter() - start < 10  # About 0.3 s on an idle core.


def test_equivalent_stops_at_the_work_allowed():
    assert equivalent("(cat)|(bird)", "(bird)|(cat)", max_work=20) is None


LEAVES = st.sampled_from(["a", "b", "1", " ", "-", ".", "[ab]", "[^a]", "[1-9 ]", r"\w", r"\W", r"\d"])


def compounds(inner):
    counts = st.tuples(st.integers(0, 2), st.integers(0, 2)).map(lambda pair: f"{{{pair[0]},{sum(pair)}}}")
    quantifiers = st.one_of(st.sampled_from(["*", "+", "?", "{2}", "{1,}"]), counts)
    return st.one_of(
        st.lists(inner, min_size=2, max_size=3).map(lambda parts: "(" + "".join(parts) + ")"),
        st.lists(inner, min_size=2, max_size=3).map(lambda parts: "(" + "|".join(parts) + ")"),
        st.tuples(inner, quantifiers).map(lambda pair: f"({pair[0]}){pair[1]}"),
    )


REGEXES = st.recursive(LEAVES, compounds, max_leaves=8)
# Python's `re` ends a loop at its first empty round, so a boundary in a loop is not for it to judge.
WITH_BOUNDARIES = st.lists(st.one_of(st.just(r"\b"), REGEXES), min_size=1, max_size=5).map("".join)
LINES = st.text("abc1 -", max_size=6)


def contains(regex: str, line: str) -> bool:
    literal = "".join("\\" + character if character == "-" else character for character in line) or "()"
    return equivalent(f"({regex})&({literal})", literal)


@settings(max_examples=250, deadline=None)
@given(WITH_BOUNDARIES, LINES)
def test_lines_match_as_in_python(regex, line):
    assert contains(regex, line) == bool(re.fullmatch(regex, line, re.ASCII))


@settings(max_examples=100, deadline=None)
@given(WITH_BOUNDARIES, WITH_BOUNDARIES, LINES)
def test_intersection_and_complement_match_as_their_operands_do(first, second, line):
    left, right = (bool(re.fullmatch(regex, line, re.ASCII)) for regex in (first, second))
    assert contains(f"({first})&({second})", line) == (left and right)
    assert contains(f"~({first})|({second})", line) == (not left or right)


DIALECT = st.recursive(
    st.one_of(LEAVES, st.just(r"\b")),
    lambda inner: st.one_of(
        compounds(inner),
        inner.map("~({})".format),
        st.lists(inner, min_size=2, max_size=2).map(lambda parts: f"(({parts[0]})&({parts[1]}))"),
    ),
    max_leaves=6,
)


@settings(max_examples=100, deadline=None)
@given(DIALECT, DIALECT, DIALECT)
def test_boolean_algebra_holds(a, b, c):
    laws = [
        (f"~(~({a}))", a),
        (f"~(({a})&({b}))", f"~({a})|~({b})"),
        (f"~(({a})|({b}))", f"~({a})&~({b})"),
        (f"({a})&(({b})|({c}))", f"(({a})&({b}))|(({a})&({c}))"),
        (f"({a})(({b})|({c}))", f"({a})({b})|({a})({c})"),
        (f"({a})&({a})", a),
        (f"(({a})*)*", f"({a})*"),
        (f"({a})*", f"()|({a})({a})*"),
        (f"({a}){{1,3}}", f"({a})|({a})({a})|({a})({a})({a})"),
        (f"({a}){{2,}}", f"({a})({a})({a})*"),
    ]
    assert [law for law in laws if equivalent(*law) is False] == []


@settings(max_examples=100, deadline=None)
@given(DIALECT, DIALECT)
def test_equivalence_is_inclusion_both_ways(a, b):
    first, second = (equivalent(f"({x})&~({y})", "[a-b]&c") for x, y in ((a, b), (b, a)))
    assert equivalent(a, b) is (first and second)
