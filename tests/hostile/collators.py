"""Rows and arguments that masks cannot be made of."""

import numpy as np

from tests import training

from .cases import Case, CollatorCase, ProcessCase, given
from .tokenizers import changed, edited


def feature(ids=(2, 7, 8, 9, 3), **others) -> dict:
    return {"input_ids": np.array(ids), "example_ids": 7, "epoch": 0} | others


def without(name: str) -> dict:
    return {key: value for key, value in feature().items() if key != name}


def collator(name: str, parts: tuple[str, ...], *features, **options) -> CollatorCase:
    return CollatorCase(name, parts=parts, features=features, options=options)


SIZE = f"{len(training.tokenizer()):,} tokens"
CASES = (
    collator("no rows", ("the batch has no rows",)),
    collator("row that is no mapping", ("ndarray, not a mapping", "`input_ids`"[1:-1]), np.array([2, 3])),
    collator("no token ids", ("`input_ids` is missing", "'example_ids'"), without("input_ids")),
    collator("no number", ("`example_ids` is missing", "masks are drawn from"), without("example_ids")),
    collator("no epoch", ("`epoch` is missing", "masks are drawn from"), without("epoch")),
    collator("negative number", ("`example_ids` is -1", "not negative"), feature(example_ids=-1)),
    collator("epoch that is no number", ("`epoch` is 'first'", "a whole number"), feature(epoch="first")),
    collator("epoch beyond all", ("`epoch` is 9223372036854775808",), feature(epoch=2**63)),
    collator("empty row", ("`input_ids` of example 7 has shape (0,)",), feature(np.array([], dtype=int))),
    collator("row of rows", ("`input_ids` of example 7 has shape (1, 2)",), feature([[2, 3]])),
    collator("row of rows of any length", ("`input_ids` of example 7",), feature() | {"input_ids": [[2], [3, 4]]}),
    collator("row of fractions", ("`input_ids` of example 7", "float64", "whole numbers"), feature([2.5, 3.0])),
    collator("row of words", ("`input_ids` of example 7", "<U3", "whole numbers"), feature(["the", "sea"])),
    collator("token beyond the vocabulary", ("`input_ids` holds 5000", SIZE), feature([2, 5000, 3])),
    collator("negative token", ("`input_ids` holds -1", SIZE, "tokenize with"), feature([2, -1, 3])),
    collator(
        "lengths that do not add up", ("`document_lengths`", "[2, 2]", "5 tokens"), feature(document_lengths=[2, 2])
    ),
    collator("length of nothing", ("`document_lengths`", "[0, 5]"), feature(document_lengths=[0, 5])),
    collator("second row", ("`input_ids` holds 999",), feature(), feature([2, 999])),
    collator(
        "share that is none",
        ("`mlm_probability` is nan", "above 0 and at most 1"),
        feature(),
        mlm_probability=float("nan"),
    ),
    collator(
        "shares beyond all", ("add up to more than 1",), feature(), mask_replace_prob=0.8, random_replace_prob=0.8
    ),
    collator("scale upside down", ("`context_scale` is (0.9, 0.1)",), feature(), context_scale=(0.9, 0.1)),
    collator("blocks below none", ("`num_target_blocks` is -1", "at least 0"), feature(), num_target_blocks=-1),
    collator("unknown unit", ("`masking_unit` is 'sentence'", "token, word or span"), masking_unit="sentence"),
    collator("unknown view", ("`label_view` is 'half'", "full or context"), feature(), label_view="half"),
    collator("multiple of nothing", ("`pad_to_multiple_of` is 0", "at least 1"), feature(), pad_to_multiple_of=0),
    ProcessCase("nothing to reconstruct", given("--mlm_probability", "0"), ("`mlm_probability` is 0.0", "above 0")),
    ProcessCase(
        "shares beyond all on the command line",
        given("--mask_replace_prob", "0.9", "--random_replace_prob", "0.9"),
        ("`mask_replace_prob` (0.9)", "`random_replace_prob` (0.9)", "more than 1"),
    ),
    Case("scale that is none", given("--context_scale", "nan", "nan"), ("`context_scale` is [nan, nan]", "LO <= HI")),
    Case("scale of three", given("--target_scale", "0.1", "0.2", "0.3"), ("`target_scale`", "two shares")),
    Case("blocks without end", given("--num_target_blocks", "100000"), ("`num_target_blocks`", "at most 64")),
    Case("context of nothing", given("--min_context_tokens", "0"), ("`min_context_tokens` is 0", "at least 1")),
    Case("view that is none", given("--mlm_view", "half"), ("--mlm_view", "'half'", "context")),
    Case(
        "words that no token begins",
        lambda folder, made: [
            *edited(
                changed(
                    lambda value: value["model"].update(
                        vocab={t.replace("#", "x"): i for t, i in value["model"]["vocab"].items()}
                    )
                )
            )(folder, made),
            *("--masking_unit", "word"),
        ],
        ("`masking_unit` is word or span", "use `masking_unit=token`"),
    ),
)
