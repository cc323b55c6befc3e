"""Folders that appear, are replaced and go as a whole, whenever the process is killed."""

import os
import shutil
from pathlib import Path


def _hidden(folder: Path, why: str) -> Path:
    """The name beside it under which nothing takes it for what it is."""
    return folder.with_name(f".{folder.name}.{why}")


def staging_of(final: Path) -> Path:
    """Returns where a folder is put together."""
    return _hidden(final, "partial")


def sweep(parent: Path, pattern: str) -> None:
    """Deletes what killed processes have left half made or half deleted beside folders of this pattern."""
    for left in parent.glob(f".{pattern}"):
        shutil.rmtree(left, ignore_errors=True)


def sync(path: Path) -> None:
    """Waits until a file, or the names in a folder, are on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def put_in_place(staging: Path, final: Path) -> None:
    """Makes a folder appear by one rename, after all of it is on disk; one that is there gives way."""
    for path in [*staging.rglob("*"), staging]:
        sync(path)
    replaced = _hidden(final, "replaced")
    if final.exists():
        os.replace(final, replaced)
    os.replace(staging, final)
    sync(final.parent)
    shutil.rmtree(replaced, ignore_errors=True)


def take_back(parent: Path, pattern: str) -> None:
    """Gives folders their name back that had given way to one that never came."""
    for replaced in parent.glob(f".{pattern}.replaced"):
        final = replaced.with_name(replaced.name.removeprefix(".").removesuffix(".replaced"))
        if not final.exists():
            os.replace(replaced, final)


def remove(folder: Path) -> None:
    """Deletes a folder; half deleted, it no longer has its name."""
    deleted = _hidden(folder, "deleted")
    shutil.rmtree(deleted, ignore_errors=True)
    os.replace(folder, deleted)
    shutil.rmtree(deleted, ignore_errors=True)
