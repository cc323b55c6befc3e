"""The target encoder follows the context encoder after every optimizer update."""

from transformers import TrainerCallback

from ..data_collators.numbered_rows import knows_its_epoch
from .finite import FiniteGuard


def ema_decay_at(update: int, max_steps: int, start: float, end: float) -> float:
    """Returns the decay of the update with this number, counted from 1: linear from `start` towards `end`.

    The first update uses `start`; `end` would be that of the update after the last (as in I-JEPA).
    """
    return start + (end - start) * (update - 1) / max(1, max_steps)


class EMACallback(TrainerCallback):
    """Applies the exponential moving average once per optimizer update, whatever the accumulation.

    Its only state is the Trainer's global step, so a resumed run continues the schedule exactly. An update that was
    skipped, by the gradient scaler or because its gradient was not finite, does not move it.

    Args:
        guard ([`FiniteGuard`], *optional*): Knows, on the device, whether an update was skipped: a fused optimizer
            skips there, and nobody else is told.
    """

    def __init__(self, guard: FiniteGuard | None = None):
        self.guard = guard

    def on_step_end(self, args, state, control, model=None, optimizer=None, **kwargs):
        if model.active_objective == "mlm" or getattr(optimizer, "step_was_skipped", False):
            return
        decay = ema_decay_at(state.global_step, state.max_steps, args.ema_decay, args.ema_decay_end)
        may_skip = args.non_finite == "skip" or getattr(optimizer, "scaler", None) is not None
        model.update_target_encoder(decay, self.guard.bad if self.guard is not None and may_skip else None)


class ScheduleCallback(TrainerCallback):
    """Tells the model how far training is, for scheduled loss weights, and the dataset which epoch it is."""

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        self._set_progress(state, model)

    def on_epoch_begin(self, args, state, control, train_dataloader=None, **kwargs):
        # The Trainer does not call `set_epoch` after a resume in mid-epoch, nor with several processes.
        dataset = knows_its_epoch(getattr(train_dataloader, "dataset", None))
        if dataset is not None:
            dataset.set_epoch(int(state.epoch + 1e-6))

    def on_step_begin(self, args, state, control, model=None, **kwargs):
        self._set_progress(state, model)

    @staticmethod
    def _set_progress(state, model):
        model.training_progress.fill_(state.global_step / max(1, state.max_steps))
