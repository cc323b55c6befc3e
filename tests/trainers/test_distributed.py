"""Two processes train what one process trains."""

import json
from pathlib import Path

import pytest

from tests import training
from tests.processes import in_two_processes

OPTIONS = {"max_steps": 5, "lr_scheduler_type": "constant", "eval_strategy": "steps", "eval_steps": 5}

SCRIPT = """
import json, sys, torch
torch.set_num_threads(1)
from tests import training
from tests.trainers.test_distributed import OPTIONS
options = OPTIONS | json.loads(sys.argv[2])
trainer = training.trainer(sys.argv[1] + "/run", per_device_train_batch_size=4, **options)
assert trainer.args.world_size == 2
trainer.train()
if trainer.args.process_index == 0:
    print("LOG " + json.dumps(trainer.state.log_history), flush=True)
trainer.accelerator.wait_for_everyone()
trainer.accelerator.end_training()
"""


def two_processes(output_dir: Path, **options) -> list[dict]:
    """The log of a run under torchrun with two gloo processes."""
    printed = in_two_processes(SCRIPT, output_dir / "both", json.dumps(options))
    return json.loads(next(line for line in printed.splitlines() if line.startswith("LOG "))[4:])


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [{}, {"packing": False}, {"objective": "mlm"}, {"loss_weighting": "uncertainty"}], ids=str
)
def test_two_processes_equal_one(tmp_path, options):
    both = two_processes(tmp_path, **options)
    alone = training.trainer(tmp_path / "alone", per_device_train_batch_size=8, **OPTIONS, **options)
    alone.train()
    for name in ("loss", "grad_norm", "mlm_loss", "jepa_loss", "eval_mlm_loss", "eval_jepa_loss", "eval_loss"):
        values = [[entry[name] for entry in log if name in entry] for log in (both, alone.state.log_history)]
        # Float32 sums in another order, magnified by five updates of Adam.
        assert values[0] == pytest.approx(values[1], rel=5e-4), name
