"""Configuration of the pre-training model: any masked-LM encoder, a predictor, and the objective."""

import difflib
from dataclasses import fields
from typing import Literal

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec

from ..rules import at_least, check_values, positive, share, share_below_one
from .configuration_predrec import PredRecConfig

Objective = Literal["hybrid", "mlm", "jepa"]
JepaLoss = Literal["cosine", "smooth_l1", "mse", "vicreg", "barlow_twins", "infonce", "sigreg"]
LossWeighting = Literal["learned", "fixed", "schedule", "uncertainty"]
LossSchedule = Literal["linear", "cosine"]
TargetNetwork = Literal["ema", "online"]
PredictorAttention = Literal["joint", "cross"]
JepaView = Literal["blocks", "crops"]
ContextText = Literal["masked", "original"]
MlmView = Literal["full", "context"]
COLLAPSING = ("cosine", "smooth_l1", "mse")
"""Losses that nothing keeps from making all targets alike, but that no gradient reaches these."""

RULES = (
    share("loss_lambda", "loss_lambda_end"),
    share_below_one("jepa_dropout", "jepa_start", "center_decay"),
    positive("jepa_temperature", "jepa_regularizer_weight", "whiten_epsilon"),
    at_least(1, "predictor_num_hidden_layers"),  # Without a block, nothing of the context reaches a prediction.
)


@strict
class PredRecPreTrainingConfig(PreTrainedConfig):
    """Configuration of a [`PredRecForPreTraining`].

    Args:
        encoder_config (`PreTrainedConfig` or `dict`, *optional*):
            Configuration of any masked-LM encoder; a dict is resolved by its `model_type`. A [`PredRecConfig`] when
            absent.
        objective (`"hybrid"`, `"mlm"` or `"jepa"`, defaults to `"hybrid"`):
            Which losses are trained. `"mlm"` builds neither predictor nor target encoder.
        predictor_hidden_size (`int`, *optional*): Width of the predictor; the encoder's when absent.
        predictor_num_hidden_layers (`int`, defaults to 6): Blocks of the predictor.
        predictor_num_attention_heads (`int`, *optional*): Heads of the predictor; the encoder's when absent.
        predictor_intermediate_size (`int`, *optional*): Feed-forward width; four times the predictor's when absent.
        predictor_attention (`"joint"` or `"cross"`, defaults to `"joint"`):
            Whether context and targets attend to one another in every block of the predictor (the paper), or the
            targets attend to the context and to nothing else, which costs a fraction.
        predictor_position_embedding_type (`"sinusoidal"` or `"rotary"`, defaults to `"sinusoidal"`):
            How the predictor learns where context and targets are.
        jepa_view (`"blocks"` or `"crops"`, defaults to `"blocks"`):
            What is predicted from what: blocks that are hidden from the rest of the text (the paper), or the mean of
            the targets of a short piece of it from the mean of the states of that piece, read as a text of its own.
            Crops have no predictor, and their targets are pooled.
        context_text (`"masked"` or `"original"`, defaults to `"masked"`):
            Whether contexts have the masks of the masked-LM loss (the paper), or show every token they hold.
        jepa_loss (`str`, defaults to `"cosine"`):
            `"cosine"` (the paper), `"smooth_l1"`, `"mse"`, `"vicreg"`, `"barlow_twins"`, `"infonce"` or `"sigreg"`.
            `"sigreg"` trains without a target network, whatever `target_network` says.
        jepa_temperature (`float`, defaults to 0.1): Temperature of `"infonce"`.
        jepa_regularizer_weight (`float`, defaults to 1.0):
            Weight, beside the squared error, of what `"sigreg"` and `"vicreg"` ask of the vectors. The statistic of
            `"sigreg"` is 0 to about 1, whatever the number of rows; LeJEPA multiplies it by that number.
        loss_weighting (`str`, defaults to `"learned"`):
            How lambda in `lambda * jepa_loss + (1 - lambda) * mlm_loss` is chosen: `"learned"` (the paper: the
            sigmoid of a trained scalar), `"fixed"`, `"schedule"` (from `loss_lambda` to `loss_lambda_end` over
            training), `"uncertainty"` (Kendall et al., 2018: two trained log-variances).
        loss_schedule (`"linear"` or `"cosine"`, defaults to `"linear"`): Shape of the schedule.
        loss_lambda (`float`, defaults to 0.5): Lambda, or its start value.
        loss_lambda_end (`float`, defaults to 0.5): Lambda at the end of a schedule.
        target_network (`"ema"` or `"online"`, defaults to `"ema"`):
            What makes the targets: a running average of the encoder (the paper), or the encoder itself, with a
            gradient (CPC, Barlow Twins, VICReg), which only losses that hold vectors apart withstand. `"vicreg"`
            then asks the targets to be spread, too.
        target_layers (`"output"` or `int`, defaults to `"output"`):
            The final output of the target encoder, normalised (the paper), or the mean of its top blocks, each
            normalised (data2vec). 0 stands for the target encoder's word embeddings as they are: what words there are,
            without what an encoder makes of them.
        center_targets (`bool`, defaults to `False`):
            Subtract a running mean from the targets, so that what all positions share need not be predicted.
        whiten_targets (`bool`, defaults to `False`):
            Centre the targets, and give them the same variance in every direction, by a running covariance: else a
            loss goes by the few directions in which all texts differ most, such as those of frequent words.
        whiten_epsilon (`float`, defaults to 0.01):
            What is added to the variance of every direction, as a share of the mean: how far small ones are raised.
        center_decay (`float`, defaults to 0.9):
            Decay of running mean and covariance in an update, whatever the accumulation. The targets drift while the
            encoder learns: a slow mean lags behind them and leaves in what it should take out. A covariance has many
            more numbers, and wants 0.99.
        pool_targets (`bool`, defaults to `False`):
            Compare the means of each target block's latents in place of the latents of its tokens: what the block is
            about, not what stands where. Blocks of one text are never each other's negatives in `"infonce"`.
        mlm_view (`"full"` or `"context"`, defaults to `"full"`):
            Whether the masked-LM loss is taken on the whole masked text (the paper) or, in training, on the visible
            context, which saves one encoder pass.
        jepa_dropout (`float`, defaults to 0.0):
            Share of the updates that leave the JEPA branch out, which makes them cheap; in the others its loss counts
            the more, so that its expected weight stays.
        jepa_start (`float`, defaults to 0.0):
            Share of training after which the JEPA loss sets in. The updates before are of masked tokens alone, and
            cost as much; a schedule of lambda and the average of the weights run from the beginning all the same.
        padding_is_text (`bool`, defaults to `False`):
            Whether rows are filled up with padding that counts as text, an error of the published code. The exported
            encoder, a predrec one, then has `attend_to_padding` true.
        active_objective (`str`, *optional*):
            What is trained from now on, when that is no longer `objective`: set when a run switches after a collapse.
        initializer_range (`float`, defaults to 0.02): Standard deviation of the predictor's new weights.

    Raises:
        ValueError: If a value is outside its range.
    """

    model_type = "predrec_pretraining"
    sub_configs_defaults = {"encoder_config": SubConfigSpec(AutoConfig, model_type="predrec")}

    encoder_config: dict | PreTrainedConfig | None = None
    objective: Objective = "hybrid"
    predictor_hidden_size: int | None = None
    predictor_num_hidden_layers: int = 6
    predictor_num_attention_heads: int | None = None
    predictor_intermediate_size: int | None = None
    predictor_attention: PredictorAttention = "joint"
    predictor_position_embedding_type: Literal["sinusoidal", "rotary"] = "sinusoidal"
    jepa_view: JepaView = "blocks"
    context_text: ContextText = "masked"
    jepa_loss: JepaLoss = "cosine"
    jepa_temperature: float | int = 0.1
    jepa_regularizer_weight: float | int = 1.0
    loss_weighting: LossWeighting = "learned"
    loss_schedule: LossSchedule = "linear"
    loss_lambda: float | int = 0.5
    loss_lambda_end: float | int = 0.5
    target_network: TargetNetwork = "ema"
    target_layers: str | int = "output"
    center_targets: bool = False
    whiten_targets: bool = False
    whiten_epsilon: float | int = 0.01
    center_decay: float | int = 0.9
    pool_targets: bool = False
    mlm_view: MlmView = "full"
    jepa_dropout: float | int = 0.0
    jepa_start: float | int = 0.0
    padding_is_text: bool = False
    active_objective: Objective | None = None
    initializer_range: float | int = 0.02
    pad_token_id: int | None = None
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs):
        for name in kwargs:
            if near := difflib.get_close_matches(name, [own.name for own in fields(self)], n=1, cutoff=0.8):
                raise ValueError(f"`{name}` is no field of {type(self).__name__}; did you mean `{near[0]}`?")
        super().__post_init__(**kwargs)
        # The Trainer and weight tying read these on the outer config; the encoder's values are the truth.
        encoder = self.encoder_config
        self.tie_word_embeddings = bool(encoder.tie_word_embeddings)
        for name in ("pad_token_id", "bos_token_id", "eos_token_id"):
            setattr(self, name, getattr(encoder, name, None))
        self.pool_targets |= self.jepa_view == "crops"
        self._check()

    def _check(self):
        if getattr(self.encoder_config, "attend_to_padding", False):
            raise ValueError("`attend_to_padding` is for trained checkpoints: set it to false to train further.")
        if self.padding_is_text and self.encoder_config.model_type != "predrec":
            raise ValueError("`padding_is_text` is for predrec encoders, which go on attending to padding afterwards.")
        check_values(self, RULES)
        if self.loss_weighting in ("learned", "uncertainty") and not 0 < self.loss_lambda < 1:
            raise ValueError(
                f"`loss_lambda` is {self.loss_lambda}, but `loss_weighting={self.loss_weighting}` starts from it and "
                "needs a value strictly between 0 and 1."
            )
        for name in ("jepa_dropout", "jepa_start"):
            if getattr(self, name) and self.objective != "hybrid":
                raise ValueError(f"`{name}` needs `objective=hybrid`: {self.objective} does not train both losses.")
        if self.has_jepa_branch and not self.has_target_encoder and self.jepa_loss in COLLAPSING:
            raise ValueError(
                f"`target_network=online` needs a loss that holds vectors apart: with jepa_loss={self.jepa_loss}, "
                "identical targets would be optimal."
            )
        if self.target_layers != "output":
            try:
                self.target_layers = int(self.target_layers)
            except ValueError:
                raise ValueError(
                    f"`target_layers` is {self.target_layers!r}; it must be 'output' or a number of blocks."
                ) from None
            depth = getattr(self.encoder_config, "num_hidden_layers", None)
            if self.target_layers < 0 or (depth is not None and self.target_layers > depth):
                raise ValueError(f"`target_layers` is {self.target_layers}; it must be in [0, {depth}].")
        if self.objective == "mlm" and self.mlm_view == "context":
            raise ValueError("`mlm_view=context` needs a context pass, which `objective=mlm` does not make.")
        if self.context_text == "original" and self.mlm_view == "context":
            raise ValueError("`mlm_view=context` reconstructs what `context_text=original` would show: drop either.")
        if self.has_predictor:
            self.predictor_config()

    @classmethod
    def from_dict(cls, config_dict: dict, **kwargs):
        """As in transformers; refuses the configuration of another model.

        Raises:
            ValueError: If it is that of an encoder, which this model would be built around.
        """
        kind = config_dict.get("model_type", cls.model_type)
        if kind != cls.model_type:
            raise ValueError(
                f"This is a {kind}, not a {cls.model_type}: wrap a masked LM by "
                "`PredRecForPreTraining.from_masked_lm(name)`, or load an encoder with AutoModel."
            )
        return super().from_dict(config_dict, **kwargs)

    @property
    def has_jepa_branch(self) -> bool:
        """Whether latents are predicted."""
        return self.objective != "mlm"

    @property
    def has_predictor(self) -> bool:
        """Whether the model holds a predictor; crops do without."""
        return self.has_jepa_branch and self.jepa_view == "blocks"

    @property
    def has_target_encoder(self) -> bool:
        """Whether the model holds an EMA target encoder."""
        return self.has_jepa_branch and self.jepa_loss != "sigreg" and self.target_network == "ema"

    def predictor_config(self) -> PredRecConfig:
        """Returns the configuration of the predictor's blocks: those of a predrec encoder without embeddings."""
        encoder = self.encoder_config
        hidden_size = self.predictor_hidden_size or encoder.hidden_size
        return PredRecConfig(
            vocab_size=1,
            pad_token_id=None,
            hidden_size=hidden_size,
            num_hidden_layers=self.predictor_num_hidden_layers,
            num_attention_heads=self.predictor_num_attention_heads or encoder.num_attention_heads,
            intermediate_size=self.predictor_intermediate_size or 4 * hidden_size,
            max_position_embeddings=encoder.max_position_embeddings,
            position_embedding_type=self.predictor_position_embedding_type,
            rotary_base=getattr(encoder, "rotary_base", PredRecConfig.rotary_base),
            initializer_range=self.initializer_range,
            attn_implementation=self._attn_implementation,
        )


__all__ = ["PredRecPreTrainingConfig"]
