"""What cannot be answered is known before a model is trained."""

import pytest

from predrec.data_collators.chat_format import find_format
from predrec.data_collators.two_views import TwoViews
from predrec.data_collators.view_examples import RecordEncoder
from predrec.errors import UserError
from predrec.eval.answering import check_answerable

from .. import causal

LETTERS = [TwoViews(f"which one, {number}", "ABCD"[number]) for number in range(4)]


class SplitLetters(RecordEncoder):
    """Every answer begins with a blank of its own."""

    def generation_ids(self, record):
        prompt, completion = super().generation_ids(record)
        return prompt, [9, *completion]


@pytest.mark.parametrize(
    ("kind", "records", "task", "longest", "message"),
    [
        (RecordEncoder, LETTERS, "hellaswag", None, None),
        (SplitLetters, LETTERS, "hellaswag", None, "answers A, B, C, D are not one token each"),
        (RecordEncoder, [*LETTERS, TwoViews("which one", "E")], "hellaswag", None, "gold answer 'E' is none of 'A'"),
        (RecordEncoder, [TwoViews("x " * 128, "A")], "hellaswag", None, "Prompt 0 has .* more than the model's 128"),
        (RecordEncoder, LETTERS, "gsm8k", None, "with `max_new_tokens` 512 that is more than the model's 128"),
        (RecordEncoder, LETTERS, "gsm8k", 20, None),
    ],
)
def test_what_cannot_be_answered_is_refused(kind, records, task, longest, message):
    tokenizer = causal.tokenizer("qwen")
    arguments = causal.model(), kind(tokenizer, find_format(tokenizer)), records, task, longest
    if message is None:
        return check_answerable(*arguments)
    with pytest.raises(UserError, match=message):
        check_answerable(*arguments)
