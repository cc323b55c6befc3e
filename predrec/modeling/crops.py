"""Crops: contexts that are read by themselves, and predict by the mean of their states."""

from torch import Tensor
from transformers import PreTrainedModel

from .encoders import attention_masks, encode_segments, encode_text, encoder_spec
from .layout import Layout


def encode_crops(
    encoder: PreTrainedModel,
    input_ids: Tensor,
    indices: Tensor,
    mask: Tensor,
    layout: Layout | None = None,
) -> Tensor:
    """Encodes crops as texts of their own: their positions count from 0.

    Args:
        encoder (`PreTrainedModel`): Base model; any, for a crop is a text like others.
        input_ids (`torch.LongTensor` of shape `(num_crops, sequence_length)`): The text of each crop.
        indices, mask (`(num_crops, crop_length)`, long and bool): Where in it the crop's tokens are; which are real.
        layout ([`Layout`], *optional*): Of the batch, for an encoder that [`takes_segments`].

    Returns:
        `torch.FloatTensor` of shape `(num_crops, crop_length, hidden_size)` or, given a layout,
        `(num_tokens, hidden_size)`.
    """
    tokens = input_ids.gather(1, indices)
    if layout is not None:
        tokens, segments = tokens.flatten()[layout.context], layout.context_segments
        return encode_segments(encoder, tokens, segments.places(len(tokens))[1], segments)[0][0]
    config = encoder.config
    spec = encoder_spec(config)
    if spec is not None and spec.gathers(config):
        return encode_text(encoder, tokens, attention_masks(config, mask, encoder.dtype), None)[0]
    # As in `encode_context`: not every architecture keeps its mask.
    tokens = tokens.where(mask, 0 if config.pad_token_id != 0 else 1)
    return encode_text(encoder, tokens, mask.long(), None)[0]


def mean_of_crops(states: Tensor, mask: Tensor, layout: Layout | None = None) -> Tensor:
    """Averages the states of each crop, special tokens included, as pooled sentence vectors are made.

    Args:
        states (`torch.FloatTensor` of shape `(num_crops, crop_length, hidden_size)`, or `(num_tokens, hidden_size)`):
            From [`encode_crops`].
        mask (`torch.BoolTensor` of shape `(num_crops, crop_length)`): Real tokens.
        layout ([`Layout`], *optional*): Of the batch.

    Returns:
        `torch.FloatTensor` of shape `(num_crops, hidden_size)`, float32.
    """
    states = states.float()
    if layout is not None:
        tokens, mask = layout.context_segments.rows()
        states = states[tokens]
    return (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True).clamp(min=1)
