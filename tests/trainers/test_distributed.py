"""Two processes train what one process trains, on the same batch."""

import json

import pytest

from tests import training
from tests.processes import in_two_processes, once

OPTIONS = {"max_steps": 5, "lr_scheduler_type": "constant", "eval_strategy": "steps", "eval_steps": 5}
CASES = {
    "hybrid": {},
    "padded": {"packing": False},
    "mlm": {"objective": "mlm"},
    "uncertainty": {"loss_weighting": "uncertainty"},
    "late": {"jepa_start": 0.4, "weight_decay": 0.5},
    "accumulated": {"packing": False, "gradient_accumulation_steps": 2},
    "vicreg": {"jepa_loss": "vicreg", "center_targets": True},
    "infonce": {"jepa_loss": "infonce", "packing": False, "gradient_accumulation_steps": 2},
    "barlow_twins": {"jepa_loss": "barlow_twins", "packing": False},
    "crops": {**training.CROPS, "packing": False, "jepa_dropout": 0.5},
    "context": {"jepa_loss": "vicreg", "mlm_view": "context", "predictor_attention": "cross", "jepa_dropout": 0.5},
}
COMPARED = ("loss", "grad_norm", "mlm_loss", "jepa_loss", "eval_mlm_loss", "eval_jepa_loss", "eval_loss")

SCRIPT = """
import json, sys, torch
torch.set_num_threads(1)
from predrec.trainers.ending import close_connections
from tests import training
from tests.trainers.test_distributed import CASES, OPTIONS

logs = {}
for name, options in CASES.items():
    trainer = training.trainer(f"{sys.argv[1]}/{name}", per_device_train_batch_size=4, **OPTIONS, **options)
    assert trainer.args.world_size == 2
    trainer.train()
    logs[name] = trainer.state.log_history
if trainer.args.process_index == 0:
    with open(f"{sys.argv[1]}/logs.json", "w") as file:
        json.dump(logs, file)
close_connections(trainer)
"""


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    """The log of each case, of a run under torchrun with two gloo processes."""
    folder = once(tmp_path_factory, "distributed", lambda folder: in_two_processes(SCRIPT, folder))
    return json.loads((folder / "logs.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_two_processes_equal_one(tmp_path, logs, name):
    alone = training.trainer(tmp_path, per_device_train_batch_size=8, **OPTIONS, **CASES[name])
    alone.train()
    assert len([entry for entry in logs[name] if "loss" in entry]) == OPTIONS["max_steps"]
    for field in COMPARED:
        values = [[entry[field] for entry in log if field in entry] for log in (logs[name], alone.state.log_history)]
        # Float32 sums in another order, magnified by five updates of Adam.
        assert values[0] == pytest.approx(values[1], rel=5e-4), field
