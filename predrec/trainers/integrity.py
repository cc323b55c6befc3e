"""Checksums of a checkpoint's files: damage is found before a run goes on from it."""

import hashlib
import json
from pathlib import Path

from transformers.utils import logging

from ..errors import UserError
from .contents import unusable

logger = logging.get_logger(__name__)

CHECKSUMS_FILE = "checksums.json"


def checksum(path: Path) -> str:
    """Returns the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_checksums(folder: Path) -> None:
    """Writes `checksums.json`: the checksum of every other file in the folder, by its name."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != CHECKSUMS_FILE)
    sums = {path.relative_to(folder).as_posix(): checksum(path) for path in files}
    (folder / CHECKSUMS_FILE).write_text(json.dumps(sums, indent=1), encoding="utf-8")


def damage(folder: Path) -> str | None:
    """Says what is wrong with a checkpoint, or returns `None`.

    One without checksums, from another program or an older version, is taken for whole if it has a trainer's state.
    """
    path = folder / CHECKSUMS_FILE
    if not path.is_file():
        return None if (folder / "trainer_state.json").is_file() else "trainer_state.json is missing"
    try:
        sums = json.loads(path.read_text(encoding="utf-8")).items()
    except (OSError, ValueError, AttributeError) as error:
        return f"{path.name} cannot be read: {error}"
    try:
        for name, expected in sums:
            if not (folder / name).is_file():
                return f"{name} is missing"
            if checksum(folder / name) != expected:
                return f"{name} is not as it was written"
    except OSError as error:
        return f"a file cannot be read: {error}"
    return None


def check_whole(checkpoint: Path) -> None:
    """Raises a [`UserError`] that names the file if a checkpoint is damaged, or holds what is not to be read."""
    problem = damage(checkpoint) or unusable(checkpoint)
    if problem:
        raise UserError(f"{str(checkpoint)!r} is damaged: {problem}. Use an earlier checkpoint.")


def newest_whole(checkpoints: list[Path]) -> Path | None:
    """Returns the newest checkpoint that is whole. Damaged ones are named, and set aside under another name.

    Args:
        checkpoints (`list[Path]`): Oldest first.

    Returns:
        The checkpoint, or `None` if there is none at all.

    Raises:
        UserError: If every checkpoint is damaged.
    """
    problems = []
    for checkpoint in reversed(checkpoints):
        problem = damage(checkpoint) or unusable(checkpoint)
        if problem is None:
            if problems:
                logger.warning(f"DAMAGED: {'; '.join(problems)}. Going on from {checkpoint.name} instead.")
            return checkpoint
        aside = _set_aside(checkpoint)
        problems.append(f"{checkpoint.name} ({problem}), now {aside.name}")
    if problems:
        raise UserError(
            f"Every checkpoint is damaged: {'; '.join(problems)}. Begin again without `--resume_from_checkpoint`, in "
            "another `--output_dir`."
        )
    return None


def _set_aside(checkpoint: Path) -> Path:
    """Renames a checkpoint so that nothing takes it for one; where that is forbidden, it stays."""
    for number in range(100):
        aside = checkpoint.with_name(f"damaged-{checkpoint.name}" + (f"-{number}" if number else ""))
        if not aside.exists():
            try:
                return checkpoint.rename(aside)
            except OSError:
                return checkpoint
    return checkpoint
