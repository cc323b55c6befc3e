"""How to type a command that the user should run next: as this one was typed."""

import os
import sys
from pathlib import Path


def next_command(command: str, script: str) -> str:
    """Returns a command: the script where a script is running, else the sub-command of `predrec`.

    Args:
        command (`str`): Sub-command, such as `report`.
        script (`str`): What runs the same in a clone, such as `python scripts/report.py`.
    """
    return typed_folder() + (script if Path(sys.argv[0]).resolve().parent.name == "scripts" else f"predrec {command}")


def typed_folder() -> str:
    """Returns the folder to type before a command of an environment that is not activated."""
    if sys.prefix == sys.base_prefix or os.environ.get("VIRTUAL_ENV") == sys.prefix:
        return ""
    return os.path.relpath(Path(sys.executable).parent) + os.sep
