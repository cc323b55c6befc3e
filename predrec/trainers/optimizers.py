"""An optimizer and a schedule that cannot be built are found out before anything is trained."""

import torch
from transformers import PreTrainedModel, Trainer, get_scheduler

from .run_args import RunArguments


def try_optimizer(args: RunArguments, model: PreTrainedModel) -> None:
    """Builds the optimizer and the schedule of the arguments for a single weight, and drops them.

    Raises:
        ImportError, RuntimeError, TypeError, ValueError: Whatever they refuse, such as a library that is missing.
    """
    kind, options = Trainer.get_optimizer_cls_and_kwargs(args, model)
    if options.keys() & {"params", "model", "optimizer_dict"}:
        return  # Made for all weights of a model at once.
    optimizer = kind([torch.nn.Parameter(torch.zeros(2, 2))], **options)
    get_scheduler(
        args.lr_scheduler_type,
        optimizer,
        num_warmup_steps=1,
        num_training_steps=10,
        scheduler_specific_kwargs=dict(args.lr_scheduler_kwargs or {}),
    )
