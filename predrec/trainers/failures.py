"""What fails around a run: a process that loads data, another process of the run. Said in words, with what is left."""

import re
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import UserError
from .checkpoints import checkpoints_in

WORKER_DIED = (
    "A process that loads data died. The system may have ended it for lack of memory: use fewer "
    "`dataloader_num_workers`."
)
FAILURES = (
    (r"DataLoader worker \(pid|Pin memory thread exited", WORKER_DIED),
    (
        r"gloo|NCCL|ProcessGroup|Connection (closed|reset) by peer|[Tt]imed out",
        "Another process of the run died, or has not answered for `ddp_timeout` seconds. What it printed says more.",
    ),
)
"""What such an error says, and what it means."""


class RunFailedError(RuntimeError):
    """Something around the run failed. It can go on from its last checkpoint."""


@contextmanager
def failures_explained(output_dir: str | Path) -> Iterator[None]:
    """Turns errors of what is around a run into a [`RunFailedError`], and takes tracebacks out of a [`UserError`].

    Args:
        output_dir (`str`): Directory of the run.
    """
    try:
        yield
    except UserError as error:
        raise UserError(_own_words(error)) from error
    except RuntimeError as error:
        meaning = next((meaning for pattern, meaning in FAILURES if re.search(pattern, str(error))), None)
        if meaning is None or isinstance(error, RunFailedError):
            raise
        raise _failed(meaning, error, output_dir) from error
    except (OSError, EOFError) as error:
        if not _while_loading(error):
            raise
        # torch raises a second time where it hears of that process's end: here, and not in the words about the first.
        with suppress(RuntimeError):
            time.sleep(1)
        raise _failed(WORKER_DIED, error, output_dir) from error


def _failed(meaning: str, error: BaseException, output_dir: str | Path) -> RunFailedError:
    kept = checkpoints_in(output_dir)
    left = f"{kept[-1].name} is intact" if kept else "No checkpoint was written before"
    said = " ".join(str(error).split())[:300] or type(error).__name__
    return RunFailedError(f"{meaning} ({said}) {left}: go on with `--resume_from_checkpoint true`.")


def _while_loading(error: BaseException) -> bool:
    """Whether a batch was being fetched: its process may end in the middle of it, before torch knows."""
    return any(frame.f_code.co_name == "_try_get_data" for frame, _ in traceback.walk_tb(error.__traceback__))


def _own_words(error: UserError) -> str:
    """The message alone: one from a process that loads data comes with that process's traceback around it."""
    return str(error.args[0]).rsplit(f"{UserError.__module__}.UserError: ", 1)[-1].strip()
