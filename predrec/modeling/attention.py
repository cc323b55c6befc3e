"""Attention over sequences of different length laid end to end, and a faster backward pass for bidirectional
attention on CPUs. Registered with transformers as `attn_implementation="unpadded"`.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from .layout import Segments

UNPADDED = "unpadded"
"""Name of the attention implementation."""

MAX_SCORES = 2**22
"""Scores that the CPU kernel makes at a time: few enough to stay in the cache."""

Part = tuple[slice, slice] | Tensor
"""Tokens of a block of scores: rows and places in them, or places of equally long sequences, `(number, length)`."""


def unpadded_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    segments: Segments | None = None,
    key_segments: Segments | None = None,
    **kwargs,
) -> tuple[Tensor, None]:
    """Bidirectional attention, in the form that transformers calls.

    Args:
        query, key, value (`torch.FloatTensor` of shape `(batch_size, heads, length, head_dim)`): As usual; with
            `segments`, `batch_size` is 1 and the sequences lie end to end.
        attention_mask (`torch.Tensor`, *optional*): As sdpa takes it; not together with `segments`.
        scaling (`float`, *optional*): Multiplies the scores; `head_dim ** -0.5` when absent.
        dropout (`float`): On the attention weights.
        segments ([`Segments`], *optional*): Where the sequences are; queries meet the keys of their own sequence only.
        key_segments ([`Segments`], *optional*): Those of the keys, when they are not those of the queries.

    Returns:
        `torch.FloatTensor` of shape `(batch_size, length, heads, head_dim)`, and no weights.
    """
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    on_cpu = query.device.type == "cpu" and not dropout and not torch.compiler.is_compiling()
    if segments is None:
        if on_cpu and attention_mask is None:
            return _CpuAttention.apply(query, key, value, scaling, _row_pieces(query, key)), None
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout, scaling, **kwargs)
    key_segments = key_segments or segments
    if on_cpu:
        pieces = _segment_pieces(segments, key_segments, query.shape[1])
        return _CpuAttention.apply(query, key, value, scaling, pieces), None
    if not query.shape[2]:  # No kernel is sure to take it; the sums keep the gradients of keys and values in place.
        return query.transpose(1, 2) + 0 * (key.sum() + value.sum()), None
    if not dropout and _has_flash_attention(query):
        return _flash_attention(query, key, value, scaling, segments, key_segments), None
    return _padded_attention(query, key, value, scaling, dropout, segments, key_segments), None


AttentionInterface.register(UNPADDED, unpadded_attention)
AttentionMaskInterface.register(UNPADDED, sdpa_mask)


def _row_pieces(query: Tensor, key: Tensor) -> list[tuple[Part, Part]]:
    """Cuts a batch of equally long rows so that each piece has about `MAX_SCORES` scores."""
    rows, heads, length = query.shape[:3]
    step = max(1, MAX_SCORES // max(1, heads * length * key.shape[2]))
    return [((slice(row, row + step), slice(None)),) * 2 for row in range(0, rows, step)]


def _segment_pieces(segments: Segments, key_segments: Segments, heads: int) -> list[tuple[Part, Part]]:
    """Puts sequences of the same length together, so that many short ones are few products, as far as scores go."""
    if not segments.lengths:
        return []
    lengths = np.array([segments.lengths, key_segments.lengths])
    begins = np.cumsum(lengths, axis=1) - lengths
    order = np.lexsort(lengths)
    pieces = []
    for group in np.split(order, np.flatnonzero(np.diff(lengths[:, order]).any(0)) + 1):
        sizes = lengths[:, group[0]]
        step = max(1, MAX_SCORES // max(1, heads * int(sizes.prod())))
        for chunk in np.split(group, range(step, len(group), step)):
            pieces.append(tuple(map(_places, begins[:, chunk], sizes)))
    return pieces


def _places(begins: np.ndarray, length: int) -> Part:
    """Returns where sequences of one length are; one alone needs no copy."""
    if len(begins) == 1:
        return slice(None), slice(int(begins[0]), int(begins[0] + length))
    return torch.from_numpy(begins[:, None] + np.arange(length))


def _take(tensor: Tensor, part: Part) -> Tensor:
    """Returns a part of `(rows, heads, length, ...)`; the first two dimensions of the result only number sequences."""
    return tensor[part[0], :, part[1]] if isinstance(part, tuple) else tensor[0][:, part]


def _put(tensor: Tensor, part: Part, values: Tensor) -> None:
    """Writes what [`_take`] takes."""
    if isinstance(part, tuple):
        tensor[part[0], :, part[1]] = values
    else:
        tensor[0][:, part] = values


class _CpuAttention(torch.autograd.Function):
    """Softmax attention piece by piece: matrix products in the inputs' precision, the softmax in float32.

    The pieces cover every query and every key. On CPUs the fused kernel's backward pass is slower than plain matrix
    products over scores that fit in the cache. The weights are kept for the backward pass, in the inputs' precision.
    """

    @staticmethod
    def forward(ctx, query: Tensor, key: Tensor, value: Tensor, scaling: float, pieces: list) -> Tensor:
        # Strides as a following reshape to (batch_size, length, hidden_size) wants them.
        output = query.new_empty(query.shape[0], query.shape[2], query.shape[1], value.shape[3])
        weights = []
        with torch.autocast(
            "cpu", enabled=False
        ):  # The backward pass, which runs without it, must see the same types.
            for queries, keys in pieces:
                q, k, v = _take(query, queries), _take(key, keys), _take(value, keys)
                scores = _product(q, k.transpose(2, 3), scaling)
                # Computed in float32, whatever the type that goes in and comes out.
                weights.append(torch.softmax(scores, dim=-1))
                _put(output.transpose(1, 2), queries, _product(weights[-1], v))
        ctx.save_for_backward(query, key, value, *weights)
        ctx.scaling, ctx.pieces = scaling, pieces
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_output: Tensor):
        query, key, value, *weights = ctx.saved_tensors
        grad_query, grad_key, grad_value = (torch.empty_like(tensor) for tensor in (query, key, value))
        grad_output = grad_output.transpose(1, 2)
        for (queries, keys), weight in zip(ctx.pieces, weights, strict=True):
            q, k, v = _take(query, queries), _take(key, keys), _take(value, keys)
            grad = _take(grad_output, queries)
            _put(grad_value, keys, _product(weight.transpose(2, 3), grad))
            grad_weight = _product(grad, v.transpose(2, 3))
            grad_scores = torch._softmax_backward_data(grad_weight, weight, -1, weight.dtype)
            _put(grad_query, queries, _product(grad_scores, k, ctx.scaling))
            _put(grad_key, keys, _product(grad_scores.transpose(2, 3), q, ctx.scaling))
        return grad_query, grad_key, grad_value, None, None


def _product(left: Tensor, right: Tensor, scaling: float = 1.0) -> Tensor:
    """Returns `scaling * left @ right` for `(rows, heads, ., .)`; the scale costs no pass of its own."""
    shape = (*left.shape[:2], left.shape[2], right.shape[3])
    left, right = left.flatten(0, 1), right.flatten(0, 1)
    out = left.new_empty(left.shape[0], *shape[2:])
    return torch.baddbmm(out, left, right, beta=0, alpha=scaling).view(shape)


def _has_flash_attention(query: Tensor) -> bool:
    """Whether torch's flash attention takes such tensors: half precision, on Ampere or later, heads up to 256 wide."""
    if query.device.type != "cuda" or query.dtype not in (torch.float16, torch.bfloat16) or query.shape[-1] > 256:
        return False
    return torch.cuda.get_device_properties(query.device).major >= 8


def _flash_attention(
    query: Tensor, key: Tensor, value: Tensor, scaling: float, segments: Segments, key_segments: Segments
) -> Tensor:
    """Runs torch's flash attention for sequences of different length."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.nn.attention.varlen import varlen_attn

    head_dim = query.shape[-1]
    missing = -head_dim % 8  # The kernel takes multiples of 8.
    if missing:
        query, key, value = (F.pad(tensor, (0, missing)) for tensor in (query, key, value))
    if scaling != query.shape[-1] ** -0.5:  # The kernel scales by this itself.
        query = query * (scaling * query.shape[-1] ** 0.5)
    query, key, value = (tensor.squeeze(0).transpose(0, 1).contiguous() for tensor in (query, key, value))
    # cuDNN, which torch prefers on Hopper and Blackwell, plans anew for every number of tokens: for every batch.
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        output = varlen_attn(
            query, key, value, segments.boundaries, key_segments.boundaries, segments.limit, key_segments.limit
        )
    return output[None, ..., :head_dim]


def _padded_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scaling: float,
    dropout: float,
    segments: Segments,
    key_segments: Segments,
) -> Tensor:
    """Pads every sequence to the longest possible, for devices and precisions without a kernel of their own."""
    rows, _ = segments.rows()
    key_rows, real = key_segments.rows()
    q = query[0][:, rows].transpose(0, 1)
    k, v = (tensor[0][:, key_rows].transpose(0, 1) for tensor in (key, value))
    # A sequence without keys gets any: its queries, if it has some, must not become NaN.
    visible = (real | ~real.any(1, keepdim=True))[:, None, None, :]
    output = F.scaled_dot_product_attention(q, k, v, visible, dropout, scale=scaling)
    numbers, places = segments.places(query.shape[2])
    return output[numbers, :, places][None]
