"""What the commands that train check before they do: where a run begins, and whether anything is left to train on."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import TrainingArguments

from ..configuration.recipes import RecipeParser
from ..errors import UserError
from ..trainers.checkpoints import check_recipe, resume_point
from ..trainers.main_process import main_process_first


def checkpoint_to_resume(
    training: TrainingArguments, recipe: dict[str, Any], dataclass_types: Sequence[type]
) -> Path | None:
    """Returns the checkpoint that a run goes on from, `None` where it begins.

    Args:
        training (`TrainingArguments`): Arguments with `ignore_recipe_mismatch`.
        recipe (`dict`): What was given of all arguments.
        dataclass_types (`Sequence[type]`): The command's dataclasses of arguments, for the defaults of the rest.

    Raises:
        UserError: If there is no such checkpoint, it is damaged, or another recipe made it.
    """
    with main_process_first(training):
        checkpoint = resume_point(training.output_dir, training.resume_from_checkpoint)
    if checkpoint is not None and not training.ignore_recipe_mismatch:
        parser = RecipeParser(dataclass_types)
        defaults = {name: parser.get_default(name) for name in parser.field_names}
        check_recipe(checkpoint, recipe, defaults, training.world_size)
    return checkpoint


def check_a_batch_is_left(training: TrainingArguments, num_examples: int, what: str) -> None:
    """Raises `UserError` if `dataloader_drop_last` drops all there is.

    Args:
        training (`TrainingArguments`): Arguments of the run.
        num_examples (`int`): What there is to train on.
        what (`str`): What that is called.
    """
    together = training.per_device_train_batch_size * training.world_size
    if training.dataloader_drop_last and num_examples < together:
        raise UserError(
            f"`dataloader_drop_last` drops all there is: {num_examples} {what} do not fill a batch of {together}."
        )
