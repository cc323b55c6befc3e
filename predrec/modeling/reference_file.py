"""A file of `torch.save` from anywhere, read without ever running what is in it."""

import re
import zipfile
from pathlib import Path
from typing import Any

import torch

MAX_BYTES = 32 * 2**30
"""Largest file that is opened: several times the largest model that the original code names, optimizer included."""

NOT_WEIGHTS = re.compile(r"GLOBAL ([\w.]+)|function (\S+)|(Unsupported operand \d+)")
"""What torch's restricted unpickler says it refused."""


def load_weights_file(path: str | Path) -> Any:
    """Loads a file of `torch.save` with torch's restricted unpickler, and nothing else.

    Tensors stay in the file until they are used, so an optimizer beside the weights costs no memory.

    Args:
        path (`str`): The file.

    Returns:
        What was saved: tensors, numbers, text, lists and mappings.

    Raises:
        ValueError: If there is no such file, if it is huge, damaged, compressed or no file of `torch.save`, or holds
            anything but weights and plain values.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError("it is a folder, not a file." if path.is_dir() else "the file does not exist.")
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"it has {path.stat().st_size / 2**30:,.0f} GiB; at most {MAX_BYTES >> 30} are read.")
    _check_archive(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    # A file made to do harm decides what is raised here.
    except Exception as error:
        found = NOT_WEIGHTS.search(str(error))
        if found:
            what = next(group for group in found.groups() if group)
            raise ValueError(
                f"it holds more than weights and plain values ({what}). That could run code, so it was not loaded: "
                "save it again with tensors, numbers, text, lists and dictionaries only."
            ) from error
        raise ValueError(f"torch cannot read it ({_first_line(error)}): copy or download it again.") from error


def _check_archive(path: Path) -> None:
    """Refuses what is no intact, uncompressed zip archive, which is what `torch.save` writes."""
    size = path.stat().st_size
    try:
        with zipfile.ZipFile(path) as archive:
            records = archive.infolist()
            compressed = any(record.compress_type != zipfile.ZIP_STORED for record in records)
            inflated = compressed or sum(record.file_size for record in records) > size
            damaged = None if inflated else archive.testzip()
    except Exception as error:
        raise ValueError(
            f"it is cut short, or not a file of `torch.save` ({_first_line(error)}): copy or download it again; a "
            "file of a torch older than 1.6 must be loaded and saved with a newer one."
        ) from error
    if inflated:
        raise ValueError("it is compressed, which `torch.save` never does.")
    if damaged:
        raise ValueError(f"it is damaged at {damaged!r}: copy or download it again.")


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no reason given'}"
