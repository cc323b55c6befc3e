"""Training arguments of every objective: what the stock class has wrong for them, and the checks."""

import os
from dataclasses import dataclass, field
from typing import Literal

import torch
from transformers import TrainingArguments
from transformers.trainer_utils import HubStrategy

from ..configuration.switches import switch_or_text
from ..rules import at_least, at_most, check_choices, check_values, not_negative, positive, share, share_below_one

FIXED = {
    "remove_unused_columns": (False, "the collator needs example numbers and epochs"),
    "label_smoothing_factor": (0.0, "the model computes its own loss"),
    "prediction_loss_only": (True, "evaluation returns no predictions"),
    "bf16_full_eval": (False, "evaluation runs under the same autocast as training"),
    "fp16_full_eval": (False, "evaluation runs under the same autocast as training"),
    "hub_strategy": (HubStrategy.END, "what is pushed is the finished model"),
    "hub_always_push": (False, "what is pushed is the finished model"),
    "load_best_model_at_end": (False, "what is exported is the last step; the best one is kept as a checkpoint"),
    "do_predict": (False, "there are no predictions: `evaluate` of the Python class takes any rows"),
    "batch_eval_metrics": (False, "evaluation returns no predictions"),
    "include_for_metrics": ([], "evaluation returns no predictions"),
    "eval_accumulation_steps": (None, "evaluation returns no predictions"),
    "neftune_noise_alpha": (None, "its noise is scaled for padded rows, and was not tried with these objectives"),
    "label_names": (None, "the model computes its own loss"),
    "average_tokens_across_devices": (True, "losses are means over all processes' tokens"),
}
"""Arguments of the stock class that would be without effect here, their only value, and why."""


@dataclass
class RunArguments(TrainingArguments):
    """`TrainingArguments` with these other defaults, and what all methods have in common.

    | argument | here | there | why |
    |---|---|---|---|
    | `output_dir` | required | trainer_output | two runs never meet by accident |
    | `use_cpu` | where there is no accelerator | False | bf16 is refused there without it |
    | `remove_unused_columns` | False | True | the collator needs example numbers |
    | `logging_nan_inf_filter` | False | True | it hides NaN, and waits for the device at every step |
    | `logging_steps` | 10 | 500 | runs are short enough to be watched |
    | `eval_strategy` | steps | no | what is not watched collapses unseen |
    | `save_total_limit` | 2 | none | best and last are kept |
    | `prediction_loss_only` | True | False | latents and logits are not to be gathered |
    | `ddp_find_unused_parameters` | False | none | every trainable parameter gets a gradient |
    | `ddp_broadcast_buffers` | False | none | tables and moments are the same on every process by themselves |
    | `hub_strategy` | end | every_save | what is pushed is the finished model, not a training checkpoint |
    """

    output_dir: str | None = field(default=None, metadata={"help": "Where checkpoints and the trained model go."})
    logging_steps: float = field(default=10, metadata={"help": "Updates between two log lines."})
    logging_nan_inf_filter: bool = field(default=False, metadata={"help": "Hide NaN and infinity from the log."})
    eval_strategy: str = field(default="steps", metadata={"help": "When to evaluate: steps, epoch or no."})
    save_total_limit: int | None = field(default=2, metadata={"help": "Checkpoints to keep, the best among them."})
    metric_for_best_model: str | None = field(default=None, metadata={"help": "Decides which is best."})
    prediction_loss_only: bool = field(default=True, metadata={"help": "Return no predictions from evaluation."})
    remove_unused_columns: bool = field(default=False, metadata={"help": "Must stay False for the collator."})
    ddp_find_unused_parameters: bool | None = field(default=False, metadata={"help": "Search for unused weights."})
    ddp_broadcast_buffers: bool | None = field(default=False, metadata={"help": "Send buffers with every batch."})
    hub_strategy: str = field(default="end", metadata={"help": "Only the finished model is pushed: end."})
    ema_decay: float = field(default=0.996, metadata={"help": "Decay of the target encoder at the start."})
    ema_decay_end: float = field(default=1.0, metadata={"help": "Decay at the end; linear in between."})
    non_finite: Literal["stop", "skip"] = field(
        default="stop",
        metadata={"help": "On NaN or infinity in a loss or a gradient: stop, or skip that update and count it."},
    )
    max_skipped_steps: int = field(
        default=10, metadata={"help": "Skipped updates in a row that end the run, those of fp16 included."}
    )
    num_threads: int | None = field(
        default=None, metadata={"help": "CPU threads per process; all cores, shared among the processes, if absent."}
    )
    ignore_recipe_mismatch: bool = field(
        default=False, metadata={"help": "Resume although the checkpoint was trained with another recipe."}
    )

    RULES = (
        share("ema_decay", "ema_decay_end"),
        at_least(1, "per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps"),
        at_least(1, "num_threads", "max_skipped_steps"),
        positive("learning_rate", "adam_epsilon", "num_train_epochs", "logging_steps", "eval_steps", "save_steps"),
        not_negative("weight_decay", "max_grad_norm", "warmup_steps", "seed", "data_seed", "dataloader_num_workers"),
        ("positive, or -1 to go by epochs", ("max_steps",), lambda value: value == -1 or value > 0),
        ("at least 1, or 0 to keep all", ("save_total_limit",), lambda value: value >= 0),
        share_below_one("adam_beta1", "adam_beta2"),
        ("below 2**32", ("seed", "data_seed"), lambda value: value < 2**32),
        at_most(1024, "num_threads", "dataloader_num_workers"),
        at_most(10**6, "per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps"),
        at_most(10**6, "num_train_epochs"),
        at_most(10**9, "max_steps"),
    )
    """What values must be."""

    BEST_BY = ("eval_loss",)
    """Metrics that may decide which checkpoint is the best."""

    def __post_init__(self):
        if not self.output_dir:
            raise ValueError("`output_dir` is missing: say where checkpoints and the trained model go.")
        self.resume_from_checkpoint = switch_or_text(self.resume_from_checkpoint)  # True means the newest one.
        self.fsdp = switch_or_text(self.fsdp)
        # Without this, the stock class refuses bf16 on machines that have nothing but a CPU.
        self.use_cpu = self.use_cpu or not torch.accelerator.is_available()
        compiler = os.environ.get("ACCELERATE_DYNAMO_BACKEND", "no").lower()
        if compiler != "no" and not (self.torch_compile or self.torch_compile_backend or self.torch_compile_mode):
            # `accelerate launch --dynamo_backend`, or accelerate's configuration: it compiles all the same.
            self.torch_compile, self.torch_compile_backend = True, compiler
            self.torch_compile_mode = os.environ.get("ACCELERATE_DYNAMO_MODE")
        super().__post_init__()
        if self.torch_compile and self.device.type == "cuda":
            # The stock class allows TF32, which reaches what is in float32 on purpose, and by torch's newer switch,
            # at which the compiler's older question raises.
            torch.set_float32_matmul_precision("high" if self.tf32 else "highest")
        # A batch has tensors that are not one row per example: it cannot be cut in pieces for other processes.
        self.accelerator_config.dispatch_batches = False
        # Otherwise every tensor of every batch waits for the device.
        self.accelerator_config.non_blocking = self.dataloader_pin_memory
        if self.accelerator_config.split_batches:
            raise ValueError("`accelerator_config`: `split_batches` must be false: a batch cannot be cut in pieces.")
        self._check()

    def __getstate__(self):
        # Checkpoints hold a pickle of the arguments, and the token is not to lie around.
        return self.__dict__ | {"hub_token": None}

    def _check(self):
        check_choices(self)
        check_values(self, self.RULES)
        for name, (only, reason) in FIXED.items():
            if getattr(self, name) != only:
                raise ValueError(f"`{name}` must be {str(getattr(only, 'value', only)).lower()}: {reason}.")
        if self.metric_for_best_model not in (None, *self.BEST_BY):
            known = ", ".join(self.BEST_BY)
            raise ValueError(f"`metric_for_best_model` is {self.metric_for_best_model!r}; it must be one of {known}.")
        if self.fsdp and self.use_cpu:
            raise ValueError("`fsdp` needs GPUs: on CPUs, accelerate trains copies and shards nothing. Leave it out.")
        if self.fp16 and self.use_cpu:
            raise ValueError("`fp16` needs a GPU: use `bf16` on a CPU.")
