"""Starts the same code in several processes that talk through gloo, or in this one in place of another."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path

from predrec.commands import pretrain

ROOT = Path(__file__).parents[1]
LIMIT = "import faulthandler\nfaulthandler.dump_traceback_later(240, exit=True)\n"
"""Ends a process that hangs before the test's own limit does, and says where each of its threads was."""
AT_ONCE = "import os, sys\nsys.stdout.flush()\nos._exit(0)\n"
"""Ends a script that holds process groups itself, which Python may not survive: see `predrec.trainers.ending`."""


def in_two_processes(code: str, folder: Path, *arguments: str, **environment: str) -> str:
    """Runs the code under torchrun with two processes on one thread each; returns what they print.

    Args:
        code (`str`): A script. It finds the folder in `sys.argv[1]`.
        folder (`Path`): Where it is written to, and its results go.
        arguments (`str`): What else it finds in `sys.argv`.
        environment (`str`): Variables to set.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "script.py").write_text(LIMIT + code, encoding="utf-8")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    result = subprocess.run(
        [*launcher, str(folder / "script.py"), str(folder), *arguments],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | environment,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr[-20000:]
    return result.stdout


def once(tmp_path_factory, name: str, make: Callable[[Path], object]) -> Path:
    """Gives a folder that `make` has filled, once for all workers of a test run; the others wait."""
    root = tmp_path_factory.getbasetemp()
    root = root.parent if "PYTEST_XDIST_WORKER" in os.environ else root
    folder, finished = root / name, root / f"{name}.finished"
    try:
        folder.mkdir()
    except FileExistsError:
        while not finished.exists():
            time.sleep(0.1)
        assert finished.read_text() == "well", f"another worker could not make {name}"
        return folder
    how = "badly"
    try:
        make(folder)
        how = "well"
    finally:
        finished.with_suffix(".partial").write_text(how)
        finished.with_suffix(".partial").rename(finished)
    return folder


def pretrained_here(words: list[str], log: Path) -> int:
    """Stands for `pretrain` in a process of its own, which takes seconds to start."""
    with log.open("a") as stream, redirect_stdout(stream):
        return pretrain.main(words)
