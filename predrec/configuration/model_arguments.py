"""Arguments for the encoder, the predictor and the objective."""

import json
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import torch
from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

from ..errors import UserError, reason_of
from ..modeling.configuration_pretraining import (
    ContextText,
    JepaLoss,
    JepaView,
    LossSchedule,
    LossWeighting,
    MlmView,
    Objective,
    PredictorAttention,
    PredRecPreTrainingConfig,
    TargetNetwork,
)
from ..rules import at_least, at_most, check_values
from .sizes import check_sizes
from .suggestions import did_you_mean

ENCODER_FIELDS = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "hidden_act",
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "max_position_embeddings",
    "position_embedding_type",
    "rotary_base",
    "scale_embeddings",
    "initializer_range",
    "layer_norm_eps",
    "tie_word_embeddings",
)
"""Arguments that go to the encoder's configuration under the same name."""

ENCODER_ONLY = (
    "model_type",
    "init_from",
    "encoder_config",
    "attn_implementation",
    "pad_vocab_to_multiple_of",
    *ENCODER_FIELDS,
)


RULES = (at_least(1, "pad_vocab_to_multiple_of"), at_most(2**16, "pad_vocab_to_multiple_of"))
"""What single arguments must be, beside what their configurations check."""


@dataclass
class ModelArguments:
    """The model. What is left out has the default of the encoder's own configuration class."""

    model_type: str = field(
        default="predrec", metadata={"help": "Encoder to train from scratch: predrec, bert, modernbert, ..."}
    )
    init_from: str | None = field(
        default=None, metadata={"help": "Masked-LM checkpoint to continue from: Hub id or directory."}
    )
    encoder_config: dict[str, Any] | str | None = field(
        default=None, metadata={"help": "Further fields of the encoder's configuration, as a mapping or JSON."}
    )
    hidden_size: int | None = field(default=None, metadata={"help": "Width of the encoder."})
    num_hidden_layers: int | None = field(default=None, metadata={"help": "Blocks of the encoder."})
    num_attention_heads: int | None = field(default=None, metadata={"help": "Heads per block."})
    intermediate_size: int | None = field(default=None, metadata={"help": "Width of the feed-forward layers."})
    hidden_act: str | None = field(default=None, metadata={"help": "Activation of the feed-forward layers."})
    hidden_dropout_prob: float | None = field(default=None, metadata={"help": "Dropout of hidden states."})
    attention_probs_dropout_prob: float | None = field(default=None, metadata={"help": "Dropout of attention."})
    max_position_embeddings: int | None = field(
        default=None, metadata={"help": "Longest sequence of the encoder; at least `max_seq_length`."}
    )
    position_embedding_type: Literal["sinusoidal", "rotary"] | None = field(
        default=None, metadata={"help": "Positions of a predrec encoder."}
    )
    rotary_base: float | None = field(default=None, metadata={"help": "Base of the rotary wavelengths."})
    scale_embeddings: bool | None = field(
        default=None, metadata={"help": "Multiply token embeddings by the square root of the width."}
    )
    initializer_range: float | None = field(default=None, metadata={"help": "Standard deviation of new weights."})
    layer_norm_eps: float | None = field(default=None, metadata={"help": "Epsilon of the encoder's LayerNorms."})
    tie_word_embeddings: bool | None = field(
        default=None, metadata={"help": "Share the output projection with the embeddings."}
    )
    pad_vocab_to_multiple_of: int = field(
        default=1, metadata={"help": "Round the vocabulary of a new encoder up: 64 is fast on GPUs."}
    )
    attn_implementation: str | None = field(
        default=None, metadata={"help": "unpadded (the default if possible), eager, sdpa, flash_attention_2, ..."}
    )
    objective: Objective = field(default="hybrid", metadata={"help": "Which losses to train."})
    predictor_hidden_size: int | None = field(default=None, metadata={"help": "Width of the predictor."})
    predictor_num_hidden_layers: int = field(default=6, metadata={"help": "Blocks of the predictor."})
    predictor_num_attention_heads: int | None = field(default=None, metadata={"help": "Heads of the predictor."})
    predictor_intermediate_size: int | None = field(
        default=None, metadata={"help": "Feed-forward width of the predictor."}
    )
    predictor_attention: PredictorAttention = field(
        default="joint",
        metadata={"help": "Context and targets in one sequence, or targets that attend to the context."},
    )
    predictor_position_embedding_type: Literal["sinusoidal", "rotary"] = field(
        default="sinusoidal", metadata={"help": "Positions of the predictor."}
    )
    jepa_view: JepaView = field(
        default="blocks",
        metadata={"help": "Predict hidden blocks from the rest of a text, or crops from themselves, by their means."},
    )
    context_text: ContextText = field(
        default="masked", metadata={"help": "What contexts show: the masked text, or the original."}
    )
    jepa_loss: JepaLoss = field(default="cosine", metadata={"help": "Distance of predicted and target latents."})
    jepa_temperature: float = field(default=0.1, metadata={"help": "Temperature of infonce."})
    jepa_regularizer_weight: float = field(default=1.0, metadata={"help": "Weight of sigreg's and vicreg's penalty."})
    loss_weighting: LossWeighting = field(default="learned", metadata={"help": "How lambda is set."})
    loss_schedule: LossSchedule = field(default="linear", metadata={"help": "Shape of a schedule of lambda."})
    loss_lambda: float = field(default=0.5, metadata={"help": "Weight of the JEPA loss, or its start value."})
    loss_lambda_end: float = field(default=0.5, metadata={"help": "Lambda at the end of a schedule."})
    target_network: TargetNetwork = field(
        default="ema", metadata={"help": "What makes the targets: an average of the encoder, or itself with gradient."}
    )
    target_layers: str = field(
        default="output", metadata={"help": "'output', the number of top blocks to average, or 0 for word embeddings."}
    )
    center_targets: bool = field(default=False, metadata={"help": "Subtract a running mean from the targets."})
    whiten_targets: bool = field(
        default=False, metadata={"help": "Give the targets the same variance in every direction."}
    )
    whiten_epsilon: float = field(
        default=0.01, metadata={"help": "What whitening adds to each variance, as a share of their mean."}
    )
    center_decay: float = field(default=0.9, metadata={"help": "Decay of the targets' running mean and covariance."})
    pool_targets: bool = field(
        default=False, metadata={"help": "Predict the mean of each target block, not its tokens."}
    )
    jepa_dropout: float = field(default=0.0, metadata={"help": "Share of updates without the JEPA branch."})
    jepa_start: float = field(default=0.0, metadata={"help": "Share of training before the JEPA loss starts."})
    mlm_view: MlmView = field(default="full", metadata={"help": "Where masked tokens are reconstructed."})

    def __post_init__(self):
        check_values(self, RULES)
        for prefix in ("", "predictor_"):
            check_sizes(vars(self), prefix=prefix)
        if isinstance(self.encoder_config, str):
            try:
                self.encoder_config = json.loads(self.encoder_config)
            except (json.JSONDecodeError, RecursionError) as error:
                raise ValueError(f"`encoder_config` is not JSON: {error}") from error
        if self.encoder_config is not None and not isinstance(self.encoder_config, dict):
            raise ValueError("`encoder_config` must be a mapping of the encoder configuration's fields.")
        check_sizes(self.encoder_config or {}, "`encoder_config`")
        if "model_type" in (self.encoder_config or {}):
            raise ValueError("`encoder_config` must not hold `model_type`: it is an argument of its own.")
        if "vocab_size" in (self.encoder_config or {}) and self.pad_vocab_to_multiple_of > 1:
            raise ValueError("`encoder_config` says how large the vocabulary is: drop `pad_vocab_to_multiple_of`.")
        if self.model_type not in CONFIG_MAPPING:
            raise ValueError(
                f"`model_type` is {self.model_type!r}, which transformers does not know"
                + did_you_mean(self.model_type, list(CONFIG_MAPPING.keys()))
            )
        if self.init_from is not None:
            given = [name for name in ENCODER_FIELDS if getattr(self, name) is not None]
            given += ["encoder_config"] if self.encoder_config else []
            given += ["pad_vocab_to_multiple_of"] if self.pad_vocab_to_multiple_of > 1 else []
            if given:
                raise ValueError(
                    f"`init_from` brings its own encoder: drop {', '.join(f'`{name}`' for name in given)}."
                )
        # Wrong combinations of objective and predictor are found now, with a stand-in for the vocabulary.
        if self.init_from is None:
            if self.model_type not in MODEL_FOR_MASKED_LM_MAPPING_NAMES and self.model_type != "predrec":
                raise ValueError(f"`model_type` is {self.model_type!r}, for which transformers has no masked LM.")
            try:
                self.pretraining_config(self.new_encoder_config(vocab_size=128))
            except (AttributeError, TypeError) as error:
                raise ValueError(f"`model_type={self.model_type}` cannot be the encoder: {error}") from error

    def new_encoder_config(self, **defaults: Any) -> PreTrainedConfig:
        """Builds the encoder's configuration.

        Args:
            defaults: Values, such as `vocab_size`, for what the arguments leave open.

        Raises:
            ValueError: If the configuration class of `model_type` does not have a field, or refuses its value.
        """
        config_class = CONFIG_MAPPING[self.model_type]
        known = {entry.name for entry in fields(config_class)} | set(getattr(config_class, "attribute_map", {}))
        given = {name: getattr(self, name) for name in ENCODER_FIELDS if getattr(self, name) is not None}
        given |= self.encoder_config or {}
        for name in given:
            if name not in known:
                raise ValueError(
                    f"`{name}` is not a field of {config_class.__name__}" + did_you_mean(name, sorted(known))
                )
        usable = {name: value for name, value in defaults.items() if name in known}
        return config_class(**(usable | given))

    def loaded_encoder_config(self) -> PreTrainedConfig:
        """Loads the configuration of `init_from`.

        Raises:
            UserError: If there is none.
        """
        try:
            values, _ = PreTrainedConfig.get_config_dict(self.init_from)
            check_sizes(values, f"`init_from` {self.init_from!r}")
            config = AutoConfig.from_pretrained(self.init_from, trust_remote_code=False)
        except UserError:
            raise
        # A file that is not what it should be makes its reader raise anything.
        except Exception as error:
            raise UserError(
                f"`init_from`: cannot load a configuration from {self.init_from!r}: {reason_of(error)}. Give a Hub id "
                "or a directory with the config.json of a masked LM."
            ) from error
        if isinstance(config, PredRecPreTrainingConfig):
            raise UserError(
                f"`init_from`: {self.init_from!r} is a training checkpoint: give the directory of a finished run, or "
                "go on with `resume_from_checkpoint`."
            )
        # A configuration may name an attention that is loaded from the Hub as code.
        config._attn_implementation = None
        # Half-precision weights are trained in float32, under autocast: the target encoder would stall otherwise.
        config.dtype = torch.float32
        return config

    def pretraining_config(self, encoder_config: PreTrainedConfig) -> PredRecPreTrainingConfig:
        """Builds the configuration of the whole pre-training model around an encoder's."""
        objective = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ENCODER_ONLY}
        if self.initializer_range is not None:
            objective["initializer_range"] = self.initializer_range
        return PredRecPreTrainingConfig(
            encoder_config=encoder_config, attn_implementation=self.attn_implementation, **objective
        )
