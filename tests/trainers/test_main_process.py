"""One process prepares while the others wait, longer than a training step may take."""

import json

import pytest

from predrec.trainers.main_process import main_process_first
from tests import training
from tests.processes import in_two_processes

SCRIPT = """
import json, sys, time
from pathlib import Path
from predrec.trainers.ending import close_connections
from predrec.trainers.main_process import main_process_first, waiting_at_the_end
from tests import training

folder = Path(sys.argv[1])
args = training.training_arguments(folder / "run", ddp_timeout=2)
with main_process_first(args):
    there = (folder / "prepared").exists()
    if args.process_index == 0:
        time.sleep(4)
        (folder / "prepared").touch()
failed = ""
try:
    with main_process_first(args):
        raise ValueError(f"rank {args.process_index}")
except ValueError as error:
    failed = str(error)
with waiting_at_the_end(args):
    if args.process_index == 0:
        time.sleep(4)
        (folder / "answered").touch()
(folder / f"{args.process_index}.json").write_text(json.dumps([there, failed, (folder / "answered").exists()]))
close_connections()
"""


@pytest.mark.slow
def test_others_wait_for_the_first_however_long_it_takes(tmp_path):
    """Twice as long as `ddp_timeout` here. What the first raises, the others find out for themselves."""
    in_two_processes(SCRIPT, tmp_path)
    found = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]
    assert found == [[False, "rank 0", True], [True, "rank 1", True]]


def test_single_process_waits_for_nobody(tmp_path):
    steps = []
    with main_process_first(training.training_arguments(tmp_path)):
        steps.append("inside")
    assert steps == ["inside"]
