"""Verdicts on generated text: is it the gold answer, does it start with it, end with its number, contain it?

Pure functions of two strings. White space around a generation or a gold answer never counts, case does, unless said.
"""

import re
import string
from collections.abc import Sequence
from decimal import Decimal

POLARITY = ("Good", "Bad")
"""Labels of Rotten Tomatoes."""

STARS = ("Very Good", "Good", "Mediocre", "Bad", "Very Bad")
"""Labels of Yelp, best first."""

_FINAL = re.compile(r"####[^\S\n]*(\S[^\n]*)")
_NUMBER = re.compile(r"[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")


def exact_match(generation: str, gold: str) -> bool:
    """Are the two strings equal but for white space around them?"""
    return generation.strip() == gold.strip()


def starts_with(generation: str, gold: str) -> bool:
    """Does the generation begin with the gold answer? What follows, such as the answer over again, does not count.

    Raises:
        ValueError: If the gold answer is empty: every text starts with that.
    """
    if not gold.strip():
        raise ValueError("`gold` is empty, and every generation starts with the empty string: use `exact_match`.")
    return generation.strip().startswith(gold.strip())


def final_number(text: str) -> Decimal | None:
    """Returns the number after the last `####` that has something after it, as GSM8K marks answers.

    Commas, dollar signs and a trailing full stop are dropped, and so is what follows the number after a blank (a
    unit). `None` when there is no such mark, or what follows it is no decimal number.

    Reference:
        Cobbe et al., 2021, https://arxiv.org/abs/2110.14168
    """
    marked = _FINAL.findall(text)
    words = marked[-1].replace("$", "").replace(",", "").split() if marked else []
    number = words[0].rstrip(".") if words else ""
    return Decimal(number) if _NUMBER.fullmatch(number) else None


def same_final_number(generation: str, gold: str) -> bool:
    """Have both texts a [`final_number`], and are the two equal as numbers? A missing one is a wrong one."""
    answer = final_number(generation)
    return answer is not None and answer == final_number(gold)


def normalised_answer(text: str) -> str:
    """Returns the text as SQuAD compares answers: lower case, no ASCII punctuation, no articles, single blanks.

    Reference:
        Rajpurkar et al., 2016, https://arxiv.org/abs/1606.05250
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def contains_answer(generation: str, gold: str, whole_words: bool = True) -> bool:
    """Does the generation contain one of the gold answers, after [`normalised_answer`]?

    The paper asks for a substring, so that "5" is found in "1957" and "one" in "someone"; the default asks for whole
    words. An empty generation contains nothing, and a gold answer of which normalisation leaves nothing, such as a
    lone quotation mark, is contained in nothing.

    Args:
        generation (`str`): What the model wrote.
        gold (`str`): Answers with `"; "` between them.
        whole_words (`bool`, defaults to `True`): `False` for substrings, as in the paper.

    Reference:
        arXiv 2509.14252; its code looks for the generation in the gold answer, where nothing is always found.
    """
    edge = " " if whole_words else ""
    said = f"{edge}{normalised_answer(generation)}{edge}"
    answers = (normalised_answer(answer) for answer in gold.split("; "))
    return any(f"{edge}{answer}{edge}" in said for answer in answers if answer)


def label_of(generation: str, labels: Sequence[str]) -> str | None:
    """Returns the label that the generation starts with, the longest if several do, or `None`.

    So "Very Good" is not "Very" something, and "Good grief" is "Good": nothing is asked of what follows.
    """
    said = generation.strip()
    return next((label for label in sorted(labels, key=len, reverse=True) if said.startswith(label)), None)


def same_label(generation: str, gold: str, labels: Sequence[str]) -> bool:
    """Is the [`label_of`] the generation that of the gold answer?

    Raises:
        ValueError: If the gold answer is none of the labels.
    """
    if gold.strip() not in labels:
        raise ValueError(f"`gold` is {gold.strip()!r}; the labels are {', '.join(map(repr, labels))}.")
    return label_of(generation, labels) == gold.strip()
