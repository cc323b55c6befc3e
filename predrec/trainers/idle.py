"""Updates leave alone what they do not train."""

import torch
from transformers import Trainer, TrainerCallback

from .strategies import is_sharded


class IdleCallback(TrainerCallback):
    """Takes the gradients of idle parameters away before an update.

    They are zero, and there for data-parallel training alone. An optimizer that took them for gradients would let
    weights decay and its averages of squared gradients vanish: the first updates of a JEPA loss that sets in late
    would be twice as large as they are to be.

    Args:
        trainer ([`PredRecTrainer`]): Knows which parameters are idle.
    """

    def __init__(self, trainer: Trainer):
        self.trainer = trainer

    def on_train_begin(self, args, state, control, optimizer=None, **kwargs):
        inner = getattr(optimizer, "optimizer", optimizer)
        if is_sharded(self.trainer.accelerator) and not inner.state:
            fill_state(inner)

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        for parameter in self.trainer.idle_parameters():
            parameter.grad = None


def fill_state(optimizer: torch.optim.Optimizer) -> None:
    """Gives an optimizer that has not begun a state for every parameter, as sharded checkpoints want it.

    Args:
        optimizer (`torch.optim.Optimizer`): One whose state begins with zeros, such as Adam's.
    """
    rates = [group["lr"] for group in optimizer.param_groups]
    for group in optimizer.param_groups:
        group["lr"] = 0.0
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad()
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    for state in optimizer.state.values():
        for name, value in state.items():
            state[name] = value.zero_() if isinstance(value, torch.Tensor) else 0
