"""Runs of the real command, each in a process of its own that can be killed.

They are forked from a process that has imported everything and computed nothing, so that one begins in milliseconds.
"""

import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from transformers.trainer_callback import CallbackHandler

from predrec.commands.pretrain import main
from predrec.trainers.checkpoints import checkpoint_step, checkpoints_in

MAX_STEPS = 24
SAVE_STEPS = 3
WORDS = (
    *("--hidden_size", "16", "--num_hidden_layers", "2", "--num_attention_heads", "2", "--intermediate_size", "32"),
    *("--predictor_num_hidden_layers", "1", "--max_seq_length", "32", "--min_context_tokens", "4"),
    *("--tokenizer_name", "tokenizer", "--num_threads", "1", "--disable_tqdm", "true"),
    *("--max_steps", str(MAX_STEPS), "--save_steps", str(SAVE_STEPS), "--save_total_limit", "3"),
    *("--logging_steps", "1", "--eval_steps", "6", "--monitor_examples", "4", "--validation_share", "0.1"),
    *("--per_device_train_batch_size", "4", "--learning_rate", "1e-3"),
)
"""A run of two or three seconds with eight saves."""

TIMES = ("second", "time")
"""Parts of the names of logged values that depend on how fast the machine is."""

Prepare = Callable[[], object]


@dataclass
class Run:
    """A run that has been started.

    Args:
        pid (`int`): Its process.
        folder (`Path`): Where it runs: its output is in `run`, what it prints in `log.txt`.
    """

    pid: int
    folder: Path
    code: int | None = None
    step: int = 0

    @property
    def output(self) -> Path:
        return self.folder / "run"

    @property
    def log(self) -> str:
        return (self.folder / "log.txt").read_text(encoding="utf-8", errors="replace")

    def poll(self) -> bool:
        """Looks whether it has ended, and how far it is; returns whether it runs."""
        self.step = max(self.step, _read(self.folder / f"progress-{self.pid}"))
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
                self.step = max(self.step, _read(self.folder / f"progress-{self.pid}"))
        return self.code is None

    def wait(self, seconds: float = 120, until: Callable[[], bool] = lambda: False) -> bool:
        """Waits until it has ended, or for something; returns whether it has ended. Too long is an error."""
        deadline = time.monotonic() + seconds
        while self.poll() and not until():
            if time.monotonic() > deadline:
                os.kill(self.pid, signal.SIGKILL)
                raise TimeoutError(f"The run in {self.folder} did not end in {seconds} seconds:\n{self.log[-3000:]}")
            time.sleep(0.0005)
        return self.code is not None

    def kill_after(self, seconds: float, step: int = 0) -> None:
        """Sends SIGKILL so long after an update, or after the start."""
        self.wait(until=lambda: self.step >= step)
        seen = time.monotonic()
        self.wait(until=lambda: time.monotonic() - seen > seconds)
        self.send(signal.SIGKILL)
        self.wait()

    def send(self, number: int) -> None:
        if self.poll():
            os.kill(self.pid, number)


def start(folder: Path, *words: str, prepare: Prepare = lambda: None, **environment: str) -> Run:
    """Starts the command in a folder.

    Args:
        folder (`Path`): The folder; `corpus.txt` and `tokenizer` are there.
        words (`str`): Added to the command's words.
        prepare (`Callable`): Called in the new process, before the command.
        environment (`str`): Variables to set.
    """
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        _become(folder, [*WORDS, "--train_file", "corpus.txt", "--output_dir", "run", *words], prepare, environment)
    return Run(pid, folder)


def go_on(folder: Path, *words: str) -> Run:
    """Goes on with the run in a folder, and waits until it has ended."""
    run = start(folder, *words, "--resume_from_checkpoint", "true")
    run.wait()
    return run


def _become(folder: Path, words: list[str], prepare: Prepare, environment: dict[str, str]) -> None:
    code = 1
    try:
        os.chdir(folder)
        log = os.open("log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.environ.update(environment)
        _report_progress(folder / f"progress-{os.getpid()}")
        prepare()
        code = main(words)
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def _report_progress(path: Path) -> None:
    """Writes the number of every finished update into a file."""
    original, handle = CallbackHandler.on_step_end, os.open(path, os.O_WRONLY | os.O_CREAT)

    def on_step_end(self, args, state, control):
        result = original(self, args, state, control)
        os.pwrite(handle, b"%08d" % state.global_step, 0)
        return result

    CallbackHandler.on_step_end = on_step_end


def _read(path: Path) -> int:
    return int(path.read_text() or 0) if path.is_file() else 0


def newest_step(folder: Path) -> int:
    """Returns the step of the newest checkpoint of the run in a folder, or 0."""
    return max(map(checkpoint_step, checkpoints_in(folder / "run")), default=0)


def half_made(folder: Path) -> list[str]:
    """Returns the names of checkpoints that are being made, replaced or deleted at this moment."""
    return [path.name for path in (folder / "run").glob(".checkpoint-*")]


def history(folder: Path) -> list[dict[str, float]]:
    """Returns what the run has logged, without what depends on the machine's speed."""
    state = json.loads((folder / "run" / f"checkpoint-{MAX_STEPS}" / "trainer_state.json").read_text(encoding="utf-8"))
    return [
        {name: value for name, value in entry.items() if not any(part in name for part in TIMES)}
        for entry in state["log_history"]
    ]
