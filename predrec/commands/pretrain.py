"""Pre-train a text encoder from a recipe: `accelerate launch scripts/pretrain.py recipes/quickstart.yaml`."""

import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedConfig, PreTrainedTokenizerBase, set_seed
from transformers.trainer_utils import IntervalStrategy
from transformers.utils import logging

from ..configuration import DataArguments, ModelArguments, parse_recipe, write_recipe
from ..configuration.needs import NEEDS_OF_CHOICES
from ..configuration.recipes import RecipeParser
from ..data_collators import (
    Corpus,
    DataCollatorForPreTraining,
    DocumentRows,
    IsolatedRows,
    PackedRows,
    StreamedRows,
    TokenRows,
    load_corpus,
    load_tokenizer,
    sample_documents,
    tokenize_documents,
    train_tokenizer,
)
from ..data_collators.masked_tokens import special_token_table
from ..errors import UserError
from ..modeling import PredRecForPreTraining
from ..modeling.encoders import ENCODERS, position_limit
from ..rules import unmet_needs
from ..trainers import PredRecTrainer, PredRecTrainingArguments
from ..trainers.best import check_evaluations
from ..trainers.checkpoints import (
    check_data,
    check_recipe,
    checkpoints_in,
    resume_point,
    write_errors_explained,
)
from ..trainers.cpu import keep_freed_memory, use_all_cores
from ..trainers.disk import estimate, free_bytes
from ..trainers.ending import close_connections
from ..trainers.export import EXPORT_STAGING
from ..trainers.failures import failures_explained
from ..trainers.interrupt import InterruptCallback
from ..trainers.main_process import main_process_first
from ..trainers.model_size import check_memory
from ..trainers.optimizers import try_optimizer
from ..trainers.resuming import BegunCallback, resume_errors_explained
from ..trainers.slow import slow_choices
from ..trainers.trained_weights import check_fits, load_masked_lm
from .entry import command
from .invocation import next_command, typed_folder, without_secrets

logger = logging.get_logger(__name__)

ARGUMENTS = (DataArguments, ModelArguments, PredRecTrainingArguments)
DEFAULT_VOCAB_SIZE = 30522


@command
def main(argv: list[str]) -> int:
    """Runs the command; returns its exit code: 0, 1 for a run that failed, 2 for what the user can mend."""
    (data, model, training), recipe = parse_recipe(argv, ARGUMENTS)
    return pretrain(data, model, training, recipe, argv)


def check_together(data: DataArguments, model: ModelArguments, training: PredRecTrainingArguments) -> None:
    """Refuses, before anything is loaded, combinations that no single group of arguments can see."""
    if not (data.tokenizer_name or data.train_tokenizer or model.init_from):
        raise UserError("`tokenizer_name` is missing: give a Hub id or a directory, or pass `--train_tokenizer`.")
    if data.vocab_size and not data.train_tokenizer:
        raise UserError("`vocab_size` sizes a trained tokenizer: add `--train_tokenizer`, or drop it.")
    if data.train_tokenizer and model.init_from:
        raise UserError("`train_tokenizer` would not fit the vocabulary of `init_from`: drop one of them.")
    if data.padding_is_text and (model.init_from or model.model_type != "predrec"):
        raise UserError("`padding_is_text` is for new predrec encoders, which go on attending to padding afterwards.")
    if data.streaming and training.max_steps < 1:
        raise UserError("`streaming` does not know how long an epoch is: give `max_steps`.")
    if data.streaming and training.dataloader_num_workers > 1:
        raise UserError("`dataloader_num_workers` must be 0 or 1 with `streaming`, whose order is fixed.")
    further = (model.encoder_config or {}).get("position_embedding_type")
    rotary = "rotary" in (model.position_embedding_type, model.predictor_position_embedding_type, further)
    if model.model_type == "predrec" and model.rotary_base is not None and not rotary:
        raise UserError("`rotary_base` is only for `position_embedding_type=rotary`: leave it out.")
    if model.objective != "mlm":
        given, defaults = vars(data) | vars(model), vars(DataArguments()) | vars(ModelArguments())
        changed = {name for name, value in given.items() if value != defaults[name]}
        for name, need in unmet_needs(NEEDS_OF_CHOICES, SimpleNamespace(**given), changed).items():
            raise UserError(f"`{name}` is only for `{need}`: leave it out.")
        if model.loss_weighting == "schedule" and model.loss_lambda == model.loss_lambda_end:
            raise UserError(f"`loss_weighting=schedule` ends where it begins, at {model.loss_lambda}: give an end.")
    check_evaluations(model, training)


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
    with main_process_first(training):
        checkpoint = resume_point(training.output_dir, training.resume_from_checkpoint)
    if checkpoint is not None and not training.ignore_recipe_mismatch:
        parser = RecipeParser(ARGUMENTS)
        defaults = {name: parser.get_default(name) for name in parser.field_names}
        check_recipe(checkpoint, recipe, defaults, training.world_size)
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
    if isinstance(train_rows, TokenRows) and training.dataloader_drop_last:
        together = training.per_device_train_batch_size * training.world_size
        if len(train_rows) < together:
            raise UserError(
                f"`dataloader_drop_last` would drop all: {len(train_rows)} rows do not fill a batch of {together}."
            )
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
        disk = estimate(trainer.args, model, tokenizer, len(train_rows) if isinstance(train_rows, TokenRows) else None)
        free = free_bytes(training.output_dir)
        more = {"model": _size(model), "threads": str(torch.get_num_threads()), "output_dir": disk.describe(free)}
        for name, value in (facts | more).items():
            print(f"{name}: {value}", flush=True)

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


def load_data(data: DataArguments, seed: int) -> Corpus:
    """Loads the corpus that the arguments name."""
    return load_corpus(
        train_file=data.train_file,
        validation_file=data.validation_file,
        dataset_name=data.dataset_name,
        dataset_config_name=data.dataset_config_name,
        text_column=data.text_column,
        sample_by=data.sample_by,
        streaming=data.streaming,
        validation_share=data.validation_share,
        max_validation_documents=data.max_validation_documents,
        seed=seed,
        max_characters=data.max_characters,
    )


def prepare_tokenizer(
    data: DataArguments, model: ModelArguments, corpus: Corpus, checkpoint: Path | None
) -> PreTrainedTokenizerBase:
    """Loads the tokenizer, that of the checkpoint when resuming, or trains it on the corpus."""
    if checkpoint is not None:
        return load_tokenizer(checkpoint)
    if data.train_tokenizer:
        documents = sample_documents(corpus.train)
        return train_tokenizer(documents, data.vocab_size or DEFAULT_VOCAB_SIZE, data.max_seq_length)
    return load_tokenizer(data.tokenizer_name or model.init_from)


def prepare_rows(
    data: DataArguments, corpus: Corpus, tokenizer: PreTrainedTokenizerBase
) -> tuple[TokenRows | StreamedRows, TokenRows]:
    """Tokenizes the corpus and cuts it into rows to train and to evaluate on."""
    kind, workers = (PackedRows if data.packing else DocumentRows), data.preprocessing_num_workers
    if data.isolate_documents:
        kind = IsolatedRows
    validation = kind(tokenize_documents(corpus.validation, tokenizer, workers), tokenizer, data.max_seq_length)
    if data.streaming:
        return StreamedRows(corpus.train, tokenizer, data.max_seq_length, data.packing), validation
    return kind(tokenize_documents(corpus.train, tokenizer, workers), tokenizer, data.max_seq_length), validation


def build_model(
    arguments: ModelArguments,
    data: DataArguments,
    tokenizer: PreTrainedTokenizerBase,
    encoder_config: PreTrainedConfig | None = None,
) -> PredRecForPreTraining:
    """Builds the pre-training model around a new encoder or, given the configuration of `init_from`, a trained one."""
    length = data.max_seq_length
    if encoder_config is None:
        special = {
            "pad_token_id": tokenizer.pad_token_id,
            "cls_token_id": tokenizer.cls_token_id,
            "sep_token_id": tokenizer.sep_token_id,
        }
        stock = arguments.new_encoder_config(vocab_size=128)
        for name, stand_in in (("bos_token_id", "cls_token_id"), ("eos_token_id", "sep_token_id")):
            if getattr(stock, name, None) is not None:
                special[name] = getattr(tokenizer, name) if getattr(tokenizer, name) is not None else special[stand_in]
        spec = ENCODERS.get(arguments.model_type)
        # Architectures that are not in the table may count positions as RoBERTa does, MPNet from a padding id of 1.
        padding = tokenizer.pad_token_id if spec is not None else max(1, tokenizer.pad_token_id)
        offset = padding + 1 if spec is None or spec.padded_positions else 0
        longest = max(getattr(stock, "max_position_embeddings", 0), length + offset)
        multiple = arguments.pad_vocab_to_multiple_of
        vocab_size = -(-len(tokenizer) // multiple) * multiple
        encoder_config = arguments.new_encoder_config(
            vocab_size=vocab_size, max_position_embeddings=longest, **special
        )
    _check_fit(encoder_config, tokenizer, arguments)
    config = arguments.pretraining_config(encoder_config)
    config.padding_is_text = data.padding_is_text
    check_memory(config)
    model = PredRecForPreTraining(config)
    longest = position_limit(model.encoder)
    if length > longest:
        raise UserError(f"`max_seq_length` is {length}, but the encoder takes at most {longest} tokens.")
    # What comes out cuts texts to what it can read, whatever the tokenizer was made for.
    tokenizer.model_max_length = min(tokenizer.model_max_length, longest)
    if arguments.init_from:
        model.load_masked_lm(load_masked_lm(arguments.init_from, arguments.loaded_encoder_config()))
    return model


def _check_fit(config: Any, tokenizer: PreTrainedTokenizerBase, arguments: ModelArguments) -> None:
    source = f"`init_from` {arguments.init_from!r}" if arguments.init_from else "`encoder_config`"
    if len(tokenizer) > config.vocab_size:
        raise UserError(
            f"The tokenizer has {len(tokenizer)} tokens but the encoder of {source} has {config.vocab_size}: "
            "vocabulary and tokenizer disagree. Use the tokenizer that belongs to the encoder."
        )
    if arguments.init_from:
        for name in ("pad_token_id", "cls_token_id", "sep_token_id", "mask_token_id"):
            of_config, of_tokenizer = getattr(config, name, None), getattr(tokenizer, name)
            if of_config is not None and of_config != of_tokenizer:
                raise UserError(
                    f"`tokenizer_name`: the tokenizer's `{name}` is {of_tokenizer}, but that of {source} is "
                    f"{of_config}: use the tokenizer that belongs to the encoder."
                )


def build_collator(
    data: DataArguments,
    model: ModelArguments,
    training: PredRecTrainingArguments,
    tokenizer: PreTrainedTokenizerBase,
) -> DataCollatorForPreTraining:
    """Builds the collator for training batches; the masks have the data seed if there is one."""
    try:
        return DataCollatorForPreTraining(
            tokenizer,
            seed=training.seed if training.data_seed is None else training.data_seed,
            mlm_probability=data.mlm_probability,
            mask_replace_prob=data.mask_replace_prob,
            random_replace_prob=data.random_replace_prob,
            masking_unit=data.masking_unit,
            context_scale=tuple(data.context_scale),
            target_scale=tuple(data.target_scale),
            num_target_blocks=0 if model.objective == "mlm" else data.num_target_blocks,
            num_mask_sets=data.num_mask_sets,
            min_context_tokens=data.min_context_tokens,
            context_excludes_targets=data.context_excludes_targets,
            crop_length=tuple(data.crop_length) if model.jepa_view == "crops" else None,
            padding_is_text=data.padding_is_text,
            label_view=model.mlm_view,
            max_seq_length=data.max_seq_length,
        )
    except ValueError as error:
        raise UserError(str(error)) from error


def unigram_entropy(rows: TokenRows, tokenizer: PreTrainedTokenizerBase, most: int = 20_000) -> float:
    """Returns the entropy, in nats, of the distribution of ordinary tokens: what knowing only frequencies costs."""
    sample = np.linspace(0, len(rows) - 1, min(len(rows), most)).astype(int)
    counts = sum(np.bincount(rows.row(int(index)), minlength=len(tokenizer)) for index in sample)
    counts = counts[~special_token_table(tokenizer)]
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum())


def describe(
    corpus: Corpus, train_rows: TokenRows | StreamedRows, eval_rows: TokenRows, tokenizer: PreTrainedTokenizerBase
) -> dict[str, str]:
    """Says what is trained on, for the console and the model card."""
    size = "streamed"
    if isinstance(train_rows, TokenRows):
        size = f"{len(train_rows):,} rows of at most {train_rows.max_seq_length} tokens"
    return {
        "data": f"{corpus.description}; {size}; {len(eval_rows):,} rows held out",
        "tokenizer": f"{len(tokenizer):,} tokens",
        "unigram entropy": f"{unigram_entropy(eval_rows, tokenizer):.3f} nats on held-out text "
        "(a masked-LM loss below this has learned more than word frequencies)",
    }


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
