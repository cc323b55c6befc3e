"""Small disks that can be filled and locked, and other things of the machine."""

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def can_mount() -> bool:
    """Whether this user may mount a file system; root may."""
    return os.geteuid() == 0 and Path("/proc/mounts").is_file() and _try_it()


def _try_it() -> bool:
    """Containers may forbid it to root, too."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True)
        if done.returncode == 0:
            subprocess.run(["umount", folder], check=True)
        return done.returncode == 0


class Disk:
    """A file system in memory.

    Args:
        path (`Path`): Where it is mounted.
    """

    def __init__(self, path: Path):
        self.path = path

    def fill(self) -> None:
        """Writes until nothing more goes in."""
        with (self.path / "ballast").open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(b"x" * 4096)

    def make_room(self) -> None:
        (self.path / "ballast").unlink()

    def lock(self) -> None:
        """Makes it read-only, as soon as no file is open for writing."""
        deadline = time.monotonic() + 20
        while self._remount("ro").returncode:
            assert time.monotonic() < deadline, "the disk stayed in use"

    def unlock(self) -> None:
        self._remount("rw").check_returncode()

    def _remount(self, how: str) -> subprocess.CompletedProcess:
        return subprocess.run(["mount", "-o", f"remount,{how}", str(self.path)], capture_output=True)


@contextmanager
def mounted(folder: Path, mebibytes: int = 16) -> Iterator[tuple[Path, Disk]]:
    """Mounts a small disk as the output directory `run` in a folder."""
    path = folder / "run"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m", "tmpfs", str(path)], check=True)
    try:
        yield folder, Disk(path)
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


def free_port() -> int:
    """Returns a port that nothing listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
