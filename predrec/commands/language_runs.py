"""Single runs of a comparison of language models: where they go, settings, recipes, and which are finished."""

import copy
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ..configuration.llm_arguments import LLMRunArguments
from ..configuration.recipes import read_recipe, write_recipe
from ..errors import UserError
from ..eval.results import Results, read_results
from ..trainers.checkpoints import refuse_differences
from ..trainers.llm_jepa_args import DEFAULT_LAMBDA, LLMJepaArguments

RECIPE_TITLE = "predrec recipe of this run"


@dataclass
class Run:
    """One method with one seed, and which of the seeds that is."""

    method: str
    seed: int
    directory: Path
    number: int = 0


def planned(training: LLMJepaArguments, run: LLMRunArguments) -> list[Run]:
    """Returns the runs: one in `output_dir` itself, or one folder below it for each method and seed."""
    methods, seeds = run.compare or [training.method], run.seeds or [training.seed]
    root = Path(training.output_dir)
    if len(methods) == len(seeds) == 1:
        return [Run(methods[0], seeds[0], root)]
    return [
        Run(method, seed, root / f"{method}-{seed}", number) for number, seed in enumerate(seeds) for method in methods
    ]


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
