"""The folder of an export: new, apart from its source, and complete or not there."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from ..errors import UserError
from ..trainers.whole_folders import put_in_place, staging_of


def check_output_dir(output_dir: str, source: str) -> None:
    """Refuses a folder that holds anything, or that belongs to the source.

    Raises:
        UserError: With what to do instead.
    """
    target = Path(output_dir).resolve()
    if Path(source).is_dir() and target.is_relative_to(Path(source).resolve()):
        raise UserError(
            f"`output_dir` {output_dir!r} is the source or in it, and an export leaves its source as it is: choose a "
            "folder outside."
        )
    for path in (target, *target.parents):
        if path.exists() and not path.is_dir():
            raise UserError(f"`output_dir` {output_dir!r}: {str(path)!r} is a file.")
    held = sorted(path.name for path in target.iterdir()) if target.is_dir() else []
    if held:
        raise UserError(
            f"`output_dir` {output_dir!r} is not empty ({', '.join(held[:3])}): an export writes over nothing, not "
            "even an earlier export. Choose another folder, or delete it."
        )


@contextmanager
def new_folder(output_dir: str) -> Iterator[Path]:
    """Gives a folder to write into; what it holds is `output_dir` when the block ends, by one rename, or not at all.

    Raises:
        UserError: If the disk is full or cannot be written.
    """
    target = Path(output_dir).resolve()
    staging = staging_of(target)
    try:
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        yield staging
        put_in_place(staging, target)
    except BaseException as error:
        shutil.rmtree(staging, ignore_errors=True)
        # Libraries raise OSError without a number for other things than the disk.
        if isinstance(error, SafetensorError) or (isinstance(error, OSError) and error.errno is not None):
            raise UserError(f"Could not write `output_dir` {output_dir!r}: {error}. Nothing is left there.") from error
        raise
