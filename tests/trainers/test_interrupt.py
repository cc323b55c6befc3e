"""Signals: what a run does with them, alone and with others, and that those who load data leave them alone."""

import os
import re
import signal
import time
from pathlib import Path

import pytest
from transformers import TrainerCallback
from transformers.trainer_callback import TrainerControl

from predrec.trainers.checkpoints import checkpoints_in
from predrec.trainers.interrupt import ECHO, InterruptCallback
from tests import training
from tests.processes import in_two_processes


class AtStep(TrainerCallback):
    """Does something in the middle of a step."""

    def __init__(self, step, action):
        self.step, self.action = step, action

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == self.step - 1:
            self.action()


def send(number):
    return lambda: os.kill(os.getpid(), number)


def interrupted(folder, action, **options):
    interrupt = InterruptCallback()
    options = {"max_steps": 12, "save_strategy": "steps", "save_steps": 100} | options
    trainer = training.trainer(folder, callbacks=[interrupt, AtStep(5, action)], **options)
    trainer.train()
    return trainer, interrupt


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_saves_and_stops_after_the_step(tmp_path, capfd, number):
    before = signal.getsignal(number)
    trainer, interrupt = interrupted(tmp_path, send(number))
    assert interrupt.signal_number == number
    assert [path.name for path in checkpoints_in(tmp_path)] == ["checkpoint-5"]
    assert trainer.state.global_step == 5
    assert f"{signal.Signals(number).name}: saving after this step" in capfd.readouterr().err
    assert signal.getsignal(number) == before


def test_second_sigterm_does_not_end_a_run_that_saves(tmp_path):
    """torchrun sends one to processes that the batch system has signalled, too."""
    interrupted(tmp_path, lambda: [send(signal.SIGTERM)() for _ in range(3)])
    assert [path.name for path in checkpoints_in(tmp_path)] == ["checkpoint-5"]


def test_second_ctrl_c_ends_at_once(tmp_path):
    def twice():
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(ECHO + 0.1)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        interrupted(tmp_path, twice)


def test_echo_of_ctrl_c_is_no_second_one(tmp_path):
    interrupted(tmp_path, lambda: [send(signal.SIGINT)() for _ in range(2)])
    assert [path.name for path in checkpoints_in(tmp_path)] == ["checkpoint-5"]


@pytest.mark.parametrize("strategy", ["best", "no"])
def test_signal_saves_whatever_else_is_saved(tmp_path, strategy):
    """Saving the best alone, the stock Trainer takes back what was asked for if an evaluation finds no better one."""
    options = {"save_strategy": strategy, "eval_strategy": "steps", "eval_steps": 1, "learning_rate": 10.0}
    interrupted(tmp_path, send(signal.SIGTERM), **options)
    assert checkpoints_in(tmp_path)[-1].name == "checkpoint-5"


@pytest.fixture(autouse=True)
def signals_as_python_begins():
    """Other tests may have left handlers: a run that fails does not come to its end, where it gives them back."""
    handlers = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def children() -> set[int]:
    """Returns the processes that this one has started; another test's workers may be among them."""
    return set(map(int, Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()))


def test_processes_that_load_data_leave_signals_to_the_run(tmp_path):
    """A batch system signals them, too; the run still needs their batches. The one that trains can end them."""
    before, workers = children(), []

    def signal_workers():
        workers.extend(children() - before)
        for worker in workers:
            os.system(f"kill -TERM {worker}; kill -INT {worker}")

    trainer = training.trainer(tmp_path, callbacks=[AtStep(5, signal_workers)], max_steps=9, dataloader_num_workers=2)
    trainer.train()
    assert len(workers) == 2
    assert trainer.state.global_step == 9


def test_worker_obeys_the_process_that_trains(tmp_path):
    workers = []

    def end_workers():
        iterator = trainer.callback_handler.train_dataloader.base_dataloader._iterator
        for worker in iterator._workers:
            worker.terminate()
            worker.join(5)
            workers.append(worker.exitcode)
        raise InterruptedError

    options = {"dataloader_num_workers": 2, "dataloader_persistent_workers": True}
    trainer = training.trainer(tmp_path, callbacks=[AtStep(3, end_workers)], max_steps=9, **options)
    with pytest.raises(InterruptedError):
        trainer.train()
    assert workers == [0, 0]


def test_no_signal_changes_nothing():
    control = TrainerControl()
    InterruptCallback().on_step_end(None, None, control)
    assert not control.should_save and not control.should_training_stop


TWO = """
import os, signal, sys, torch
from pathlib import Path
torch.set_num_threads(1)
from predrec.trainers.ending import close_connections
from tests import training
from tests.trainers.test_interrupt import AtStep, InterruptCallback, send

rank, interrupt = int(os.environ["RANK"]), InterruptCallback()
mine = AtStep(5, send(signal.SIGTERM)) if rank == 1 else AtStep(-1, None)
options = {"save_strategy": "steps", "save_steps": 100, "max_steps": 12, "per_device_train_batch_size": 4}
trainer = training.trainer(sys.argv[1] + "/run", callbacks=[interrupt, mine], **options)
trainer.train()
print(f"rank {rank} stopped at {trainer.state.global_step} by {interrupt.signal_number}\\n", end="", flush=True)
close_connections(trainer)
threads = [Path("/proc/self/task", name, "comm").read_text().strip() for name in os.listdir("/proc/self/task")]
print(f"rank {rank} leaves {sum('gloo' in name for name in threads)} of {len(threads)}\\n", end="", flush=True)
"""


@pytest.mark.slow
def test_signal_to_one_process_stops_all_after_the_same_step(tmp_path):
    printed = in_two_processes(TWO, tmp_path)
    assert {f"rank {rank} stopped at 5 by {signal.SIGTERM.value}" for rank in (0, 1)} <= set(printed.splitlines())
    assert [path.name for path in checkpoints_in(tmp_path / "run")] == ["checkpoint-5"]
    # What is left of a process group may abort the program while Python is torn down.
    assert len(re.findall(r"rank . leaves 0 of \d+", printed)) == 2, printed
