"""How to type a command that the user should run next: as this one was typed, without secrets."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

SECRET = ("hub_token", "push_to_hub_token")
"""Arguments whose values are neither printed nor published."""


def without_secrets(words: Sequence[str]) -> list[str]:
    """Returns the words of a command line without access tokens, however they were typed."""
    kept: list[str] = []
    skips = False
    for word in words:
        name, equals, _ = word.partition("=")
        secret = word.startswith("--") and name.removeprefix("--").replace("-", "_") in SECRET
        if not (secret or skips):
            kept.append(word)
        skips = secret and not equals
    return kept


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
