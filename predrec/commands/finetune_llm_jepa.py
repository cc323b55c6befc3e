"""Train language models with LLM-JEPA: `python scripts/finetune_llm_jepa.py recipes/llm-jepa-quickstart.yaml`."""

import copy
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase, set_seed
from transformers.utils.logging import disable_progress_bar

from ..configuration.llm_arguments import LLMDataArguments, LLMModelArguments, LLMRunArguments
from ..configuration.recipes import parse_recipe, write_recipe
from ..data_collators.llm_jepa import DataCollatorForLLMJepa
from ..data_collators.view_examples import RecordEncoder
from ..errors import UserError
from ..eval.answering import answer, check_answerable, verdict_means, write_answers
from ..eval.answers import find_answer_task
from ..eval.results import Results, write_results
from ..modeling.modeling_llm_jepa import LLMJepaModel
from ..modeling.predictor_tokens import add_predictor_tokens, strip_predictor_tokens
from ..trainers.adapters import PROJECTIONS, with_lora
from ..trainers.checkpoints import check_data
from ..trainers.cpu import keep_freed_memory, use_all_cores
from ..trainers.ending import close_connections
from ..trainers.interrupt import InterruptCallback
from ..trainers.language_models import prepare_language_model, prepare_language_tokenizer
from ..trainers.llm_jepa_args import LLMJepaArguments
from ..trainers.llm_jepa_trainer import LLMJepaTrainer, save_language_model
from ..trainers.main_process import main_process_first, waiting_at_the_end
from .answer_summary import add_answers, comparison
from .beginning import check_a_batch_is_left, checkpoint_to_resume
from .entry import command
from .evaluation import published_command
from .language_data import Records, describe, encoded, load_all, record_encoder
from .language_runs import RECIPE_TITLE, Run, finished_results, planned, published_recipe, recipe_of, settings_for
from .reference_compat import as_published

ARGUMENTS = (LLMDataArguments, LLMModelArguments, LLMJepaArguments, LLMRunArguments)
NAME = "finetune_llm_jepa"
PLACEHOLDER = "Your words here."
"""What stands in the card's example for a record's text, which may be nobody else's business."""


@dataclass
class Language:
    """A language model, what turns records into its tokens, and its tokenizer without predictor tokens."""

    model: PreTrainedModel
    encoder: RecordEncoder
    plain_tokenizer: PreTrainedTokenizerBase


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
        results.models += [known | {"replicate": one.number} for known in found.models]
        results.records += [replace(record, replicate=one.number) for record in found.records]
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


def prepare_language(
    one: Run,
    data: LLMDataArguments,
    arguments: LLMModelArguments,
    training: LLMJepaArguments,
    records: Records,
) -> Language:
    """Loads or makes the language model and its tokenizer, with predictor tokens if the method has them."""
    texts = [text for record in records.train for text in (record.system or "", record.text, record.code)]
    tokenizer = prepare_language_tokenizer(arguments, texts, data.max_seq_length)
    plain_tokenizer = copy.deepcopy(tokenizer)
    model = prepare_language_model(arguments, tokenizer, data.max_seq_length, one.seed, training.device)
    count = training.num_predictor_tokens if one.method == "llm_jepa" else 0
    predictor_ids = add_predictor_tokens(model, tokenizer, count, one.seed)
    return Language(model, record_encoder(data, tokenizer, predictor_ids), plain_tokenizer)


def adapted(model: PreTrainedModel, arguments: LLMModelArguments) -> nn.Module:
    """Returns the model, with adapters if they are asked for."""
    if not arguments.use_lora:
        return model
    targets = arguments.lora_target_modules or PROJECTIONS
    return with_lora(model, arguments.lora_rank, arguments.lora_alpha, arguments.lora_dropout, targets)


def collator_for(data: LLMDataArguments, objective: LLMJepaModel, pad_id: int) -> DataCollatorForLLMJepa:
    """Returns the collator, with many views to a row where the model keeps them apart."""
    if data.layout == "packed" and objective.separation == "rows":
        raise UserError(f"`layout` packed: {objective.config.model_type} does not keep packed views apart. Use rows.")
    return DataCollatorForLLMJepa(
        pad_id,
        layout="rows" if "rows" in (data.layout, objective.separation) else "packed",
        pad_to_length=data.max_seq_length if data.pad_to_max_length else None,
        mask_eos_like_pad=data.mask_eos_like_pad,
    )


def facts_of(objective: LLMJepaModel, collator: DataCollatorForLLMJepa) -> dict[str, str]:
    """Says what is trained and how views are laid out, for the console and the model card."""
    size = sum(parameter.numel() for parameter in objective.causal_lm.parameters())
    trained = sum(parameter.numel() for parameter in objective.parameters() if parameter.requires_grad)
    return {
        "model": f"{size / 1e6:.1f} M parameters, {100 * trained / size:.2f} % of them trained",
        "views": "many to a row" if collator.layout == "packed" else "one to a row",
    }


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
    checkpoint = checkpoint_to_resume(training, recipe, ARGUMENTS)
    set_seed(one.seed)
    language = prepare_language(one, data, model_arguments, training, records)
    encoder, tokenizer = language.encoder, language.encoder.tokenizer
    train_set, notes = encoded("train_file", records.train, encoder)
    eval_set, more = encoded("validation_file", records.development, encoder)
    if checkpoint is not None and not training.ignore_recipe_mismatch:
        check_data(checkpoint, train_set.fingerprint())
    if run.generate and records.test:
        check_answerable(language.model, encoder, records.test, data.task, run.max_new_tokens)
    check_a_batch_is_left(training, len(train_set), "records")
    objective = LLMJepaModel(adapted(language.model, model_arguments), training.objective())
    collator = collator_for(data, objective, tokenizer.pad_token_id)
    interrupt, facts = InterruptCallback(), describe(records, encoder, train_set)
    try:
        trainer = LLMJepaTrainer(
            objective,
            training,
            collator,
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
    facts |= facts_of(objective, collator)
    for line in [*(f"{name}: {value}" for name, value in facts.items()), *notes, *more]:
        say(training, line)
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
            write_recipe(one.directory / "recipe.yaml", published_recipe(training, recipe), RECIPE_TITLE)
            if run.generate and records.test:
                answer_tests(one, data, run, records, language, trainer, results)
            example = replace(records.train[0], text=PLACEHOLDER)
            trainer.example_prompt = tokenizer.decode(encoder.prompt_ids(example))
            if run.strip_predictor_tokens:
                strip_predictor_tokens(language.model, tokenizer)
                save_language_model(language.model, str(one.directory))
                language.plain_tokenizer.save_pretrained(one.directory)
            trainer.create_model_card()
    del trainer, objective, language
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return 0


def answer_tests(
    one: Run,
    data: LLMDataArguments,
    run: LLMRunArguments,
    records: Records,
    language: Language,
    trainer: LLMJepaTrainer,
    results: Results,
) -> None:
    """Answers the test records with the trained model, into the run's folder, `results` and the card."""
    rows = answer(
        trainer.model.causal_lm,
        language.encoder,
        records.test,
        data.task,
        run.max_new_tokens,
        run.generation_batch_size,
    )
    write_answers(one.directory / "answers.jsonl", rows)
    add_answers(results, one.method, one.number, data.task, rows, trainer, one.directory)
    write_results(one.directory, results)
    trainer.answer_shares = verdict_means(rows)


if __name__ == "__main__":
    sys.exit(main())
