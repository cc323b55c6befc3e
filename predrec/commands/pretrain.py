"""Pre-train a text encoder from a recipe: `accelerate launch scripts/pretrain.py recipes/quickstart.yaml`."""

import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import set_seed
from transformers.trainer_utils import IntervalStrategy
from transformers.utils import logging

from ..configuration import DataArguments, ModelArguments, parse_recipe, write_recipe
from ..data_collators import TokenRows
from ..errors import UserError
from ..modeling import PredRecForPreTraining
from ..trainers import PredRecTrainer, PredRecTrainingArguments
from ..trainers.arguments_together import check_together
from ..trainers.checkpoints import check_data, checkpoints_in, write_errors_explained
from ..trainers.cpu import keep_freed_memory, use_all_cores
from ..trainers.disk import estimate, free_bytes
from ..trainers.ending import close_connections
from ..trainers.export import EXPORT_STAGING
from ..trainers.failures import failures_explained
from ..trainers.interrupt import InterruptCallback
from ..trainers.main_process import main_process_first
from ..trainers.optimizers import try_optimizer
from ..trainers.resuming import BegunCallback, resume_errors_explained
from ..trainers.slow import slow_choices
from ..trainers.trained_weights import check_fits
from .beginning import check_a_batch_is_left, checkpoint_to_resume
from .entry import command
from .invocation import next_command, typed_folder, without_secrets
from .pretraining_parts import build_collator, build_model, describe, load_data, prepare_rows, prepare_tokenizer

logger = logging.get_logger(__name__)

ARGUMENTS = (DataArguments, ModelArguments, PredRecTrainingArguments)


@command
def main(argv: list[str]) -> int:
    """Runs the command; returns its exit code: 0, 1 for a run that failed, 2 for what the user can mend."""
    (data, model, training), recipe = parse_recipe(argv, ARGUMENTS)
    return pretrain(data, model, training, recipe, argv)


def pretrain(
    data: DataArguments,
    model_arguments: ModelArguments,
    training: PredRecTrainingArguments,
    recipe: dict[str, Any],
    argv: Sequence[str],
) -> int:
    """Trains from parsed arguments and leaves a complete output directory; returns the exit code."""
    check_together(data, model_arguments, training)
    for name in ("do_train", "do_eval"):
        if recipe.get(name) is False:
            raise UserError(f"`{name}` cannot be false: this command trains. To evaluate nothing: `eval_strategy no`.")
    checkpoint = checkpoint_to_resume(training, recipe, ARGUMENTS)
    started = time.perf_counter()
    use_all_cores(training.num_threads)
    encoder_config = model_arguments.loaded_encoder_config() if model_arguments.init_from else None
    set_seed(training.seed)
    with main_process_first(training):
        corpus = load_data(data, training.seed)
        tokenizer = prepare_tokenizer(data, model_arguments, corpus, checkpoint)
        train_rows, eval_rows = prepare_rows(data, corpus, tokenizer)
    fingerprint = train_rows.fingerprint() if isinstance(train_rows, TokenRows) else None
    if checkpoint is not None and not training.ignore_recipe_mismatch:
        check_data(checkpoint, fingerprint)
    if isinstance(train_rows, TokenRows):
        check_a_batch_is_left(training, len(train_rows), "rows")
    facts = describe(corpus, train_rows, eval_rows, tokenizer)
    if training.device.type == "cpu":
        # Only now: what preparing the data has freed is not to be kept.
        keep_freed_memory()
    interrupt, begun = InterruptCallback(), BegunCallback()
    # What goes wrong from here on is a combination of arguments, or a library that one of them needs.
    with refused_as_user_error():
        model = build_model(model_arguments, data, tokenizer, encoder_config)
        try_optimizer(training, model)
        if checkpoint is not None:
            check_fits(checkpoint, model)
        trainer = PredRecTrainer(
            model=model,
            args=training,
            data_collator=build_collator(data, model_arguments, training, tokenizer),
            train_dataset=train_rows,
            eval_dataset=None if training.eval_strategy == IntervalStrategy.NO else eval_rows,
            processing_class=tokenizer,
            callbacks=[interrupt, begun],
            recipe=recipe,
            card_facts=facts,
            data_fingerprint=fingerprint,
        )
    for slow in slow_choices(trainer, data.isolate_documents):
        logger.warning(slow)
    if trainer.is_world_process_zero():
        announce(trainer, facts)
    with failures_explained(training.output_dir):
        try:
            with resume_errors_explained(checkpoint, begun), failures_explained(training.output_dir):
                trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        finally:
            interrupt.restore()  # Training that fails does not get to its end, where it would.
        if interrupt.signal_number is None:
            finish(trainer, recipe)
        # A launcher ends all processes when one has ended with an error code, and the first may still be saving.
        trainer.accelerator.wait_for_everyone()
    close_connections(trainer)
    if interrupt.signal_number is not None:
        if trainer.is_world_process_zero():
            print(f"stopped at step {trainer.state.global_step}; go on with:\n  {_again(argv)}")
        return 128 + interrupt.signal_number
    if trainer.is_world_process_zero():
        print(_farewell(trainer, argv, time.perf_counter() - started))
    return 0


@contextmanager
def refused_as_user_error() -> Iterator[None]:
    """Turns what libraries raise for arguments they cannot follow into a [`UserError`] with their own words."""
    try:
        yield
    except UserError:
        raise
    except (ValueError, TypeError, RuntimeError, ImportError, AttributeError, LookupError, OSError) as error:
        kind = "" if isinstance(error, ValueError | RuntimeError | OSError) else f"{type(error).__name__}: "
        raise UserError(f"The model or the trainer refuses these arguments: {kind}{error}") from error


def announce(trainer: PredRecTrainer, facts: dict[str, str]) -> None:
    """Prints what is about to be trained, on what, and how much of the disk it will take."""
    rows, model = trainer.train_dataset, trainer.model
    disk = estimate(trainer.args, model, trainer.processing_class, len(rows) if isinstance(rows, TokenRows) else None)
    free = free_bytes(trainer.args.output_dir)
    more = {"model": _size(model), "threads": str(torch.get_num_threads()), "output_dir": disk.describe(free)}
    for name, value in (facts | more).items():
        print(f"{name}: {value}", flush=True)


def finish(trainer: PredRecTrainer, recipe: dict[str, Any]) -> None:
    """Turns the root of the output directory into the trained encoder, with its card, curves and recipe."""
    output_dir = Path(trainer.args.output_dir)
    trainer.save_model()
    with write_errors_explained("the model card, curves and recipe", output_dir, output_dir / EXPORT_STAGING):
        if trainer.args.should_save:
            write_recipe(output_dir / "recipe.yaml", recipe, "predrec recipe of this run")
        trainer.create_model_card()
    if trainer.args.push_to_hub:
        trainer.push_to_hub()


def _size(model: PredRecForPreTraining) -> str:
    def millions(module) -> str:
        return f"{sum(parameter.numel() for parameter in module.parameters()) / 1e6:.1f} M"

    parts = {"encoder": model.encoder, "with its head": model.masked_lm, "predictor": model.predictor}
    return ", ".join(f"{name} {millions(part)}" for name, part in parts.items() if part is not None) + " parameters"


def _command(argv: Sequence[str], *more: str) -> str:
    """Returns the command line to type: this one, without secrets, and `more`."""
    words = shlex.join([*without_secrets(argv), *more])
    return f"{next_command('pretrain', 'accelerate launch scripts/pretrain.py')} {words}"


def _again(argv: Sequence[str]) -> str:
    """Returns the command line that goes on with this run."""
    goes_on = ["--resume_from_checkpoint", "true"]
    return _command(argv, *([] if list(argv[-2:]) == goes_on else goes_on))


def _farewell(trainer: PredRecTrainer, argv: Sequence[str], seconds: float) -> str:
    output_dir = trainer.args.output_dir
    recipe = argv[0] if argv and not argv[0].startswith("-") else "recipes/quickstart.yaml"
    mask = trainer.processing_class.mask_token
    fill = f"pipeline('fill-mask', '{output_dir}')('return the {mask} of the list')"
    checkpoints = f"\n{output_dir}/checkpoint-*/  best and last step, to resume from"
    return f"""
trained in {seconds:.0f} s

{output_dir}/            the trained encoder, its tokenizer and README.md
{output_dir}/training_curves.png{checkpoints if checkpoints_in(output_dir) else ""}

next:
  {typed_folder()}python -c "import predrec; from transformers import pipeline; print({fill})"
  {_command([f"{output_dir}/recipe.yaml", "--objective", "mlm", "--output_dir", f"{output_dir}-mlm"])}
  {_command([recipe, "--train_file", "my_text.txt", "--output_dir", "outputs/mine"])}
"""


if __name__ == "__main__":
    sys.exit(main())
