"""Training arguments of hybrid pre-training: the paper's values, the collapse monitor."""

from dataclasses import dataclass, field
from typing import Literal

from ..rules import at_least, at_most, not_negative
from .run_args import RunArguments


@dataclass
class PredRecTrainingArguments(RunArguments):
    """[`RunArguments`] with these other defaults, and the arguments of the method.

    | argument | here | in `TrainingArguments` | why |
    |---|---|---|---|
    | `learning_rate`, `weight_decay`, `lr_scheduler_type`, `warmup_steps` | 5e-5, 0.05, cosine, 10 | 5e-5, 0, linear, 0 | the paper, Table 1 |
    | `per_device_train_batch_size`, `num_train_epochs` | 64, 3 | 8, 3 | the paper, Table 1 |
    | `per_device_eval_batch_size` | 64 | 8 | as in training |
    | `eval_strategy`, `eval_steps` | steps, 500 | no, none | the monitor needs evaluations |
    | `metric_for_best_model` | `eval_mlm_loss` | none | `eval_loss` moves with lambda |
    """  # noqa: E501 - a table row is a line

    metric_for_best_model: str | None = field(default="eval_mlm_loss", metadata={"help": "Decides which is best."})
    per_device_train_batch_size: int = field(default=64, metadata={"help": "Rows per device and step."})
    per_device_eval_batch_size: int = field(default=64, metadata={"help": "Rows per device and evaluation step."})
    learning_rate: float = field(default=5e-5, metadata={"help": "Peak learning rate."})
    weight_decay: float = field(default=0.05, metadata={"help": "Weight decay of matrices; vectors have none."})
    lr_scheduler_type: str = field(default="cosine", metadata={"help": "Learning-rate schedule."})
    warmup_steps: float = field(default=10, metadata={"help": "Warm-up steps; below 1, a share of all steps."})
    eval_steps: float | None = field(default=500, metadata={"help": "Updates between two evaluations."})

    monitor_examples: int = field(default=64, metadata={"help": "Held-out rows that the collapse monitor looks at."})
    collapse_action: Literal["warn", "stop", "switch"] = field(
        default="warn", metadata={"help": "On collapse: warn, stop, or switch a hybrid run to mlm."}
    )
    collapse_patience: int = field(default=2, metadata={"help": "Evaluations in a row that must show collapse."})
    collapse_min_rank: float = field(
        default=0.02, metadata={"help": "Effective rank below this share of the largest possible one is collapse."}
    )
    collapse_min_std: float = field(
        default=0.05, metadata={"help": "Spread of normalised states below this is collapse."}
    )

    RULES = (
        *RunArguments.RULES,
        at_least(1, "collapse_patience"),
        not_negative("collapse_min_rank", "collapse_min_std"),
        ("at least 4: geometry needs a few texts", ("monitor_examples",), lambda value: value >= 4),
        at_most(10**6, "monitor_examples"),
    )

    BEST_BY = ("eval_mlm_loss", "eval_mlm_accuracy", "eval_jepa_loss", "eval_loss")
