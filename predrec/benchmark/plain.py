"""The objective written from the paper's equations, with nothing done for speed: the yardstick for everything that is.

Every position goes through the vocabulary projection, attention is a softmax over an explicit matrix, the context is
padded, weights are averaged one by one. It computes with the weights of a [`PredRecForPreTraining`], so that the two
can be compared number by number.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..modeling import PredRecForPreTraining
from ..modeling.modeling_predrec import PredRecLayer, PredRecModel


def layer(block: PredRecLayer, states: Tensor, mask: Tensor) -> Tensor:
    """One transformer block on `(rows, length, hidden_size)`; `mask` is `(rows, length)`, `True` at real tokens."""
    rows, length, width = states.shape
    heads = block.attn.config.num_attention_heads
    qkv = block.attn.qkv(block.norm1(states)).view(rows, length, 3, heads, width // heads)
    query, key, value = (part.transpose(1, 2) for part in qkv.unbind(2))
    scores = query @ key.transpose(2, 3) / (width // heads) ** 0.5
    weights = scores.masked_fill(~mask[:, None, None, :], -torch.inf).softmax(-1)
    attended = (weights @ value).transpose(1, 2).reshape(rows, length, width)
    states = states + block.attn.proj(attended)
    return states + block.mlp.fc2(F.gelu(block.mlp.fc1(block.norm2(states))))


def encode(encoder: PredRecModel, input_ids: Tensor, positions: Tensor, mask: Tensor) -> Tensor:
    """The encoder on `(rows, length)` tokens at their positions."""
    table = encoder.embeddings.position_table[positions]
    states = encoder.embeddings.word_embeddings(input_ids) * encoder.embeddings.scale + table
    for block in encoder.layers:
        states = layer(block, states, mask)
    return encoder.norm(states)


def predict(model: PredRecForPreTraining, states: Tensor, batch: dict[str, Tensor]) -> Tensor:
    """The predictor: for each target block, the context's states beside one mask token per target."""
    predictor, blocks = model.predictor, []
    context = predictor.embed(states) + predictor.position_table[batch["context_indices"]]
    for number in range(batch["target_indices"].shape[1]):
        targets = predictor.mask_token + predictor.position_table[batch["target_indices"][:, number]]
        both = torch.cat([context, targets.to(context.dtype)], dim=1)
        mask = torch.cat([batch["context_mask"], batch["target_mask"][:, number]], dim=1)
        for block in predictor.layers:
            both = layer(block, both, mask)
        blocks.append(predictor.proj(predictor.norm(both[:, context.shape[1] :])))
    return torch.stack(blocks, dim=1)


def plain_loss(model: PredRecForPreTraining, batch: dict[str, Tensor]) -> Tensor:
    """Returns `lambda * L_JEPA + (1 - lambda) * L_MLM` for the paper's recipe: cosine loss, learned lambda.

    Args:
        model ([`PredRecForPreTraining`]): A predrec encoder with sinusoidal positions.
        batch (`dict`): From [`DataCollatorForPreTraining`]; a layout in it is not looked at.
    """
    encoder, head = model.masked_lm.model, model.masked_lm.lm_head
    rows, length = batch["input_ids"].shape
    positions = torch.arange(length).expand(rows, -1).to(batch["input_ids"].device)
    real = (
        batch["attention_mask"].bool() if "attention_mask" in batch else torch.ones_like(positions, dtype=torch.bool)
    )

    states = encode(encoder, batch["input_ids"], positions, real)
    logits = head.decoder(head.norm(F.gelu(head.dense(states))))
    mlm_loss = F.cross_entropy(logits.float().flatten(0, 1), batch["labels"].flatten(), ignore_index=-100)
    if model.config.objective == "mlm":
        return mlm_loss

    visible = batch["input_ids"].gather(1, batch["context_indices"])
    context = encode(encoder, visible, batch["context_indices"], batch["context_mask"])
    predicted = predict(model, context, batch)
    with torch.no_grad():
        latents = encode(model.target_encoder, batch["original_input_ids"], positions, real)
        latents = F.layer_norm(latents.float(), latents.shape[-1:])
    target = torch.stack([latents[row, batch["target_indices"][row]] for row in range(rows)])
    distance = 1 - F.cosine_similarity(predicted.float(), target, dim=-1)
    jepa_loss = distance[batch["target_mask"]].mean()
    weight = torch.sigmoid(model.loss_logit[0])
    return weight * jepa_loss + (1 - weight) * mlm_loss


def plain_average(target: nn.Module, source: nn.Module, decay: float) -> None:
    """The exponential moving average, one weight after the other."""
    with torch.no_grad():
        for old, new in zip(target.parameters(), source.parameters(), strict=True):
            old.data = decay * old.data + (1 - decay) * new.data
