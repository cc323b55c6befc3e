"""The pre-training collator: rows of token ids in, one batch with both mask sets out."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from ..errors import UserError
from ..modeling.layout import Layout
from ..rules import at_least, check_values, share
from .block_masks import BlockMasks, draw_block_masks, num_draws
from .crops import NUM_DRAWS, draw_crops
from .features import check_vocabulary, checked_features
from .masked_tokens import MaskingUnit, choose_tokens, corrupt_tokens, special_token_table, word_start_table
from .randomness import example_generator


def _is_crop_length(value: Sequence[int]) -> bool:
    """Returns whether the value is a range of lengths."""
    return len(value) == 2 and all(isinstance(part, int) for part in value) and 1 <= value[0] <= value[1]


MASK_RULES = (
    ("above 0 and at most 1", ("mlm_probability",), lambda value: 0 < value <= 1),
    share("mask_replace_prob", "random_replace_prob"),
    (
        "two shares LO and HI with 0 < LO <= HI <= 1",
        ("context_scale", "target_scale"),
        lambda value: len(value) == 2 and 0 < value[0] <= value[1] <= 1,
    ),
    ("two numbers of tokens LO and HI with 1 <= LO <= HI", ("crop_length",), _is_crop_length),
    at_least(1, "num_mask_sets", "min_context_tokens", "max_seq_length"),
    ("token, word or span", ("masking_unit",), lambda value: value in get_args(MaskingUnit)),
)
"""What those arguments must be that decide the masks."""

OWN_RULES = (
    at_least(0, "seed", "num_target_blocks", "fixed_epoch"),
    at_least(1, "pad_to_multiple_of"),
    ("full or context", ("label_view",), lambda value: value in ("full", "context")),
)
"""What the others must be."""


def check_masks(arguments: Any) -> None:
    """Refuses arguments that no masks can be made with.

    Args:
        arguments (`Any`): With the fields of `MASK_RULES`.

    Raises:
        UserError: Naming the field and its value.
    """
    check_values(arguments, MASK_RULES)
    if arguments.mask_replace_prob + arguments.random_replace_prob > 1:
        raise UserError(
            f"`mask_replace_prob` ({arguments.mask_replace_prob}) and `random_replace_prob` "
            f"({arguments.random_replace_prob}) add up to more than 1."
        )


@dataclass
class DataCollatorForPreTraining:
    """Makes BERT masks and I-JEPA block masks for a batch, as a pure function of seed, epoch and example.

    A row whose feature has `document_lengths` is taken apart: each of its documents becomes a row of the batch, which
    attends to itself only and has masks of its own. With `unpad`, that costs no computation.

    Every row gets at least one label, unless it holds special tokens only, as unknown text does: that row has none.

    Rules of your own: override [`DataCollatorForPreTraining.choose_masked_tokens`] or
    [`DataCollatorForPreTraining.draw_blocks`]. Labels that are changed in a finished batch would not be counted.

    Args:
        tokenizer ([`PreTrainedTokenizerBase`]): Needs a mask token and a padding token.
        seed (`int`, defaults to 42): Seed of all masks.
        mlm_probability (`float`, defaults to 0.15): Expected share of ordinary tokens to reconstruct.
        mask_replace_prob, random_replace_prob (`float`, default to 0.8 and 0.1):
            Of those, the shares that become the mask token and a random ordinary token; the rest stay.
        masking_unit (`"token"`, `"word"` or `"span"`, defaults to `"token"`):
            Choose tokens, whole words, or SpanBERT's spans of whole words.
        context_scale, target_scale (`tuple` of two floats, default to (0.65, 0.85) and (0.10, 0.25)):
            Range of the context block's and of each target block's share of the real tokens.
        num_target_blocks (`int`, defaults to 2): Target blocks per context; 0 leaves the JEPA keys out.
        num_mask_sets (`int`, defaults to 1): Contexts per row, each with target blocks of its own. They share one pass
            of the target encoder (data2vec 2.0); context `i` of a batch is one of row `i % batch_size`.
        min_context_tokens (`int`, defaults to 32): Tokens that stay visible in rows of 128 real tokens or more; in
            shorter rows it is at most a quarter of the row.
        context_excludes_targets (`bool`, defaults to `True`):
            Whether targets are hidden from the context; `False` is an error of the published code, to measure it.
        crop_length (`tuple` of two ints, *optional*): For models with `jepa_view="crops"`: contexts are crops of so
            many tokens, at least and at most, in the special tokens of the row's ends, and each is its one target
            block. Of what is said above of contexts and targets, only `num_mask_sets` matters then.
        padding_is_text (`bool`, defaults to `False`):
            Fill rows up to `max_seq_length` with padding that is attended to, seen and predicted like text, but never
            reconstructed: another such error.
        label_view (`"full"` or `"context"`, defaults to `"full"`):
            Whether `label_indices` count in the flattened text or in the flattened context.
        pad_to_multiple_of (`int`, defaults to 64): Padded rows are filled up to a multiple of this, so that few
            different shapes occur.
        max_seq_length (`int`, *optional*): Padding never makes a row longer than this.
        unpad (`bool`, defaults to `False`): Add a [`Layout`] that says where padding is, for models that compute
            nothing on it. `label_indices` of the context view then count in the contexts laid end to end.
        fixed_epoch (`int`, *optional*): Draw the masks of this epoch whatever the examples say, as evaluation does.

    Example:

    ```python
    >>> collator = DataCollatorForPreTraining(tokenizer)
    >>> batch = collator([{"input_ids": ids, "example_ids": 7, "epoch": 0}])
    >>> {key: tuple(value.shape) for key, value in batch.items()}
    {'input_ids': (1, 128), 'labels': (1, 128), 'label_indices': (64,), 'example_ids': (1,),
     'original_input_ids': (1, 128), 'context_indices': (1, 64), 'context_mask': (1, 64),
     'target_indices': (1, 2, 32), 'target_mask': (1, 2, 32)}
    ```

    Raises:
        ValueError: If the tokenizer lacks a mask token, or an argument is out of range; when called, if a feature is
            not as [`checked_features`] wants it, or holds a token that the vocabulary does not have.
    """

    tokenizer: PreTrainedTokenizerBase
    seed: int = 42
    mlm_probability: float = 0.15
    mask_replace_prob: float = 0.8
    random_replace_prob: float = 0.1
    masking_unit: MaskingUnit = "token"
    context_scale: tuple[float, float] = (0.65, 0.85)
    target_scale: tuple[float, float] = (0.10, 0.25)
    num_target_blocks: int = 2
    num_mask_sets: int = 1
    min_context_tokens: int = 32
    context_excludes_targets: bool = True
    crop_length: tuple[int, int] | None = None
    padding_is_text: bool = False
    label_view: str = "full"
    pad_to_multiple_of: int = 64
    max_seq_length: int | None = None
    unpad: bool = False
    fixed_epoch: int | None = None
    _special: np.ndarray = field(init=False, repr=False)
    _ordinary_ids: np.ndarray = field(init=False, repr=False)
    _word_starts: np.ndarray | None = field(init=False, repr=False, default=None)

    def __post_init__(self):
        self._prepare()

    def _prepare(self):
        if not isinstance(self.tokenizer, PreTrainedTokenizerBase):
            raise ValueError(f"`tokenizer` is {type(self.tokenizer).__name__}; load it with AutoTokenizer.")
        for name in ("mask", "pad"):
            if getattr(self.tokenizer, f"{name}_token_id") is None:
                raise ValueError(f"`tokenizer` has no {name} token, which masked-LM training needs: give it one.")
        check_masks(self)
        check_values(self, OWN_RULES)
        if self.padding_is_text and not self.max_seq_length:
            raise ValueError("`padding_is_text` needs `max_seq_length`, the length that rows are filled up to.")
        self._special = special_token_table(self.tokenizer)
        self._ordinary_ids = np.flatnonzero(~self._special)
        if self.masking_unit != "token":
            self._word_starts = word_start_table(self.tokenizer)

    def changed(self, **changes: Any) -> "DataCollatorForPreTraining":
        """Returns a copy with other arguments. What a subclass keeps besides stays with it."""
        made = copy.copy(self)
        for name, value in changes.items():
            setattr(made, name, value)
        made._prepare()
        return made

    def choose_masked_tokens(
        self, ids: np.ndarray, maskable: np.ndarray, uniforms: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Chooses which tokens are to be reconstructed.

        Args:
            ids (`np.ndarray` of shape `(batch_size, sequence_length)`): Token ids, padded.
            maskable (`np.ndarray`, same shape, bool): Ordinary tokens; others are never chosen.
            uniforms (`np.ndarray` of shape `(batch_size, 2, sequence_length)`): Random numbers in [0, 1) that depend
                on seed, epoch and example alone. A rule that draws from elsewhere is not the same after a resume.

        Returns:
            What is chosen, bool, and for each token the position whose draw decides what it becomes, as tokens of one
            word are replaced together; both of the shape of `ids`.
        """
        starts = None if self._word_starts is None else self._word_starts[ids]
        return choose_tokens(maskable, uniforms, self.mlm_probability, self.masking_unit, starts)

    def __call__(self, features: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor | Layout]:
        features = [document for feature in checked_features(features) for document in _documents(feature)]
        example_ids = np.array([feature["example_ids"] for feature in features], dtype=np.int64)
        original, lengths = self._pad([feature["input_ids"] for feature in features])
        check_vocabulary(original, len(self._special))
        block_uniforms, token_uniforms = self._draw(features, lengths, original.shape[1])

        real = np.arange(original.shape[1]) < lengths[:, None]
        special = self._special[original] | ~real
        unpredictable = special & real
        if self.padding_is_text:
            lengths, real = np.full_like(lengths, original.shape[1]), np.ones_like(real)
        chosen, decider = self.choose_masked_tokens(original, ~special, token_uniforms[:, :2])
        chosen = chosen & ~special
        corrupted = corrupt_tokens(
            original,
            chosen,
            decider,
            token_uniforms[:, 2:],
            self.tokenizer.mask_token_id,
            self._ordinary_ids,
            self.mask_replace_prob,
            self.random_replace_prob,
        )
        labels = np.where(chosen, original, -100)
        batch = {"input_ids": corrupted, "labels": labels, "label_indices": labels, "example_ids": example_ids}
        padded = not real.all()
        if padded:
            batch["attention_mask"] = real.astype(np.int64)
        if self.num_target_blocks:
            batch["original_input_ids"] = original
            batch |= self._blocks(lengths, unpredictable, block_uniforms)
            if self.label_view == "context":
                at_context = np.take_along_axis(np.tile(labels, (self.num_mask_sets, 1)), batch["context_indices"], 1)
                visible = batch["context_mask"]
                batch["label_indices"] = at_context[visible] if self.unpad else np.where(visible, at_context, -100)
        batch["label_indices"] = _filled_up(batch["label_indices"])
        tensors = {key: torch.from_numpy(np.ascontiguousarray(value)) for key, value in batch.items()}
        if self.unpad and (padded or self.num_target_blocks):
            masks = batch.get("context_mask"), batch.get("target_mask")
            tensors["layout"] = Layout.of(real if padded else None, *masks)
        return tensors

    def _pad(self, rows: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Returns token ids `(batch_size, sequence_length)` and the real length of each row."""
        lengths = np.array([len(row) for row in rows])
        longest = int(lengths.max())
        if self.padding_is_text:
            longest = max(longest, self.max_seq_length)
        elif (lengths != longest).any():
            padded = _round_up(longest, self.pad_to_multiple_of)
            longest = max(longest, min(padded, self.max_seq_length or padded))
        padded = np.full((len(rows), longest), self.tokenizer.pad_token_id, dtype=np.int64)
        for target, row in zip(padded, rows, strict=True):
            target[: len(row)] = row
        return padded, lengths

    def _draw(
        self, features: list[dict[str, Any]], lengths: np.ndarray, sequence_length: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draws every random number of the batch; how many an example takes depends on its own length only."""
        for_blocks = self.num_mask_sets * self._draws_of_context() if self.num_target_blocks else 0
        blocks = np.empty((len(features), for_blocks))
        tokens = np.zeros((len(features), 4, sequence_length), dtype=np.float32)
        for row, (feature, length) in enumerate(zip(features, lengths, strict=True)):
            epoch = int(feature["epoch"] if self.fixed_epoch is None else self.fixed_epoch)
            generator = example_generator(self.seed, epoch, int(feature["example_ids"]), feature.get("document", 0))
            # The tokens come first: their masks are the same whether or not there are target blocks.
            tokens[row, :, :length] = generator.random((4, length), dtype=np.float32)
            blocks[row] = generator.random(for_blocks)
        return blocks, tokens

    def _draws_of_context(self) -> int:
        """Returns how many uniform numbers a context and its targets take."""
        return num_draws(self.num_target_blocks) if self.crop_length is None else NUM_DRAWS

    def draw_blocks(self, lengths: np.ndarray, special: np.ndarray, uniforms: np.ndarray) -> BlockMasks:
        """Draws contexts and target blocks.

        Args:
            lengths (`np.ndarray` of shape `(num_contexts,)`): Real tokens of each row.
            special (`np.ndarray` of shape `(num_contexts, sequence_length)`, bool): Tokens that are no targets.
            uniforms (`np.ndarray` of shape `(num_contexts, num_draws)`): Random numbers in [0, 1), as many as the
                blocks of `num_target_blocks` take.
        """
        if self.crop_length is not None:
            return draw_crops(lengths, special, uniforms, self.crop_length)
        return draw_block_masks(
            lengths,
            special,
            uniforms,
            self.context_scale,
            self.target_scale,
            self.min_context_tokens,
            self.context_excludes_targets,
        )

    def _blocks(self, lengths: np.ndarray, special: np.ndarray, uniforms: np.ndarray) -> dict[str, np.ndarray]:
        """Turns block masks into padded index arrays of few different shapes."""
        lengths, special = np.tile(lengths, self.num_mask_sets), np.tile(special, (self.num_mask_sets, 1))
        uniforms = uniforms.reshape(-1, self.num_mask_sets, self._draws_of_context())
        uniforms = uniforms.swapaxes(0, 1).reshape(len(lengths), -1)
        masks = self.draw_blocks(lengths, special, uniforms)
        sequence_length = special.shape[1]
        counts = masks.context.sum(1)
        # Crops differ by a few tokens; blocks by shares of the row.
        parts = (sequence_length // 8, sequence_length // 16) if self.crop_length is None else (8, 8)
        width = min(sequence_length, _round_up(int(counts.max()), max(8, parts[0])))
        # A stable sort puts visible positions first, in order. What follows them is padding, marked by the mask.
        indices = np.argsort(~masks.context, axis=1, kind="stable")[:, :width]

        block_width = min(sequence_length, _round_up(max(1, int(masks.lengths.max())), max(8, parts[1])))
        offsets = np.arange(block_width)
        targets = masks.starts[..., None] + offsets
        inside = np.broadcast_to(offsets < masks.lengths[:, None, None], targets.shape)
        targets = np.minimum(targets, sequence_length - 1)
        rows = np.arange(len(lengths))[:, None, None]
        return {
            "context_indices": indices,
            "context_mask": np.arange(width) < counts[:, None],
            "target_indices": targets,
            "target_mask": inside & ~special[rows, targets],
        }


def _documents(feature: dict[str, Any]) -> list[dict[str, Any]]:
    """Takes a row apart into its documents, if it says how long they are."""
    if "document_lengths" not in feature:
        return [feature]
    ends = np.cumsum(feature["document_lengths"])
    pieces = np.split(feature["input_ids"], ends[:-1])
    rest = {name: feature[name] for name in ("example_ids", "epoch")}
    return [{"input_ids": piece, "document": number, **rest} for number, piece in enumerate(pieces)]


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def _filled_up(labels: np.ndarray) -> np.ndarray:
    """Returns flat positions of labelled tokens, filled up to a round number with a position that has no label."""
    flat = labels.ravel()
    positions = np.flatnonzero(flat != -100)
    size = min(_round_up(max(1, len(positions)), max(64, flat.size // 64)), flat.size)
    if len(positions) == size:
        return positions
    unlabelled = np.flatnonzero(flat == -100)[0]
    return np.concatenate([positions, np.full(size - len(positions), unlabelled)])
