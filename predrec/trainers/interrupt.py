"""Ctrl-C and SIGTERM end a run after the current step, with a checkpoint, on all processes after the same step."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta

import torch
import torch.distributed as dist
from transformers import TrainerCallback

SIGNALS = (signal.SIGINT, signal.SIGTERM)

ECHO = 1.0
"""Seconds within which a second Ctrl-C is that of a launcher, which passes the first one on."""


def start_worker(worker_id: int, begin: Callable[[int], None] | None = None) -> None:
    """Begins a process that loads data: it leaves signals to the one that trains, which still needs its batches.

    Args:
        worker_id (`int`): Its number.
        begin (`Callable`, *optional*): What else it does at first.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.excepthook = _unless_parent_is_gone
    if hasattr(signal, "sigwaitinfo"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_obey_parent, args=(os.getppid(),), daemon=True).start()
    if begin is not None:
        begin(worker_id)


def _unless_parent_is_gone(kind, error, trace):
    """Reports an error, unless it is that the process that trains no longer fetches a batch that it was promised."""
    if not issubclass(kind, ConnectionError | EOFError):
        sys.__excepthook__(kind, error, trace)


def _obey_parent(parent: int) -> None:
    """Waits for the SIGTERM of the process that trains, with which it ends workers that do not end themselves."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)


class InterruptCallback(TrainerCallback):
    """Saves and stops on SIGINT or SIGTERM. Afterwards `signal_number` says which signal it was, or is `None`.

    Signals reach the processes of a run at different moments, or some of them only: after every step they tell one
    another, through the CPU, so that all of them stop after the same one. A second Ctrl-C ends the program at once. A
    second SIGTERM is ignored: launchers that are stopped send one to processes that have had theirs from the batch
    system, and who cannot wait has SIGKILL.
    """

    def __init__(self):
        self.signal_number: int | None = None
        self._since = 0.0
        self._previous: dict[int, object] = {}
        self._group: dist.ProcessGroup | None = None

    def on_train_begin(self, args, state, control, **kwargs):
        if args.world_size > 1 and self._group is None:
            self._group = dist.new_group(backend="gloo", timeout=timedelta(seconds=args.ddp_timeout))
        for number in SIGNALS:
            self._previous[number] = signal.signal(number, self._remember)

    def _remember(self, number, frame):
        if self.signal_number is None:
            self.signal_number, self._since = number, time.monotonic()
            message = f"{signal.Signals(number).name}: saving after this step, then stopping. Ctrl-C ends at once.\n"
            # Not the logger: the signal may have come in the middle of a write to the same stream.
            with suppress(OSError):
                os.write(2, message.encode())
        elif number == signal.SIGINT and time.monotonic() - self._since > ECHO:
            self.restore()
            signal.raise_signal(number)

    def restore(self):
        """Gives the signals back to whoever had them."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()

    def _agree(self):
        if self._group is not None:
            number = torch.tensor(self.signal_number or 0)
            dist.all_reduce(number, op=dist.ReduceOp.MAX, group=self._group)
            self.signal_number = int(number) or None

    def on_step_end(self, args, state, control, **kwargs):
        self._agree()
        if self.signal_number is not None:
            control.should_save = control.should_training_stop = True

    def on_train_end(self, args, state, control, **kwargs):
        self._agree()
        self.restore()
        if self._group is not None:
            # What is left to the end of the program may abort it: threads of a group hold tensors for a moment longer.
            dist.destroy_process_group(self._group)
            self._group = None
