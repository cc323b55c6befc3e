"""Records for the commands of LLM-JEPA: loaded, split, and as token ids."""

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from ..configuration.llm_arguments import LLMDataArguments
from ..data_collators.chat_format import ChatFormat, find_format
from ..data_collators.regex_grammar import regex_pairs
from ..data_collators.two_views import TwoViews, hold_out, load_records
from ..data_collators.view_examples import RecordEncoder, ViewDataset, encode_records
from ..errors import UserError

INSTRUCTION = "Write the regular expression."
"""System turn of generated records."""


@dataclass
class Records:
    """Training, development and test records, and where they come from."""

    train: list[TwoViews]
    development: list[TwoViews]
    test: list[TwoViews]
    description: str


def load_all(data: LLMDataArguments) -> Records:
    """Loads the records that the arguments name, or makes pairs of descriptions and regexes.

    The development records are a share of the training records unless a file is given; test records are never used
    for a choice.
    """
    if data.train_file:
        train = _from_files(data.train_file, data)
        description = ", ".join(path.rsplit("/", 1)[-1] for path in data.train_file)
    else:
        if data.test_file or data.validation_file:
            raise UserError("`test_file` and `validation_file` need a `train_file`: generated pairs have their own.")
        train = _generated(data)[: data.generated_pairs]
        description = f"{data.generated_pairs} generated descriptions with regular expressions"
    if data.validation_file:
        development = _from_files(data.validation_file, data)
    else:
        train, development = hold_out(train, data.validation_share, data.split_seed)
    return Records(train[: data.max_train_samples], development[: data.max_eval_samples], load_test(data), description)


def load_test(data: LLMDataArguments) -> list[TwoViews]:
    """Loads the test records alone: of the files, or of what is generated."""
    if data.train_file or data.test_file:
        return _from_files(data.test_file, data)[: data.max_test_samples]
    return _generated(data)[data.generated_pairs :][: data.max_test_samples]


def _generated(data: LLMDataArguments) -> list[TwoViews]:
    pairs = regex_pairs(data.generated_pairs + data.generated_test_pairs, data.split_seed, depth=data.generated_depth)
    return [TwoViews(text, code, INSTRUCTION) for text, code in pairs]


def _from_files(paths: Sequence[str], data: LLMDataArguments) -> list[TwoViews]:
    return [record for path in paths for record in load_records(path, data.group_column, data.cyclic)]


def record_encoder(
    data: LLMDataArguments, tokenizer: PreTrainedTokenizerBase, predictor_ids: tuple[int, ...]
) -> RecordEncoder:
    """Returns what turns records into token ids as the arguments say."""
    options = {"view_prefix": data.view_prefix, "code_role": data.code_role}
    return RecordEncoder(
        tokenizer,
        find_format(tokenizer, data.chat_format, data.separator, **options),
        predictor_ids,
        data.max_seq_length,
        data.label_scope,
        data.direction,
        data.predictor_position,
        data.readout_rule,
        data.double_bos,
    )


def encoded(field: str, records: Sequence[TwoViews], encoder: RecordEncoder) -> tuple[ViewDataset, list[str]]:
    """Returns records as a dataset, and what is to be said about those that were dropped."""
    try:
        examples, dropped = encode_records(records, encoder)
    except UserError as error:
        raise UserError(f"`{field}`: {error}") from None
    notes = [f"dropped from `{field}`: {count} of {len(records)} records: {why}" for why, count in dropped.items()]
    return ViewDataset(examples), notes


def describe(records: Records, encoder: RecordEncoder, train: ViewDataset) -> dict[str, str]:
    """Says what is trained on, for the console and the model card."""
    kind = "plain text"
    if isinstance(encoder.format, ChatFormat):
        kind = f"the tokenizer's chat template; code views have the role {encoder.format.code_role}"
    mean = sum(len(example.input_ids) for example in train.examples) / len(train)
    views = sum(len(example.source_ids) + len(example.target_ids) for example in train.examples) / len(train)
    return {
        "data": f"{records.description}; {len(train):,} training, {len(records.development):,} development, "
        f"{len(records.test):,} test records",
        "tokens": f"{mean:.1f} in a generated sequence, {views:.1f} in its two views, on average",
        "format": kind,
        "tokenizer": f"{len(encoder.tokenizer):,} tokens",
    }
