"""Arguments for data, tokenizer and masks."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from ..data_collators.block_masks import MIN_JEPA_LENGTH, smallest_context
from ..data_collators.collator import check_masks
from ..data_collators.corpus import kind_of
from ..data_collators.tokenizers import MAX_VOCABULARY
from ..errors import UserError
from ..rules import at_least, at_most, check_values, proper_share

RULES = (
    proper_share("validation_share"),
    at_least(1, "max_validation_documents", "num_target_blocks", "preprocessing_num_workers"),
    at_least(MIN_JEPA_LENGTH, "max_characters", "max_seq_length"),  # Shorter texts have no targets.
    at_least(100, "vocab_size"),
    at_most(2**20, "max_seq_length"),
    at_most(64, "num_target_blocks", "num_mask_sets"),
    at_most(1024, "preprocessing_num_workers"),
    at_most(MAX_VOCABULARY, "vocab_size"),
    ("the name of the column that holds the text", ("text_column",), bool),
)
"""What single arguments must be, beside what masks need."""

CONFLICTS: tuple[tuple[Callable[["DataArguments"], Any], str], ...] = (
    (
        lambda given: given.vocab_size is not None and given.tokenizer_name and not given.train_tokenizer,
        "`vocab_size` sizes a trained tokenizer; `tokenizer_name` already has one. Drop either.",
    ),
    (
        lambda given: given.train_tokenizer and given.tokenizer_name,
        "`train_tokenizer` and `tokenizer_name` exclude each other: drop one.",
    ),
    (
        lambda given: given.dataset_name and given.train_file,
        "`dataset_name` and `train_file` are both given: choose one source.",
    ),
    (
        lambda given: given.dataset_config_name and not given.dataset_name,
        "`dataset_config_name` is given without `dataset_name`.",
    ),
    (
        lambda given: given.streaming and not (given.dataset_name or given.train_file),
        "`streaming` needs `train_file` or `dataset_name`; the embedded corpus is in memory.",
    ),
    (
        lambda given: given.isolate_documents and not given.packing,
        "`isolate_documents` is about packed rows: without `packing` a row is one document anyway.",
    ),
    (
        lambda given: given.padding_is_text and given.packing,
        "`padding_is_text` needs rows with padding: set `packing` to false.",
    ),
    (
        lambda given: given.isolate_documents and given.streaming,
        "`isolate_documents` needs to know where documents begin, which `streaming` does not.",
    ),
    (
        lambda given: given.streaming and given.train_tokenizer,
        "`train_tokenizer` reads the corpus twice; with `streaming` give `tokenizer_name`.",
    ),
    (
        lambda given: (
            given.text_column != DataArguments.text_column
            and given.train_file
            and all(kind_of(path) == "text" for path in (*given.train_file, *given.validation_file))
        ),
        "`text_column` is for files with columns, not for txt: leave it out.",
    ),
    (
        lambda given: given.validation_file and given.validation_share != DataArguments.validation_share,
        "`validation_share` is for data without `validation_file`: drop either.",
    ),
    (
        lambda given: (
            given.streaming and not given.validation_file and given.validation_share != DataArguments.validation_share
        ),
        "`validation_share` is not for `streaming`, which holds out the first 500 documents: leave it out.",
    ),
)
"""What does not go together, and what to say then."""


@dataclass
class DataArguments:
    """What to train on, and what to hide. Ranges are checked on construction, before anything is read."""

    train_file: list[str] = field(
        default_factory=list,
        metadata={"help": "Files or globs: txt, jsonl, json (also .gz, .bz2, .xz), parquet."},
    )
    validation_file: list[str] = field(
        default_factory=list, metadata={"help": "Files or globs to evaluate on, in the same formats."}
    )
    dataset_name: str | None = field(
        default=None, metadata={"help": "Hub data set. Without it and files: Python's own documentation."}
    )
    dataset_config_name: str | None = field(default=None, metadata={"help": "Configuration of that data set."})
    text_column: str = field(default="text", metadata={"help": "Column that holds the text."})
    sample_by: Literal["line", "paragraph", "document"] = field(
        default="line", metadata={"help": "What counts as a document in a txt file."}
    )
    streaming: bool = field(
        default=False, metadata={"help": "Read while training, in order, unshuffled; needs `max_steps`."}
    )
    validation_share: float = field(
        default=0.02,
        metadata={"help": "Share of documents held out without validation data; of a stream, 500."},
    )
    max_characters: int | None = field(
        default=None, metadata={"help": "Characters of a document that are used (512 in the published code)."}
    )
    max_validation_documents: int = field(default=2000, metadata={"help": "Largest number of held-out documents."})
    tokenizer_name: str | None = field(default=None, metadata={"help": "Tokenizer: Hub id or directory."})
    train_tokenizer: bool = field(default=False, metadata={"help": "Train a WordPiece tokenizer on the corpus."})
    vocab_size: int | None = field(
        default=None, metadata={"help": "Largest vocabulary of a trained tokenizer (30522 if absent)."}
    )
    max_seq_length: int = field(default=512, metadata={"help": "Tokens in a row."})
    packing: bool = field(
        default=True, metadata={"help": "Documents end to end in full rows; otherwise one document per row."}
    )
    preprocessing_num_workers: int | None = field(default=None, metadata={"help": "Processes that tokenize."})
    mlm_probability: float = field(default=0.15, metadata={"help": "Share of ordinary tokens to reconstruct."})
    mask_replace_prob: float = field(default=0.8, metadata={"help": "Share of the chosen that become the mask token."})
    random_replace_prob: float = field(default=0.1, metadata={"help": "Share of the chosen that become random ones."})
    masking_unit: Literal["token", "word", "span"] = field(
        default="token", metadata={"help": "Choose single tokens, whole words, or spans of words."}
    )
    context_scale: list[float] = field(
        default_factory=lambda: [0.65, 0.85], metadata={"help": "LO HI: the context block's share of the row."}
    )
    target_scale: list[float] = field(
        default_factory=lambda: [0.10, 0.25], metadata={"help": "LO HI: each target block's share of the row."}
    )
    isolate_documents: bool = field(
        default=False, metadata={"help": "Documents in a packed row do not attend to one another."}
    )
    context_excludes_targets: bool = field(
        default=True, metadata={"help": "Hide targets from the context; false as in the published code."}
    )
    padding_is_text: bool = field(
        default=False,
        metadata={"help": "Attend to padding, and predict it, as in the published code; needs `packing` false."},
    )
    num_target_blocks: int = field(default=2, metadata={"help": "Target blocks per context."})
    num_mask_sets: int = field(
        default=1,
        metadata={"help": "Contexts, or crops, per row; they share one target pass."},
    )
    crop_length: list[int] = field(
        default_factory=lambda: [8, 20], metadata={"help": "LO HI: tokens of a crop, with jepa_view crops."}
    )
    min_context_tokens: int = field(default=32, metadata={"help": "Least visible tokens in rows of 128 or more."})

    def __post_init__(self):
        check_masks(self)
        check_values(self, RULES)
        for holds, message in CONFLICTS:
            if holds(self):
                raise UserError(message)
        self._check_room()

    def _check_room(self):
        # The last resort of the sampler: the largest context and the smallest targets, none of them overlapping. Rows
        # that are not packed may be shorter: the rule is strictest at 128 tokens.
        hidden = self.num_target_blocks * self.target_scale[0] if self.context_excludes_targets else 0
        share = self.context_scale[1] - hidden
        packed = self.packing and not self.isolate_documents
        lengths = {self.max_seq_length} if packed else {self.max_seq_length, min(128, self.max_seq_length)}
        for length in lengths:
            needed = smallest_context(length, self.min_context_tokens)
            if share * length < needed:
                raise UserError(
                    f"`context_scale` {self.context_scale} and {self.num_target_blocks} targets of `target_scale` "
                    f"{self.target_scale} can leave {max(0, round(share * length))} of {length} tokens visible, but "
                    f"`min_context_tokens` asks for {needed}: make the context larger, or targets smaller or fewer."
                )
