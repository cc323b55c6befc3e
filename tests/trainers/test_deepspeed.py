"""The Trainer with DeepSpeed on two processes trains what one process does. Skipped where DeepSpeed is not installed.

accelerate uses DeepSpeed on GPUs only. Here it is told that these CPU processes are none.
"""

import json
import os

import pytest
from accelerate.state import AcceleratorState

from tests import training

from ..processes import ROOT, in_two_processes

pytest.importorskip("deepspeed")

OPTIONS = {"max_steps": 4, "eval_steps": 2, "save_steps": 2, "lr_scheduler_type": "constant"}
EVERY = {"eval_strategy": "steps", "save_strategy": "steps", "jepa_loss": "vicreg", "center_targets": True}
COMPARED = ("loss", "grad_norm", "mlm_loss", "jepa_loss", "eval_loss", "eval_mlm_loss", "eval_jepa_loss")

SCRIPT = """
import sys, torch
torch.set_num_threads(1)
from tests.trainers.test_deepspeed import pretend_gpus, run

pretend_gpus()
run(sys.argv[1], int(sys.argv[2]))
run(sys.argv[1], int(sys.argv[2]), resume_from=f"{sys.argv[1]}/run/checkpoint-2")
"""


def pretend_gpus():
    begin = AcceleratorState.__init__
    AcceleratorState.__init__ = lambda self, *args, cpu=False, **kwargs: begin(self, *args, cpu=False, **kwargs)


def run(folder, stage, resume_from=None):
    """Trains on this process or on two; writes the log, and returns the trainer."""
    options = OPTIONS | EVERY
    if "WORLD_SIZE" in os.environ:
        config = json.loads((ROOT / f"recipes/accelerate/zero{stage}.json").read_text())
        options |= {"deepspeed": config, "per_device_train_batch_size": 4}
    else:
        options |= {"bf16": True}
    trainer = training.trainer(f"{folder}/resumed" if resume_from else f"{folder}/run", **options)
    trainer.train(resume_from_checkpoint=resume_from)
    trainer.save_model(f"{folder}/export")
    if "WORLD_SIZE" in os.environ:
        assert trainer.model_wrapped.zero_optimization_stage() == stage
    if trainer.args.process_index == 0:
        with open(f"{folder}/{'resumed' if resume_from else 'run'}.json", "w") as file:
            json.dump(trainer.state.log_history, file)
    return trainer


@pytest.mark.slow
@pytest.mark.parametrize("stage", [1, 2])
def test_two_processes_with_deepspeed_equal_one(tmp_path, stage):
    in_two_processes(SCRIPT, tmp_path / "both", str(stage), DS_ACCELERATOR="cpu")
    expected = run(tmp_path / "alone", stage).state.log_history
    for part in ("run", "resumed"):
        log = json.loads((tmp_path / "both" / f"{part}.json").read_text())
        for name in COMPARED:
            values = [[entry[name] for entry in entries if name in entry] for entries in (log, expected)]
            # Sums in bfloat16 of other rows.
            assert values[0] and values[0] == pytest.approx(values[1], rel=2e-3), (part, name)
