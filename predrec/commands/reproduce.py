"""An experiment from its definition to its report: `python scripts/reproduce.py results/cpu/experiment.yaml`."""

import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ..configuration import parse_recipe
from ..configuration.reproduce_arguments import ReproduceArguments
from ..errors import UserError
from ..experiments.definition import Experiment, Run, digest, read_experiment, resolve_arm
from ..experiments.report import write_report
from ..experiments.run_files import differences, measured_on, read_runs, stale
from ..experiments.schedule import estimate, in_words, remaining, time_left
from .entry import command
from .experiment_runs import StoppedError, Workshop, check_evaluation, check_tasks, evaluation_rows, make_run
from .experiment_timing import time_arms


@command
def main(argv: list[str]) -> int:
    """Runs the command; returns its exit code: 0, 2 for what the user can mend, that of training if it was stopped."""
    try:
        return reproduce(argv)
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here.")
        return 128 + signal.SIGINT
    except StoppedError as stopped:
        print(stopped)
        return stopped.code


def reproduce(argv: Sequence[str]) -> int:
    """Makes the runs that no file covers, one after the other, and writes the report."""
    path, options = (argv[0], argv[1:]) if argv and not argv[0].startswith("-") else (None, argv)
    (arguments,), _ = parse_recipe(options, (ReproduceArguments,), "reproduce")
    if path is None:
        raise UserError("Give the experiment first: reproduce results/cpu/experiment.yaml --data DIR --glue DIR.")
    shop, tokens = prepare(Path(path), arguments)
    if arguments.time_rounds is not None:
        arguments.require_folders(glue=False)
        print(time_arms(shop, Path(path)))
        return 0
    finished = read_runs(shop.runs)
    problems = stale(finished, shop.definitions, shop.evaluation)
    if problems:
        raise UserError(
            f"Nothing was run: these files in {shop.runs} do not belong to the experiment as it is now. Restore it or "
            "delete them to make those runs again.",
            problems,
        )
    todo = remaining(shop.experiment.order, finished, arguments.only)
    covered = sum(run in finished for run in shop.experiment.order)
    print(f"{covered} of {len(shop.experiment.order)} runs are finished; {len(todo)} to make now.")
    if arguments.plan_only:
        for run in todo:
            print(f"  {run.name.ljust(24)} {in_words(estimate(run, finished, tokens))}")
        print(f"time left: {in_words(time_left(todo, finished, tokens))}")
        return 0
    if not arguments.report_only:
        if todo:
            arguments.require_folders(glue=bool(shop.experiment.probe or shop.experiment.geometry))
            check_tasks(shop.experiment, arguments.glue)
            shop = like_finished(shop, finished)
        make_runs(shop, todo, finished, tokens)
    if not finished:
        raise UserError("There is no finished run to report on.")
    for written in write_report(Path(path), shop.experiment, finished):
        print(written)
    return 0


def prepare(path: Path, arguments: ReproduceArguments) -> tuple[Workshop, dict[str, int | None]]:
    """Reads and checks the experiment, all arms, before anything runs; returns with it each arm's training tokens."""
    experiment = read_experiment(path)
    for name in arguments.only:
        if name not in experiment.arms:
            raise UserError(f"`only`: there is no arm {name!r}; there are {', '.join(experiment.arms)}.")
    check_evaluation(experiment)
    definitions, per_step, tokens = {}, {}, {}
    for name, arm in experiment.arms.items():
        decisive, training = resolve_arm(arm, arguments.tokenizer_name)
        definitions[name] = digest(decisive)
        rows = training.per_device_train_batch_size * training.gradient_accumulation_steps
        per_step[name] = rows * int(arm.arguments.get("max_seq_length", 512))
        tokens[name] = training.max_steps * per_step[name] if training.max_steps > 0 else None
    folder = Path(arguments.output_dir or Path("outputs/reproduce") / path.resolve().parent.name)
    evaluation = digest({"probe": experiment.probe, "geometry": experiment.geometry})
    shop = Workshop(experiment, arguments, folder, path.parent / "runs", definitions, evaluation, per_step)
    return shop, tokens


def like_finished(shop: Workshop, finished: dict[Run, dict[str, Any]]) -> Workshop:
    """Lets new runs be measured as the finished ones were, or says before any is trained that they cannot be.

    Raises:
        UserError: If the tasks have other rows here.
    """
    rows, seen = evaluation_rows(shop.experiment, shop.arguments.glue), {}
    for content in finished.values():
        seen |= measured_on(content)
    if other := differences(seen, rows):
        raise UserError(
            f"`glue`: the finished runs in {shop.runs} were measured with other {other[0]} than there are in "
            f"{shop.arguments.glue!r}: what is measured here would not compare. Nothing was run."
        )
    return replace(shop, texts=rows["texts"], dtype=seen.get("precision"))


def make_runs(
    shop: Workshop, todo: Sequence[Run], finished: dict[Run, dict[str, Any]], tokens: dict[str, int | None]
) -> None:
    """Makes the runs and adds them to the finished ones; begins none that would end after `max_hours`.

    Other calls may be making runs of the experiment at the same time: what they have finished is taken over, what they
    are at is left to them.
    """
    started, limit = time.perf_counter(), shop.arguments.max_hours
    for index, run in enumerate(todo):
        finished |= read_runs(shop.runs)
        if run in finished:
            continue
        left = in_words(time_left(todo[index:], finished, tokens))
        expected = estimate(run, finished, tokens) or 0.0
        if limit is not None and time.perf_counter() - started + expected > limit * 3600:
            print(
                f"{run.name} would not end within {limit:g} hours. Runs left: {len(todo) - index}; time left: {left}."
            )
            return
        try:
            with claimed(shop, run):
                finished |= read_runs(shop.runs)
                if run in finished:  # Another call had it until now.
                    continue
                print(f"{run.name} ({index + 1} of {len(todo)}); time left: {left}", flush=True)
                begun = time.perf_counter()
                finished[run] = make_run(shop, run)
        except Timeout:
            print(f"{run.name} is being made by another call.", flush=True)
            continue
        print(f"  {summary(shop.experiment, finished[run])}; {in_words(time.perf_counter() - begun)}", flush=True)
    finished |= read_runs(shop.runs)


def claimed(shop: Workshop, run: Run) -> FileLock:
    """Returns a lock that one call at a time can hold on a run; it ends with the process that holds it.

    Raises:
        Timeout: When it is entered, if another call holds it.
    """
    shop.folder.mkdir(parents=True, exist_ok=True)
    return FileLock(shop.folder / f"{run.name}.lock", timeout=0)


def summary(experiment: Experiment, content: dict[str, Any]) -> str:
    """Says in one line what a run came to."""
    loss = content["last"].get("eval_mlm_loss")
    parts = [f"held-out masked-LM loss {loss:.3f}"] if loss is not None else []
    parts.append(f"trained {in_words(content['seconds']['training'])}")
    return ", ".join(parts)


if __name__ == "__main__":
    sys.exit(main())
