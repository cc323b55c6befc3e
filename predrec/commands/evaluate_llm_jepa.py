"""Evaluate language models: `python scripts/evaluate_llm_jepa.py --models ntp=DIR jepa=DIR --output_dir OUT`."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers.utils.logging import disable_progress_bar

from ..configuration.llm_arguments import LLMDataArguments
from ..configuration.llm_evaluation_arguments import LLMEvaluationArguments
from ..configuration.recipes import parse_recipe
from ..data_collators.llm_jepa import DataCollatorForLLMJepa
from ..data_collators.two_views import TwoViews
from ..data_collators.view_examples import RecordEncoder
from ..errors import UserError
from ..eval.answering import answer, write_answers
from ..eval.answers import SyntheticDatabases, database_of, find_answer_task, load_schemas
from ..eval.pair_figures import plot_spectra, plot_views
from ..eval.pair_geometry import measure_pairs
from ..eval.results import Results, add_record, write_results
from ..modeling.latent_views import encode_views, find_separation
from ..modeling.predictor_tokens import predictor_ids_of
from ..trainers.cpu import use_all_cores
from ..trainers.language_models import load_trained
from ..trainers.llm_jepa_args import LLMJepaArguments
from .answer_summary import add_answers, comparison, weights_digest
from .entry import command
from .evaluation import published_command, table
from .finetune_llm_jepa import ARGUMENTS as TRAINING
from .language_data import encoded, load_test, record_encoder
from .reference_compat import as_published

NAME = "evaluate_llm_jepa"
RECIPE = "recipe.yaml"


@command
def main(argv: list[str]) -> int:
    """Runs the command; returns its exit code: 0, or 2 for what the user can mend."""
    (arguments,), _ = parse_recipe(argv, (LLMEvaluationArguments,), NAME)
    disable_progress_bar()  # Of reading weights.
    return evaluate(arguments, argv)


def evaluate(arguments: LLMEvaluationArguments, argv: Sequence[str]) -> int:
    """Answers records with every model, measures views, and writes results, answers and pictures."""
    started = time.perf_counter()
    use_all_cores(arguments.num_threads)
    named = arguments.named_models()
    baseline = arguments.baseline or next(iter(named))
    if baseline not in named:
        raise UserError(f"`baseline` {baseline!r} is none of the models {', '.join(named)}.")
    find_answer_task(arguments.task)
    settings = {path: trained_as(path, arguments) for paths in named.values() for path in paths}
    records = load_test(next(iter(settings.values()))[0])
    if not records:
        raise UserError("There is nothing to answer: give `test_file`.")
    results, databases = Results(commands=[published_command(NAME, argv)]), None
    if arguments.task == "spider" and arguments.generate:
        if not arguments.spider_tables:
            raise UserError("`task` spider needs `spider_tables`, the schemas of its databases.")
        databases = SyntheticDatabases(load_schemas(arguments.spider_tables))
        results.notes["answers|spider"] = note = gold_note(databases, records)
        print(f"spider: {note}", flush=True)
    folder = Path(str(arguments.output_dir))
    folder.mkdir(parents=True, exist_ok=True)
    spectra: dict[str, Tensor] = {}
    for name, paths in named.items():
        for replicate, path in enumerate(paths):
            label = name if len(paths) == 1 else f"{name}-{replicate}"
            print(f"{label}: {path}", flush=True)
            model, tokenizer = load_trained(path, arguments.trust_remote_code)
            if torch.cuda.is_available():
                model = model.cuda()
            data, layer = settings[path]
            encoder = record_encoder(data, tokenizer, predictor_ids_of(tokenizer))
            if arguments.generate:
                rows = answer(
                    model, encoder, records, arguments.task, arguments.max_new_tokens, arguments.batch_size, databases
                )
                write_answers(folder / f"answers-{label}.jsonl", rows)
                add_answers(results, name, replicate, arguments.task, rows, directory=path)
            else:
                results.models.append({"name": name, "replicate": replicate, "weights": weights_digest(path)})
            if arguments.geometry:
                source, target, numbers = view_states(model, encoder, records, arguments.batch_size, layer)
                measured, spectra[label] = measure_pairs(source, target, numbers)
                shared = {"kind": "views", "model": name, "replicate": replicate, "task": arguments.task}
                for metric, value in measured.items():
                    add_record(results, metric=metric, value=value, num_eval=len(source), **shared)
                if arguments.tsne and len(source) > 30:
                    plot_views(source, target, f"{label}: text and code", folder / f"views-{label}.png")
    if spectra:
        plot_spectra(spectra, folder / "difference_spectrum.png")
    path = write_results(folder, results)
    print(summary(results, baseline))
    print(f"\n{path}  ({time.perf_counter() - started:.0f} s)")
    return 0


def gold_note(databases: SyntheticDatabases, records: Sequence[TwoViews]) -> str:
    """Says of how many gold queries the made-up databases can tell right from wrong."""
    found = databases.summary((record.code.strip(), database_of(record.text)) for record in records)
    return (
        f"of {found.count} gold queries, {100 * found.runs:.1f} % run on the made-up databases, "
        f"{100 * found.non_empty:.1f} % find a value there, and {100 * found.settled:.1f} % give the same rows "
        "in whatever order tables are read"
    )


def trained_as(path: str, arguments: LLMEvaluationArguments) -> tuple[LLMDataArguments, int]:
    """Returns how a model's training turned records into tokens, and which layer it read views at.

    Both are from the recipe beside the model; defaults without one.

    The records are those of `test_file`, where it is given.
    """
    recipe = next((p for p in (Path(path) / RECIPE, Path(path).parent / RECIPE) if p.is_file()), None)
    data, layer = LLMDataArguments(), LLMJepaArguments.jepa_layer
    if recipe is not None:
        (data, model, training, run), _ = parse_recipe([str(recipe)], TRAINING, NAME)
        layer = training.jepa_layer
        if run.reference_compat:
            as_published(data, model, training)
    if arguments.test_file:
        data.train_file, data.test_file = [], arguments.test_file
    data.max_test_samples = arguments.max_test_samples or data.max_test_samples
    return data, layer


def view_states(
    model: nn.Module, encoder: RecordEncoder, records: Sequence[TwoViews], batch_size: int, layer: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns predictions and targets of records, `(num_records, hidden_size)`, and numbers that are equal where
    targets are. As in training, but that targets are of the model itself, not of an average (`target_grad` ema).
    """
    dataset, _ = encoded("test_file", records, encoder)
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    decoder, device = base.base_model, next(model.parameters()).device
    separation = find_separation(decoder)
    collator = DataCollatorForLLMJepa(
        encoder.tokenizer.pad_token_id, layout="rows" if separation == "rows" else "packed"
    )
    kept: list[tuple[Tensor, Tensor]] = []
    for start in range(0, len(dataset), batch_size):
        batch = collator.view_batch(dataset.examples[start : start + batch_size])
        batch = {name: value.to(device) for name, value in batch.items()}
        with torch.no_grad():
            source, target = encode_views(decoder, batch, separation, layer)
        kept.append((source.float().cpu(), target.float().cpu()))
    numbers = torch.tensor([example.pair_number for example in dataset.examples])
    return torch.cat([source for source, _ in kept]), torch.cat([target for _, target in kept]), numbers


def summary(results: Results, baseline: str) -> str:
    """Lays out verdicts with their tests, and the geometry of the views."""
    parts = [comparison(results, baseline)] if results.select(kind="answers") else []
    measured: dict[str, Any] = {}
    for record in results.select(kind="views"):
        measured.setdefault(record.metric, {}).setdefault(record.model, []).append(record.value)
    if measured:
        names = results.model_names
        rows = [
            [metric, *(f"{sum(values.get(n, [])) / max(1, len(values.get(n, []))):.4g}" for n in names)]
            for metric, values in measured.items()
        ]
        parts.append("\n" + table(["geometry of the views", *names], rows))
    return "\n".join(parts)


if __name__ == "__main__":
    sys.exit(main())
