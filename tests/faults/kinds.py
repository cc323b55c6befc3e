"""The faults: what is done to a run, and when. Each returns its record."""

import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from predrec.configuration import DataArguments
from predrec.trainers.checkpoints import checkpoints_in
from predrec.trainers.integrity import CHECKSUMS_FILE
from tests import training

from . import disks
from .data import truncated_gzip, with_broken_row_group
from .ledger import Fault, Reference, record
from .runs import MAX_STEPS, SAVE_STEPS, Run, go_on, half_made, newest_step, start

Make = Callable[[str, random.Random], tuple[bytes, bytes]]
"""Makes a data file of a text: whole, and damaged."""


class Bench:
    """Where faults are tried.

    Args:
        folder (`Path`): A folder for every fault is made in it, with the corpus.
        corpus (`str`): The text.
        seed (`int`): Decides all moments.
    """

    def __init__(self, folder: Path, corpus: str, seed: int):
        self.folder, self.corpus, self.random = folder, corpus, random.Random(seed)
        self.count = 0
        begun, clean = time.monotonic(), start(self.new())
        until_step(clean, 1)
        self.start_up = time.monotonic() - begun
        clean.wait()
        self.update = (time.monotonic() - begun - self.start_up) / MAX_STEPS
        self.reference = Reference(clean)

    def new(self) -> Path:
        """Returns a new folder with the corpus."""
        self.count += 1
        folder = self.folder / f"{self.count:03d}"
        folder.mkdir()
        (folder / "corpus.txt").write_text(self.corpus, encoding="utf-8")
        training.tokenizer().save_pretrained(folder / "tokenizer")
        return folder

    def kill(self, run: Run, updates: int = MAX_STEPS) -> None:
        """Kills a run anywhere in its next updates, or, one time in eight, before the first."""
        if self.random.random() < 1 / 8:
            run.kill_after(self.random.uniform(0, self.start_up))
        else:
            step = newest_step(run.folder) + self.random.randrange(updates)
            run.kill_after(self.random.uniform(0, self.update), step)

    def step(self) -> int:
        """Returns an update after the first checkpoint and before the last."""
        return self.random.randint(SAVE_STEPS, MAX_STEPS - 2)


def until_step(run: Run, step: int) -> None:
    run.wait(until=lambda: run.step >= step)


def _where(run: Run, before: str = "before the first update") -> str:
    saving = half_made(run.folder)
    if saving:
        return f"during a save, {saving[0]}"
    return f"after update {run.step}" if run.step else before


def _finish(bench: Bench, kind: str, run: Run, problem: str = "", seconds: float = 0.0, moment: str = "") -> Fault:
    """Goes on with a run that has ended, and makes the record."""
    moment, began_at = moment or _where(run), newest_step(run.folder)
    return record(kind, moment, run, go_on(run.folder), began_at, bench.reference, problem, seconds)


def kill_any_time(bench: Bench) -> Fault:
    """kill -9 at any moment."""
    run = start(bench.new())
    bench.kill(run)
    return _finish(bench, "kill -9 at any moment", run)


def kill_while_saving(bench: Bench) -> Fault:
    """kill -9 when a checkpoint is being written, some milliseconds after it was begun."""
    run = start(bench.new())
    until_step(run, bench.random.randrange(0, MAX_STEPS, SAVE_STEPS))
    run.wait(until=lambda: bool(half_made(run.folder)))
    seen, delay = time.monotonic(), bench.random.uniform(0, 0.04)
    run.wait(until=lambda: time.monotonic() - seen > delay)
    run.send(signal.SIGKILL)
    run.wait()
    return _finish(bench, "kill -9 during a save", run)


def kill_again_and_again(bench: Bench) -> Fault:
    """kill -9 of a run, of the one that goes on, and so on, five times."""
    folder, steps, run = bench.new(), [], None
    for number in range(5):
        run = start(folder, *(["--resume_from_checkpoint", "true"] if number else []))
        bench.kill(run, updates=2 * SAVE_STEPS)
        steps.append(run.step)
    return _finish(bench, "kill -9 five times in a row", run, moment=f"after updates {steps}")


def terminate(bench: Bench) -> Fault:
    """SIGTERM, as a batch system sends it: the run saves and ends with 143."""
    run = start(bench.new())
    until_step(run, bench.step())
    sent = time.monotonic()
    run.send(signal.SIGTERM)
    run.wait()
    problem = "" if run.code == 128 + signal.SIGTERM else f"exit code {run.code}"
    return _finish(bench, "SIGTERM", run, problem, time.monotonic() - sent)


def full_disk(bench: Bench) -> Fault:
    """The disk fills up during the run; later there is room again."""
    with disks.mounted(bench.new()) as (folder, disk):
        run = start(folder)
        until_step(run, bench.step())
        disk.fill()
        run.wait()
        problem = _said(run, "(0 MiB were free)", "intact")
        disk.make_room()
        return _finish(bench, "disk full", run, problem)


def read_only_disk(bench: Bench) -> Fault:
    """The directory cannot be written any more; later it can."""
    with disks.mounted(bench.new()) as (folder, disk):
        run = start(folder)
        until_step(run, bench.step())
        disk.lock()
        run.wait()
        problem = _said(run, "Read-only file system", "intact")
        disk.unlock()
        return _finish(bench, "directory read-only", run, problem)


def _said(run: Run, *parts: str) -> str:
    """Says what is missing in a run's last words; it must have failed, without a traceback."""
    before = run.log.split("\nerror: ")[0]
    missing = [part for part in parts if part not in run.log]
    problem = ""
    if run.code not in (1, 2):
        problem = f"exit code {run.code}"
    # Python prints one, and goes on, where torch tells of a dead worker while a lock is released.
    elif before.count("Traceback") > before.count("Exception ignored in"):
        problem = "a traceback"
    elif missing:
        problem = f"{missing} is not in its last words"
    if problem:
        print(run.log[-2000:], file=sys.stderr)
    return problem


def damaged(how: Callable[[Path, random.Random], None]) -> Callable[[Bench], Fault]:
    """kill -9, and a file of the newest checkpoint is damaged: the one before is used, and the file named."""

    def fault(bench: Bench) -> Fault:
        run = start(bench.new())
        until_step(run, bench.random.randint(2 * SAVE_STEPS + 1, MAX_STEPS - 1))
        run.send(signal.SIGKILL)
        run.wait()
        checkpoints = checkpoints_in(run.output)
        newest, before = checkpoints[-1], checkpoints[-2]
        names = sorted(path.name for path in newest.iterdir() if path.stat().st_size)
        if how is missing:  # Without sums, a checkpoint counts as whole, and this one is.
            names.remove(CHECKSUMS_FILE)
        name = bench.random.choice(names)
        how(newest / name, bench.random)
        moment, began_at = f"{name} of {newest.name}", int(before.name.split("-")[1])
        resumed = go_on(run.folder)
        # Damaged sums may also name the file that they no longer fit.
        named = name in resumed.log or name == CHECKSUMS_FILE
        loud = named and all(part in resumed.log for part in ("DAMAGED", newest.name, f"Going on from {before.name}"))
        problem = "" if loud else "the damage was not named"
        kind = f"newest checkpoint {how.__name__}"
        return record(kind, moment, run, resumed, began_at, bench.reference, problem)

    return fault


def truncated(path: Path, generator: random.Random) -> None:
    os.truncate(path, generator.randrange(path.stat().st_size))


def bit_flipped(path: Path, generator: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[generator.randrange(len(content))] ^= 1 << generator.randrange(8)
    path.write_bytes(content)


def missing(path: Path, generator: random.Random) -> None:
    path.unlink()


def dead_worker(bench: Bench) -> Fault:
    """kill -9 of a process that loads data."""
    run = start(bench.new(), "--dataloader_num_workers", "2")
    until_step(run, bench.step())
    children = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
    os.kill(int(bench.random.choice(children)), signal.SIGKILL)
    sent = time.monotonic()
    run.wait()
    problem = _said(run, "A process that loads data died", "go on with `--resume_from_checkpoint true`")
    return _finish(bench, "a process that loads data dies", run, problem, time.monotonic() - sent)


@contextmanager
def two_processes(folder: Path, port: int, *words: str) -> Iterator[list[Run]]:
    """One run of two processes, without a launcher that would end the other."""
    environment = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    runs = [start(folder, *words, RANK=str(rank), LOCAL_RANK=str(rank), **environment) for rank in range(2)]
    try:
        yield runs
    finally:
        for run in runs:
            run.send(signal.SIGKILL)
            run.wait()


class TwoProcessBench(Bench):
    """A bench whose reference ran in two processes."""

    def __init__(self, folder: Path, corpus: str, seed: int):
        self.folder, self.corpus, self.random, self.count = folder, corpus, random.Random(seed), 0
        with two_processes(self.new(), disks.free_port()) as runs:
            for run in runs:
                run.wait()
        self.reference = Reference(runs[0])


def dead_process(bench: Bench) -> Fault:
    """kill -9 of one of the two processes that train; the other must end by itself, soon."""
    folder = bench.new()
    with two_processes(folder, disks.free_port(), "--ddp_timeout", "20") as runs:
        victim = bench.random.randrange(2)
        until_step(runs[0], bench.step())
        runs[victim].send(signal.SIGKILL)
        sent, other = time.monotonic(), runs[1 - victim]
        other.wait()
        seconds = time.monotonic() - sent
        problem = _said(other, "Another process of the run died")
    began_at = newest_step(folder)
    moment = f"process {victim}, {_where(runs[0])}"
    with two_processes(folder, disks.free_port(), "--resume_from_checkpoint", "true") as resumed:
        for run in resumed:
            run.wait()
    kind = "one of two processes dies"
    return record(kind, moment, runs[0], resumed[0], began_at, bench.reference, problem, seconds)


def clock_backwards(bench: Bench) -> Fault:
    """The clock goes backwards by an hour with every look at it, files are dated accordingly; then kill -9."""

    def turn_back() -> None:
        real, looks = time.time, iter(range(10**9))
        time.time = lambda: real() - 3600.0 * next(looks)

    run = start(bench.new(), prepare=turn_back)
    until_step(run, bench.step())
    run.send(signal.SIGKILL)
    run.wait()
    for hours, checkpoint in enumerate(checkpoints_in(run.output)):
        for path in [checkpoint, *checkpoint.iterdir()]:
            os.utime(path, (time.time() - 3600 * hours, time.time() - 3600 * hours))
    return _finish(bench, "clock goes backwards, then kill -9", run)


def broken_parquet(bench: Bench) -> Fault:
    return _broken_data(bench, "corrupt parquet row group", "corpus.parquet", with_broken_row_group)


def broken_gzip(bench: Bench) -> Fault:
    return _broken_data(bench, "gzip without its tail", "corpus.txt.gz", truncated_gzip)


def _broken_data(bench: Bench, kind: str, name: str, make: Make) -> Fault:
    """A file of a stream turns out to be damaged, and is then replaced by a whole one."""
    whole, broken = make("\n".join([bench.corpus] * 40), bench.random)
    folder = _with_data(bench, name, broken)
    share = ["--validation_share", str(DataArguments.validation_share)]
    words = ["--train_file", name, "--validation_file", "held-out.txt", "--streaming", "true", *share]
    run = start(folder, *words)
    run.wait()
    problem = _said(run, name)
    (folder / name).write_bytes(whole)
    began_at = newest_step(folder)
    resumed = go_on(folder, *words)
    clean = start(_with_data(bench, name, whole), *words)
    clean.wait()
    return record(kind, _where(run), run, resumed, began_at, Reference(clean), problem)


def _with_data(bench: Bench, name: str, content: bytes) -> Path:
    folder = bench.new()
    (folder / name).write_bytes(content)
    shutil.copy(folder / "corpus.txt", folder / "held-out.txt")
    return folder
