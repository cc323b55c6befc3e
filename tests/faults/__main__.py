"""Injects faults into real runs, counts what came of them: `make faults`, or `python -m tests.faults --help`."""

import argparse
import json
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import accelerate
import torch
import transformers

from predrec import __version__
from tests import training

from . import disks, kinds
from .ledger import Fault, account, as_json, table

FAULTS: tuple[tuple[Callable[[kinds.Bench], Fault], int, int], ...] = (
    (kinds.kill_any_time, 25, 1),
    (kinds.kill_while_saving, 25, 1),
    (kinds.kill_again_and_again, 5, 1),
    (kinds.terminate, 10, 1),
    (kinds.full_disk, 5, 1),
    (kinds.read_only_disk, 5, 1),
    (kinds.damaged(kinds.truncated), 10, 1),
    (kinds.damaged(kinds.bit_flipped), 10, 1),
    (kinds.damaged(kinds.missing), 10, 1),
    (kinds.dead_worker, 10, 1),
    (kinds.clock_backwards, 5, 1),
    (kinds.broken_parquet, 5, 1),
    (kinds.broken_gzip, 5, 1),
)
"""What is done to runs of one process, how often, and how often in a quick run."""

OF_TWO: tuple[tuple[Callable[[kinds.Bench], Fault], int, int], ...] = ((kinds.dead_process, 10, 1),)
NEED_A_DISK = (kinds.full_disk, kinds.read_only_disk)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, help="Where each fault and its outcome are written (JSON).")
    parser.add_argument("--seed", type=int, default=0, help="Decides all moments.")
    parser.add_argument("--quick", action="store_true", help="A few of each.")
    arguments = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        faults = inject(Path(folder), arguments.seed, arguments.quick)
    rows = account(faults)
    print(table(rows))
    for fault in faults:
        if fault.problem:
            print(f"\n{fault.kind} ({fault.moment}): {fault.problem}")
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        found = {
            "command": f"python -m tests.faults --seed {arguments.seed}{' --quick' * arguments.quick}",
            "versions": {
                "predrec": __version__,
                "torch": torch.__version__,
                "transformers": transformers.__version__,
                "accelerate": accelerate.__version__,
                "python": platform.python_version(),
            },
            "minutes": round((time.monotonic() - began) / 60, 1),
            "account": rows,
            "faults": as_json(faults),
        }
        arguments.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return int(any(fault.problem for fault in faults))


def inject(folder: Path, seed: int, quick: bool) -> list[Fault]:
    """Injects the faults, one after the other."""
    corpus = "\n".join(training.corpus())
    faults = []
    for name, kind_of_bench, listed in (("one", kinds.Bench, FAULTS), ("two", kinds.TwoProcessBench, OF_TWO)):
        (folder / name).mkdir()
        bench = kind_of_bench(folder / name, corpus, seed)
        for kind, often, quickly in listed:
            if kind in NEED_A_DISK and not disks.can_mount():
                print(f"left out, since this user may not mount a disk: {kind.__doc__}", file=sys.stderr)
                continue
            for _ in range(quickly if quick else often):
                faults.append(kind(bench))
                print(f"{faults[-1].kind}: {faults[-1].moment}: {faults[-1].problem or 'well'}", file=sys.stderr)
    return faults


if __name__ == "__main__":
    sys.exit(main())
