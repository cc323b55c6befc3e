"""LLM-JEPA on two processes is LLM-JEPA on one."""

import json

import pytest

from tests import llm_training
from tests.processes import in_two_processes

OPTIONS = {"max_steps": 4, "eval_strategy": "steps", "eval_steps": 4, "learning_rate": 1e-2, "adam_epsilon": 1e-3}

SCRIPT = """
import json, sys, torch
torch.set_num_threads(1)
from predrec.trainers.ending import close_connections
from tests import llm_training
from tests.trainers.test_llm_jepa_distributed import OPTIONS
options = OPTIONS | json.loads(sys.argv[2])
trainer = llm_training.trainer(sys.argv[1] + "/run", per_device_train_batch_size=2, **options)
assert trainer.args.world_size == 2
trainer.train()
trainer.save_model()
if trainer.args.process_index == 0:
    print("LOG " + json.dumps(trainer.state.log_history), flush=True)
close_connections(trainer)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [{"method": "ntp"}, {"jepa_dropout": 0.5, "gradient_accumulation_steps": 2}, {"distance": "infonce"}],
    ids=str,
)
def test_two_processes_equal_one(tmp_path, options):
    """InfoNCE takes its negatives from both, duplicates left out wherever they are."""
    printed = in_two_processes(SCRIPT, tmp_path / "both", json.dumps(options))
    both = json.loads(next(line for line in printed.splitlines() if line.startswith("LOG "))[4:])
    alone = llm_training.trainer(tmp_path / "alone", per_device_train_batch_size=4, **OPTIONS, **options)
    alone.train()
    names = ("loss", "grad_norm", "ntp_loss", "jepa_loss", "jepa_active", "flops", "eval_ntp_loss")
    for name in (*names, "eval_matched_cosine", "eval_mismatched_cosine", "eval_retrieval"):
        values = [[entry[name] for entry in log if name in entry] for log in (both, alone.state.log_history)]
        assert values[0] == pytest.approx(values[1], rel=5e-4), name
    assert (tmp_path / "both" / "run" / "model.safetensors").is_file()
