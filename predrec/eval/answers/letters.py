"""Answers that are one letter: the most probable of them where the answer begins, as HellaSwag is scored."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from ...errors import UserError

LETTERS = ("A", "B", "C", "D")


def letter_token_ids(answers: Mapping[str, Sequence[int]]) -> dict[str, int]:
    """Returns the token that stands for each letter where an answer begins.

    A letter on its own may be another token than the same letter after a blank or a line break, or two tokens. So the
    letters are not looked up in the vocabulary, but taken from answers as they are tokenized for training:
    `{letter: encoder.generation_ids(replace(record, code=letter))[1] for letter in LETTERS}`.

    Args:
        answers (`Mapping[str, Sequence[int]]`):
            For each letter the ids of an answer that consists of it, with what ends every answer.

    Raises:
        UserError: If the answers differ in more than their first token, or two begin with the same one.
    """
    first = {letter: ids[0] for letter, ids in answers.items() if len(ids)}
    endings = {tuple(ids[1:]) for ids in answers.values()}
    if len(first) < len(answers) or len(set(first.values())) < len(first) or len(endings) > 1:
        shown = ", ".join(f"{letter!r} is {list(ids)}" for letter, ids in answers.items())
        raise UserError(
            f"The answers {', '.join(answers)} are not one token each, all different, before the same ending, so "
            f"their probabilities cannot be read off: {shown}. Use another separator, or another tokenizer."
        )
    return first


def letter_choice(logits: Tensor, letter_ids: Mapping[str, int]) -> str:
    """Returns the letter with the largest logit, the first of them if several have it.

    Args:
        logits (`torch.FloatTensor` of shape `(vocab_size,)`): At the last position of the prompt.
        letter_ids (`Mapping[str, int]`): From [`letter_token_ids`].

    Raises:
        ValueError: If `logits` has another shape, or the logit of a letter is NaN.
    """
    if logits.dim() != 1:
        raise ValueError(f"`logits` has shape {tuple(logits.shape)}; expected (vocab_size,), those of one position.")
    values = {letter: float(logits[token]) for letter, token in letter_ids.items()}
    if any(value != value for value in values.values()):
        raise ValueError("`logits` are NaN: the model's weights or its attention mask are broken.")
    return max(values, key=values.__getitem__)
