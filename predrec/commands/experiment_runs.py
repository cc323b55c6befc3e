"""One run of an experiment: training in a process of its own, probes, geometry, and the small file they leave."""

import json
import platform
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from ..configuration import parse_recipe, write_recipe
from ..configuration.reproduce_arguments import ReproduceArguments
from ..errors import UserError
from ..eval.results import Results, merge_results, read_results
from ..eval.tasks import PAPER_TASKS, find_task
from ..experiments.definition import Arm, Experiment, Run, words_of
from ..experiments.history import curves, evaluation_seconds, last, training_seconds, update_speeds
from ..experiments.run_files import FORMAT, pack, write_run
from ..trainers.checkpoints import DATA_FILE, checkpoints_in
from ..trainers.cpu import usable_cores
from . import analyze_representations, probe_glue

COMMANDS = {"probe": ("probe_glue", probe_glue), "geometry": ("analyze_representations", analyze_representations)}
"""What evaluates, by the part of an experiment that has its arguments."""

TRAINED_FILE = "trained.json"
"""What is known of a run when its training has ended; probing begins here when it was interrupted."""


class StoppedError(Exception):
    """Training was stopped by a signal.

    Args:
        code (`int`): To exit with.
        message (`str`): What to say of it.
    """

    def __init__(self, code: int, message: str = "stopped and saved; the same command goes on from here."):
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Workshop:
    """What every run of an experiment needs.

    Args:
        experiment (`Experiment`): Its definition.
        arguments (`ReproduceArguments`): Folders, and what to keep.
        folder (`Path`): Of the work in progress.
        runs (`Path`): Of the files of finished runs.
        definitions (`dict[str, str]`): Hash of each arm.
        evaluation (`str`): Hash of the settings of probes and geometry.
        tokens_per_step (`dict[str, int]`): Of each arm.
        texts (`dict[str, str]`): Names for the rows of each task: see [`evaluation_rows`].
        dtype (`str`, *optional*): Precision in which the finished runs were measured; the machine's own when absent.
    """

    experiment: Experiment
    arguments: ReproduceArguments
    folder: Path
    runs: Path
    definitions: dict[str, str]
    evaluation: str
    tokens_per_step: dict[str, int]
    texts: dict[str, str] = field(default_factory=dict)
    dtype: str | None = None


def check_evaluation(experiment: Experiment) -> None:
    """Checks the settings of probes and geometry as their commands would, before hours of training.

    Raises:
        UserError: If one is unknown or impossible.
    """
    for part in COMMANDS:
        if getattr(experiment, part):
            _parsed(experiment, part)
            for task in getattr(experiment, part).get("tasks", ()):
                find_task(task)


def _parsed(experiment: Experiment, part: str) -> list[Any]:
    """Returns the arguments of the command that probes or measures."""
    name, command = COMMANDS[part]
    words = ["--models", "arm=DIR", *words_of(getattr(experiment, part)), "--output_dir", "DIR"]
    try:
        return parse_recipe(words, command.ARGUMENTS, name)[0]
    except UserError as error:
        raise UserError(f"`{part}` of the experiment: {error}") from error


def check_tasks(experiment: Experiment, glue: str | None) -> None:
    """Checks that every task that is evaluated has a folder.

    Raises:
        UserError: If one has none.
    """
    for settings in (experiment.probe, experiment.geometry):
        for task in (settings.get("tasks") or PAPER_TASKS) if settings else ():
            if not (Path(str(glue)) / find_task(task).folder).is_dir():
                raise UserError(f"`glue`: there is no folder for the task `{task}` in {glue!r}.")


def evaluation_rows(experiment: Experiment, glue: str | None) -> dict[str, Any]:
    """Reads what runs are probed and measured on.

    Returns:
        What their files will say of it: `measured`, with the numbers of rows alone, and `texts`, a name for the texts
        and labels of each task.

    Raises:
        UserError: If a split is missing or damaged.
    """
    measured, texts = [], {}
    for part in COMMANDS:
        if not getattr(experiment, part):
            continue
        _, task_arguments, arguments, *_ = _parsed(experiment, part)
        task_arguments.data_dir = glue
        for task in map(find_task, task_arguments.names(PAPER_TASKS)):
            if part == "probe":
                train, evaluation = probe_glue.read_task(task, task_arguments, arguments.validation_share)
                kind = probe_glue.kind_of("probe", evaluation)
            else:
                (train, evaluation), kind = analyze_representations.read_task(task, task_arguments, arguments), part
            sizes = {"num_train": len(train)} if train is not None and part == "probe" else {}
            measured.append({"kind": kind, "task": task.name, **sizes, "num_eval": len(evaluation)})
            used = [split.fingerprint for split in (train, evaluation) if split is not None]
            texts[f"{task.name} ({kind})"] = " ".join(used)
    return {"measured": measured, "texts": texts}


def make_run(shop: Workshop, run: Run) -> dict[str, Any]:
    """Trains, probes and measures what is not done yet, writes the run's file and returns what is in it."""
    folder = shop.folder / run.name
    folder.mkdir(parents=True, exist_ok=True)
    trained = read_trained(folder / TRAINED_FILE, shop.definitions[run.arm]) or train(shop, run, folder)
    results, seconds = evaluate(shop, run, folder)
    content = {
        "format": FORMAT,
        "arm": run.arm,
        "seed": run.seed,
        "finished": datetime.now(UTC).strftime("%Y-%m-%d"),
        **trained,
        "evaluation": shop.evaluation,
        "texts": shop.texts,
        "versions": results.versions,
        "machine": machine(shop.arguments.num_threads),
        "seconds": trained["seconds"] | seconds,
        "model": model_entry(results, run),
        **pack(results),
    }
    write_run(shop.runs / f"{run.name}.json", content)
    clear(folder, shop.arguments.keep)
    return content


def train_words(shop: Workshop, seed: int, recipe: Path, output: Path) -> list[str]:
    """Returns the arguments of `pretrain`."""
    data = {name: str(Path(shop.arguments.data) / pattern) for name, pattern in shop.experiment.data.items()}
    words = [str(recipe), *words_of(data), "--seed", str(seed), "--output_dir", str(output)]
    for name in ("tokenizer_name", "num_threads"):
        value = getattr(shop.arguments, name)
        words += [f"--{name}", str(value)] if value is not None else []
    return words


def published_words(shop: Workshop, arm: Arm, seed: int) -> str:
    """Returns the command as it is published: without the folders of a machine."""
    data = " ".join(f"--{name} 'DATA/{pattern}'" for name, pattern in shop.experiment.data.items())
    return f"predrec pretrain {arm.name}.yaml {data} --seed {seed} --output_dir OUTPUT"


def train(shop: Workshop, run: Run, folder: Path) -> dict[str, Any]:
    """Trains, or goes on with training that was interrupted; returns and saves what the run's file says of it.

    Raises:
        StoppedError: If a signal ended the training.
        UserError: If it failed.
    """
    arm, output = shop.experiment.arms[run.arm], folder / "train"
    recipe = folder / f"{arm.name}.yaml"
    write_recipe(recipe, arm.arguments, f"Arm {arm.name} of an experiment: {arm.why}")
    words = train_words(shop, run.seed, recipe, output)
    if output.is_dir():
        words += ["--resume_from_checkpoint", "true"]
    started = time.perf_counter()
    checkpoint, state = pretrained(words, output, folder / "train.log", f"Training {run.name}")
    wall = time.perf_counter() - started
    steps, per_step = state["global_step"], shop.tokens_per_step[run.arm]
    found = curves(state["log_history"])
    change = float(arm.arguments.get("jepa_start", 0)) * steps
    training, at_median = training_seconds(update_speeds(found, per_step), steps, change)
    evaluating = evaluation_seconds(state["log_history"])
    trained = {
        "definition": shop.definitions[run.arm],
        "data": (checkpoint / DATA_FILE).read_text(encoding="utf-8").strip()[:16],
        "command": published_words(shop, arm, run.seed),
        "arguments": arm.arguments,
        "steps": steps,
        "tokens": steps * per_step,
        # The rest is preparing data, evaluating and saving; what happened before an interruption is in the log alone.
        "seconds": {
            name: round(value, 1)
            for name, value in (
                ("training", training),
                ("rest", max(wall - training, evaluating)),
            )
        },
        "seconds_at_median_speed": round(at_median, 1),
        "last": last(found),
        "curves": found,
    }
    write_run(folder / TRAINED_FILE, trained)
    return trained


def pretrained(words: Sequence[str], output: Path, log: Path, what: str) -> tuple[Path, dict[str, Any]]:
    """Runs `pretrain`; returns its last checkpoint and the Trainer's state in it.

    Raises:
        StoppedError: If a signal ended it.
        UserError: If it failed.
    """
    code = pretrain_in_process(words, log)
    if code >= 128:
        raise StoppedError(code)
    if code:
        raise UserError(f"{what} failed: see {log}.", tail(log))
    checkpoint = checkpoints_in(output)[-1]
    return checkpoint, json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))


def read_trained(path: Path, definition: str) -> dict[str, Any] | None:
    """Returns what is known of a training that has ended, `None` if it has not.

    Raises:
        UserError: If it was trained from another definition.
    """
    if not path.is_file():
        return None
    trained = json.loads(path.read_text(encoding="utf-8"))
    if trained["definition"] != definition:
        raise UserError(f"{path.parent} holds a run of another definition of the arm: delete it, or move it away.")
    return trained


def pretrain_in_process(words: Sequence[str], log: Path) -> int:
    """Runs `pretrain` in a process of its own, which gets this one's SIGTERM; returns its exit code."""
    command = [sys.executable, "-m", "predrec.commands.pretrain", *words]
    stops: list[int] = []
    processes: list[subprocess.Popen[bytes]] = []

    def pass_on(number: int, frame: object) -> None:
        stops.append(number)
        for process in processes:
            process.terminate()

    previous = {
        # A terminal sends Ctrl-C to both; this one waits until the other has saved.
        signal.SIGINT: signal.signal(signal.SIGINT, lambda number, frame: None),
        # Before the process begins: between the two, a signal would end this one and leave the other to itself.
        signal.SIGTERM: signal.signal(signal.SIGTERM, pass_on),
    }
    try:
        with log.open("ab") as stream:
            process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT)
        processes.append(process)
        if stops:
            process.terminate()
        code = process.wait()
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    return 128 - code if code < 0 else code


def tail(path: Path, lines: int = 5) -> list[str]:
    """Returns the last lines of a log."""
    text = path.read_text(encoding="utf-8", errors="replace").replace("\r", "\n")
    return [line for line in text.splitlines() if line.strip()][-lines:]


def evaluate(shop: Workshop, run: Run, folder: Path) -> tuple[Results, dict[str, float]]:
    """Probes and measures the trained encoder; returns the results, and the seconds of each."""
    parts, seconds = [], {}
    shared = ["--models", f"{run.arm}={folder / 'train'}", "--data_dir", str(shop.arguments.glue)]
    shared += ["--use_embedding_cache", "false"]
    if shop.arguments.num_threads is not None:
        shared += ["--num_threads", str(shop.arguments.num_threads)]
    for name, settings, command in (
        ("probes", shop.experiment.probe, probe_glue.main),
        ("geometry", shop.experiment.geometry, analyze_representations.main),
    ):
        if settings:
            output, started = folder / name, time.perf_counter()
            words = [*shared, *words_of(settings), "--output_dir", str(output)]
            if shop.dtype is not None and "encoder_dtype" not in settings:
                words += ["--encoder_dtype", shop.dtype]
            logged(command, words, folder / f"{name}.log")
            parts.append(read_results(output))
            seconds[name] = round(time.perf_counter() - started, 1)
    return merge_results(parts) if parts else Results(), seconds


def logged(command: Callable[[Sequence[str]], int], words: Sequence[str], log: Path) -> None:
    """Runs a command with what it prints in a file.

    Raises:
        UserError: If it fails.
    """
    with log.open("w", encoding="utf-8") as stream, redirect_stdout(stream), redirect_stderr(stream):
        code = command(words)
    if code:
        raise last_error(log)


def last_error(log: Path) -> UserError:
    """Returns the error with which a command ended, as its log has it."""
    lines = tail(log, 50) or ["nothing was printed"]
    begins = [number for number, line in enumerate(lines) if line.startswith("error: ")]
    message, *details = lines[begins[-1] if begins else -1 :]
    return UserError(message.removeprefix("error: "), [line.strip() for line in details])


def model_entry(results: Results, run: Run) -> dict[str, Any] | None:
    """Returns what the results say of the encoder, named after the run."""
    return results.models[0] | {"folder": run.name} if results.models else None


def machine(num_threads: int | None) -> str:
    """Says in words what the run was made on."""
    cores = num_threads or usable_cores()
    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}"
    return f"{cores} CPU core{'s' if cores != 1 else ''}, {platform.machine()}"


def clear(folder: Path, keep: str) -> None:
    """Deletes the weights of a finished run that are not to be kept."""
    if keep == "all":
        return
    for checkpoint in checkpoints_in(folder / "train"):
        shutil.rmtree(checkpoint)
    if keep == "nothing":
        # First: without weights, what is known of the training would have later calls skip it.
        (folder / TRAINED_FILE).unlink()
        shutil.rmtree(folder / "train")
    for name in ("probes/heads", "probes/predictions.npz"):
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
