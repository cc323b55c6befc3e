"""Where the tokens of a padded batch lie when its sequences are put end to end, so that padding costs nothing."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor


@dataclass
class Segments:
    """Sequences laid end to end.

    The lengths are there twice: as numbers for kernels that loop over sequences, which must not read them from the
    device, and as a tensor for kernels that run on it.

    Args:
        lengths (`list` of `int`): Tokens of each sequence; may be 0.
        boundaries (`torch.IntTensor` of shape `(num_sequences + 1,)`): Where each begins, and where the last one ends.
        limit (`int`): No sequence is longer than this: the width of the padded batch.
    """

    lengths: list[int]
    boundaries: Tensor
    limit: int

    @classmethod
    def of(cls, lengths: np.ndarray, limit: int) -> Segments:
        """Makes them from the lengths, `(num_sequences,)`."""
        boundaries = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
        return cls(lengths.tolist(), torch.from_numpy(boundaries), limit)

    def rows(self) -> tuple[Tensor, Tensor]:
        """Returns, for each sequence and each place up to the limit, the token and whether there is one.

        Both of shape `(num_sequences, limit)`; where there is none, the token is any.
        """
        places = torch.arange(self.limit, device=self.boundaries.device)
        begins, ends = self.boundaries[:-1, None], self.boundaries[1:, None]
        tokens = begins + places
        return tokens.clamp(max=(self.boundaries[-1] - 1).clamp(min=0)), tokens < ends

    def places(self, num_tokens: int) -> tuple[Tensor, Tensor]:
        """Returns each token's sequence and its place in that sequence, both `(num_tokens,)`."""
        tokens = torch.arange(num_tokens, device=self.boundaries.device, dtype=self.boundaries.dtype)
        numbers = torch.bucketize(tokens, self.boundaries[1:], right=True)
        return numbers, tokens - self.boundaries[numbers]

    def to(self, device, non_blocking: bool = False) -> Segments:
        return replace(self, boundaries=self.boundaries.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Segments:
        return replace(self, boundaries=self.boundaries.pin_memory())


@dataclass
class Layout:
    """How the padded tensors of a batch are laid end to end. What a batch lacks is `None`.

    Args:
        text (`torch.LongTensor` of shape `(num_tokens,)`): Real tokens in the flattened `input_ids`; `None` when
            nothing is padded.
        text_segments ([`Segments`]): One for each row.
        text_places (`torch.LongTensor` of shape `(batch_size * sequence_length,)`): Where in `text` each entry of the
            flattened `input_ids` is; any place for padding.
        context (`torch.LongTensor` of shape `(num_context,)`): Entries of the flattened `context_indices`.
        context_segments ([`Segments`]): One for each context.
        targets (`torch.LongTensor` of shape `(num_targets,)`): Entries of the flattened `target_indices`.
        target_segments ([`Segments`]): One for each context, all its blocks together.
        paired (`torch.LongTensor` of shape `(num_paired,)`): Context and targets, one after the other, put in the
            order in which the predictor reads them: each block after its context.
        paired_segments ([`Segments`]): One for each block that has targets.
        predicted (`torch.LongTensor` of shape `(num_targets,)`): Where in `paired` the targets are.
        predicted_segments ([`Segments`]): One for each block that has targets.
    """

    text: Tensor | None = None
    text_segments: Segments | None = None
    text_places: Tensor | None = None
    context: Tensor | None = None
    context_segments: Segments | None = None
    targets: Tensor | None = None
    target_segments: Segments | None = None
    paired: Tensor | None = None
    paired_segments: Segments | None = None
    predicted: Tensor | None = None
    predicted_segments: Segments | None = None

    @classmethod
    def of(
        cls, real: np.ndarray | None, context_mask: np.ndarray | None = None, target_mask: np.ndarray | None = None
    ) -> Layout:
        """Makes the layout of a batch.

        Args:
            real (`np.ndarray` of shape `(batch_size, sequence_length)`, bool, *optional*): Real tokens, if some are
                not.
            context_mask (`np.ndarray` of shape `(num_contexts, context_length)`, bool, *optional*): As in the batch.
            target_mask (`np.ndarray` of shape `(num_contexts, num_blocks, block_length)`, bool, *optional*): As well.
        """
        layout = {}
        if real is not None:
            layout = {
                "text": _indices(real),
                "text_segments": Segments.of(real.sum(1), real.shape[1]),
                "text_places": torch.from_numpy(np.maximum(np.cumsum(real.ravel()) - 1, 0)),
            }
        if context_mask is not None:
            context, blocks = context_mask.sum(1), target_mask.sum(2)
            per_block = blocks.shape[1]
            # For each block in turn, its context, then itself; a block without targets is left out.
            begins = np.stack([_starts(context).repeat(per_block), context.sum() + _starts(blocks.ravel())], axis=1)
            lengths = np.stack([context.repeat(per_block), blocks.ravel()], axis=1)
            kept = blocks.ravel() > 0
            paired = _ranges(begins[kept].ravel(), lengths[kept].ravel())
            layout |= {
                "context": _indices(context_mask),
                "context_segments": Segments.of(context, context_mask.shape[1]),
                "targets": _indices(target_mask),
                "target_segments": Segments.of(blocks.sum(1), target_mask.shape[1] * target_mask.shape[2]),
                "paired": torch.from_numpy(paired),
                "paired_segments": Segments.of(lengths[kept].sum(1), context_mask.shape[1] + target_mask.shape[2]),
                "predicted": _indices(paired >= context.sum()),
                "predicted_segments": Segments.of(blocks.ravel()[kept], target_mask.shape[2]),
            }
        return cls(**layout)

    def in_text(self, places: Tensor) -> Tensor:
        """Turns places in the flattened `input_ids` into places among the real tokens."""
        return places if self.text_places is None else self.text_places[places]

    def to(self, device, non_blocking: bool = False) -> Layout:
        return self._each(lambda part: part.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Layout:
        return self._each(lambda part: part.pin_memory())

    def _each(self, change) -> Layout:
        parts = {field.name: getattr(self, field.name) for field in fields(self)}
        return Layout(**{name: None if part is None else change(part) for name, part in parts.items()})


def _indices(mask: np.ndarray) -> Tensor:
    return torch.from_numpy(np.flatnonzero(mask))


def _starts(lengths: np.ndarray) -> np.ndarray:
    return np.cumsum(lengths) - lengths


def _ranges(begins: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Returns `begin, begin + 1, ..., begin + length - 1` for each pair, end to end."""
    return np.arange(lengths.sum()) + np.repeat(begins - _starts(lengths), lengths)
