"""Checkpoints that appear whole or not at all, and the check that one belongs to the recipe."""

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from transformers.utils import logging

from ..errors import UserError
from .integrity import check_whole, newest_whole, write_checksums
from .whole_folders import put_in_place, remove, staging_of, sweep, take_back

logger = logging.get_logger(__name__)

WRITE_FAILURE = re.compile(r"PytorchStreamWriter|inline_container|file write failed|iostream error|\(os error \d+\)")
"""Of errors of other types: torch.save fails in its zip writer or stream, tokenizers with a bare `Exception`."""

METRICS_FILE = "metric_sums_{rank}.json"
RECIPE_FILE = "recipe.json"

DATA_FILE = "data_fingerprint.txt"

MAY_DIFFER = re.compile(
    r"output_dir|num_threads|preprocessing_num_workers|disable_tqdm|per_device_eval_batch_size|monitor_examples|run_name"
    r"|non_finite|max_skipped_steps"
    r"|ddp_timeout|dataloader_(num_workers|persistent_workers|prefetch_factor|pin_memory)"
    r"|(logging|log|eval|save|hub|push|report|project|trackio)(_.*)?"
)
"""Arguments that a resumed run may change: they do not touch what is trained."""

OF_A_RUN = ("config.json", "model.safetensors", "README.md", "recipe.yaml", "tokenizer.json", "training_curves.png")
"""Files that a run writes into its output directory."""


def checkpoint_step(path: Path) -> int:
    """Returns the step in a checkpoint's name, or -1 if it is not one."""
    match = re.fullmatch(r"checkpoint-(\d+)", path.name)
    return int(match[1]) if match else -1


def checkpoints_in(run_dir: str | Path) -> list[Path]:
    """Returns the checkpoints of a run, oldest first. They appear whole; whether they still are, see `integrity`."""
    found = [path for path in Path(run_dir).glob("checkpoint-*") if checkpoint_step(path) >= 0 and path.is_dir()]
    return sorted(found, key=checkpoint_step)


@contextmanager
def committed_checkpoint(final: Path, writes: bool, accelerator) -> Iterator[Path]:
    """Gives a staging directory that becomes `final` when the block ends, by one rename after a sync to disk.

    Args:
        final (`Path`): The checkpoint's directory.
        writes (`bool`): Whether this process creates and renames; the others only write into the directory.
        accelerator (`Accelerator`): Makes processes wait for one another.

    Raises:
        UserError: If the disk is full or cannot be written; earlier checkpoints are untouched.
    """
    staging = staging_of(final)
    with write_errors_explained(final.name, final.parent, staging):
        if writes:
            sweep(final.parent, "checkpoint-*")
            staging.mkdir(parents=True)
        accelerator.wait_for_everyone()
        yield staging
        accelerator.wait_for_everyone()
        if writes:
            write_checksums(staging)
            put_in_place(staging, final)


@contextmanager
def write_errors_explained(what: str, output_dir: Path, staging: Path) -> Iterator[None]:
    """Turns a failed write into a [`UserError`] that says what is left, and clears what was half written.

    Args:
        what (`str`): What is being written.
        output_dir (`Path`): Directory of the run.
        staging (`Path`): Directory to clear on failure.
    """
    try:
        yield
    except Exception as error:
        if not (isinstance(error, OSError | SafetensorError) or WRITE_FAILURE.search(str(error))):
            raise
        free = shutil.disk_usage(output_dir).free / 2**20 if output_dir.is_dir() else 0
        shutil.rmtree(staging, ignore_errors=True)
        kept = checkpoints_in(output_dir)
        raise UserError(
            f"Could not save {what} in `output_dir` {str(output_dir)!r} ({free:.0f} MiB were free): {error}. "
            + (f"{kept[-1].name} is intact: " if kept else "No checkpoint was written before: ")
            + "make room or choose another `output_dir`, then go on with `--resume_from_checkpoint true`."
        ) from error


def rotate(run_dir: str | Path, limit: int, best: str | None) -> None:
    """Deletes the oldest checkpoints beyond `limit`; the best and the newest always stay."""
    checkpoints = checkpoints_in(run_dir)
    keep = {path for path in checkpoints if best and path.name == Path(best).name} | set(checkpoints[-1:])
    for path in reversed(checkpoints):
        if len(keep) < limit:
            keep.add(path)
    for path in checkpoints:
        if path not in keep:
            remove(path)


def resume_point(output_dir: str | Path, resume: bool | str | None) -> Path | None:
    """Decides where a run begins, before anything is loaded.

    Args:
        output_dir (`str`): Directory of the run.
        resume (`bool` or `str`, *optional*): The argument `resume_from_checkpoint`.

    Returns:
        The checkpoint to go on from, or `None` to begin.

    Raises:
        UserError: If the directory holds another run and resuming was not asked for, there is no such checkpoint, or
            it is damaged. Of the newest ones, damaged ones are passed over.
    """
    output_dir = Path(output_dir)
    _check_writable(output_dir)
    take_back(output_dir, "checkpoint-*")
    found = checkpoints_in(output_dir)
    if isinstance(resume, str):
        checkpoint = Path(resume)
        if not os.path.isfile(checkpoint / "trainer_state.json"):
            raise UserError(f"`resume_from_checkpoint`: {resume!r} is not a checkpoint directory.")
        if checkpoint.resolve().parent != output_dir.resolve():
            _refuse_what_is_there(output_dir, found)
        check_whole(checkpoint)
        return checkpoint
    if resume:
        if not found:
            _refuse_what_is_there(output_dir, found, "it has no checkpoint to go on from: ")
            logger.warning(
                f"`resume_from_checkpoint`: {str(output_dir)!r} has no checkpoint yet; beginning at step 0."
            )
        return newest_whole(found)
    _refuse_what_is_there(output_dir, found)
    return None


def _check_writable(output_dir: Path) -> None:
    """Raises `UserError` if nothing can be written there, found out by writing; what was not there is not made."""
    # Unlike pathlib, os.path takes a name that is too long for one that is not there.
    there = next(path for path in (output_dir, *output_dir.parents) if os.path.exists(path))
    if not there.is_dir():
        raise UserError(f"`output_dir` {str(output_dir)!r}: {str(there)!r} is a file.")
    made = []
    try:
        if there == output_dir:
            tempfile.TemporaryFile(dir=there).close()
        for path in reversed([output_dir, *output_dir.parents]):
            if not os.path.exists(path):
                path.mkdir(exist_ok=True)
                made.append(path)
    except OSError as error:
        raise UserError(
            f"`output_dir` {str(output_dir)!r} cannot be written: {error.strerror}. Choose another one."
        ) from error
    finally:
        for path in reversed(made):
            with suppress(OSError):  # Another process of this run may have begun to use it.
                path.rmdir()


def _refuse_what_is_there(
    output_dir: Path, checkpoints: list[Path], advice: str = "go on with `--resume_from_checkpoint true`, "
) -> None:
    """Raises `UserError` if a new run would write over something."""
    there = [path.name for path in checkpoints] + [name for name in OF_A_RUN if (output_dir / name).exists()]
    if there:
        raise UserError(
            f"`output_dir` {str(output_dir)!r} already holds a run or files ({', '.join(there[:3])}): {advice}choose "
            "another `--output_dir`, or delete it."
        )


def check_recipe(checkpoint: Path, recipe: dict[str, Any], defaults: dict[str, Any], world_size: int) -> None:
    """Refuses to resume a checkpoint with arguments, or processes, that would change what is computed.

    Args:
        checkpoint (`Path`): The checkpoint.
        recipe (`dict`): Arguments of this call.
        defaults (`dict`): Value of every argument that is not given.
        world_size (`int`): Processes of this call; a batch of the run is as many times one of a device.

    Raises:
        UserError: Naming every argument that differs, with both values.
    """
    path = checkpoint / RECIPE_FILE
    if not path.is_file():
        return
    saved = json.loads(path.read_text(encoding="utf-8"))
    of_call = {"world_size": world_size}
    refuse_differences(checkpoint.name, saved, recipe | of_call, defaults | of_call)


def refuse_differences(name: str, saved: dict[str, Any], recipe: dict[str, Any], defaults: dict[str, Any]) -> None:
    """Raises `UserError` if two recipes, without what [`MAY_DIFFER`], are not the same; `name` is what was saved."""
    differing = [
        f"`{key}` was {saved.get(key, defaults.get(key))!r} and is now {recipe.get(key, defaults.get(key))!r}"
        for key in sorted({*saved, *recipe})
        if not MAY_DIFFER.fullmatch(key) and saved.get(key, defaults.get(key)) != recipe.get(key, defaults.get(key))
    ]
    if differing:
        raise UserError(
            f"{name} does not match this recipe: {'; '.join(differing)}. Use the same values, begin in another "
            "`--output_dir`, or insist with `--ignore_recipe_mismatch`."
        )


def check_data(checkpoint: Path, fingerprint: str | None) -> None:
    """Refuses to resume on other training data than the checkpoint saw; `UserError`. Streams have no fingerprint."""
    path = checkpoint / DATA_FILE
    if fingerprint and path.is_file() and path.read_text(encoding="utf-8") != fingerprint:
        raise UserError(
            f"`train_file`: the training data is not what {checkpoint.name} was trained on. Use the same data and "
            "tokenizer, begin in another `--output_dir`, or insist with `--ignore_recipe_mismatch`."
        )
