"""Scripts run as by `python scripts/x.py`, in processes forked from one that has imported everything already.

Its own arguments, directory, environment, output and exit code, without the seven seconds of importing libraries.
"""

import importlib
import json
import os
import runpy
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
IMPORTED = ("predrec.commands.pretrain", "transformers.trainer", "datasets", "accelerate")


def run_script(name: str, *words: str, cwd: Path, timeout: float = 240) -> subprocess.CompletedProcess:
    """Runs a script of this project.

    Args:
        name (`str`): Such as `"pretrain.py"`.
        words (`str`): Its arguments.
        cwd (`Path`): Where it runs.
        timeout (`float`, defaults to 240): Seconds after which it is killed, and the test fails.

    Returns:
        Exit code, and what it printed, as text; what is no UTF-8 is replaced.
    """
    with tempfile.TemporaryDirectory() as folder:
        paths = [str(Path(folder) / stream) for stream in ("out", "err")]
        script = str(ROOT / "scripts" / name)
        order = {"words": [script, *words], "cwd": str(cwd), "environment": dict(os.environ), "paths": paths}
        process = _warm()
        process.stdin.write(json.dumps(order | {"timeout": timeout}) + "\n")
        process.stdin.flush()
        code = int(process.stdout.readline())
        out, err = (Path(path).read_text(encoding="utf-8", errors="replace") for path in paths)
    return subprocess.CompletedProcess(order["words"], code, out, err)


@cache
def _warm() -> subprocess.Popen:
    """Starts the process that is forked, once; it ends when nothing can ask it any more."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    return subprocess.Popen([sys.executable, "-m", "tests.warm"], cwd=ROOT, env=environment, text=True, **streams)


def _serve() -> None:
    for name in IMPORTED:
        importlib.import_module(name)
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _become(**order)
        print(_code_of(pid, order["timeout"]), flush=True)


def _code_of(pid: int, seconds: float) -> int:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(pid, 9)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _become(words: list[str], cwd: str, environment: dict[str, str], paths: list[str], timeout: float) -> None:
    code = 1
    for number, path in enumerate(paths, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
    try:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.chdir(cwd)
        os.environ.clear()
        os.environ.update(environment)
        sys.argv = words
        sys.path[0] = str(Path(words[0]).parent)
        runpy.run_path(words[0], run_name="__main__")
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    _serve()
