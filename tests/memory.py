"""How much memory a process of its own takes at most."""

import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def anonymous_bytes(pid: int) -> int:
    """Returns what a process holds of its own: without files that are mapped, whose pages the system may take back."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return 0
    found = re.search(r"RssAnon:\s*(\d+) kB", status)
    return int(found[1]) * 1024 if found else 0


def peak_of(command: Sequence[str], **options) -> tuple[int, subprocess.CompletedProcess]:
    """Runs a command and returns the most memory that it had, in bytes, looked at every few milliseconds.

    Args:
        command (`Sequence[str]`): The command; processes that it starts are not counted.
        options: Of `subprocess.Popen`.
    """
    if not Path("/proc/self/status").is_file():
        pytest.skip("There is no /proc to read the memory of a process from.")
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, **options)
    return _watched(process, lambda: anonymous_bytes(process.pid))


def _watched(process: subprocess.Popen, measure: Callable[[], int]) -> tuple[int, subprocess.CompletedProcess]:
    peak = 0
    while process.poll() is None:
        peak = max(peak, measure())
        time.sleep(0.005)
    out, err = process.communicate()
    return peak, subprocess.CompletedProcess(process.args, process.returncode, out, err)


def python(code: str, *arguments: str) -> list[str]:
    """Returns the command that runs code."""
    return [sys.executable, "-c", code, *arguments]
