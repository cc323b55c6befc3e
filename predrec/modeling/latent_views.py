"""The latent side of LLM-JEPA: two views of one thing through a causal language model, and how far apart they are.

Views lie packed in rows, see [`DataCollatorForLLMJepa`]; a view never sees another one.
"""

from collections.abc import Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .flash import half_for_flash, uses_flash
from .losses import cosine_loss, infonce_loss, mse_loss, smooth_l1_loss

Separation = Literal["positions", "mask", "rows"]
"""What keeps packed views apart: positions that begin anew, a 4-D mask, or rows of their own."""

Distance = Literal["cosine", "l2", "mse", "smooth_l1", "infonce"]


def encode_views(
    decoder: nn.Module, batch: Mapping[str, Tensor], separation: Separation = "positions", layer: int = -1
) -> tuple[Tensor, Tensor]:
    """Returns the states of the views that predict and of those that are predicted, each `(batch_size, hidden_size)`.

    Args:
        decoder (`nn.Module`): The language model without its head, such as `LlamaModel`.
        batch (`Mapping`): With `view_input_ids`, `view_position_ids`, `source_index` and `target_index`.
        separation (`str`, defaults to `"positions"`): See [`Separation`]; [`find_separation`] says what works.
        layer (`int`, defaults to -1): Which hidden state is read; -1 is the last one, after the final norm.
    """
    ids, positions = batch["view_input_ids"], batch["view_position_ids"]
    mask = batch.get("view_attention_mask")
    if separation == "mask":
        mask = block_causal_mask(positions, decoder)
    elif separation == "positions" and uses_flash(decoder):
        # Flash attention notices that positions begin anew only in a batch of one row.
        ids, positions = ids.reshape(1, -1), positions.reshape(1, -1)
    outputs = decoder(
        input_ids=ids,
        attention_mask=mask,
        position_ids=positions,
        use_cache=False,
        output_hidden_states=layer != -1,
    )
    states = outputs.last_hidden_state if layer == -1 else outputs.hidden_states[layer]
    states = states.flatten(0, 1)
    return states[batch["source_index"]], states[batch["target_index"]]


def block_causal_mask(positions: Tensor, decoder: nn.Module) -> Tensor:
    """Returns which token may look at which: those before it in its own block, and itself.

    Args:
        positions (`torch.LongTensor` of shape `(num_rows, row_length)`): 0 begins a block; padding is one, too.
        decoder (`nn.Module`): Decides the form: Booleans for SDPA, numbers to add for the rest.

    Returns:
        `torch.Tensor` of shape `(num_rows, 1, row_length, row_length)`. Nothing in it is infinite, and no row is
        fully closed, so no state is NaN.
    """
    blocks = positions.eq(0).cumsum(-1)
    allowed = (blocks[:, :, None] == blocks[:, None, :]).tril()[:, None]
    if decoder.config._attn_implementation == "sdpa":
        return allowed
    dtype = next(decoder.parameters()).dtype
    return torch.zeros(allowed.shape, dtype=dtype, device=allowed.device).masked_fill(~allowed, torch.finfo(dtype).min)


def find_separation(decoder: nn.Module) -> Separation:
    """Tries, on random tokens, what keeps packed views apart in this model; rows of their own when nothing does.

    Some models ignore positions or masks: those with recurrent layers, for example.
    """
    device, dtype = next(decoder.parameters()).device, next(decoder.parameters()).dtype
    lengths = (6, 3, 5)
    generator = torch.Generator().manual_seed(0)
    size = min(decoder.config.get_text_config().vocab_size, 50)
    blocks = [torch.randint(0, size, (length,), generator=generator) for length in lengths]
    packed = {
        # A second row, so that what works for one row only is not taken for the general case.
        "view_input_ids": torch.cat([*blocks, blocks[0][:2]]).repeat(2, 1),
        "view_position_ids": torch.cat([torch.arange(n) for n in (*lengths, 2)]).repeat(2, 1),
        "source_index": torch.tensor([5, 8, 13, 21]),
        "target_index": torch.tensor([5, 8, 13, 21]),
    }
    packed = {name: value.to(device) for name, value in packed.items()}
    was_training = decoder.training
    decoder.eval()
    try:
        with torch.no_grad(), half_for_flash(decoder):
            alone = torch.stack(
                [decoder(input_ids=b[None].to(device), use_cache=False).last_hidden_state[0, -1] for b in blocks]
            ).float()
            alone = torch.cat([alone, alone[:1]])
            tolerance = 1e-4 if dtype == torch.float32 and not uses_flash(decoder) else 0.05
            for separation in ("positions", "mask"):
                try:
                    states = encode_views(decoder, packed, separation)[0].float()
                except (ValueError, RuntimeError, TypeError, NotImplementedError):
                    continue
                if (states - alone).abs().max() <= tolerance * alone.abs().max().clamp(min=1):
                    return separation
    finally:
        decoder.train(was_training)
    return "rows"


def view_distance(
    source: Tensor,
    target: Tensor,
    distance: Distance = "cosine",
    temperature: float = 0.07,
    pair_numbers: Tensor | None = None,
    symmetric: bool = False,
    over_processes: bool = False,
) -> Tensor:
    """Returns how far predictions are from what they predict, averaged over pairs, in float32.

    | distance | value |
    |---|---|
    | `cosine` | 1 - cosine, in [0, 2] |
    | `l2` | Euclidean norm of the difference |
    | `mse` | squared difference, averaged over features |
    | `smooth_l1` | Huber's, knee at 1, of states that LayerNorm has scaled |
    | `infonce` | cross-entropy, in nats, of finding the own target among those of the batch by cosine |

    Args:
        source, target (`torch.FloatTensor` of shape `(num_pairs, hidden_size)`): From [`encode_views`].
        distance (`str`, defaults to `"cosine"`): One of the table.
        temperature (`float`, defaults to 0.07): Divides the cosines of `infonce`.
        pair_numbers (`torch.LongTensor` of shape `(num_pairs,)`, *optional*):
            Pairs of one number are not each other's negatives in `infonce`: their targets are equal.
        symmetric (`bool`, defaults to `False`): Average `infonce` with that of finding the source.
        over_processes (`bool`, defaults to `False`):
            The targets of all processes are negatives in `infonce`, with gradient; numbers mean the same everywhere.

    Reference:
        Huang et al., 2025, https://arxiv.org/abs/2509.14252
    """
    with torch.autocast(source.device.type, enabled=False):
        source, target = source.float(), target.float()
        everything = torch.ones(len(source), dtype=torch.bool, device=source.device)
        if distance == "infonce":
            numbers = torch.arange(len(source), device=source.device) if pair_numbers is None else pair_numbers
            shared = {"over_processes": over_processes, "shared_ids": pair_numbers is not None}
            loss = infonce_loss(source, target, everything, numbers, temperature, **shared)
            if symmetric:
                loss = (loss + infonce_loss(target, source, everything, numbers, temperature, **shared)) / 2
            return loss
        if distance == "smooth_l1":
            source, target = (F.layer_norm(states, states.shape[-1:]) for states in (source, target))
        return PAIRWISE[distance](source, target, everything)


def _l2(source: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    return torch.linalg.vector_norm(source - target, dim=-1).mean()


PAIRWISE = {"cosine": cosine_loss, "l2": _l2, "mse": mse_loss, "smooth_l1": smooth_l1_loss}


def tube_loss(states: Tensor, mask: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """How much a sequence's states turn: `1 - cos(h_t - h_r, h_r - h_s)` at random positions s < r < t of each.

    Args:
        states (`torch.FloatTensor` of shape `(batch_size, seq_length, hidden_size)`): Last hidden states.
        mask (`torch.BoolTensor` of shape `(batch_size, seq_length)`): Real tokens. Sequences with fewer than three
            are left out.
        generator (`torch.Generator`, *optional*): Draws the positions, on the device of the states.

    Returns:
        The mean over sequences, between 0 and 2; 0 when all are too short.

    Reference:
        Semantic tube prediction, 2026, https://arxiv.org/abs/2602.22617
    """
    draws = torch.rand(mask.shape, device=mask.device, generator=generator).masked_fill(~mask, -1)
    chosen = draws.topk(3, dim=-1).indices.sort(dim=-1).values
    rows = torch.arange(len(states), device=states.device)[:, None]
    with torch.autocast(states.device.type, enabled=False):
        first, middle, last = states[rows, chosen].float().unbind(1)
        return cosine_loss(last - middle, middle - first, mask.sum(-1) >= 3)
