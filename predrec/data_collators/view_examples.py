"""Records as token ids: the generated sequence with its completion, and the two views with their readouts."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from typing import Literal

from transformers import PreTrainedTokenizerBase

from ..errors import UserError
from .chat_format import Format, Turn
from .two_views import TwoViews

Direction = Literal["text_to_code", "code_to_text"]
Position = Literal["append", "prepend"]

CUT_AWAY = "the completion is cut away by `max_seq_length`"
TOO_LONG = "a view is longer than `max_seq_length`"


@dataclass(frozen=True)
class ViewExample:
    """One record as token ids.

    Args:
        input_ids (`tuple[int, ...]`): Prompt, completion and stop token.
        num_unsupervised (`int`): Tokens at the beginning that carry no label.
        source_ids (`tuple[int, ...]`): View that predicts, with the predictor tokens.
        target_ids (`tuple[int, ...]`): View that is predicted.
        source_readout, target_readout (`int`): Which token's state stands for the view.
        pair_number (`int`): Records whose target views are equal have equal numbers.
    """

    input_ids: tuple[int, ...]
    num_unsupervised: int
    source_ids: tuple[int, ...]
    target_ids: tuple[int, ...]
    source_readout: int
    target_readout: int
    pair_number: int


class ViewDataset(Sequence[dict]):
    """Examples with their numbers, as the collator takes them.

    Args:
        examples (`Sequence[ViewExample]`): From [`encode_records`].
    """

    def __init__(self, examples: Sequence[ViewExample]):
        self.examples = list(examples)

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> dict:
        example = self.examples[index]
        # Samplers that go by length look at the ids.
        return {"example": example, "example_id": index, "input_ids": example.input_ids}

    def fingerprint(self) -> str:
        """Returns a hash of all examples."""
        content = sha256()
        for example in self.examples:
            content.update(json.dumps([*vars(example).values()]).encode())
        return content.hexdigest()


@dataclass(frozen=True)
class RecordEncoder:
    """Turns records into token ids.

    Prompt and completion are tokenized on their own, as they are when the model generates.

    Args:
        tokenizer (`PreTrainedTokenizerBase`): Of the model.
        format ([`Format`]): Puts the text around contents.
        predictor_ids (`tuple[int, ...]`, defaults to none): Predictor tokens, the last one nearest to the readout.
        max_seq_length (`int`, defaults to 512): Longest sequence, in tokens.
        label_scope (`"completion"` or `"all"`, defaults to `"completion"`): Which tokens carry a label.
        direction (`str`, defaults to `"text_to_code"`): Which view predicts which.
        predictor_position (`"append"` or `"prepend"`, defaults to `"append"`): Where the predictor tokens stand.
        readout (`"content_end"`, `"template_end"` or `int`, defaults to `"content_end"`):
            State that stands for a view: that of its last content or predictor token; that of the last token of the
            template around it; or, counted from there, at a negative index.
        double_bos (`bool`, defaults to `False`): Let the tokenizer add its special tokens to rendered templates.
    """

    tokenizer: PreTrainedTokenizerBase
    format: Format
    predictor_ids: tuple[int, ...] = ()
    max_seq_length: int = 512
    label_scope: Literal["completion", "all"] = "completion"
    direction: Direction = "text_to_code"
    predictor_position: Position = "append"
    readout: Literal["content_end", "template_end"] | int = "content_end"
    double_bos: bool = False

    def prompt_ids(self, record: TwoViews) -> list[int]:
        """Returns the ids of everything before the completion."""
        return self._ids(self.format.generation(record).before, first=True)

    def generation_ids(self, record: TwoViews) -> tuple[list[int], list[int]]:
        """Returns the ids of the prompt, and those of the completion with its stop token."""
        turn = self.format.generation(record)
        return self._ids(turn.before, first=True), [*self._ids(turn.content), *self._ending(turn)]

    def view_ids(self, content: str, side: Literal["text", "code"], predicts: bool) -> tuple[list[int], int]:
        """Returns the ids of a view, and which of them is read.

        Raises:
            UserError: If the readout lies outside the view.
        """
        turn = self.format.view(content, side)
        before, inside = self._ids(turn.before, first=True), self._ids(turn.content)
        added = list(self.predictor_ids) if predicts else []
        inside = [*inside, *added] if self.predictor_position == "append" else [*added, *inside]
        ids = [*before, *inside]
        if self.readout == "content_end":
            return ids, len(ids) - 1
        ids += self._ids(turn.after)
        index = len(ids) + (-1 if self.readout == "template_end" else int(self.readout))
        if not 0 <= index < len(ids):
            raise UserError(f"`readout` {self.readout} lies outside a view of {len(ids)} tokens.")
        return ids, index

    def views(self, record: TwoViews) -> tuple[tuple[list[int], int], tuple[list[int], int]]:
        """Returns the view that predicts and the view that is predicted, each with its readout."""
        text, code = record.pair
        predicts = self.direction == "text_to_code"
        views = self.view_ids(text, "text", predicts), self.view_ids(code, "code", not predicts)
        return views if predicts else views[::-1]

    def encode(self, record: TwoViews, pair_number: int = 0) -> ViewExample | str:
        """Returns the example, or why there is none."""
        prompt, completion = self.generation_ids(record)
        (source, source_readout), (target, target_readout) = self.views(record)
        if len(prompt) >= self.max_seq_length:
            return CUT_AWAY
        if max(len(source), len(target)) > self.max_seq_length:
            return TOO_LONG
        ids = [*prompt, *completion][: self.max_seq_length]
        unsupervised = len(prompt) if self.label_scope == "completion" else 0
        return ViewExample(
            tuple(ids), unsupervised, tuple(source), tuple(target), source_readout, target_readout, pair_number
        )

    def stop_id(self, record: TwoViews) -> int:
        """Returns the token that ends the completion."""
        return self._ending(self.format.generation(record))[-1]

    def _ending(self, turn: Turn) -> list[int]:
        """Returns what follows the completion's content: up to the template's first special token, else the EOS."""
        after = self._ids(turn.after)
        for index, token_id in enumerate(after):
            if token_id in self._special_ids:
                return after[: index + 1]
        if self.tokenizer.eos_token_id is None:
            raise UserError(
                "The tokenizer has no EOS token and its chat template ends turns with no special token: a model "
                "trained with it would never stop. Set `eos_token`."
            )
        return [self.tokenizer.eos_token_id]

    @cached_property
    def _special_ids(self) -> set[int]:
        added = self.tokenizer.added_tokens_decoder
        return {*self.tokenizer.all_special_ids, *(number for number, token in added.items() if token.special)}

    def _ids(self, text: str, first: bool = False) -> list[int]:
        return self.tokenizer(text, add_special_tokens=first and self.double_bos)["input_ids"] if text else []


def encode_records(records: Sequence[TwoViews], encoder: RecordEncoder) -> tuple[list[ViewExample], Counter[str]]:
    """Encodes records; returns the examples, and how many were dropped for which reason.

    Args:
        records (`Sequence[TwoViews]`): What to encode.
        encoder ([`RecordEncoder`]): How.

    Raises:
        UserError: If nothing is left.
    """
    numbers: dict[str, int] = {}
    examples, dropped = [], Counter()
    for record in records:
        target = record.pair[encoder.direction == "text_to_code"]
        example = encoder.encode(record, numbers.setdefault(target, len(numbers)))
        if isinstance(example, str):
            dropped[example] += 1
        else:
            examples.append(example)
    if not examples:
        reasons = "; ".join(f"{count}: {reason}" for reason, count in dropped.items())
        raise UserError(f"All {len(records)} records were dropped ({reasons}). Raise `max_seq_length`.")
    return examples, dropped
