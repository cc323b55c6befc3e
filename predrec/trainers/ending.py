"""The end of a program that trained on several processes."""

import gc

from accelerate import PartialState
from transformers import Trainer


def close_connections(trainer: Trainer | None = None) -> None:
    """Waits for all processes and closes the connections between them. The program may end at any moment afterwards.

    Whatever still holds a process group keeps its threads, and a thread that gives back a tensor while Python is being
    torn down [aborts the program](https://github.com/pytorch/pytorch/pull/179291), long after all was saved.
    `Accelerator.end_training` alone leaves the group to the wrapper of the model.

    Args:
        trainer (`Trainer`, *optional*): Has trained and is still held by somebody: it loses the wrapper of its model.
    """
    state = PartialState()
    state.wait_for_everyone()
    if trainer is not None:
        trainer.model_wrapped = trainer.callback_handler.model = trainer.model
        trainer.accelerator.free_memory()
        trainer.accelerator.end_training()
    gc.collect()
    state.destroy_process_group()
