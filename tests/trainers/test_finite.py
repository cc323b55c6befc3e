"""NaN and infinity stop a run or skip an update, as configured, and never pass in silence."""

import json
import math

import pytest
import torch
from transformers import TrainerCallback

from predrec.trainers import NonFiniteLossError
from tests import training
from tests.processes import in_two_processes
from tests.training import logged

NAN, INF = math.nan, math.inf
NAME = "masked_lm.lm_head.decoder.bias"
POISONS = ("nan loss", "infinite loss", "infinite constant", "nan gradient", "infinite gradient")


def poison(trainer, kind, when):
    """Spoils loss or gradient of the steps, counted from 1, that `when` is true for."""
    value, what = (NAN if kind.startswith("nan") else INF), kind.split()[1]

    def now():
        return trainer.model.training and when(trainer.state.global_step + 1)

    def spoil_loss(module, inputs, output):
        if now():
            output.loss = output.loss + value if what == "constant" else output.loss * value

    def spoil_gradient(gradient):
        return torch.where(torch.arange(len(gradient)) == 3, value, gradient) if now() else gradient

    if what == "gradient":
        dict(trainer.model.named_parameters())[NAME].register_hook(spoil_gradient)
    else:
        trainer.model.register_forward_hook(spoil_loss)


class History(TrainerCallback):
    """Remembers weights, target encoder and optimizer state after every update.

    To be added to a finished trainer, so that the target encoder has moved before.
    """

    def __init__(self):
        self.states = {}

    def on_step_end(self, args, state, control, model=None, optimizer=None, **kwargs):
        moments = [value for entry in optimizer.state.values() for value in entry.values()]
        self.states[state.global_step] = [value.clone() for value in [*model.state_dict().values(), *moments]]


def equal(left, right):
    return len(left) == len(right) and all(map(torch.equal, left, right))


@pytest.mark.parametrize("kind", [kind for kind in POISONS if "gradient" not in kind])
def test_bad_loss_stops_with_step_and_examples(tmp_path, kind):
    trainer = training.trainer(tmp_path, save_strategy="steps", save_steps=2)
    poison(trainer, kind, lambda step: step == 3)
    with pytest.raises(NonFiniteLossError, match=r"not finite at step 3; the batch held examples \[\d+(, \d+){7}\]"):
        trainer.train()
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-2"]


@pytest.mark.parametrize("kind", [kind for kind in POISONS if "gradient" in kind])
@pytest.mark.parametrize("clipping", [1.0, 0.0])
def test_bad_gradient_stops_with_step_and_parameter(tmp_path, kind, clipping):
    trainer = training.trainer(tmp_path, save_strategy="steps", save_steps=2, max_grad_norm=clipping)
    poison(trainer, kind, lambda step: step == 3)
    with pytest.raises(NonFiniteLossError, match=rf"first at step 3, for `{NAME}`"):
        trainer.train()
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-2"]


@pytest.mark.parametrize("policy", ["stop", "skip"])
@pytest.mark.parametrize("part", ["target_encoder", "predictor"])
def test_bad_weights_stop_under_either_policy(tmp_path, policy, part):
    class Spoil(TrainerCallback):
        def on_step_end(self, args, state, control, model=None, **kwargs):
            if state.global_step == 3:
                with torch.no_grad():
                    next(getattr(model, part).parameters())[0] = NAN

    options = {"save_strategy": "steps", "save_steps": 1, "callbacks": [Spoil()], "logging_steps": 100}
    trainer = training.trainer(tmp_path, non_finite=policy, **options)
    with pytest.raises(NonFiniteLossError, match=rf"At step 3, `{part}\.\S+` is not finite"):
        trainer.train()
    assert sorted(path.name for path in tmp_path.glob("checkpoint-*")) == ["checkpoint-1", "checkpoint-2"]


@pytest.mark.parametrize("where", ["log", "save", "evaluation", "end"])
def test_bad_step_is_noticed_wherever_one_looks_next(tmp_path, where):
    """Nothing is logged, saved, measured or handed back after a bad step."""
    rare = {"logging_steps": 1000, "logging_first_step": False, "max_steps": 4}
    options = {
        "log": {"logging_steps": 3},
        "save": {"save_strategy": "steps", "save_steps": 3},
        "evaluation": {"eval_strategy": "steps", "eval_steps": 3},
        "end": {},
    }[where]
    trainer = training.trainer(tmp_path, **(rare | options))
    poison(trainer, "nan loss", lambda step: step == 3)
    with pytest.raises(NonFiniteLossError, match="step 3"):
        trainer.train()
    assert trainer.state.global_step == (4 if where == "end" else 3)
    assert not list(tmp_path.glob("checkpoint-*")) and not logged(trainer, "eval_loss") + logged(trainer, "loss")


@pytest.mark.parametrize("optimizer", ["adamw_torch_fused", "adamw_torch"])
@pytest.mark.parametrize("kind", POISONS)
def test_skipped_update_moves_nothing(tmp_path, kind, optimizer):
    history = History()
    trainer = training.trainer(tmp_path, non_finite="skip", optim=optimizer, ema_decay=0.5)
    trainer.add_callback(history)
    poison(trainer, kind, lambda step: step == 3)
    trainer.train()
    assert equal(history.states[3], history.states[2])
    assert not equal(history.states[2], history.states[1]) and not equal(history.states[4], history.states[3])
    assert logged(trainer, "skipped_steps") == [0, 0, 1, 1, 1, 1]
    has_loss = [math.isfinite(value) for value in logged(trainer, "loss")]
    assert has_loss == [True, True, "gradient" in kind, True, True, True]
    assert math.isfinite(logged(trainer, "train_loss")[0])
    assert all(tensor.isfinite().all() for tensor in trainer.model.state_dict().values())


def test_bad_targets_do_not_reach_their_running_mean(tmp_path):
    trainer = training.trainer(tmp_path, non_finite="skip", center_targets=True, max_steps=4)

    def spoil(module, inputs, output):
        return output + NAN if trainer.model.training and trainer.state.global_step == 2 else output

    trainer.model.target_encoder.norm.register_forward_hook(spoil)
    trainer.train()
    assert trainer.model.target_center.isfinite().all()
    assert trainer.model.num_centered == 3


def test_bad_batch_spoils_the_whole_update_and_no_other(tmp_path):
    history = History()
    accumulated = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}
    trainer = training.trainer(tmp_path, non_finite="skip", **accumulated)
    trainer.add_callback(history)
    seen = []

    def spoil(module, inputs, output):
        if module.training:
            seen.append(None)
            if len(seen) == 10:  # The second batch of the third update.
                output.loss = output.loss * NAN

    trainer.model.register_forward_hook(spoil)
    trainer.train()
    assert equal(history.states[3], history.states[2]) and not equal(history.states[4], history.states[3])
    assert logged(trainer, "skipped_steps")[-1] == 1


def test_skipping_ends_after_so_many_in_a_row(tmp_path):
    trainer = training.trainer(tmp_path, non_finite="skip", max_skipped_steps=3, max_steps=20)
    poison(trainer, "nan gradient", lambda step: step > 5)
    with pytest.raises(NonFiniteLossError, match=f"3 steps in a row; first at step 6, for `{NAME}`"):
        trainer.train()
    assert trainer.state.global_step == 8


def test_skipping_goes_on_when_good_steps_lie_between(tmp_path):
    trainer = training.trainer(tmp_path, non_finite="skip", max_skipped_steps=2, max_steps=9)
    poison(trainer, "nan gradient", lambda step: step % 2 == 1)
    trainer.train()
    assert logged(trainer, "skipped_steps")[-1] == 5


def test_count_of_skipped_steps_survives_a_resume(tmp_path):
    options = {"non_finite": "skip", "max_skipped_steps": 3, "save_strategy": "steps", "save_steps": 3}
    first = training.trainer(tmp_path, max_steps=3, **options)
    poison(first, "nan gradient", lambda step: step in (2, 3))
    first.train()
    second = training.trainer(tmp_path, max_steps=6, **options)
    poison(second, "nan gradient", lambda step: step == 4)
    with pytest.raises(NonFiniteLossError, match="3 steps in a row"):
        second.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))


def test_number_of_skipped_steps_must_be_positive(tmp_path):
    with pytest.raises(ValueError, match="max_skipped_steps"):
        training.training_arguments(tmp_path, max_skipped_steps=0)


class ImpatientScaler(torch.amp.GradScaler):
    """A real scaler, on the CPU. Under its first scale every gradient overflows, under the next one none."""

    def __init__(self):
        super().__init__("cpu", init_scale=2.0**127, backoff_factor=2.0**-90)


@pytest.mark.parametrize("policy", ["stop", "skip"])
@pytest.mark.parametrize("optimizer", ["adamw_torch_fused", "adamw_torch"])
def test_update_that_the_scaler_skips_moves_nothing(tmp_path, optimizer, policy):
    """A fused optimizer skips on the device, and accelerate takes that for a step."""
    history = History()
    options = {"non_finite": policy, "optim": optimizer, "max_steps": 4, "warmup_steps": 0}
    trainer = training.trainer(tmp_path, ema_decay=0.5, max_skipped_steps=2, **options)
    trainer.add_callback(history)
    trainer.accelerator.scaler = ImpatientScaler()
    with torch.no_grad():  # Away from the target encoder, which would not move otherwise.
        trainer.model.encoder.get_input_embeddings().weight.mul_(1.5)
    start = [value.clone() for value in trainer.model.state_dict().values()]
    trainer.train()
    assert logged(trainer, "skipped_steps") == [1, 1, 1, 1]
    assert equal(history.states[1][: len(start)], start)
    target = [name.startswith("target_encoder.") for name in trainer.model.state_dict()]
    moved = [not torch.equal(a, b) for a, b in zip(start, history.states[2][: len(start)], strict=True)]
    assert {is_target for is_target, has_moved in zip(target, moved, strict=True) if has_moved} == {True, False}


def test_scaler_that_always_skips_stops_the_run(tmp_path):
    trainer = training.trainer(tmp_path, max_skipped_steps=4, max_steps=12)
    trainer.accelerator.scaler = ImpatientScaler()
    poison(trainer, "nan gradient", lambda step: True)
    with pytest.raises(NonFiniteLossError, match="4 steps in a row"):
        trainer.train()


TWO = """
import json, sys, torch
torch.set_num_threads(1)
from predrec.trainers.ending import close_connections
from predrec.trainers import NonFiniteLossError
from tests import training
from tests.trainers.test_finite import History, equal, poison
from tests.training import logged

found = {}
for policy in ("skip", "stop"):
    history = History()
    options = {"non_finite": policy, "per_device_train_batch_size": 4, "ema_decay": 0.5}
    trainer = training.trainer(f"{sys.argv[1]}/{policy}", **options)
    trainer.add_callback(history)
    rank = trainer.args.process_index
    if rank == 1:
        poison(trainer, "nan loss", lambda step: step == 3)
    try:
        trainer.train()
        found[policy] = [equal(history.states[3], history.states[2]), not equal(history.states[4], history.states[3])]
        found[policy].append(logged(trainer, "skipped_steps"))
    except NonFiniteLossError as error:
        found[policy] = str(error)
    found["examples"] = [int(index) for index in trainer.finite_guard.examples]
with open(f"{sys.argv[1]}/{rank}.json", "w") as file:
    json.dump(found, file)
close_connections(trainer)
"""


@pytest.mark.slow
def test_what_one_process_sees_all_act_on(tmp_path):
    in_two_processes(TWO, tmp_path)
    both = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]
    for found in both:
        assert found["skip"][:2] == [True, True]
        assert found["skip"][2] in ([0, 0, 1, 1, 1, 1], [])  # Only the first process logs.
        assert f"not finite at step 3; the batch held examples {both[1]['examples']}" in found["stop"]
    assert both[0]["skip"][2] and both[0]["examples"] == [-1] * 4
