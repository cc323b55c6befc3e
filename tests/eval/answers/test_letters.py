"""Choices among letters."""

import pytest
import torch

from predrec.errors import UserError
from predrec.eval.answers.letters import letter_choice, letter_token_ids


def test_letter_token_ids_are_the_first_of_the_answers():
    assert letter_token_ids({"A": [7, 2], "B": [9, 2]}) == {"A": 7, "B": 9}


@pytest.mark.parametrize(
    "answers",
    [{"A": [5, 7, 2], "B": [5, 9, 2]}, {"A": [7, 2], "B": [5, 9, 2]}, {"A": [3, 2], "B": [3, 2]}, {"A": [], "B": [3]}],
    ids=["split", "one split", "unknown", "empty"],
)
def test_letters_that_are_not_one_token_each_are_refused(answers):
    with pytest.raises(UserError, match="answers A, B are not one token each"):
        letter_token_ids(answers)


@pytest.mark.parametrize(("logits", "letter"), [([9.0, 1.0, 2.0, 0.0], "B"), ([0.0, 5.0, 2.0, 0.0], "A")])
def test_letter_choice_looks_at_the_letters_alone(logits, letter):
    assert letter_choice(torch.tensor(logits), {"A": 1, "B": 2}) == letter


def test_letter_choice_refuses_what_cannot_be_compared():
    with pytest.raises(ValueError, match=r"expected \(vocab_size,\)"):
        letter_choice(torch.zeros(2, 4), {"A": 1})
    with pytest.raises(ValueError, match="NaN"):
        letter_choice(torch.full((4,), float("nan")), {"A": 1})
