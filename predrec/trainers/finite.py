"""NaN and infinity in losses, gradients and weights: seen on the device, reported when it is read anyway."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers import TrainerCallback

from ..modeling.gathering import own_part

ADVICE = "Earlier checkpoints are intact: lower `learning_rate`, raise `warmup_steps`, or look at those examples."


class NonFiniteLossError(RuntimeError):
    """A loss, a gradient or a weight became NaN or infinite, and the run stops."""


@dataclass
class Finding:
    """What a [`FiniteGuard`] saw. Steps, and the parameter, are -1 when there was nothing.

    Args:
        loss_step (`int`): First step whose loss was not finite.
        examples (`list[int]`): Examples of that batch.
        gradient_step (`int`): First step whose gradient was not finite.
        parameter (`int`): Number, among the trainable ones, of the first parameter with such a gradient.
        skipped, longest (`int`): Updates whose gradient was not finite: of the whole run, and most of them in a row.
    """

    loss_step: int
    examples: list[int]
    gradient_step: int
    parameter: int
    skipped: int
    longest: int


class FiniteGuard:
    """Watches losses and gradients without waiting for the device.

    Args:
        batch_size (`int`): Most examples in a batch.
        device (`torch.device`): Where losses and gradients live.

    Attributes:
        bad (`torch.FloatTensor` of shape `()`): 1 if the gradient of the present update is not finite, else 0; the
            same on all processes. It is written in place, so that an optimizer can hold on to it.
    """

    COUNTS = ("loss_step", "gradient_step", "parameter", "skipped", "in_a_row", "longest")
    NOTHING = (-1, -1, -1, 0, 0, 0)

    def __init__(self, batch_size: int, device: torch.device):
        self.bad = torch.zeros((), device=device)
        self.counts = torch.tensor(self.NOTHING, device=device)
        self.examples = torch.full((batch_size,), -1, dtype=torch.int64, device=device)

    def reset(self) -> None:
        """Forgets what was seen, as when training begins anew."""
        self.bad.zero_()
        self.counts.copy_(torch.tensor(self.NOTHING))
        self.examples.fill_(-1)

    def watch_loss(self, loss: Tensor, step: int, example_ids: Tensor | None) -> None:
        """Looks at the loss of one batch, and remembers the first that is not finite."""
        loss_step = self.counts[0]
        first = ~torch.isfinite(loss.detach()) & (loss_step < 0)
        loss_step.copy_(torch.where(first, step, loss_step))
        if example_ids is not None:
            kept = self.examples[: len(example_ids)]
            kept.copy_(torch.where(first, example_ids[: len(kept)], kept))

    def watch_gradients(self, parameters: Iterable[nn.Parameter], step: int) -> None:
        """Looks at the whole gradient of one update.

        Data-parallel training has averaged it, so that one process's NaN is everyone's. Of a sharded one each process
        sees a part: then the processes tell one another.
        """
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if not gradients:
            return
        bad = not_finite(gradients)
        if any(isinstance(gradient, DTensor) for gradient in gradients):
            torch.distributed.all_reduce(bad)
        _, gradient_step, parameter, skipped, in_a_row, longest = self.counts.unbind()
        self.bad.copy_(bad.any())
        first = bad.any() & (gradient_step < 0)
        gradient_step.copy_(torch.where(first, step, gradient_step))
        parameter.copy_(torch.where(first, bad.argmax(), parameter))
        skipped += bad.any()
        in_a_row.copy_(torch.where(bad.any(), in_a_row + 1, 0))
        longest.copy_(torch.maximum(longest, in_a_row))

    def found(self, accelerator=None) -> Finding:
        """Returns what was seen, on whichever process; waits for the device."""
        seen = torch.cat([self.counts, self.examples])[None]
        rows = (seen if accelerator is None else accelerator.gather(seen)).tolist()
        with_loss = [row for row in rows if row[0] >= 0]
        first = min(with_loss, key=lambda row: row[0], default=rows[0])
        counts = dict(zip(self.COUNTS, first, strict=False))
        counts.pop("in_a_row")
        return Finding(examples=[example for example in first[len(self.COUNTS) :] if example >= 0], **counts)

    def state(self) -> dict[str, int]:
        """Returns what a resumed run must know; waits for the device."""
        return dict(zip(self.COUNTS, self.counts.tolist(), strict=True))

    def load(self, state: dict[str, int]) -> None:
        """Takes what [`FiniteGuard.state`] gave; names that are missing stay as they are."""
        known = self.state() | {name: state[name] for name in self.COUNTS if name in state}
        self.counts.copy_(torch.tensor([known[name] for name in self.COUNTS]))


def not_finite(tensors: list[Tensor]) -> Tensor:
    """Returns 1 for each tensor whose norm is NaN or infinite, else 0, `(num_tensors,)`; of sharded ones, the shard's.

    The norm is infinite from values of 10^19 on, too, which are of no more use. It costs the least to compute.
    """
    norms = torch._foreach_norm([own_part(tensor) for tensor in tensors], 2, torch.float32)
    return torch.stack(norms).isfinite().logical_not().to(torch.int32)


def not_finite_weights(model: nn.Module) -> list[str]:
    """Returns the names of weights and persistent buffers that hold NaN or infinity; waits for the device."""
    named = {name: tensor for name, tensor in model.state_dict(keep_vars=True).items() if tensor.is_floating_point()}
    bad = not_finite([tensor.detach() for tensor in named.values()])
    if any(isinstance(tensor, DTensor) for tensor in named.values()):
        torch.distributed.all_reduce(bad)
    return [name for name, flag in zip(named, bad.tolist(), strict=True) if flag]


def not_finite_spreads(loss: Tensor) -> Tensor:
    """Returns a finite loss as it is; of another, the whole gradient is NaN, and so is everyone's once averaged."""
    return loss * (1 + 0 * loss.detach())  # Infinity times zero is NaN.


def check_finite(guard: FiniteGuard, accelerator, model: nn.Module, args, step: int) -> Finding:
    """Raises [`NonFiniteLossError`] if a loss, a gradient or a weight made a run worthless.

    `non_finite` decides: "stop" accepts none, "skip" some updates in a row that were left out. A gradient scaler
    always leaves some out. Weights that are not finite are never accepted. All processes must call it; it waits for
    the device.

    Args:
        guard ([`FiniteGuard`]): What was seen.
        accelerator (`Accelerator`): Of the run.
        model (`torch.nn.Module`): The model.
        args ([`PredRecTrainingArguments`]): `non_finite` and `max_skipped_steps`.
        step (`int`): Updates done.

    Returns:
        [`Finding`]: What there was of it otherwise.
    """
    found, scaled = guard.found(accelerator), accelerator.scaler is not None
    if args.non_finite == "stop" and found.loss_step >= 0:
        raise NonFiniteLossError(
            f"The loss was not finite at step {found.loss_step}; the batch held examples {found.examples}. {ADVICE}"
        )
    if found.longest >= (args.max_skipped_steps if scaled or args.non_finite == "skip" else 1):
        trainable = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
        raise NonFiniteLossError(
            f"The gradient was not finite at {found.longest} steps in a row; first at step {found.gradient_step}, "
            f"for `{trainable[found.parameter]}`. {ADVICE}"
        )
    weights = not_finite_weights(model)
    if weights:
        raise NonFiniteLossError(f"At step {step}, `{weights[0]}` is not finite. {ADVICE}")
    return found


class SkipCallback(TrainerCallback):
    """Leaves out updates whose gradient is not finite: weights and optimizer state stay as they are.

    torch's fused optimizers look at the flag on the device, as they do for a gradient scaler. Others are asked to
    step without gradients, for which the flag is read, once per update.

    Args:
        guard ([`FiniteGuard`]): Sets the flag.
    """

    def __init__(self, guard: FiniteGuard):
        self.guard = guard
        self.reads = False

    def on_train_begin(self, args, state, control, optimizer=None, **kwargs):
        if getattr(optimizer, "scaler", None) is not None:  # It skips by itself.
            return
        inner = getattr(optimizer, "optimizer", optimizer)
        self.reads = not getattr(inner, "_step_supports_amp_scaling", False)
        if not self.reads:
            inner.found_inf = self.guard.bad

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        if self.reads and self.guard.bad:
            model.zero_grad(set_to_none=True)
