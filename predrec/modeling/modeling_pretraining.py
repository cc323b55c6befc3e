"""The pre-training model: shared encoder, token regressor, EMA target encoder, predictor, and the balanced loss."""

import copy
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoModelForMaskedLM, PreTrainedModel
from transformers import initialization as init
from transformers.utils import ModelOutput

from .attention import UNPADDED
from .configuration_pretraining import PredRecPreTrainingConfig
from .crops import encode_crops, mean_of_crops
from .encoders import (
    ENCODERS,
    attention_masks,
    check_encoder,
    encode_context,
    encode_text,
    encoder_spec,
    position_limit,
    takes_segments,
    token_logits,
)
from .gathering import own_part, process_count
from .layout import Layout
from .losses import BATCH_LOSSES, JEPA_LOSSES, masked_lm_loss
from .predictor import PredRecPredictor
from .whitening import update_moments, whiten

SIGREG_DIRECTIONS = 256


@dataclass
class PredRecForPreTrainingOutput(ModelOutput):
    """What one batch yields. Terms that the objective lacks are `None`.

    Args:
        loss (`torch.FloatTensor` of shape `()`): The quantity to minimise.
        mlm_loss (`torch.FloatTensor` of shape `()`): Mean cross-entropy over labelled tokens, in nats; detached.
        jepa_loss (`torch.FloatTensor` of shape `()`): Mean JEPA loss over targets; detached.
        loss_lambda (`torch.FloatTensor` of shape `()`): Weight of the JEPA loss; detached.
        num_labels, num_targets (`torch.LongTensor` of shape `()`):
            Labelled tokens and target tokens in the batch; target blocks, if the targets are pooled.
        mlm_correct (`torch.LongTensor` of shape `()`):
            Labelled tokens whose highest logit is right; in evaluation mode only.
        predicted_latents (`torch.FloatTensor` of shape `(batch_size, num_blocks, block_length, hidden_size)`):
            The prediction, or `(num_targets, hidden_size)` with a layout, unless targets are pooled; in
            evaluation mode only.
        target_latents (`torch.FloatTensor`, same shape): What it should have been; in evaluation mode only.
    """

    loss: Tensor | None = None
    mlm_loss: Tensor | None = None
    jepa_loss: Tensor | None = None
    loss_lambda: Tensor | None = None
    num_labels: Tensor | None = None
    num_targets: Tensor | None = None
    mlm_correct: Tensor | None = None
    predicted_latents: Tensor | None = None
    target_latents: Tensor | None = None


class PredRecForPreTraining(PreTrainedModel):
    """Predict and reconstruct: `loss = lambda * jepa_loss + (1 - lambda) * mlm_loss`.

    `masked_lm` is any `*ForMaskedLM`: its base model is the encoder that is shared by both losses, and
    [`export_encoder`] is how the trained encoder leaves. `target_encoder` is a frozen copy that follows it
    by [`update_target_encoder`]; `predictor` guesses its output at the target blocks. With `jepa_view="crops"` there
    is no predictor: the mean of a crop's states is the guess.

    Args:
        config ([`PredRecPreTrainingConfig`]): Encoder, predictor and objective.

    Raises:
        ValueError: If the encoder cannot be trained as the configuration asks.
    """

    config: PredRecPreTrainingConfig
    base_model_prefix = ""
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    # Loaded in half precision, what moves by small steps stays in float32: there it would not move at all.
    _keep_in_fp32_modules_strict = {
        "target_encoder",
        "target_center",
        "target_covariance",
        "num_centered",
        "loss_logit",
        "loss_log_variances",
    }
    # The forward normalises by counts that the Trainer subclass passes itself.
    accepts_loss_kwargs = False
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    def __init__(self, config: PredRecPreTrainingConfig):
        super().__init__(config)
        if config._attn_implementation == UNPADDED and config.encoder_config._attn_implementation is None:
            config.encoder_config._attn_implementation = UNPADDED
        if config.has_jepa_branch:
            check_encoder(config.encoder_config, config._attn_implementation, config.mlm_view)
        self.masked_lm = AutoModelForMaskedLM.from_config(config.encoder_config)
        if self.masked_lm.device.type != "meta":
            # Whatever its configuration says: small updates are lost in half precision, which autocast does not need.
            self.masked_lm.float()
            self.masked_lm.config.dtype = torch.float32
        width = self.get_input_embeddings().weight.shape[1]
        if config.has_jepa_branch and config.target_layers == 0 and width != config.encoder_config.hidden_size:
            raise ValueError(
                f"`target_layers=0` makes targets of word embeddings, but those of {config.encoder_config.model_type} "
                f"have {width} features and its states {config.encoder_config.hidden_size}."
            )
        self.target_encoder = copy.deepcopy(self.encoder) if config.has_target_encoder else None
        self.predictor = None
        if config.has_predictor:
            self.predictor = PredRecPredictor(
                config.predictor_config(), config.encoder_config.hidden_size, config.predictor_attention
            )
        self.loss_logit = self.loss_log_variances = None
        if config.objective == "hybrid" and config.loss_weighting == "learned":
            self.loss_logit = nn.Parameter(torch.zeros(1))  # Not of shape (): FSDP shards no such parameter.
        if config.objective == "hybrid" and config.loss_weighting == "uncertainty":
            self.loss_log_variances = nn.Parameter(torch.zeros(2))
        whitened = config.whiten_targets and config.has_jepa_branch
        centered = (config.center_targets and config.has_jepa_branch) or whitened
        hidden_size = config.encoder_config.hidden_size
        self.register_buffer("target_center", torch.zeros(hidden_size) if centered else None)
        self.register_buffer("target_covariance", torch.eye(hidden_size) if whitened else None)
        self.register_buffer("num_centered", torch.zeros(()) if centered else None)
        # Share of training that is over; the Trainer sets it, and a tensor does not make torch.compile retrace.
        self.register_buffer("training_progress", torch.zeros((), dtype=torch.float32), persistent=False)
        self.post_init()
        self._freeze_unused()
        # On the meta device a checkpoint is being loaded, which brings the target encoder along.
        if not next(self.parameters()).is_meta:
            self.reset_target_encoder()

    @classmethod
    def from_masked_lm(cls, masked_lm: str | PreTrainedModel, **objective) -> "PredRecForPreTraining":
        """Builds the model around a trained masked LM, to go on with its weights.

        Args:
            masked_lm (`str` or `PreTrainedModel`): A `*ForMaskedLM`, or the Hub id or directory of one, which is
                loaded in float32.
            objective: Fields of [`PredRecPreTrainingConfig`].

        Example:

        ```python
        >>> model = PredRecForPreTraining.from_masked_lm("google-bert/bert-base-uncased", jepa_loss="smooth_l1")
        ```
        """
        if not isinstance(masked_lm, PreTrainedModel):
            masked_lm = AutoModelForMaskedLM.from_pretrained(masked_lm, dtype=torch.float32)
        config = PredRecPreTrainingConfig(encoder_config=copy.deepcopy(masked_lm.config), **objective)
        model = cls(config)
        model.load_masked_lm(masked_lm)
        return model

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        super()._init_weights(module)
        if module is not self:
            return
        start = min(max(self.config.loss_lambda, 1e-6), 1 - 1e-6)
        logit = math.log(start / (1 - start))
        if self.loss_logit is not None:
            init.constant_(self.loss_logit, logit)
        if self.loss_log_variances is not None:
            # exp(-s_jepa) / (exp(-s_jepa) + exp(-s_mlm)) is lambda at the start.
            init.copy_(self.loss_log_variances, torch.tensor([-logit / 2, logit / 2]))
        if self.target_center is not None:
            init.zeros_(self.target_center)
            init.zeros_(self.num_centered)
        if self.target_covariance is not None:
            init.copy_(self.target_covariance, torch.eye(len(self.target_covariance)))
        init.zeros_(self.training_progress)

    def get_correct_attn_implementation(self, requested_attention: str | None, *args, **kwargs) -> str:
        """Chooses the attention when none is asked for: "unpadded" for encoders that can take it."""
        spec = ENCODERS.get(self.config.encoder_config.model_type)
        if requested_attention is None and spec is not None and spec.unpads:
            requested_attention = UNPADDED
        return super().get_correct_attn_implementation(requested_attention, *args, **kwargs)

    @property
    def takes_layout(self) -> bool:
        """Whether batches may say, by a [`Layout`], where their padding is, so that nothing is computed on it."""
        parts = [self.encoder.config, *([] if self.predictor is None else [self.predictor.config])]
        return all(takes_segments(part) for part in parts)

    def _freeze_unused(self):
        """Leaves trainable only what the objective trains, so that every trainable parameter gets a gradient."""
        if self.target_encoder is not None:
            self.target_encoder.requires_grad_(False).eval()
        if self.config.objective == "jepa":
            encoder_parameters = {id(parameter) for parameter in self.encoder.parameters()}
            for parameter in self.masked_lm.parameters():
                if id(parameter) not in encoder_parameters:
                    parameter.requires_grad_(False)

    @property
    def active_objective(self) -> str:
        """What is trained now: the objective, or what a run switched to."""
        return self.config.active_objective or self.config.objective

    @property
    def encoder(self) -> PreTrainedModel:
        """The context encoder: the base model of `masked_lm`, shared by both losses."""
        return self.masked_lm.base_model

    def get_input_embeddings(self) -> nn.Module:
        return self.masked_lm.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module):
        self.masked_lm.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module | None:
        return self.masked_lm.get_output_embeddings()

    def resize_token_embeddings(self, new_num_tokens: int | None = None, *args, **kwargs) -> nn.Module:
        """Resizes the vocabulary of both encoders, the head and every configuration; arguments as in transformers.

        New rows are drawn at random, so the target encoder gets copies of the context encoder's.
        """
        before = self.config.encoder_config.vocab_size
        resized = self.masked_lm.resize_token_embeddings(new_num_tokens, *args, **kwargs)
        parts = [self.masked_lm, self.encoder]
        if self.target_encoder is not None:
            parts.append(self.target_encoder)
            target = self.target_encoder.resize_token_embeddings(new_num_tokens, *args, **kwargs)
            with torch.no_grad():
                target.weight[before:] = resized.weight[before:]
            self._freeze_unused()
        for config in [self.config.encoder_config, *(part.config for part in parts)]:
            config.vocab_size = resized.num_embeddings
        return resized

    def train(self, mode: bool = True) -> "PredRecForPreTraining":
        """Sets training mode everywhere but in the target encoder, which never drops anything out.

        It also freezes again: `from_pretrained`, which ends by calling this, forgets what was frozen.
        """
        super().train(mode)
        self._freeze_unused()
        return self

    @torch.no_grad()
    def reset_target_encoder(self):
        """Makes the target encoder equal to the context encoder."""
        if self.target_encoder is not None:
            self.target_encoder.load_state_dict(self.encoder.state_dict())

    @torch.no_grad()
    def update_target_encoder(self, decay: float, skipped: Tensor | None = None):
        """Moves the target encoder towards the context encoder: `target <- decay * target + (1 - decay) * context`.

        Args:
            decay (`float`): Between 0 (copy) and 1 (leave as it is).
            skipped (`torch.Tensor` of shape `()`, *optional*): 1 to leave it as it is after all, 0 not to. Not read
                from the device.

        Raises:
            ValueError: If there is no target encoder, or its weights are not float32: in bfloat16 an update by one
                part in a thousand is lost to rounding.
        """
        if self.target_encoder is None:
            raise ValueError(f"`objective={self.config.objective}` has no target encoder to update.")
        # Sharded alike, each process moves its own part.
        targets, sources = (
            [own_part(parameter) for parameter in part.parameters()] for part in (self.target_encoder, self.encoder)
        )
        if any(parameter.dtype != torch.float32 for parameter in targets):
            raise ValueError("The target encoder must be float32: leave it so when you cast the rest of the model.")
        sources = [source.float() for source in sources]
        if skipped is None:
            torch._foreach_lerp_(targets, sources, 1 - decay)
        else:
            weight = (1 - decay) * (1 - skipped)
            for target, source in zip(targets, sources, strict=True):
                target.lerp_(source, weight)
        for target, source in zip(self.target_encoder.buffers(), self.encoder.buffers(), strict=True):
            target.copy_(source)

    def switch_objective(self, objective: str):
        """Goes on with another objective; the choice is saved with the model.

        Raises:
            ValueError: If the model was not built for it: only a hybrid can give up one of its losses.
        """
        if objective != self.config.objective and self.config.objective != "hybrid":
            raise ValueError(f"`objective={self.config.objective}` cannot switch to {objective!r}; only hybrid can.")
        self.config.active_objective = objective

    @torch.no_grad()
    def load_masked_lm(self, masked_lm: PreTrainedModel):
        """Starts from the weights of a trained masked-LM model of the same architecture, targets included."""
        self.masked_lm.load_state_dict(masked_lm.state_dict())
        self.reset_target_encoder()

    def loss_weights(self) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the weights of the JEPA and of the MLM loss, and what is added to them; each of shape `()`."""
        # A zero that is no constant: were a weight known to be 1, a compiler would make the loss and its detached term
        # one tensor, without a gradient.
        zero = 0 * self.training_progress
        if self.active_objective != "hybrid":
            jepa = zero + float(self.active_objective == "jepa")
            return jepa, 1 - jepa, zero
        weights = self._hybrid_weights(zero)
        if not self.config.jepa_start:
            return weights
        started = self.training_progress >= self.config.jepa_start
        return tuple(torch.where(started, weight, before) for weight, before in zip(weights, (0, 1, 0), strict=True))

    def _hybrid_weights(self, zero: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        weighting = self.config.loss_weighting
        if weighting == "uncertainty":
            precisions = torch.exp(-self.loss_log_variances)
            return precisions[0], precisions[1], self.loss_log_variances.sum()
        start, end, progress = self.config.loss_lambda, self.config.loss_lambda_end, self.training_progress
        if weighting == "learned":
            jepa = self.loss_logit[0].sigmoid()
        elif weighting == "fixed":
            jepa = zero + start
        elif self.config.loss_schedule == "linear":
            jepa = start + (end - start) * progress
        else:
            jepa = end + (start - end) * (1 + torch.cos(math.pi * progress)) / 2
        return jepa, 1 - jepa, zero

    def count_tokens(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Returns how many labelled tokens and targets a training batch has, each of shape `()`."""
        labels = batch["labels"]
        if self.config.mlm_view == "context":
            labels = self._context_labels(labels, batch["context_indices"], batch["context_mask"])
        targets = self._count_targets(batch["target_mask"]) if "target_mask" in batch else labels.new_zeros(())
        return labels.ne(-100).sum(), targets

    def _count_targets(self, target_mask: Tensor) -> Tensor:
        return target_mask.any(-1).sum() if self.config.pool_targets else target_mask.sum()

    def target_states(self, input_ids: Tensor, attention_mask: Tensor | None, layout: Layout | None = None) -> Tensor:
        """Encodes the unmasked text into targets, float32: normalised states, or word embeddings as they are.

        Their shape is `(batch_size, sequence_length, hidden_size)` or, with a layout of padded texts,
        `(num_tokens, hidden_size)`.

        No gradient reaches them, except where the online encoder makes them.
        """
        encoder = self.encoder if self.target_encoder is None else self.target_encoder
        num_layers = 0 if self.config.target_layers == "output" else self.config.target_layers
        with torch.set_grad_enabled(self.target_encoder is None and torch.is_grad_enabled()):
            if self.config.target_layers == 0:
                tokens = input_ids if layout is None or layout.text is None else input_ids.flatten()[layout.text]
                return encoder.get_input_embeddings()(tokens).float()
            states = encode_text(encoder, input_ids, self._mask(attention_mask), layout, num_layers)
            normalised = [F.layer_norm(state.float(), state.shape[-1:]) for state in states]
            return torch.stack(normalised).mean(0) if len(normalised) > 1 else normalised[0]

    def states_of_texts(self, input_ids: Tensor, attention_mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Encodes unmasked texts for whoever measures them; never called by `forward`.

        Args:
            input_ids (`torch.LongTensor` of shape `(batch_size, sequence_length)`): The texts.
            attention_mask (`torch.Tensor`, same shape, *optional*): 1 at real tokens.

        Returns:
            States of the encoder and the targets, centred or whitened if that is asked for, both of shape
            `(batch_size, sequence_length, hidden_size)`. Without a JEPA loss there are no targets: `None`.
        """
        states = self.encoder(input_ids=input_ids, attention_mask=attention_mask)[0].float()
        if self.active_objective == "mlm":
            return states, None
        return states, self.normalize_targets(self.target_states(input_ids, attention_mask))

    def gather_latents(self, states: Tensor, indices: Tensor) -> Tensor:
        """Picks from `(batch_size, sequence_length, hidden_size)` at `(num_contexts, num_blocks, block_length)`."""
        return states.flatten(0, 1)[self.token_ids(indices, *states.shape[:2])]

    def normalize_targets(self, latents: Tensor) -> Tensor:
        """Centres or whitens targets, `(..., hidden_size)`, by running moments, if the configuration asks for that."""
        if self.target_center is None:
            return latents
        latents = latents - self.target_center
        if self.target_covariance is None:
            return latents
        with torch.autocast(latents.device.type, enabled=False):
            return whiten(latents, self.target_covariance, self.config.whiten_epsilon)

    def _update_moments(self, latents: Tensor, mask: Tensor, share: Tensor | None):
        """Goes on with the running moments, those of what is compared: of means of blocks, if targets are pooled."""
        with torch.autocast(latents.device.type, enabled=False):
            latents, mask = self.pool(latents.detach(), mask)
            moments = self.target_center, self.target_covariance, self.num_centered
            update_moments(*moments, latents, mask, self.config.center_decay, share)

    def pool(self, latents: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Returns latents in float32, and which count, as the JEPA loss compares them: means of blocks, if pooled."""
        latents = latents.float()
        if not self.config.pool_targets:
            return latents, mask
        weights = mask[..., None].float()
        return (latents * weights).sum(-2) / weights.sum(-2).clamp(min=1), mask.any(-1)

    def jepa_loss(self, predicted: Tensor, target: Tensor, mask: Tensor, target_ids: Tensor) -> Tensor:
        """Applies the chosen JEPA loss in float32; in training, one that compares rows does so over all processes.

        Args:
            predicted, target (`torch.FloatTensor` of shape `(..., hidden_size)`):
                Latents; `(..., block_length, hidden_size)` if they are to be pooled.
            mask, target_ids (`(...)`, bool and long): Which count; what each is for, from [`target_ids`].
        """
        (predicted, _), (target, counted) = self.pool(predicted, mask), self.pool(target, mask)
        if self.config.pool_targets:
            target_ids = target_ids[..., 0]
        loss, options = JEPA_LOSSES[self.config.jepa_loss], {}
        if self.config.jepa_loss == "infonce":
            options = {"token_ids": target_ids.flatten(), "temperature": self.config.jepa_temperature}
        elif self.config.jepa_loss == "sigreg":
            directions = torch.randn(target.shape[-1], SIGREG_DIRECTIONS, device=target.device)
            options = {"directions": directions, "regularizer_weight": self.config.jepa_regularizer_weight}
        elif self.config.jepa_loss == "vicreg":
            options = {
                "regularizer_weight": self.config.jepa_regularizer_weight,
                "regularize_targets": self.config.target_network == "online",
            }
        if self.config.jepa_loss in BATCH_LOSSES:
            # In evaluation, processes may have different numbers of batches: they must not wait for one another.
            options["over_processes"] = self.training
        # The statistics of some losses are differences of large numbers: float32 even under autocast.
        with torch.autocast(predicted.device.type, enabled=False):
            return loss(predicted.flatten(0, -2), target.flatten(0, -2), counted.flatten(), **options)

    @staticmethod
    def token_ids(indices: Tensor, num_rows: int, length: int) -> Tensor:
        """Numbers the tokens of a batch: from positions, `(num_contexts, ...)`, to places in the flattened texts.

        Args:
            indices (`torch.LongTensor` of shape `(num_contexts, ...)`): Positions; context `i` is of row
                `i % num_rows`.
            num_rows, length (`int`): Rows of the batch and tokens in each.
        """
        rows = torch.arange(len(indices), device=indices.device) % num_rows * length
        return indices + rows.view(-1, *[1] * (indices.ndim - 1))

    def target_ids(self, indices: Tensor, num_rows: int, length: int) -> Tensor:
        """Numbers what targets are for, as [`token_ids`]: tokens of the batch, or texts if targets are pooled."""
        return self._compared(self.token_ids(indices, num_rows, length), length)

    def _compared(self, token_ids: Tensor, length: int) -> Tensor:
        return token_ids // length if self.config.pool_targets else token_ids

    def _mask(self, attention_mask: Tensor | None) -> Tensor | dict[str, Tensor] | None:
        """Prepares a padding mask for a full pass; relative-position and unlisted architectures want it as it is."""
        spec = encoder_spec(self.config.encoder_config)
        if spec is None or not spec.gathers(self.config.encoder_config):
            return attention_mask
        return attention_masks(self.encoder.config, attention_mask, self.encoder.dtype)

    def _logits(
        self, states: Tensor, labels: Tensor, label_indices: Tensor | None, layout: Layout | None = None
    ) -> tuple[Tensor, Tensor]:
        """Returns logits `(num_labelled, vocab_size)` and labels `(num_labelled,)`; the head sees no other token.

        Args:
            states, labels (`(num_tokens, hidden_size)` and `(num_tokens,)`): Of all tokens of the view.
            label_indices (`torch.LongTensor` of shape `(num_labelled,)`, *optional*): Which of them have a label.
            layout ([`Layout`], *optional*): Of the texts, if the states are without their padding.
        """
        if label_indices is None:
            label_indices = labels.ne(-100).nonzero()[:, 0]
        places = label_indices if layout is None else layout.in_text(label_indices)
        return token_logits(self.masked_lm, states[places]), labels[label_indices]

    def _full_logits(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        labels: Tensor,
        label_indices: Tensor | None,
        layout: Layout | None,
    ) -> tuple[Tensor, Tensor]:
        """Does as `_logits` after a full pass over the masked text; an unlisted architecture runs its own head."""
        if encoder_spec(self.config.encoder_config) is None:
            logits = self.masked_lm(input_ids=input_ids, attention_mask=attention_mask).logits
            return logits.flatten(0, 1), labels.flatten()
        states = encode_text(self.encoder, input_ids, self._mask(attention_mask), layout)[0]
        return self._logits(states.flatten(0, -2), labels.flatten(), label_indices, layout)

    def idle_parameters(self, predicts: bool, reconstructs: bool, weighs: bool) -> list[nn.Parameter]:
        """Returns the trainable parameters that an update does not train, when a hybrid does with one of its losses.

        Args:
            predicts (`bool`): Whether it has a JEPA loss.
            reconstructs (`bool`): Whether it has a masked-LM loss.
            weighs (`bool`): Whether learned weights of the two are trained.
        """
        idle = []
        if self.predictor is not None and not predicts:
            idle += self.predictor.parameters()
        if self.config.objective == "hybrid" and not reconstructs:
            used = {id(parameter) for parameter in self.encoder.parameters()}
            idle += [parameter for parameter in self.masked_lm.parameters() if id(parameter) not in used]
        if not weighs:
            idle += [weight for weight in (self.loss_logit, self.loss_log_variances) if weight is not None]
        return idle

    def _context_labels(self, labels: Tensor, context_indices: Tensor, context_mask: Tensor) -> Tensor:
        """Returns the labels that the contexts hold, `(num_contexts, context_length)`, -100 elsewhere."""
        labels = labels.repeat(len(context_indices) // len(labels), 1)
        return labels.gather(1, context_indices).masked_fill(~context_mask, -100)

    def _check_batch(self, input_ids: Tensor, layout: Layout | None, needed: dict[str, Tensor | None]):
        if layout is not None and not self.takes_layout:
            raise ValueError(
                f"A layout needs attention within sequences, but `attn_implementation` is "
                f"{self.encoder.config._attn_implementation}: leave `unpad` of the collator off, or use {UNPADDED!r}."
            )
        missing = [name for name, part in needed.items() if part is None]
        if missing:
            raise ValueError(
                f"`{missing[0]}` is missing from the batch: batches of objective {self.active_objective} come from "
                "DataCollatorForPreTraining."
            )
        if input_ids.shape[1] > position_limit(self.encoder):
            raise ValueError(
                f"Rows of {input_ids.shape[1]} tokens: the encoder has {position_limit(self.encoder)} positions. Cut "
                "them, as by `tokenizer(..., truncation=True, max_length=...)`."
            )

    def _predict(
        self,
        context_states: Tensor,
        context_indices: Tensor,
        context_mask: Tensor,
        target_indices: Tensor,
        target_mask: Tensor,
        token_ids: Tensor,
        layout: Layout | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Predicts the latents of the targets.

        Args:
            context_states (`torch.FloatTensor`): Of all contexts, as `encode_context` or `encode_crops` returns them.
            context_indices, context_mask, target_indices, target_mask: As `forward` takes them.
            token_ids (`torch.LongTensor` of the shape of `target_indices`): Where targets are in the flattened texts.
            layout ([`Layout`], *optional*): Of the contexts and targets, if their states are without padding.

        Returns:
            Latents `(..., hidden_size)`, and of each of them the token it is for and whether it counts, both `(...)`:
            `(num_contexts, num_blocks, block_length)` or, with a layout, `(num_targets,)` unless blocks are pooled.
        """
        if self.config.jepa_view == "crops":
            means = mean_of_crops(context_states, context_mask, layout)
            return means[:, None, None].expand(*target_mask.shape, -1), token_ids, target_mask
        predicted = self.predictor(context_states, context_indices, context_mask, target_indices, target_mask, layout)
        if layout is None:
            return predicted, token_ids, target_mask
        if self.config.pool_targets:
            blank = predicted.new_zeros(target_mask.numel(), predicted.shape[-1])
            return blank.index_copy(0, layout.targets, predicted).view(*target_mask.shape, -1), token_ids, target_mask
        token_ids = token_ids.flatten()[layout.targets]
        return predicted, token_ids, torch.ones_like(token_ids, dtype=torch.bool)

    def _context_logits(
        self, states: Tensor, labels: Tensor, label_indices: Tensor | None, layout: Layout | None
    ) -> tuple[Tensor, Tensor]:
        """Does as `_logits` for the labels of the contexts, `(num_contexts, context_length)`."""
        if layout is None:
            return self._logits(states.flatten(0, 1), labels.flatten(), label_indices)
        return self._logits(states, labels.flatten()[layout.context], label_indices)

    def forward(
        self,
        input_ids: torch.LongTensor,
        labels: torch.LongTensor | None = None,
        attention_mask: Tensor | None = None,
        original_input_ids: torch.LongTensor | None = None,
        context_indices: torch.LongTensor | None = None,
        context_mask: torch.BoolTensor | None = None,
        target_indices: torch.LongTensor | None = None,
        target_mask: torch.BoolTensor | None = None,
        label_indices: torch.LongTensor | None = None,
        layout: Layout | None = None,
        labels_in_update: Tensor | None = None,
        targets_in_update: Tensor | None = None,
        example_ids: torch.LongTensor | None = None,
        skip_jepa: bool = False,
    ) -> PredRecForPreTrainingOutput:
        """Computes the loss of one batch made by [`DataCollatorForPreTraining`].

        Args:
            input_ids (`(batch_size, sequence_length)`): Masked tokens.
            labels (`(batch_size, sequence_length)`): Original id at masked positions, -100 elsewhere.
            attention_mask (`(batch_size, sequence_length)`, *optional*): 1 at real tokens; absent without padding.
            original_input_ids (`(batch_size, sequence_length)`): Unmasked tokens, for the target encoder.
            context_indices, context_mask (`(num_contexts, context_length)`, long and bool): The visible contexts;
                context `i` is one of row `i % batch_size`.
            target_indices, target_mask (`(num_contexts, num_blocks, block_length)`, long and bool): Their targets.
            label_indices (`(num_labelled,)`, *optional*): Positions of labelled tokens in the flattened view that the
                MLM loss is taken on; entries that only fill it up point at tokens without a label.
            layout ([`Layout`], *optional*): Where the padding is, so that nothing is computed on it; only for a model
                that [`takes_layout`].
            labels_in_update, targets_in_update (`torch.Tensor` of shape `()`, *optional*):
                Tokens of the whole optimizer update over all processes, when this batch is a part of it: the losses of
                the parts then add up, and average over processes, to the loss of the whole.
            example_ids (`(batch_size,)`, *optional*): Numbers of the examples; carried for error reports only.
            skip_jepa (`bool`): Leave the JEPA branch out of this update, for `jepa_dropout` or `jepa_start`.

        Returns:
            [`PredRecForPreTrainingOutput`].

        Raises:
            ValueError: If a layout is given to a model whose attention cannot use it, a part of the batch is missing,
                or its rows are longer than the encoder has positions.
        """
        predicts = self.active_objective != "mlm" and not skip_jepa
        reconstructs = self.active_objective != "jepa"
        needed = {"labels": labels} if reconstructs else {}
        if predicts:
            needed |= {"original_input_ids": original_input_ids, "context_indices": context_indices}
            needed |= {"target_indices": target_indices, "target_mask": target_mask, "context_mask": context_mask}
        self._check_batch(input_ids, layout, needed)
        contexts_layout = layout if layout is not None and layout.context is not None else None
        from_context = reconstructs and self.training and self.config.mlm_view == "context"
        weight_jepa, weight_mlm, addend = self.loss_weights()
        output = PredRecForPreTrainingOutput(loss_lambda=(weight_jepa / (weight_jepa + weight_mlm)).detach())
        loss = share = input_ids.new_zeros((), dtype=torch.float32)

        if predicts or from_context:
            texts = original_input_ids if self.config.context_text == "original" else input_ids
            texts = texts.repeat(len(context_indices) // len(input_ids), 1)
            encode = encode_crops if self.config.jepa_view == "crops" else encode_context
            context_states = encode(self.encoder, texts, context_indices, context_mask, contexts_layout)

        if predicts:
            token_ids = self.token_ids(target_indices, *input_ids.shape)
            predicted, token_ids, counted = self._predict(
                context_states, context_indices, context_mask, target_indices, target_mask, token_ids, contexts_layout
            )
            places = token_ids if layout is None else layout.in_text(token_ids)
            target = self.target_states(original_input_ids, attention_mask, layout).flatten(0, -2)[places]
            output.num_targets = self._count_targets(target_mask)
            if self.training and self.target_center is not None:
                part = None if targets_in_update is None else output.num_targets / targets_in_update.clamp(min=1)
                self._update_moments(target, counted, part)
            target = self.normalize_targets(target)
            jepa_loss = self.jepa_loss(predicted, target, counted, self._compared(token_ids, input_ids.shape[1]))
            output.jepa_loss = jepa_loss.detach()
            share = _share(output.num_targets, targets_in_update)
            # A loss that is left out now and then counts the more when it is not.
            kept = 1 - self.config.jepa_dropout if self.training else 1
            loss = loss + weight_jepa * jepa_loss * share / kept
            if not self.training:
                output.predicted_latents, output.target_latents = predicted, target

        if reconstructs:
            if from_context:
                labels = self._context_labels(labels, context_indices, context_mask)
                logits, answers = self._context_logits(context_states, labels, label_indices, contexts_layout)
            else:
                logits, answers = self._full_logits(input_ids, attention_mask, labels, label_indices, layout)
            mlm_loss = masked_lm_loss(logits, answers)
            output.mlm_loss = mlm_loss.detach()
            output.num_labels = answers.ne(-100).sum()
            share = _share(output.num_labels, labels_in_update)
            loss = loss + weight_mlm * mlm_loss * share
            if not self.training:
                output.mlm_correct = (logits.argmax(-1) == answers).sum()

        if self.training:
            # Data-parallel training waits for the gradient of every trainable parameter, idle or not; shards do not.
            idle = self.idle_parameters(predicts, reconstructs, self.active_objective == self.config.objective)
            loss = loss + 0 * sum(parameter.sum() for parameter in idle if own_part(parameter) is parameter)
        output.loss = loss + addend * share
        return output


def _share(count: Tensor, total: Tensor | None) -> Tensor:
    """Returns which part of a process's share of the whole update's tokens a batch holds; 1 when it is the update.

    Data-parallel training averages gradients over processes, so that each counts for more.
    """
    return torch.ones_like(count) if total is None else count * process_count() / total.clamp(min=1)
