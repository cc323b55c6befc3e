"""Verdicts on text, case by case."""

from decimal import Decimal

import pytest

from predrec.eval.answers.text import (
    STARS,
    contains_answer,
    exact_match,
    final_number,
    label_of,
    normalised_answer,
    same_final_number,
    same_label,
    starts_with,
)


@pytest.mark.parametrize(
    ("generation", "gold", "verdict"),
    [("(dog).*", "(dog).*", True), (" (dog).*\n", "(dog).*", True), ("(Dog).*", "(dog).*", False), ("", "a", False)],
)
def test_exact_match_ignores_white_space_around_and_nothing_else(generation, gold, verdict):
    assert exact_match(generation, gold) is verdict


@pytest.mark.parametrize(
    ("generation", "gold", "verdict"),
    [("dogdogdog", "dog", True), ("  dog", "dog", True), ("hotdog", "dog", False), ("", "dog", False)],
)
def test_starts_with_ignores_what_follows(generation, gold, verdict):
    assert starts_with(generation, gold) is verdict


def test_starts_with_is_undefined_for_an_empty_gold():
    with pytest.raises(ValueError, match="every generation starts with"):
        starts_with("anything", " ")


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("So 2 + 3 = 5.\n#### 5", "5"),
        ("####5", "5"),
        ("#### $1,080.", "1080"),
        ("#### -$2.50", "-2.5"),
        ("#### 72 clips\n", "72"),
        ("#### 1\n#### 2\nand so on", "2"),
        ("#### 7\n####", "7"),
        ("#### .5", "0.5"),
        ("The answer is 5.", None),
        ("#### five", None),
        ("#### 3/4", None),
        ("#### .", None),
        ("####\n5", None),
        ("", None),
    ],
)
def test_final_number_follows_the_last_mark(text, number):
    assert final_number(text) == (None if number is None else Decimal(number))


@pytest.mark.parametrize(
    ("generation", "gold", "verdict"),
    [
        ("#### 109200000", "#### 109,200,000", True),
        ("#### 5.00", "#### 5", True),
        ("#### 50", "#### 5", False),
        ("", "#### 5", False),
        ("", "", False),
    ],
)
def test_final_numbers_are_equal_as_numbers(generation, gold, verdict):
    assert same_final_number(generation, gold) is verdict


def test_normalised_answer_drops_case_punctuation_articles_and_odd_blanks():
    assert normalised_answer("The  U.S.\xa0(a Theatre) and an Ark") == "us theatre and ark"


@pytest.mark.parametrize(
    ("generation", "gold", "whole_words", "verdict"),
    [
        ("It was the Giants.", "Titans; Giants; Pontus", True, True),
        ("the titans", "Titans; Giants; Pontus", True, True),
        ("It was Zeus.", "Titans; Giants; Pontus", True, False),
        ("in 1957", "5", True, False),
        ("in 1957", "5", False, True),
        ("Titan", "Titans", False, False),
        ("", "Titans", True, False),
        ("", "Titans", False, False),
        ("anything", '"; Frederick Douglass', False, False),
        ("Frederick Douglass", '"; Frederick Douglass', True, True),
        ("anything", "(", False, False),
        ("anything", "", False, False),
    ],
)
def test_contains_answer_looks_for_the_gold_in_the_generation(generation, gold, whole_words, verdict):
    assert contains_answer(generation, gold, whole_words) is verdict


@pytest.mark.parametrize(
    ("generation", "label"),
    [
        ("Very Good", "Very Good"),
        ("Very Bad....", "Very Bad"),
        (" Good grief", "Good"),
        ("Very", None),
        ("good", None),
        ("", None),
    ],
)
def test_label_of_takes_the_longest_label(generation, label):
    assert label_of(generation, STARS) == label


@pytest.mark.parametrize("labels", [("Good", "Good to go"), ("Good to go", "Good")])
def test_label_of_takes_the_longest_label_whatever_the_order(labels):
    assert label_of("Good to go home", labels) == "Good to go"


@pytest.mark.parametrize(
    ("generation", "gold", "verdict"),
    [("Very Good", "Good", False), ("Good", "Very Good", False), ("Bad", "Bad", True)],
)
def test_same_label_tells_very_good_from_good(generation, gold, verdict):
    assert same_label(generation, gold, STARS) is verdict


def test_same_label_refuses_a_gold_that_is_no_label():
    with pytest.raises(ValueError, match="'Great'; the labels are 'Very Good'"):
        same_label("Good", "Great", STARS)
