"""Ctrl-C and SIGTERM end a run after the current step, with a checkpoint."""

import signal

from transformers import TrainerCallback
from transformers.utils import logging

logger = logging.get_logger(__name__)


class InterruptCallback(TrainerCallback):
    """Saves and stops on SIGINT or SIGTERM; a second signal ends the program at once.

    Afterwards `signal_number` says which signal it was, or is `None`.
    """

    def __init__(self):
        self.signal_number: int | None = None
        self._previous: dict[int, object] = {}

    def on_train_begin(self, args, state, control, **kwargs):
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._remember)

    def _remember(self, number, frame):
        self.signal_number = number
        self.restore()
        logger.warning(
            f"{signal.Signals(number).name}: saving after this step, then stopping. Once more ends at once."
        )

    def restore(self):
        """Gives the signals back to whoever had them."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()

    def on_step_end(self, args, state, control, **kwargs):
        if self.signal_number is not None:
            control.should_save = control.should_training_stop = True

    def on_train_end(self, args, state, control, **kwargs):
        self.restore()
