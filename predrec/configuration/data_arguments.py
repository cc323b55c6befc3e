"""Arguments for data, tokenizer and masks."""

from dataclasses import dataclass, field
from typing import Literal

from ..data_collators.block_masks import MIN_JEPA_LENGTH, smallest_context
from ..data_collators.collator import is_crop_length
from ..data_collators.tokenizers import MAX_VOCABULARY

LARGEST = {
    "max_seq_length": 2**20,
    "num_target_blocks": 64,
    "num_mask_sets": 64,
    "preprocessing_num_workers": 1024,
    "vocab_size": MAX_VOCABULARY,
}
"""Far beyond what anyone trains; what lies further is a slip of the finger that would fill the memory."""


@dataclass
class DataArguments:
    """What to train on, and what to hide. Ranges are checked on construction, before anything is read."""

    train_file: list[str] = field(
        default_factory=list,
        metadata={"help": "Files or globs to train on: txt, jsonl, parquet, or gzip of them."},
    )
    validation_file: list[str] = field(
        default_factory=list, metadata={"help": "Files or globs to evaluate on, in the same formats."}
    )
    dataset_name: str | None = field(
        default=None, metadata={"help": "On the Hub. Without it and files: Python's own documentation."}
    )
    dataset_config_name: str | None = field(default=None, metadata={"help": "Its configuration."})
    text_column: str = field(default="text", metadata={"help": "Column that holds the text."})
    sample_by: Literal["line", "paragraph", "document"] = field(
        default="line", metadata={"help": "What counts as a document in a txt file."}
    )
    streaming: bool = field(
        default=False, metadata={"help": "Read while training, in order, unshuffled; needs `max_steps`."}
    )
    validation_share: float = field(
        default=0.02, metadata={"help": "Share of documents held out when there is no validation data."}
    )
    max_characters: int | None = field(
        default=None, metadata={"help": "Use only so many characters of a document (512 in the published code)."}
    )
    max_validation_documents: int = field(default=2000, metadata={"help": "Most documents to evaluate on."})
    tokenizer_name: str | None = field(default=None, metadata={"help": "Tokenizer: Hub id or directory."})
    train_tokenizer: bool = field(default=False, metadata={"help": "Train a WordPiece tokenizer on the corpus."})
    vocab_size: int | None = field(
        default=None, metadata={"help": "Tokens of a trained tokenizer at most, but all characters (30522 if absent)."}
    )
    max_seq_length: int = field(default=512, metadata={"help": "Tokens in a row."})
    packing: bool = field(
        default=True, metadata={"help": "Documents end to end in full rows; otherwise one document per row."}
    )
    preprocessing_num_workers: int | None = field(default=None, metadata={"help": "Processes that tokenize."})
    mlm_probability: float = field(default=0.15, metadata={"help": "Share of ordinary tokens to reconstruct."})
    mask_replace_prob: float = field(default=0.8, metadata={"help": "Share of those that become the mask token."})
    random_replace_prob: float = field(default=0.1, metadata={"help": "Share that become a random token."})
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
        metadata={"help": "Contexts per row, or crops, which share one target pass."},
    )
    crop_length: list[int] = field(
        default_factory=lambda: [8, 20], metadata={"help": "LO HI: tokens of a crop, with jepa_view crops."}
    )
    min_context_tokens: int = field(default=32, metadata={"help": "Tokens that stay visible in rows of 128 or more."})

    def __post_init__(self):
        for name in ("mlm_probability", "mask_replace_prob", "random_replace_prob"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"`{name}` is {getattr(self, name)}; it must lie in [0, 1].")
        if self.mlm_probability == 0:
            raise ValueError("`mlm_probability` is 0: nothing would be reconstructed; it must be positive.")
        if self.mask_replace_prob + self.random_replace_prob > 1:
            raise ValueError(
                f"`mask_replace_prob` ({self.mask_replace_prob}) and `random_replace_prob` "
                f"({self.random_replace_prob}) add up to more than 1."
            )
        if not 0 < self.validation_share < 1:
            raise ValueError(f"`validation_share` is {self.validation_share}; it must lie strictly between 0 and 1.")
        for name in ("max_validation_documents", "num_target_blocks", "num_mask_sets", "min_context_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` is {getattr(self, name)}; it must be at least 1.")
        if self.max_characters is not None and self.max_characters < MIN_JEPA_LENGTH:
            raise ValueError(
                f"`max_characters` is {self.max_characters}; it must be at least {MIN_JEPA_LENGTH}, for texts to have "
                "targets."
            )
        if self.preprocessing_num_workers is not None and self.preprocessing_num_workers < 1:
            raise ValueError(
                f"`preprocessing_num_workers` is {self.preprocessing_num_workers}; it must be at least 1."
            )
        for name, largest in LARGEST.items():
            if (getattr(self, name) or 0) > largest:
                raise ValueError(f"`{name}` is {getattr(self, name)}; it must be at most {largest:,}.")
        if not self.text_column:
            raise ValueError("`text_column` is empty; it must name the column that holds the text.")
        if self.max_seq_length < MIN_JEPA_LENGTH:
            raise ValueError(
                f"`max_seq_length` is {self.max_seq_length}; the masks need at least {MIN_JEPA_LENGTH} tokens."
            )
        if self.vocab_size is not None and not self.train_tokenizer and self.tokenizer_name:
            raise ValueError("`vocab_size` sizes a trained tokenizer; `tokenizer_name` already has one. Drop either.")
        if self.train_tokenizer and self.tokenizer_name:
            raise ValueError("`train_tokenizer` and `tokenizer_name` exclude each other: drop one.")
        if self.vocab_size is not None and self.vocab_size < 100:
            raise ValueError(f"`vocab_size` is {self.vocab_size}; a tokenizer needs at least 100 tokens.")
        if self.dataset_name and self.train_file:
            raise ValueError("`dataset_name` and `train_file` are both given: choose one source.")
        if self.dataset_config_name and not self.dataset_name:
            raise ValueError("`dataset_config_name` is given without `dataset_name`.")
        if self.streaming and not (self.dataset_name or self.train_file):
            raise ValueError("`streaming` needs `train_file` or `dataset_name`; the embedded corpus is in memory.")
        if self.isolate_documents and not self.packing:
            raise ValueError(
                "`isolate_documents` is about packed rows: without `packing` a row is one document anyway."
            )
        if self.padding_is_text and self.packing:
            raise ValueError("`padding_is_text` needs rows with padding: set `packing` to false.")
        if self.isolate_documents and self.streaming:
            raise ValueError("`isolate_documents` needs to know where documents begin, which `streaming` does not.")
        if self.streaming and self.train_tokenizer:
            raise ValueError("`train_tokenizer` reads the corpus twice; with `streaming` give `tokenizer_name`.")
        self._check_scales()

    def _check_scales(self):
        for name in ("context_scale", "target_scale"):
            scale = getattr(self, name)
            if len(scale) != 2 or not 0 < scale[0] <= scale[1] <= 1:
                raise ValueError(f"`{name}` is {scale}; it must be two numbers with 0 < LO <= HI <= 1.")
        if not is_crop_length(self.crop_length):
            raise ValueError(f"`crop_length` is {self.crop_length}; it must be two numbers with 1 <= LO <= HI.")
        # The last resort of the sampler: the largest context and the smallest targets, none of them overlapping. Rows
        # that are not packed may be shorter: the rule is strictest at 128 tokens.
        hidden = self.num_target_blocks * self.target_scale[0] if self.context_excludes_targets else 0
        share = self.context_scale[1] - hidden
        packed = self.packing and not self.isolate_documents
        lengths = {self.max_seq_length} if packed else {self.max_seq_length, min(128, self.max_seq_length)}
        for length in lengths:
            needed = smallest_context(length, self.min_context_tokens)
            if share * length < needed:
                raise ValueError(
                    f"`context_scale` {self.context_scale} and {self.num_target_blocks} targets of `target_scale` "
                    f"{self.target_scale} can leave {max(0, round(share * length))} of {length} tokens visible, but "
                    f"`min_context_tokens` asks for {needed}: make the context larger, or targets smaller or fewer."
                )
