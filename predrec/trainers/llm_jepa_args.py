"""Training arguments of LLM-JEPA: the paper's values, the objective, the budget."""

from dataclasses import dataclass, field
from typing import Literal

from ..configuration.needs import NEEDS_OF_METHODS
from ..modeling.modeling_llm_jepa import LLMJepaObjective
from ..modeling.predictor_tokens import MAX_PREDICTOR_TOKENS
from ..rules import at_least, at_most, check_choices, not_negative, positive, share_below_one, unmet_needs
from .run_args import RunArguments

DEFAULT_LAMBDA = {"ntp": 0.0, "llm_jepa": 1.0, "tube": 0.02}
"""Weight of the second term where none is given."""


@dataclass
class LLMJepaArguments(RunArguments):
    """`TrainingArguments` with these other defaults, and the arguments of the method (arXiv 2509.14252).

    | argument | here | there | why |
    |---|---|---|---|
    | `learning_rate`, `num_train_epochs`, `per_device_train_batch_size` | 2e-5, 4, 16 | 5e-5, 3, 8 | the paper |
    | `dataloader_drop_last` | True | False | the paper |
    | `logging_steps` | 10 | 500 | runs are short |
    | `eval_strategy`, `save_strategy` | epoch, epoch | no, steps | runs are short |
    | `metric_for_best_model` | `eval_ntp_loss` | none | comparable between methods |
    """

    per_device_train_batch_size: int = field(default=16, metadata={"help": "Records per device and step."})
    per_device_eval_batch_size: int = field(default=32, metadata={"help": "Records per device and evaluation step."})
    learning_rate: float = field(default=2e-5, metadata={"help": "Peak learning rate."})
    num_train_epochs: float = field(default=4.0, metadata={"help": "Passes over the records."})
    lr_scheduler_type: str = field(default="linear", metadata={"help": "Learning-rate schedule."})
    warmup_steps: float = field(default=0, metadata={"help": "Warm-up steps; below 1, a share of all steps."})
    weight_decay: float = field(default=0.0, metadata={"help": "Weight decay of matrices; vectors have none."})
    dataloader_drop_last: bool = field(default=True, metadata={"help": "Leave out a last batch that is not full."})
    eval_strategy: str = field(default="epoch", metadata={"help": "When to evaluate: steps, epoch or no."})
    save_strategy: str = field(default="epoch", metadata={"help": "When to save: steps, epoch, best or no."})
    metric_for_best_model: str | None = field(default="eval_ntp_loss", metadata={"help": "Decides which is best."})

    method: Literal["ntp", "llm_jepa", "tube"] = field(
        default="llm_jepa", metadata={"help": "Next tokens alone, with LLM-JEPA, or with the tube."}
    )
    num_predictor_tokens: int = field(default=1, metadata={"help": "k: predictor tokens behind the view; 0 to 10."})
    jepa_lambda: float | None = field(
        default=None, metadata={"help": "Weight of the second term; 1 for llm_jepa, 0.02 for tube if absent."}
    )
    gamma: float = field(default=1.0, metadata={"help": "Weight of the next-token loss."})
    distance: Literal["cosine", "l2", "mse", "smooth_l1", "infonce"] = field(
        default="cosine", metadata={"help": "Distance of predicted and target view."}
    )
    temperature: float = field(default=0.07, metadata={"help": "Temperature of infonce."})
    symmetric_infonce: bool = field(default=False, metadata={"help": "Match both ways, not only source to target."})
    jepa_layer: int = field(default=-1, metadata={"help": "Hidden state that is read; -1 is the last."})
    target_grad: Literal["shared", "stop", "ema"] = field(
        default="shared", metadata={"help": "Gradient of the predicted view: shared (paper), none, or an average."}
    )
    jepa_dropout: float = field(default=0.0, metadata={"help": "Share of updates without the views' pass."})
    jepa_lambda_schedule: Literal["constant", "warmup"] = field(
        default="constant", metadata={"help": "Lambda from the beginning, or linearly from 0 over `lambda_warmup`."}
    )
    lambda_warmup: float = field(default=0.1, metadata={"help": "Share of the run that lambda warms up."})
    max_flops: float | None = field(
        default=None, metadata={"help": "Budget in operations: decides the updates, whatever the epochs say."}
    )
    sum_micro_batches: bool = field(
        default=False, metadata={"help": "Add up the losses of accumulated batches instead of averaging over tokens."}
    )

    RULES = (
        *RunArguments.RULES,
        at_least(0, "num_predictor_tokens"),
        at_most(MAX_PREDICTOR_TOKENS, "num_predictor_tokens"),
        share_below_one("jepa_dropout", "lambda_warmup"),
        not_negative("jepa_lambda", "gamma"),
        positive("temperature"),
    )

    BEST_BY = ("eval_ntp_loss", "eval_jepa_loss", "eval_loss")

    def __post_init__(self):
        check_choices(self)
        if self.jepa_lambda is None:
            self.jepa_lambda = DEFAULT_LAMBDA[self.method]
        super().__post_init__()

    def _check(self):
        super()._check()
        if self.push_to_hub:
            raise ValueError("`push_to_hub` is for encoders: push the finished model with `predrec push`.")
        if self.gamma == 0 and (self.method == "ntp" or self.jepa_lambda == 0):
            raise ValueError("`gamma` is 0 and there is no second term: nothing would be trained.")
        if self.max_flops is not None and self.max_steps > 0:
            raise ValueError("`max_flops` decides the number of updates: leave out `max_steps`.")

    def unused(self) -> dict[str, str]:
        """Returns which arguments were set although this run never looks at them, and what they need."""
        names = {name for _, _, names in NEEDS_OF_METHODS for name in names}
        defaults = {name: getattr(type(self), name) for name in names} | {"jepa_lambda": DEFAULT_LAMBDA[self.method]}
        return unmet_needs(NEEDS_OF_METHODS, self, {name for name in names if getattr(self, name) != defaults[name]})

    def objective(self) -> LLMJepaObjective:
        """Returns what is minimised."""
        return LLMJepaObjective(
            self.method,
            float(self.jepa_lambda or 0.0),
            self.gamma,
            self.distance,
            self.temperature,
            self.symmetric_infonce,
            self.target_grad,
            self.jepa_layer,
        )
