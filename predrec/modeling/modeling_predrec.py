# Copyright 2026 The predrec authors. Licensed under the Apache License, Version 2.0.
"""The predrec encoder and its heads. This file travels with a checkpoint: torch, transformers and its config only."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.masking_utils import create_bidirectional_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import (
    BaseModelOutput,
    MaskedLMOutput,
    MultipleChoiceModelOutput,
    QuestionAnsweringModelOutput,
    SequenceClassifierOutput,
    TokenClassifierOutput,
)
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.utils.generic import can_return_tuple
from transformers.utils.output_capturing import capture_outputs

from .configuration_predrec import PredRecConfig


def sinusoidal_positions(num_positions: int, hidden_size: int) -> Tensor:
    """Returns the fixed table, float32 of shape `(num_positions, hidden_size)`: all sines, then all cosines."""
    wavelengths = 10000 ** (torch.arange(hidden_size // 2, dtype=torch.float64, device="cpu") / (hidden_size / 2))
    angles = torch.arange(num_positions, dtype=torch.float64, device="cpu")[:, None] / wavelengths
    return torch.cat([angles.sin(), angles.cos()], dim=-1).float()


def rotary_angles(position_ids: Tensor, head_dim: int, base: float) -> tuple[Tensor, Tensor]:
    """Returns cosines and sines, float32 of shape `(batch_size, 1, sequence_length, head_dim)`, for the positions."""
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float32, device=position_ids.device) / head_dim
    angles = position_ids[:, None, :, None].float() * base**-exponents
    angles = torch.cat([angles, angles], dim=-1)
    return angles.cos(), angles.sin()


def apply_rotary(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turns each pair (i, i + head_dim / 2) of `(batch_size, heads, sequence_length, head_dim)` by its angle."""
    if states.device.type == "cuda" and not torch.compiler.is_compiling():
        return _Rotation.apply(states, cos, sin)
    first, second = states.float().chunk(2, dim=-1)
    return (states * cos + torch.cat([-second, first], dim=-1) * sin).to(states.dtype)


class _Rotation(torch.autograd.Function):
    """The same with a third of the memory traffic, which is what it costs on a GPU; computed in float32, too."""

    @staticmethod
    def forward(ctx, states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _turned(states, cos, sin)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_output: Tensor):
        cos, sin = ctx.saved_tensors
        return _turned(grad_output, cos, -sin), None, None


def _turned(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    half = states.shape[-1] // 2
    first, second, cos, sin = states[..., :half], states[..., half:], cos[..., :half], sin[..., :half]
    output = torch.empty_like(states)
    torch.addcmul(first * cos, second, sin, value=-1, out=output[..., :half])
    torch.addcmul(second * cos, first, sin, out=output[..., half:])
    return output


def eager_attention_forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs,
) -> tuple[Tensor, Tensor]:
    """Attention written out, on `(batch_size, heads, sequence_length, head_dim)`; also returns the weights."""
    scores = query @ key.transpose(2, 3) * scaling
    if attention_mask is not None:
        scores = scores + attention_mask
    weights = F.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    weights = F.dropout(weights, p=dropout, training=module.training)
    return (weights @ value).transpose(1, 2).contiguous(), weights


class PredRecEmbeddings(nn.Module):
    """Token embeddings, optionally scaled, plus the fixed sinusoidal table unless positions are rotary."""

    def __init__(self, config: PredRecConfig):
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=config.pad_token_id)
        self.scale = config.hidden_size**0.5 if config.scale_embeddings else 1.0
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        sinusoidal = config.position_embedding_type == "sinusoidal"
        table = sinusoidal_positions(config.max_position_embeddings, config.hidden_size) if sinusoidal else None
        self.register_buffer("position_table", table, persistent=False)

    def forward(self, input_ids: Tensor | None, inputs_embeds: Tensor | None, position_ids: Tensor) -> Tensor:
        embeddings = self.word_embeddings(input_ids) if inputs_embeds is None else inputs_embeds
        if self.scale != 1.0:
            embeddings = embeddings * self.scale
        if self.position_table is not None:
            embeddings = embeddings + self.position_table[position_ids].to(embeddings.dtype)
        return self.dropout(embeddings)


class PredRecAttention(nn.Module):
    """Bidirectional multi-head self-attention through the transformers attention interface."""

    is_causal = False

    def __init__(self, config: PredRecConfig):
        super().__init__()
        self.config = config
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.qkv = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        rotary: tuple[Tensor, Tensor] | None = None,
        queries: Tensor | None = None,
        **kwargs,
    ) -> tuple[Tensor, Tensor | None]:
        batch_size, length, hidden_size = hidden_states.shape
        num_heads = hidden_size // self.head_dim
        qkv = self.qkv(hidden_states).view(batch_size, length, 3, num_heads, self.head_dim)
        # In this order, the gradients of the three are put together without a further copy.
        query, key, value = (part.transpose(1, 2) for part in qkv.unbind(dim=2))
        if rotary is not None:
            query, key = apply_rotary(query, *rotary), apply_rotary(key, *rotary)
        if queries is not None:
            query = query[:, :, queries]
        attention: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        output, weights = attention(
            self,
            query,
            key,
            value,
            attention_mask,
            dropout=self.config.attention_probs_dropout_prob if self.training else 0.0,
            scaling=self.head_dim**-0.5,
            **kwargs,
        )
        return self.dropout(self.proj(output.reshape(batch_size, output.shape[1], hidden_size))), weights


class PredRecMLP(nn.Module):
    """Feed-forward layer."""

    def __init__(self, config: PredRecConfig):
        super().__init__()
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.act = ACT2FN[config.hidden_act]
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, hidden_states: Tensor) -> Tensor:
        return self.dropout(self.fc2(self.act(self.fc1(hidden_states))))


class PredRecLayer(GradientCheckpointingLayer):
    """Pre-LayerNorm transformer block."""

    def __init__(self, config: PredRecConfig):
        super().__init__()
        self.norm1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.attn = PredRecAttention(config)
        self.norm2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = PredRecMLP(config)

    def forward(
        self, hidden_states: Tensor, attention_mask: Tensor | None = None, queries: Tensor | None = None, **kwargs
    ) -> Tensor:
        """Transforms `(batch_size, sequence_length, hidden_size)`; given `queries`, `(num_queries,)`, only there."""
        attended, _ = self.attn(self.norm1(hidden_states), attention_mask=attention_mask, queries=queries, **kwargs)
        if queries is not None:
            hidden_states = hidden_states[:, queries]
        hidden_states = hidden_states + attended
        return hidden_states + self.mlp(self.norm2(hidden_states))


HEADS = ("MaskedLM", "SequenceClassification", "TokenClassification", "QuestionAnswering", "MultipleChoice")

AUTO_MAP = {
    "AutoConfig": "configuration_predrec.PredRecConfig",
    "AutoModel": "modeling_predrec.PredRecModel",
    **{f"AutoModelFor{head}": f"modeling_predrec.PredRecFor{head}" for head in HEADS},
}
"""Where a process without the package finds what each Auto class loads: for the `config.json` of a checkpoint."""


class PredRecPreTrainedModel(PreTrainedModel):
    """Weight initialisation and the capabilities shared by every predrec model."""

    config: PredRecConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = False
    _no_split_modules = ["PredRecLayer"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_record_outputs = {"hidden_states": PredRecLayer, "attentions": PredRecAttention}

    def save_pretrained(self, save_directory, *args, **kwargs):
        """As in transformers; without the package, all Auto classes find the code that is saved along."""
        if self._auto_class is not None and not getattr(self.config, "auto_map", None):
            self.config.auto_map = dict(AUTO_MAP)
        return super().save_pretrained(save_directory, *args, **kwargs)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        super()._init_weights(module)
        std = self.config.initializer_range
        if isinstance(module, (nn.Linear, nn.Embedding)):
            init.trunc_normal_(module.weight, std=std, a=-2 * std, b=2 * std)
        if isinstance(module, nn.Embedding) and module.padding_idx is not None:
            init.zeros_(module.weight[module.padding_idx])
        if isinstance(module, PredRecEmbeddings) and module.position_table is not None:
            init.copy_(module.position_table, sinusoidal_positions(*module.position_table.shape))


class PredRecModel(PredRecPreTrainedModel):
    """The bare encoder: token ids in, one vector per token out, after a final LayerNorm.

    Args:
        config ([`PredRecConfig`]): Sizes, kind of positions, dropout, epsilons.
    """

    _keys_to_ignore_on_load_unexpected = [r"^lm_head\.", r"^classifier\.", r"^qa_outputs\."]

    def __init__(self, config: PredRecConfig):
        super().__init__(config)
        self.embeddings = PredRecEmbeddings(config)
        self.layers = nn.ModuleList([PredRecLayer(config) for _ in range(config.num_hidden_layers)])
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.gradient_checkpointing = False
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        return self.embeddings.word_embeddings

    def set_input_embeddings(self, value: nn.Embedding):
        self.embeddings.word_embeddings = value

    @can_return_tuple
    @capture_outputs
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        token_type_ids: torch.LongTensor | None = None,
        **kwargs,
    ) -> BaseModelOutput:
        """Encodes a batch.

        Args:
            input_ids (`torch.LongTensor` of shape `(batch_size, sequence_length)`): Token ids.
            attention_mask (`torch.Tensor` of shape `(batch_size, sequence_length)`, *optional*):
                1 at real tokens, 0 at padding. Leave it out when nothing is padded: the fastest kernels need that.
                Ignored with `config.attend_to_padding`.
            position_ids (`torch.LongTensor` of shape `(batch_size, sequence_length)`, *optional*):
                Position of each token, so that a gathered sub-sequence keeps its places. Counts from 0 when absent.
            inputs_embeds (`torch.FloatTensor` of shape `(batch_size, sequence_length, hidden_size)`, *optional*):
                Token embeddings, instead of `input_ids`.
            token_type_ids (`torch.LongTensor`, *optional*):
                Without effect: the encoder has no segment embeddings. Accepted because BERT's tokenizers send it.

        Returns:
            `BaseModelOutput` with `last_hidden_state` of shape `(batch_size, sequence_length, hidden_size)`.

        Raises:
            ValueError: If not exactly one of `input_ids` and `inputs_embeds` is given, or, without `position_ids`, the
                sequence is too long.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("Pass exactly one of `input_ids` and `inputs_embeds`.")
        tokens = input_ids if inputs_embeds is None else inputs_embeds
        length = tokens.shape[1]
        if position_ids is None and length > self.config.max_position_embeddings:
            raise ValueError(
                f"The sequence has {length} tokens but `max_position_embeddings` is "
                f"{self.config.max_position_embeddings}: truncate it."
            )
        if position_ids is None:
            position_ids = torch.arange(length, device=tokens.device)[None]

        hidden_states = self.embeddings(input_ids, inputs_embeds, position_ids)
        attention_mask = create_bidirectional_mask(
            config=self.config,
            inputs_embeds=hidden_states,
            attention_mask=None if self.config.attend_to_padding else attention_mask,
        )
        rotary = None
        if self.config.position_embedding_type == "rotary":
            head_dim = self.config.hidden_size // self.config.num_attention_heads
            rotary = rotary_angles(position_ids, head_dim, self.config.rotary_base)
        for layer in self.layers:
            hidden_states = layer(hidden_states, attention_mask=attention_mask, rotary=rotary, **kwargs)
        return BaseModelOutput(last_hidden_state=self.norm(hidden_states))


class PredRecLMHead(nn.Module):
    """The token regressor: dense, activation, LayerNorm, projection to the vocabulary."""

    def __init__(self, config: PredRecConfig):
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.act = ACT2FN[config.hidden_act]
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.head_layer_norm_eps)
        self.decoder = nn.Linear(config.hidden_size, config.vocab_size)

    def forward(self, hidden_states: Tensor) -> Tensor:
        return self.decoder(self.norm(self.act(self.dense(hidden_states))))


class PredRecForMaskedLM(PredRecPreTrainedModel):
    """The encoder with its token regressor.

    `logits = W2 LayerNorm(gelu(W1 states))`, where `W2` is the token embeddings if `tie_word_embeddings` says so.

    Args:
        config ([`PredRecConfig`]): That of the encoder.
    """

    accepts_loss_kwargs = True
    _tied_weights_keys = {"lm_head.decoder.weight": "model.embeddings.word_embeddings.weight"}

    def __init__(self, config: PredRecConfig):
        super().__init__(config)
        self.model = PredRecModel(config)
        self.lm_head = PredRecLMHead(config)
        self.post_init()

    def get_output_embeddings(self) -> nn.Linear:
        return self.lm_head.decoder

    def set_output_embeddings(self, new_embeddings: nn.Linear):
        self.lm_head.decoder = new_embeddings

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        token_type_ids: torch.LongTensor | None = None,
        labels: torch.LongTensor | None = None,
        num_items_in_batch: Tensor | int | None = None,
        **kwargs,
    ) -> MaskedLMOutput:
        """Scores every token of the vocabulary at every position.

        Args:
            input_ids, attention_mask, position_ids, inputs_embeds, token_type_ids: As in [`PredRecModel.forward`].
            labels (`torch.LongTensor` of shape `(batch_size, sequence_length)`, *optional*):
                Original token ids at the positions to score, -100 elsewhere.
            num_items_in_batch (`torch.Tensor` of shape `()` or `int`, *optional*):
                Labels that the loss is a mean over, as `Trainer` counts them over accumulated batches; those of this
                batch when absent.

        Returns:
            `MaskedLMOutput` with `logits` of shape `(batch_size, sequence_length, vocab_size)` and, given labels, the
            mean cross-entropy `loss` in nats.
        """
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            **kwargs,
        )
        logits = self.lm_head(outputs.last_hidden_state)
        loss = None
        if labels is not None:
            loss = token_loss(logits, labels, num_items_in_batch)
        return MaskedLMOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )


def token_loss(logits: Tensor, labels: Tensor, num_items_in_batch: Tensor | int | None = None) -> Tensor:
    """Averages the cross-entropy over labels, without those of -100.

    Args:
        logits (`torch.Tensor` of shape `(batch_size, sequence_length, num_classes)`): Scores.
        labels (`torch.LongTensor` of shape `(batch_size, sequence_length)`): Classes.
        num_items_in_batch (`torch.Tensor` of shape `()` or `int`, *optional*): What to divide by; the labels here when
            absent.

    Returns:
        `torch.Tensor` of shape `()`, in nats and float32.
    """
    labels = labels.flatten().to(logits.device)
    if num_items_in_batch is None:
        return F.cross_entropy(logits.flatten(0, 1).float(), labels)
    if isinstance(num_items_in_batch, Tensor):
        num_items_in_batch = num_items_in_batch.to(logits.device)
    return F.cross_entropy(logits.flatten(0, 1).float(), labels, reduction="sum") / num_items_in_batch


def mean_of_real_tokens(states: Tensor, attention_mask: Tensor | None) -> Tensor:
    """Averages `(batch_size, sequence_length, hidden_size)` over real tokens: `(batch_size, hidden_size)`."""
    if attention_mask is None:
        return states.mean(1)
    real = attention_mask.to(states.dtype)
    return (states * real[..., None]).sum(1) / real.sum(1, keepdim=True).clamp(min=1)


class PredRecForSequenceClassification(PredRecPreTrainedModel):
    """The encoder with a linear layer on the mean of the real tokens' states: classes or, with one label, a score.

    Args:
        config ([`PredRecConfig`]): That of the encoder, with `num_labels`, `classifier_dropout` and `problem_type`.
    """

    _keys_to_ignore_on_load_unexpected = [r"^lm_head\."]

    def __init__(self, config: PredRecConfig):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.model = PredRecModel(config)
        self.dropout = nn.Dropout(config.classifier_dropout)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        token_type_ids: torch.LongTensor | None = None,
        labels: Tensor | None = None,
        **kwargs,
    ) -> SequenceClassifierOutput:
        """Scores texts.

        Args:
            input_ids, attention_mask, position_ids, inputs_embeds, token_type_ids: As in [`PredRecModel.forward`].
            labels (`torch.Tensor` of shape `(batch_size,)`, *optional*):
                Classes, or scores when the model has one label; `(batch_size, num_labels)` for several classes at
                once (floats, or `problem_type="multi_label_classification"`) or several scores
                (`problem_type="regression"`).

        Returns:
            `SequenceClassifierOutput` with `logits` of shape `(batch_size, num_labels)` and, given labels, the `loss`:
            cross-entropy, mean squared error for a score, binary cross-entropy for several labels at once.
        """
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            **kwargs,
        )
        logits = self.classifier(self.dropout(mean_of_real_tokens(outputs.last_hidden_state, attention_mask)))
        loss = None
        if labels is not None:
            loss = self._loss(logits.float(), labels)
        return SequenceClassifierOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        several = labels.is_floating_point() and labels.shape == logits.shape and self.num_labels > 1
        kind = self.config.problem_type or ("multi_label_classification" if several else None)
        if kind == "multi_label_classification":
            return F.binary_cross_entropy_with_logits(logits, labels.float())
        if kind == "regression" or self.num_labels == 1:
            return F.mse_loss(logits, labels.view_as(logits).float())
        return F.cross_entropy(logits, labels.flatten())


class PredRecForTokenClassification(PredRecPreTrainedModel):
    """The encoder with a linear layer on every token's state: a class per token.

    Args:
        config ([`PredRecConfig`]): That of the encoder, with `num_labels` and `classifier_dropout`.
    """

    accepts_loss_kwargs = True
    _keys_to_ignore_on_load_unexpected = [r"^lm_head\."]

    def __init__(self, config: PredRecConfig):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.model = PredRecModel(config)
        self.dropout = nn.Dropout(config.classifier_dropout)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        token_type_ids: torch.LongTensor | None = None,
        labels: torch.LongTensor | None = None,
        num_items_in_batch: Tensor | int | None = None,
        **kwargs,
    ) -> TokenClassifierOutput:
        """Classifies tokens.

        Args:
            input_ids, attention_mask, position_ids, inputs_embeds, token_type_ids: As in [`PredRecModel.forward`].
            labels (`torch.LongTensor` of shape `(batch_size, sequence_length)`, *optional*): Classes; -100 is ignored.
            num_items_in_batch (`torch.Tensor` of shape `()` or `int`, *optional*):
                Labels that the loss is a mean over, as `Trainer` counts them over accumulated batches; those of this
                batch when absent.

        Returns:
            `TokenClassifierOutput` with `logits` of shape `(batch_size, sequence_length, num_labels)` and, given
            labels, the mean cross-entropy `loss`.
        """
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            **kwargs,
        )
        logits = self.classifier(self.dropout(outputs.last_hidden_state))
        loss = None
        if labels is not None:
            loss = token_loss(logits, labels, num_items_in_batch)
        return TokenClassifierOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )


class PredRecForQuestionAnswering(PredRecPreTrainedModel):
    """The encoder with a linear layer that scores every token as the first and as the last one of the answer.

    Args:
        config ([`PredRecConfig`]): That of the encoder.
    """

    _keys_to_ignore_on_load_unexpected = [r"^lm_head\."]

    def __init__(self, config: PredRecConfig):
        super().__init__(config)
        self.model = PredRecModel(config)
        self.qa_outputs = nn.Linear(config.hidden_size, 2)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        token_type_ids: torch.LongTensor | None = None,
        start_positions: torch.LongTensor | None = None,
        end_positions: torch.LongTensor | None = None,
        **kwargs,
    ) -> QuestionAnsweringModelOutput:
        """Finds answers.

        Args:
            input_ids, attention_mask, position_ids, inputs_embeds, token_type_ids: As in [`PredRecModel.forward`].
            start_positions, end_positions (`torch.LongTensor` of shape `(batch_size,)`, *optional*):
                First and last token of the answer; one that lies outside the sequence is ignored.

        Returns:
            `QuestionAnsweringModelOutput` with `start_logits` and `end_logits` of shape `(batch_size,
            sequence_length)` and, given positions, the `loss`: the mean of both cross-entropies.
        """
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            **kwargs,
        )
        start_logits, end_logits = self.qa_outputs(outputs.last_hidden_state).unbind(-1)
        loss = None
        if start_positions is not None and end_positions is not None:
            loss = (self._loss(start_logits, start_positions) + self._loss(end_logits, end_positions)) / 2
        return QuestionAnsweringModelOutput(
            loss=loss,
            start_logits=start_logits,
            end_logits=end_logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )

    def _loss(self, logits: Tensor, positions: Tensor) -> Tensor:
        positions = positions.flatten()
        inside = (positions >= 0) & (positions < logits.shape[1])
        losses = F.cross_entropy(logits.float(), positions.where(inside, -100), ignore_index=-100, reduction="none")
        return losses.sum() / inside.sum().clamp(min=1)


class PredRecForMultipleChoice(PredRecPreTrainedModel):
    """The encoder with a linear layer that scores each choice by the mean of its real tokens' states.

    Args:
        config ([`PredRecConfig`]): That of the encoder, with `classifier_dropout`.
    """

    _keys_to_ignore_on_load_unexpected = [r"^lm_head\."]

    def __init__(self, config: PredRecConfig):
        super().__init__(config)
        self.model = PredRecModel(config)
        self.dropout = nn.Dropout(config.classifier_dropout)
        self.classifier = nn.Linear(config.hidden_size, 1)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        token_type_ids: torch.LongTensor | None = None,
        labels: torch.LongTensor | None = None,
        **kwargs,
    ) -> MultipleChoiceModelOutput:
        """Scores choices.

        Args:
            input_ids, attention_mask, position_ids, token_type_ids (shape `(batch_size, num_choices,
                sequence_length)`): As in [`PredRecModel.forward`], for each choice.
            inputs_embeds (`torch.FloatTensor` of shape `(batch_size, num_choices, sequence_length, hidden_size)`,
                *optional*): Token embeddings, instead of `input_ids`.
            labels (`torch.LongTensor` of shape `(batch_size,)`, *optional*): Number of the right choice.

        Returns:
            `MultipleChoiceModelOutput` with `logits` of shape `(batch_size, num_choices)` and, given labels, the mean
            cross-entropy `loss`.
        """
        inputs = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "position_ids": position_ids,
            "inputs_embeds": inputs_embeds,
        }
        inputs = {name: tensor.flatten(0, 1) for name, tensor in inputs.items() if tensor is not None}
        outputs = self.model(**inputs, **kwargs)
        pooled = mean_of_real_tokens(outputs.last_hidden_state, inputs.get("attention_mask"))
        num_choices = (input_ids if inputs_embeds is None else inputs_embeds).shape[1]
        logits = self.classifier(self.dropout(pooled)).view(-1, num_choices)
        loss = None if labels is None else F.cross_entropy(logits.float(), labels.flatten())
        return MultipleChoiceModelOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )


__all__ = [
    "PredRecForMaskedLM",
    "PredRecForMultipleChoice",
    "PredRecForQuestionAnswering",
    "PredRecForSequenceClassification",
    "PredRecForTokenClassification",
    "PredRecModel",
    "PredRecPreTrainedModel",
]
