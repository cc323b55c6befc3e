"""A few faults of every kind, for real; `make faults` injects many more."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import ROOT, once

from . import disks
from .__main__ import FAULTS, NEED_A_DISK, OF_TWO

pytestmark = pytest.mark.slow


def _inject(folder: Path) -> None:
    command = [sys.executable, "-m", "tests.faults", "--quick", "--output", str(folder / "faults.json")]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert (folder / "faults.json").is_file(), done.stderr[-4000:]


@pytest.fixture(scope="module")
def account(tmp_path_factory) -> dict:
    return json.loads((once(tmp_path_factory, "faults", _inject) / "faults.json").read_text(encoding="utf-8"))


def test_every_kind_was_injected(account):
    possible = [kind for kind, *_ in (*FAULTS, *OF_TWO) if disks.can_mount() or kind not in NEED_A_DISK]
    assert len(account["account"]) == len(possible)


def test_every_run_recovers_to_the_same_numbers(account):
    assert [fault for fault in account["faults"] if fault["problem"] or not fault["recovered"]] == []


def test_at_most_one_save_interval_is_lost(account):
    """Where the newest checkpoint is damaged, the one before is what the run goes on from."""
    for fault in account["faults"]:
        intervals = 2 if "newest checkpoint" in fault["kind"] else 1
        assert fault["steps_lost"] <= intervals * 3, fault


def test_end_comes_soon(account):
    """SIGTERM, a dead worker, a dead process: none leaves a run that hangs."""
    assert all(fault["seconds"] < 60 for fault in account["faults"])
