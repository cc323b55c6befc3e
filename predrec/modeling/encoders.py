"""What differs between masked-LM architectures: their head, their positions, their attention windows.

One table, `ENCODERS`, keyed by `model_type`. An architecture that is not listed still trains: its context pass runs at
full length with the hidden tokens masked out, and its head runs on every token, both with a notice.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import ModelOutput, logging

from .attention import UNPADDED
from .layout import Layout, Segments

logger = logging.get_logger(__name__)


def _distilbert_head(model: PreTrainedModel, hidden_states: Tensor) -> Tensor:
    hidden_states = model.activation(model.vocab_transform(hidden_states))
    return model.vocab_projector(model.vocab_layer_norm(hidden_states))


def _deberta_v2_head(model: PreTrainedModel, hidden_states: Tensor) -> Tensor:
    if model.legacy:
        return model.cls(hidden_states)
    return model.lm_predictions(hidden_states, model.deberta.embeddings.word_embeddings)


@dataclass(frozen=True)
class EncoderSpec:
    """How one architecture is driven.

    Args:
        head (`Callable`): Masked-LM model and hidden states `(..., hidden_size)` to logits `(..., vocab_size)`.
        gathers (`Callable`): From a config, whether a gathered sub-sequence with `position_ids` equals a full pass
            with the other tokens masked.
        padded_positions (`bool`): Whether positions count from `pad_token_id + 1`, as in RoBERTa.
        windowed (`bool`): Whether some layers attend within a window of the original positions.
        padding_mask_only (`bool`): Whether the architecture reads its mask as two-dimensional and takes no other.
        unpads (`bool`): Whether attention goes through the transformers interface with all its keyword arguments and
            depends on positions by `position_ids` only, so that sequences can be laid end to end.
    """

    head: Callable[[PreTrainedModel, Tensor], Tensor]
    gathers: Callable[[PreTrainedConfig], bool] = lambda config: True
    padded_positions: bool = False
    windowed: bool = False
    padding_mask_only: bool = False
    unpads: bool = True


_ROBERTA = EncoderSpec(head=lambda model, states: model.lm_head(states), padded_positions=True)

ENCODERS: dict[str, EncoderSpec] = {
    "predrec": EncoderSpec(head=lambda model, states: model.lm_head(states)),
    "bert": EncoderSpec(head=lambda model, states: model.cls(states)),
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "camembert": _ROBERTA,
    "distilbert": EncoderSpec(head=_distilbert_head),
    "electra": EncoderSpec(head=lambda model, states: model.generator_lm_head(model.generator_predictions(states))),
    "modernbert": EncoderSpec(
        head=lambda model, states: model.decoder(model.head(states)), windowed=True, unpads=False
    ),
    # Relative positions are computed from the index in the row: a gathered row would lose them.
    "deberta-v2": EncoderSpec(
        head=_deberta_v2_head,
        gathers=lambda config: config.position_biased_input and not config.relative_attention,
        padding_mask_only=True,
        unpads=False,
    ),
}


def encoder_spec(config: PreTrainedConfig) -> EncoderSpec | None:
    """Returns the row of `ENCODERS` for a config, or `None`, with a notice, for an architecture that has none."""
    spec = ENCODERS.get(config.model_type)
    if spec is None:
        logger.warning_once(
            f"`{config.model_type}` is not in predrec's table of encoders: its head runs on every token and its "
            "context pass at full length, which is right but slower."
        )
    return spec


def check_encoder(config: PreTrainedConfig, attn_implementation: str | None, mlm_view: str = "full") -> None:
    """Refuses what would compute something else than the masked full pass.

    Raises:
        ValueError: If windowed attention is asked of a kernel that measures the window in the gathered row, or the
            context view of an architecture whose head is not in the table.
    """
    spec = ENCODERS.get(config.model_type)
    if spec is None and mlm_view == "context":
        raise ValueError(f"`mlm_view=context` needs the head of `{config.model_type}`, which predrec does not know.")
    if spec is not None and spec.windowed and attn_implementation not in (None, "sdpa", "eager"):
        raise ValueError(
            f"`attn_implementation={attn_implementation}` measures {config.model_type}'s attention window in the "
            "gathered context, not in the text: use sdpa or eager, or `objective=mlm`."
        )


def position_limit(model: PreTrainedModel) -> int:
    """Returns how many tokens an encoder has positions for."""
    longest = getattr(model.config, "max_position_embeddings", None) or 10**9
    padded = getattr(getattr(model, "embeddings", None), "padding_idx", None)
    table = getattr(getattr(model, "embeddings", None), "position_embeddings", None)
    # RoBERTa counts its positions from after the padding id.
    if padded is not None and getattr(table, "padding_idx", None) is not None:
        longest -= padded + 1
    return longest


def attention_masks(
    config: PreTrainedConfig,
    mask: Tensor | None,
    dtype: torch.dtype,
    positions: Tensor | None = None,
    num_queries: int | None = None,
) -> Tensor | dict[str, Tensor] | None:
    """Prepares a padding mask for an encoder so that neither side has to look at its values.

    A stock encoder asks a two-dimensional mask whether it hides anything, and so waits for the device in every pass.
    It takes a four-dimensional one as it is. Kernels other than sdpa and eager get the mask unchanged, and so do
    architectures that need the two-dimensional one.

    Args:
        config (`PreTrainedConfig`): Of the encoder.
        mask (`torch.Tensor` of shape `(batch_size, sequence_length)`, *optional*): True or 1 at real tokens.
        dtype (`torch.dtype`): Of the encoder's weights.
        positions (`torch.LongTensor` of shape `(batch_size, sequence_length)`, *optional*):
            Places in the text, which a local window is measured between; 0, 1, 2, ... when absent.
        num_queries (`int`, *optional*): Tokens that attend, when they are others than those attended to.

    Returns:
        What the encoder takes as `attention_mask`: for windowed architectures a mask for each kind of layer.
    """
    if mask is None or config._attn_implementation not in ("sdpa", "eager", UNPADDED):
        return mask

    def finished(allowed: Tensor) -> Tensor:
        """Additive for eager, boolean for the others; `(batch_size, 1, length, length)`."""
        if config._attn_implementation != "eager":
            return allowed
        return torch.zeros((), dtype=dtype, device=allowed.device).where(allowed, torch.finfo(dtype).min)

    spec = ENCODERS.get(config.model_type)
    if spec is not None and spec.padding_mask_only:
        return mask

    length = mask.shape[1]
    visible = mask.bool()[:, None, None, :].expand(-1, 1, num_queries or length, -1)
    if spec is None or not spec.windowed:
        return finished(visible)
    if positions is None:
        positions = torch.arange(length, device=mask.device)[None]
    near = (positions[:, :, None] - positions[:, None, :]).abs() <= config.local_attention // 2
    # A padded query may have no visible key in its window; itself keeps the softmax finite.
    itself = torch.eye(length, dtype=torch.bool, device=mask.device)
    return {"full_attention": finished(visible), "sliding_attention": finished(visible & near[:, None] | itself)}


def takes_segments(config: PreTrainedConfig) -> bool:
    """Returns whether an encoder, with the attention it has, can read sequences that are laid end to end."""
    spec = ENCODERS.get(config.model_type)
    attention = config._attn_implementation or ""
    return spec is not None and spec.unpads and (attention == UNPADDED or "flash" in attention)


def segment_arguments(
    config: PreTrainedConfig, segments: Segments, key_segments: Segments | None = None
) -> dict[str, Any]:
    """Returns what tells the attention of [`takes_segments`] where the sequences of queries and of keys are."""
    key_segments = key_segments or segments
    if config._attn_implementation == UNPADDED:
        return {"segments": segments, "key_segments": key_segments}
    return {
        "cu_seq_lens_q": segments.boundaries,
        "cu_seq_lens_k": key_segments.boundaries,
        "max_length_q": segments.limit,
        "max_length_k": key_segments.limit,
    }


def encode_segments(
    encoder: PreTrainedModel, token_ids: Tensor, positions: Tensor, segments: Segments, **kwargs
) -> ModelOutput:
    """Encodes sequences that are laid end to end.

    Args:
        encoder (`PreTrainedModel`): Base model of an architecture that [`takes_segments`].
        token_ids, positions (`torch.LongTensor` of shape `(num_tokens,)`): Tokens and their places in the text.
        segments ([`Segments`]): The sequences.

    Returns:
        The encoder's output, for a batch of one row of `num_tokens` tokens.
    """
    spec = ENCODERS[encoder.config.model_type]
    offset = encoder.config.pad_token_id + 1 if spec.padded_positions else 0
    return encoder(
        input_ids=token_ids[None],
        position_ids=positions[None] + offset,
        **segment_arguments(encoder.config, segments),
        **kwargs,
    )


def encode_text(
    encoder: PreTrainedModel,
    input_ids: Tensor,
    attention_mask: Tensor | None,
    layout: Layout | None,
    num_layers: int = 0,
) -> list[Tensor]:
    """Encodes whole texts; padding is left out when a layout says where it is.

    Args:
        encoder (`PreTrainedModel`): Base model.
        input_ids (`torch.LongTensor` of shape `(batch_size, sequence_length)`): Tokens.
        attention_mask (`torch.Tensor`, *optional*): As [`attention_masks`] or the encoder wants it.
        layout ([`Layout`], *optional*): Of the batch.
        num_layers (`int`): How many of the top layers' outputs to return; the last is the output itself, 0 that alone.

    Returns:
        A `list` of `torch.FloatTensor` of shape `(batch_size, sequence_length, hidden_size)` or, when padding was left
        out, `(num_tokens, hidden_size)`.
    """
    options = {"output_hidden_states": True} if num_layers else {}
    unpad = layout is not None and layout.text is not None
    if unpad:
        tokens, length = layout.text, input_ids.shape[1]
        outputs = encode_segments(
            encoder, input_ids.flatten()[tokens], tokens % length, layout.text_segments, **options
        )
    else:
        outputs = encoder(input_ids=input_ids, attention_mask=attention_mask, **options)
    states = outputs.hidden_states[-num_layers:] if num_layers else [outputs[0]]
    return [state[0] if unpad else state for state in states]


def encode_context(
    encoder: PreTrainedModel,
    input_ids: Tensor,
    context_indices: Tensor,
    context_mask: Tensor,
    layout: Layout | None = None,
) -> Tensor:
    """Encodes the visible context alone: attention never meets a hidden token.

    Equal to a full pass with the hidden tokens masked, gathered at the context; cheaper, since only the context runs.

    Args:
        encoder (`PreTrainedModel`): Base model.
        input_ids (`torch.LongTensor` of shape `(batch_size, sequence_length)`): Masked tokens.
        context_indices (`torch.LongTensor` of shape `(batch_size, context_length)`): Visible positions.
        context_mask (`torch.BoolTensor` of shape `(batch_size, context_length)`): `False` at padding.
        layout ([`Layout`], *optional*): Of the batch, for an encoder that [`takes_segments`].

    Returns:
        `torch.FloatTensor` of shape `(batch_size, context_length, hidden_size)` or, given a layout,
        `(num_context, hidden_size)`.
    """
    config = encoder.config
    spec = encoder_spec(config)
    if layout is not None:
        positions = context_indices.flatten()[layout.context]
        tokens = input_ids.gather(1, context_indices).flatten()[layout.context]
        return encode_segments(encoder, tokens, positions, layout.context_segments)[0][0]

    if spec is None or not spec.gathers(config):
        # Padding points at some hidden token of the row: it adds nothing there, and takes nothing from the others.
        visible = torch.zeros_like(input_ids).scatter_add(1, context_indices, context_mask.long()).clamp(max=1)
        # Not every architecture keeps its mask: what is hidden is also replaced by a constant, never the padding id,
        # which some count positions by.
        constant = 0 if config.pad_token_id != 0 else 1
        states = encoder(input_ids=input_ids.where(visible.bool(), constant), attention_mask=visible)[0]
        return states.gather(1, context_indices[..., None].expand(-1, -1, states.shape[-1]))

    offset = config.pad_token_id + 1 if spec.padded_positions else 0
    return encoder(
        input_ids=input_ids.gather(1, context_indices),
        attention_mask=attention_masks(config, context_mask, encoder.dtype, context_indices),
        position_ids=context_indices + offset,
    )[0]


def token_logits(masked_lm: PreTrainedModel, hidden_states: Tensor) -> Tensor:
    """Returns the head's logits `(num_tokens, vocab_size)` for hidden states `(num_tokens, hidden_size)`.

    Raises:
        ValueError: If the architecture's head is not in the table.
    """
    spec = encoder_spec(masked_lm.config)
    if spec is None:
        raise ValueError(
            f"predrec does not know the head of `{masked_lm.config.model_type}`: use `mlm_view=full`, which runs the "
            "whole model, or add a row to `ENCODERS`."
        )
    return spec.head(masked_lm, hidden_states)
