"""LLM-JEPA: next-token prediction, and beside it the prediction of one view's state from the other's."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.loss.loss_utils import ForCausalLMLoss
from transformers.utils import ModelOutput

from ..rules import check_choices
from .gathering import process_count
from .latent_views import Distance, Separation, encode_views, find_separation, tube_loss, view_distance
from .losses import cross_entropy_sum


@dataclass(frozen=True)
class LLMJepaObjective:
    """What is minimised: `gamma * next-token loss + jepa_lambda * distance`.

    Args:
        method (`"ntp"`, `"llm_jepa"` or `"tube"`, defaults to `"llm_jepa"`):
            Next tokens only; the distance of two views; or how much the states of one sequence turn.
        jepa_lambda (`float`, defaults to 1.0), gamma (`float`, defaults to 1.0): Weights.
        distance (`str`, defaults to `"cosine"`), temperature (`float`, defaults to 0.07), symmetric
            (`bool`, defaults to `False`): See [`view_distance`].
        target_grad (`"shared"`, `"stop"` or `"ema"`, defaults to `"shared"`):
            The predicted view has a gradient, too, as in the paper; it has none; or it comes from an exponential
            moving average of the model.
        layer (`int`, defaults to -1): Hidden state that is read.
        separation (`str`, *optional*): What keeps packed views apart; found out on the model when absent.
    """

    method: Literal["ntp", "llm_jepa", "tube"] = "llm_jepa"
    jepa_lambda: float = 1.0
    gamma: float = 1.0
    distance: Distance = "cosine"
    temperature: float = 0.07
    symmetric: bool = False
    target_grad: Literal["shared", "stop", "ema"] = "shared"
    layer: int = -1
    separation: Separation | None = None

    def __post_init__(self):
        check_choices(self)


@dataclass
class LLMJepaOutput(ModelOutput):
    """What [`LLMJepaModel`] returns.

    Args:
        loss (`torch.FloatTensor` of shape `()`): To be minimised.
        ntp_loss (`torch.FloatTensor` of shape `()`): Mean cross-entropy of the labelled tokens, in nats.
        jepa_loss (`torch.FloatTensor` of shape `()`, *optional*): Mean distance; absent where it was not computed.
        num_labels, num_pairs (`torch.LongTensor` of shape `()`): What they are means over; the second may be absent.
        source_states, target_states (`torch.FloatTensor` of shape `(batch_size, hidden_size)`, *optional*): Of views.
    """

    loss: Tensor | None = None
    ntp_loss: Tensor | None = None
    jepa_loss: Tensor | None = None
    num_labels: Tensor | None = None
    num_pairs: Tensor | None = None
    source_states: Tensor | None = None
    target_states: Tensor | None = None


class LLMJepaModel(nn.Module):
    """A causal language model with its objective; one `forward` does both passes, so that wrappers see one.

    Args:
        causal_lm (`PreTrainedModel` or `PeftModel`): The model that is trained, and all that is kept.
        objective ([`LLMJepaObjective`], *optional*): What is minimised.
    """

    # The Trainer would count labels, over all processes in every update, for nothing.
    accepts_loss_kwargs = False

    def __init__(self, causal_lm: nn.Module, objective: LLMJepaObjective | None = None):
        super().__init__()
        self.causal_lm = causal_lm
        self.objective = objective or LLMJepaObjective()
        depth, layer = self.config.get_text_config().num_hidden_layers, self.objective.layer
        if not -depth - 1 <= layer <= depth:
            raise ValueError(
                f"`jepa_layer` is {layer}; of a model with {depth} layers it must be in [{-depth - 1}, {depth}]."
            )
        self.separation: Separation = self.objective.separation or find_separation(self.decoder)
        self.lambda_share = 1.0  # Set from outside where lambda moves.
        self.target_decoder = None
        if self.objective.target_grad == "ema" and self.objective.method == "llm_jepa":
            self.target_decoder = copy.deepcopy(self.decoder).float().eval().requires_grad_(False)

    @property
    def base(self) -> PreTrainedModel:
        """The language model itself, below any adapters' wrapper."""
        return self.causal_lm.get_base_model() if hasattr(self.causal_lm, "get_base_model") else self.causal_lm

    @property
    def decoder(self) -> nn.Module:
        """The language model without its head."""
        return self.base.base_model

    @property
    def active_objective(self) -> str:
        """The method."""
        return self.objective.method

    @property
    def config(self):
        return self.base.config

    def activation_checkpointing_enable(self, activation_checkpointing_kwargs: dict | None = None, **kwargs) -> None:
        """Lets the language model compute activations again in the backward pass, in place of keeping them."""
        self.base.activation_checkpointing_enable(activation_checkpointing_kwargs, **kwargs)

    def gradient_checkpointing_enable(self, gradient_checkpointing_kwargs: dict | None = None, **kwargs) -> None:
        """The name by which transformers before 5.23 calls `activation_checkpointing_enable`."""
        self.base.gradient_checkpointing_enable(gradient_checkpointing_kwargs, **kwargs)

    def train(self, mode: bool = True) -> "LLMJepaModel":
        super().train(mode)
        if self.target_decoder is not None:
            self.target_decoder.eval()
        return self

    @staticmethod
    def count_tokens(batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Returns labelled tokens and pairs in a batch; the first token of a sequence is never predicted."""
        labels = batch["labels"]
        return labels[:, 1:].ne(-100).sum(), labels.new_full((), len(labels))

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        labels: Tensor,
        labels_in_update: Tensor | None = None,
        targets_in_update: Tensor | None = None,
        skip_jepa: bool = False,
        example_ids: Tensor | None = None,
        **views: Tensor,
    ) -> LLMJepaOutput:
        """Computes the loss of a batch of [`DataCollatorForLLMJepa`].

        Args:
            input_ids, attention_mask, labels, views: See the collator.
            labels_in_update, targets_in_update (`torch.Tensor` of shape `()`, *optional*):
                Labelled tokens and pairs of the whole update, which the losses are averaged over; those of this batch
                when absent.
            skip_jepa (`bool`, defaults to `False`): Do without the second term, and its pass.
            example_ids: Not used here.
        """
        objective = self.objective
        num_labels, num_pairs = self.count_tokens({"input_ids": input_ids, "labels": labels})
        tube = objective.method == "tube" and not skip_jepa and objective.jepa_lambda != 0
        outputs = self.causal_lm(
            input_ids=input_ids, attention_mask=attention_mask, use_cache=False, output_hidden_states=tube
        )
        # Data-parallel training averages gradients over processes, so each divides by its share of the update.
        divisor = num_labels if labels_in_update is None else labels_in_update / process_count()
        ntp = self._next_token_loss(outputs.logits, labels, divisor)
        loss = objective.gamma * ntp
        jepa, source, target = None, None, None
        trained = objective.method == "llm_jepa" and objective.jepa_lambda != 0 and not skip_jepa
        measured = not self.training and "view_input_ids" in views  # Every method's, for comparison.
        if trained or measured:
            source, target = self.encode_views(views)
            jepa = self._distance(source, target, views)
        if tube:
            jepa = tube_loss(outputs.hidden_states[-1], attention_mask.bool())
        if jepa is not None and objective.method != "ntp" and objective.jepa_lambda != 0:
            share = 1.0 if targets_in_update is None else num_pairs * process_count() / targets_in_update
            loss = loss + objective.jepa_lambda * self.lambda_share * share * jepa
        share = 1.0 if labels_in_update is None else divisor / num_labels.clamp(min=1)
        return LLMJepaOutput(
            loss=loss,
            ntp_loss=ntp.detach() * share,
            jepa_loss=None if jepa is None else jepa.detach(),
            num_labels=num_labels,
            num_pairs=None if jepa is None else num_pairs,
            source_states=None if source is None else source.detach(),
            target_states=None if target is None else target.detach(),
        )

    def _next_token_loss(self, logits: Tensor, labels: Tensor, divisor: Tensor) -> Tensor:
        """The model's own loss, so that without the second term this is ordinary training.

        To the last bit in float32. Of logits in half precision the stock loss keeps several copies in float32, which
        with a large vocabulary are most of the memory; there it is computed without them.
        """
        own = self.base.loss_function
        if logits.dtype.itemsize < 4 and own is ForCausalLMLoss:
            following = F.pad(labels[:, 1:], (0, 1), value=-100)
            return cross_entropy_sum(logits.flatten(0, 1), following.flatten()) / divisor
        size = self.config.get_text_config().vocab_size
        return own(logits=logits, labels=labels, vocab_size=size, num_items_in_batch=divisor)

    def encode_views(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Returns predictions and targets, `(batch_size, hidden_size)`, with the gradient that `target_grad` says."""
        source, target = encode_views(self.decoder, batch, self.separation, self.objective.layer)
        if self.target_decoder is not None:
            with torch.no_grad():
                target = encode_views(self.target_decoder, batch, self.separation, self.objective.layer)[1]
        elif self.objective.target_grad == "stop":
            target = target.detach()
        return source, target

    def _distance(self, source: Tensor, target: Tensor, views: Mapping[str, Tensor]) -> Tensor:
        return view_distance(
            source,
            target,
            self.objective.distance,
            self.objective.temperature,
            views.get("pair_numbers"),
            self.objective.symmetric,
            over_processes=self.training,
        )

    @torch.no_grad()
    def update_target_encoder(self, decay: float, skipped: Tensor | None = None) -> None:
        """Moves the averaged copy towards the model: `decay` of it stays, all of it where `skipped` is 1."""
        if self.target_decoder is not None:
            share = 1 - decay if skipped is None else (1 - decay) * (1 - skipped)
            for kept, online in zip(self.target_decoder.parameters(), self.decoder.parameters(), strict=True):
                kept.add_((online.detach().to(kept.dtype) - kept) * share)
