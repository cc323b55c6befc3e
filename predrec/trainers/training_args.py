"""Training arguments: the paper's values, the EMA, the collapse monitor."""

from dataclasses import dataclass, field
from typing import Literal

import torch
from transformers import TrainingArguments
from transformers.trainer_utils import IntervalStrategy, SaveStrategy


@dataclass
class PredRecTrainingArguments(TrainingArguments):
    """`TrainingArguments` with these other defaults, and the arguments of the method.

    | argument | here | there | why |
    |---|---|---|---|
    | `learning_rate`, `weight_decay`, `lr_scheduler_type`, `warmup_steps` | 5e-5, 0.05, cosine, 10 | 5e-5, 0, linear, 0 | the paper, Table 1 |
    | `per_device_train_batch_size`, `num_train_epochs` | 64, 3 | 8, 3 | the paper, Table 1 |
    | `remove_unused_columns` | False | True | the collator needs example numbers and epochs |
    | `logging_nan_inf_filter` | False | True | it hides NaN, and waits for the device at every step |
    | `logging_steps` | 10 | 500 | runs are short enough to be watched |
    | `eval_strategy`, `eval_steps` | steps, 500 | no, none | the monitor needs evaluations |
    | `save_total_limit`, `metric_for_best_model`, `greater_is_better` | 2, `eval_mlm_loss`, False | none | best and last are kept; `eval_loss` moves with lambda |
    | `prediction_loss_only` | True | False | latents and logits are not to be gathered |
    | `ddp_find_unused_parameters` | False | none | every trainable parameter gets a gradient |
    """  # noqa: E501 - a table row is a line

    output_dir: str | None = field(default=None, metadata={"help": "Where checkpoints and the trained encoder go."})
    per_device_train_batch_size: int = field(default=64, metadata={"help": "Rows per device and step."})
    per_device_eval_batch_size: int = field(default=64, metadata={"help": "Rows per device and evaluation step."})
    learning_rate: float = field(default=5e-5, metadata={"help": "Peak learning rate."})
    weight_decay: float = field(default=0.05, metadata={"help": "Weight decay of matrices; vectors have none."})
    lr_scheduler_type: str = field(default="cosine", metadata={"help": "Learning-rate schedule."})
    warmup_steps: float = field(default=10, metadata={"help": "Warm-up steps; below 1, a share of all steps."})
    logging_steps: float = field(default=10, metadata={"help": "Updates between two log lines."})
    logging_nan_inf_filter: bool = field(default=False, metadata={"help": "Hide NaN and infinity from the log."})
    eval_strategy: str = field(default="steps", metadata={"help": "When to evaluate: steps, epoch or no."})
    eval_steps: float | None = field(default=500, metadata={"help": "Updates between two evaluations."})
    save_total_limit: int | None = field(default=2, metadata={"help": "Checkpoints to keep, the best among them."})
    metric_for_best_model: str | None = field(default="eval_mlm_loss", metadata={"help": "Decides which is best."})
    greater_is_better: bool | None = field(default=False, metadata={"help": "Whether more of it is better."})
    prediction_loss_only: bool = field(default=True, metadata={"help": "Return no predictions from evaluation."})
    remove_unused_columns: bool = field(default=False, metadata={"help": "Must stay False for the collator."})
    ddp_find_unused_parameters: bool | None = field(default=False, metadata={"help": "Search for unused weights."})

    ema_decay: float = field(default=0.996, metadata={"help": "Decay of the target encoder at the start."})
    ema_decay_end: float = field(default=1.0, metadata={"help": "Decay at the end; linear in between."})
    monitor_examples: int = field(default=64, metadata={"help": "Held-out rows that the collapse monitor looks at."})
    collapse_action: Literal["warn", "stop", "switch"] = field(
        default="warn", metadata={"help": "On collapse: warn, stop, or switch a hybrid run to mlm."}
    )
    collapse_patience: int = field(default=2, metadata={"help": "Evaluations in a row that must show collapse."})
    collapse_min_rank: float = field(
        default=0.02, metadata={"help": "Least effective rank, as a share of the largest possible one."}
    )
    collapse_min_std: float = field(
        default=0.05, metadata={"help": "Least spread of the normalised states of different texts."}
    )
    num_threads: int | None = field(
        default=None, metadata={"help": "CPU threads per process; all cores, shared among the processes, if absent."}
    )
    ignore_recipe_mismatch: bool = field(
        default=False, metadata={"help": "Resume although the checkpoint was trained with another recipe."}
    )

    def __post_init__(self):
        if not self.output_dir:
            raise ValueError("`output_dir` is missing: say where checkpoints and the trained encoder go.")
        # The command line parses both as text; "true" means the newest checkpoint.
        if isinstance(self.resume_from_checkpoint, str) and self.resume_from_checkpoint.lower() in ("true", "false"):
            self.resume_from_checkpoint = self.resume_from_checkpoint.lower() == "true"
        # Without this, the stock class refuses bf16 on machines that have nothing but a CPU.
        self.use_cpu = self.use_cpu or not torch.accelerator.is_available()
        super().__post_init__()
        self._check()

    def _check(self):
        for name in ("ema_decay", "ema_decay_end"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"`{name}` is {getattr(self, name)}; it must lie in [0, 1].")
        for name in (
            "per_device_train_batch_size",
            "per_device_eval_batch_size",
            "gradient_accumulation_steps",
            "collapse_patience",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` is {getattr(self, name)}; it must be at least 1.")
        for name in ("learning_rate", "num_train_epochs"):
            if not getattr(self, name) > 0:
                raise ValueError(f"`{name}` is {getattr(self, name)}; it must be positive.")
        if self.max_steps == 0 or self.max_steps < -1:
            raise ValueError(f"`max_steps` is {self.max_steps}; it must be positive, or -1 to go by epochs.")
        if self.weight_decay < 0:
            raise ValueError(f"`weight_decay` is {self.weight_decay}; it must not be negative.")
        if self.monitor_examples < 4:
            raise ValueError(f"`monitor_examples` is {self.monitor_examples}; geometry needs at least 4 texts.")
        if self.num_threads is not None and self.num_threads < 1:
            raise ValueError(f"`num_threads` is {self.num_threads}; it must be at least 1.")
        if self.remove_unused_columns:
            raise ValueError("`remove_unused_columns` must be false: the collator needs example numbers and epochs.")
        by_steps = self.eval_strategy == IntervalStrategy.STEPS and self.save_strategy == SaveStrategy.STEPS
        if by_steps and self.eval_steps >= 1 and self.save_steps % self.eval_steps:
            raise ValueError(
                f"`save_steps` ({self.save_steps}) is not a multiple of `eval_steps` ({self.eval_steps}): the best "
                "step could not be kept."
            )
