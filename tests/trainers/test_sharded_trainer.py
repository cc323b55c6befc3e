"""The Trainer with FSDP2 on two processes trains, measures, saves, resumes and exports what one process does.

accelerate shards on GPUs only. Here it is told that two CPU processes are GPUs; everything else is its own code.
"""

import json
import math
import os
from functools import partial

import pytest
import torch
from accelerate.state import PartialState
from accelerate.utils import DistributedType
from safetensors.torch import load_file
from torch.distributed.tensor import DTensor
from transformers import AutoModelForMaskedLM

from predrec.trainers.run_args import RunArguments
from tests import training

from ..processes import AT_ONCE, in_two_processes, once

STEPS, STOP = 4, 2
ALWAYS = {"max_steps": STEPS, "eval_steps": STOP, "save_steps": STOP, "lr_scheduler_type": "constant"}
EVERY = {"eval_strategy": "steps", "save_strategy": "steps", "per_device_train_batch_size": 8}
WRAP = {"auto_wrap_policy": "TRANSFORMER_BASED_WRAP"}
CASES = {
    "vicreg": ({"jepa_loss": "vicreg", "center_targets": True}, WRAP),
    "infonce": (
        {"jepa_loss": "infonce", "gradient_accumulation_steps": 2, "packing": False, "non_finite": "skip"},
        WRAP | {"state_dict_type": "SHARDED_STATE_DICT"},
    ),
    "crops": (training.CROPS, WRAP),
    "late": ({"jepa_start": 0.75}, WRAP),
    "late-pieces": ({"jepa_start": 0.75}, WRAP | {"state_dict_type": "SHARDED_STATE_DICT"}),
    "mlm": ({"objective": "mlm", "bf16": True}, {"auto_wrap_policy": "NO_WRAP"}),
}
COMPARED = ("loss", "grad_norm", "mlm_loss", "jepa_loss", "loss_lambda", "skipped_steps")
MEASURED = (
    "eval_loss",
    "eval_mlm_loss",
    "eval_jepa_loss",
    "eval_jepa_margin",
    "eval_effective_rank",
    "eval_mlm_accuracy",
)

SCRIPT = (
    """
import sys, torch
torch.set_num_threads(1)
from tests.trainers.test_sharded_trainer import CASES, STOP, pretend_gpus, run

pretend_gpus()
for name in CASES:
    folder = f"{sys.argv[1]}/{name}"
    run(name, folder)
    run(name, folder, resume_from=f"{folder}/run/checkpoint-{STOP}")
torch.distributed.barrier()
torch.distributed.destroy_process_group()
"""
    + AT_ONCE
)


def pretend_gpus():
    """Tells accelerate, and the check of the arguments, that these processes have GPUs."""
    begin, check = PartialState.__init__, RunArguments._check

    def init(self, *args, **kwargs):
        begin(self, *args, **kwargs)
        if self.distributed_type == DistributedType.MULTI_CPU:
            self.distributed_type = DistributedType.MULTI_GPU

    def without_fsdp(self):
        wanted, self.fsdp = self.fsdp, None
        check(self)
        self.fsdp = wanted

    PartialState.__init__, RunArguments._check = init, without_fsdp


def spoil_third_step(trainer, module, inputs, output):
    if module.training and trainer.state.global_step == 2:
        output.loss = output.loss * math.nan


def run(name, folder, resume_from=None):
    """Trains on this process or on two; writes the log, and returns the trainer."""
    options, sharding = CASES[name]
    together = int(os.environ.get("WORLD_SIZE", "1"))
    options = ALWAYS | EVERY | options | {"per_device_train_batch_size": 8 // together}
    if together > 1:
        options |= {"fsdp": True, "fsdp_config": dict(sharding)}
    trainer = training.trainer(f"{folder}/resumed" if resume_from else f"{folder}/run", **options)
    if "non_finite" in options:
        trainer.model.register_forward_hook(partial(spoil_third_step, trainer))
    trainer.train(resume_from_checkpoint=resume_from)
    if together > 1:
        assert all(isinstance(parameter, DTensor) for parameter in trainer.model.parameters())
        layers = type(trainer.model.encoder.layers[0]).__name__
        assert layers.startswith("FSDP") == ("NO_WRAP" not in sharding.values())
    trainer.save_model(f"{folder}/export")
    if trainer.args.process_index == 0:
        with open(f"{folder}/{'resumed' if resume_from else 'run'}.json", "w") as file:
            json.dump(trainer.state.log_history, file)
    return trainer


@pytest.fixture(scope="module")
def sharded(tmp_path_factory):
    return once(tmp_path_factory, "sharded_trainer", lambda folder: in_two_processes(SCRIPT, folder))


@pytest.fixture(scope="module", params=CASES)
def case(request, sharded, tmp_path_factory):
    """A name, the folder with what two processes made, and the trainer that did the same alone."""
    return request.param, sharded / request.param, run(request.param, tmp_path_factory.mktemp("alone"))


def values(log, name):
    return [entry[name] for entry in log if name in entry]


@pytest.mark.slow
@pytest.mark.parametrize("part", ["run", "resumed"])
def test_log_is_that_of_one_process(case, part):
    name, folder, alone = case
    log, expected = json.loads((folder / f"{part}.json").read_text()), alone.state.log_history
    # Sums in another order, and in bfloat16 of other rows.
    rel = 2e-3 if name == "mlm" else 2e-5
    for field in (*COMPARED, *MEASURED):
        assert values(log, field) == pytest.approx(values(expected, field), rel=rel, abs=1e-5, nan_ok=True), field
    assert values(expected, "skipped_steps") == ([0, 0, 1, 1] if name == "infonce" else [])
    assert len(values(log, "loss")) == STEPS and len(values(log, "eval_loss")) == STEPS // STOP


@pytest.mark.slow
def test_checkpoint_holds_whole_weights(case):
    name, folder, alone = case
    saved = load_file(folder / "run" / f"checkpoint-{STEPS}" / "model.safetensors")
    expected = alone.model.state_dict()
    missing = {key for key in expected if key not in saved}  # Tied weights are stored once.
    assert saved.keys() <= expected.keys() and not missing - set(alone.model.all_tied_weights_keys)
    tolerance = 2e-3 if name == "mlm" else 2e-5  # Adam divides by small numbers.
    for key, value in saved.items():
        torch.testing.assert_close(value, expected[key], rtol=tolerance, atol=tolerance, msg=key)


@pytest.mark.slow
def test_export_is_the_whole_encoder(case):
    folder = case[1]
    loaded, info = AutoModelForMaskedLM.from_pretrained(folder / "export", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    weights = load_file(folder / "run" / f"checkpoint-{STEPS}" / "model.safetensors")
    for key, value in loaded.state_dict().items():
        if f"masked_lm.{key}" in weights:
            assert torch.equal(value, weights[f"masked_lm.{key}"]), key
