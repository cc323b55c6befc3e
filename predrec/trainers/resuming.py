"""A checkpoint that cannot be taken up is an error about the checkpoint, not one of the program."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from transformers import TrainerCallback

from ..errors import UserError
from .failures import RunFailedError


class BegunCallback(TrainerCallback):
    """Knows whether the first update has begun: until then, what fails is the taking up of a checkpoint."""

    def __init__(self):
        self.begun = False

    def on_step_begin(self, args, state, control, **kwargs):
        self.begun = True


@contextmanager
def resume_errors_explained(checkpoint: Path | None, callback: BegunCallback) -> Iterator[None]:
    """Turns what is raised while a checkpoint is taken up into a [`UserError`] that names it."""
    try:
        yield
    except (UserError, RunFailedError):
        raise
    except Exception as error:
        if checkpoint is None or callback.begun:
            raise
        raise UserError(
            f"`resume_from_checkpoint`: cannot go on from {str(checkpoint)!r}: {type(error).__name__}: {error}. Use "
            "an earlier checkpoint."
        ) from error
