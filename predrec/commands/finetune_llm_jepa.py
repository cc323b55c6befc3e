"""Train language models with LLM-JEPA: `python scripts/finetune_llm_jepa.py recipes/llm-jepa-quickstart.yaml`."""

import copy
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import set_seed
from transformers.utils.logging import disable_progress_bar

from ..configuration.llm_arguments import LLMDataArguments, LLMModelArguments, LLMRunArguments
from ..configuration.recipes import RecipeParser, parse_recipe, read_recipe, write_recipe
from ..data_collators.llm_jepa import DataCollatorForLLMJepa
from ..errors import UserError
from ..eval.answering import answer, check_answerable, verdict_means, write_answers
from ..eval.answers import find_answer_task
from ..eval.results import Results, read_results, write_results
from ..modeling.modeling_llm_jepa import LLMJepaModel
from ..modeling.predictor_tokens import add_predictor_tokens, strip_predictor_tokens
from ..trainers.adapters import PROJECTIONS, with_lora
from ..trainers.checkpoints import check_data, check_recipe, refuse_differences, resume_point
from ..trainers.cpu import keep_freed_memory, use_all_cores
from ..trainers.ending import close_connections
from ..trainers.interrupt import InterruptCallback
from ..trainers.language_models import prepare_language_model, prepare_language_tokenizer
from ..trainers.llm_jepa_args import DEFAULT_LAMBDA, LLMJepaArguments
from ..trainers.llm_jepa_trainer import LLMJepaTrainer, save_language_model
from ..trainers.main_process import main_process_first, waiting_at_the_end
from .answer_summary import add_answers, comparison
from .entry import command
from .evaluation import published_command
from .language_data import Records, describe, encoded, load_all, record_encoder
from .reference_compat import as_published

ARGUMENTS = (LLMDataArguments, LLMModelArguments, LLMJepaArguments, LLMRunArguments)
NAME = "finetune_llm_jepa"
RECIPE_TITLE = "predrec recipe of this run"
PLACEHOLDER = "Your words here."
"""What stands in the card's example for a record's text, which may be nobody else's business."""


@dataclass
class Run:
    """One method with one seed."""

    method: str
    seed: int
    directory: Path


@command
def main(argv: list[str]) -> int:
    """Runs the command; returns its exit code: 0, 1 for a run that failed, 2 for what the user can mend."""
    parsed, recipe = parse_recipe(argv, ARGUMENTS, NAME)
    disable_progress_bar()  # Of reading and writing weights.
    return finetune(*parsed, recipe=recipe, argv=argv)


def finetune(
    data: LLMDataArguments,
    model: LLMModelArguments,
    training: LLMJepaArguments,
    run: LLMRunArguments,
    recipe: dict[str, Any],
    argv: Sequence[str],
) -> int:
    """Trains every method with every seed, generates for the test records, and compares; returns the exit code."""
    started = time.perf_counter()
    find_answer_task(data.task)
    if run.strip_predictor_tokens and model.use_lora:
        raise UserError("`strip_predictor_tokens` needs whole weights: merge the adapters first.")
    if not run.compare:  # Where methods are compared, they share the arguments.
        for name, need in training.unused().items():
            raise UserError(f"`{name}` is {getattr(training, name)}, without effect: it needs {need}. Leave it out.")
    if run.reference_compat:
        as_published(data, model, training)
    halves = training.bf16 or training.fp16 or training.deepspeed or model.param_dtype == "bfloat16"
    if "flash" in (model.attn_implementation or "") and not halves:
        raise UserError(f"`attn_implementation` {model.attn_implementation} refuses float32: add `--bf16 true`.")
    use_all_cores(training.num_threads)
    if training.device.type == "cpu":
        keep_freed_memory()
    with main_process_first(training):
        records = load_all(data)
    runs = planned(training, run)
    all_settings = [settings_for(one, training, recipe) for one in runs]
    results, code = Results(commands=[published_command(NAME, argv)]), 0
    for one, settings in zip(runs, all_settings, strict=True):
        if len(runs) > 1:
            say(training, f"\n{one.method}, seed {one.seed}: {one.directory}")
        own = recipe_of(one, settings, recipe)
        found = finished_results(one, settings, own)
        if found is None:
            found = Results()
            code = train(one, data, model, settings, run, records, own, found)
        else:
            say(training, "finished before")
        if code:
            break
        number = run_number(one, run)
        results.models += [known | {"replicate": number} for known in found.models]
        results.records += [replace(record, replicate=number) for record in found.records]
    close_connections()
    if code:
        return code
    if run.generate and records.test and training.should_save:
        path = write_results(training.output_dir, results)
        print(comparison(results, runs[0].method))
        print(f"\n{path}  ({time.perf_counter() - started:.0f} s)")
    return 0


def say(training: LLMJepaArguments, text: str) -> None:
    """Prints on one process only."""
    if training.process_index == 0:
        print(text, flush=True)


def planned(training: LLMJepaArguments, run: LLMRunArguments) -> list[Run]:
    """Returns the runs: one in `output_dir` itself, or one folder below it for each method and seed."""
    methods, seeds = run.compare or [training.method], run.seeds or [training.seed]
    root = Path(training.output_dir)
    if len(methods) == len(seeds) == 1:
        return [Run(methods[0], seeds[0], root)]
    return [Run(method, seed, root / f"{method}-{seed}") for seed in seeds for method in methods]


def settings_for(one: Run, training: LLMJepaArguments, recipe: dict[str, Any]) -> LLMJepaArguments:
    """Returns the training arguments of a run; `UserError` if they make no sense with its method."""
    settings = copy.copy(training)
    settings.method, settings.seed, settings.output_dir = one.method, one.seed, str(one.directory)
    if one.method != training.method and (one.method == "ntp" or "jepa_lambda" not in recipe):
        settings.jepa_lambda = DEFAULT_LAMBDA[one.method]
    settings.logging_dir = None
    try:
        settings._check()
    except ValueError as error:
        raise UserError(f"`method` {one.method}: {error}") from error
    return settings


def recipe_of(one: Run, settings: LLMJepaArguments, recipe: dict[str, Any]) -> dict[str, Any]:
    """Returns the recipe of a single run, without what decides where it goes."""
    own = recipe | {"method": one.method, "seed": one.seed, "jepa_lambda": settings.jepa_lambda}
    return {name: value for name, value in own.items() if name not in ("compare", "seeds", "output_dir")}


def published_recipe(settings: LLMJepaArguments, own: dict[str, Any]) -> dict[str, Any]:
    """Returns the recipe that a run leaves: without what its method does not look at."""
    used = {name: value for name, value in own.items() if name not in settings.unused()}
    return used | {"output_dir": settings.output_dir}


def finished_results(one: Run, settings: LLMJepaArguments, own: dict[str, Any]) -> Results | None:
    """Returns what a finished run answered, when runs go on; `None` if it is not finished.

    Raises:
        UserError: If it was made by another recipe.
    """
    # The card is written last.
    is_there = (one.directory / "README.md").is_file() and any(one.directory.glob("*.safetensors"))
    if settings.resume_from_checkpoint is not True or not is_there:
        return None
    if not settings.ignore_recipe_mismatch:
        with TemporaryDirectory() as folder:
            path = Path(folder) / "recipe.yaml"
            write_recipe(path, published_recipe(settings, own), RECIPE_TITLE)
            saved, expected = read_recipe(one.directory / "recipe.yaml"), read_recipe(path)
        refuse_differences(f"The finished run in {one.directory.name}", saved, expected, {})
    return read_results(one.directory) if (one.directory / "results.json").is_file() else Results()


def train(
    one: Run,
    data: LLMDataArguments,
    model_arguments: LLMModelArguments,
    training: LLMJepaArguments,
    run: LLMRunArguments,
    records: Records,
    recipe: dict[str, Any],
    results: Results,
) -> int:
    """Trains one run, or goes on with it, and answers the test records into `results`; returns the exit code."""
    with main_process_first(training):
        checkpoint = resume_point(training.output_dir, training.resume_from_checkpoint)
    if checkpoint is not None and not training.ignore_recipe_mismatch:
        parser = RecipeParser(ARGUMENTS)
        defaults = {name: parser.get_default(name) for name in parser.field_names}
        check_recipe(checkpoint, recipe, defaults, training.world_size)
    set_seed(one.seed)
    texts = [text for record in records.train for text in (record.system or "", record.text, record.code)]
    tokenizer = prepare_language_tokenizer(model_arguments, texts, data.max_seq_length)
    plain_tokenizer = copy.deepcopy(tokenizer)
    model = prepare_language_model(model_arguments, tokenizer, data.max_seq_length, one.seed, training.device)
    count = training.num_predictor_tokens if one.method == "llm_jepa" else 0
    encoder = record_encoder(data, tokenizer, add_predictor_tokens(model, tokenizer, count, one.seed))
    train_set, notes = encoded("train_file", records.train, encoder)
    eval_set, more = encoded("validation_file", records.development, encoder)
    if checkpoint is not None and not training.ignore_recipe_mismatch:
        check_data(checkpoint, train_set.fingerprint())
    if run.generate and records.test:
        check_answerable(model, encoder, records.test, data.task, run.max_new_tokens)
    together = training.per_device_train_batch_size * training.world_size
    if training.dataloader_drop_last and len(train_set) < together:
        raise UserError(f"`dataloader_drop_last` drops all there is: {len(train_set)} records, batches of {together}.")
    if model_arguments.use_lora:
        targets = model_arguments.lora_target_modules or PROJECTIONS
        model = with_lora(
            model, model_arguments.lora_rank, model_arguments.lora_alpha, model_arguments.lora_dropout, targets
        )
    interrupt = InterruptCallback()
    objective = LLMJepaModel(model, training.objective())
    if data.layout == "packed" and objective.separation == "rows":
        raise UserError(f"`layout` packed: {objective.config.model_type} does not keep packed views apart. Use rows.")
    packed = data.layout != "rows" and objective.separation != "rows"
    facts = describe(records, encoder, train_set)
    try:
        trainer = LLMJepaTrainer(
            objective,
            training,
            DataCollatorForLLMJepa(
                tokenizer.pad_token_id,
                layout="packed" if packed else "rows",
                pad_to_length=data.max_seq_length if data.pad_to_max_length else None,
                mask_eos_like_pad=data.mask_eos_like_pad,
            ),
            train_set,
            eval_dataset=eval_set,
            processing_class=tokenizer,
            callbacks=[interrupt],
            recipe=recipe,
            card_facts=facts,
            data_fingerprint=train_set.fingerprint(),
        )
    except ValueError as error:
        raise UserError(str(error)) from error
    size = sum(parameter.numel() for parameter in objective.causal_lm.parameters())
    trained = sum(parameter.numel() for parameter in objective.parameters() if parameter.requires_grad)
    facts["model"] = f"{size / 1e6:.1f} M parameters, {100 * trained / size:.2f} % of them trained"
    facts["views"] = "many to a row" if packed else "one to a row"
    for name, value in facts.items():
        say(training, f"{name}: {value}")
    for note in [*notes, *more]:
        say(training, note)
    try:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    finally:
        interrupt.restore()  # Training that fails does not get to its end, where it would.
    if interrupt.signal_number is not None:
        say(training, f"stopped at step {trainer.state.global_step}; go on with `--resume_from_checkpoint true`")
        return 128 + interrupt.signal_number
    trainer.save_model()
    with waiting_at_the_end(training):  # For the one that answers.
        if trainer.is_world_process_zero():
            directory = Path(training.output_dir)
            write_recipe(directory / "recipe.yaml", published_recipe(training, recipe), RECIPE_TITLE)
            if run.generate and records.test:
                rows = answer(
                    objective.causal_lm,
                    encoder,
                    records.test,
                    data.task,
                    run.max_new_tokens,
                    run.generation_batch_size,
                )
                write_answers(directory / "answers.jsonl", rows)
                add_answers(results, one.method, run_number(one, run), data.task, rows, trainer, training.output_dir)
                write_results(directory, results)
                trainer.answer_shares = verdict_means(rows)
            trainer.example_prompt = tokenizer.decode(encoder.prompt_ids(replace(records.train[0], text=PLACEHOLDER)))
            if run.strip_predictor_tokens:
                strip_predictor_tokens(model, tokenizer)
                save_language_model(model, str(directory))
                plain_tokenizer.save_pretrained(directory)
            trainer.create_model_card()
    del trainer, objective
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return 0


def run_number(one: Run, run: LLMRunArguments) -> int:
    """Returns which of the seeds this is."""
    return run.seeds.index(one.seed) if run.seeds else 0


if __name__ == "__main__":
    sys.exit(main())
