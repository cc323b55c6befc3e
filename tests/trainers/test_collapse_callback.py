"""The monitor speaks when representations collapse, and is silent when they do not."""

import pytest
import torch
import torch.nn.functional as F
from transformers import TrainerCallback

from tests import training

FIELDS = {
    "eval_uniformity",
    "eval_effective_rank",
    "eval_rank_share",
    "eval_text_spread",
    "eval_target_spread",
    "eval_matched_cosine",
    "eval_mismatched_cosine",
    "eval_trivial_loss_mean",
    "eval_trivial_loss_position",
    "eval_trivial_loss_text",
    "eval_jepa_margin",
    "eval_collapsed",
}


def flags(trainer):
    return [entry["eval_collapsed"] for entry in trainer.state.log_history if "eval_collapsed" in entry]


def run(tmp_path, **overrides):
    trainer = training.trainer(tmp_path, **{"eval_strategy": "steps", "eval_steps": 2, "max_steps": 6, **overrides})
    trainer.train()
    return trainer


class Flatten(TrainerCallback):
    """Breaks the encoder after an update: every text, every position gives the same state."""

    def __init__(self, step=1):
        self.step = step

    @torch.no_grad()
    def on_step_end(self, args, state, control, model=None, **kwargs):
        if state.global_step >= self.step:
            for encoder in (model.encoder, model.target_encoder):
                if encoder is not None:
                    encoder.norm.weight.zero_()
                    encoder.norm.bias.copy_(torch.arange(16.0))


def test_monitor_logs_every_measure_at_every_evaluation(tmp_path):
    trainer = run(tmp_path)
    entries = [entry for entry in trainer.state.log_history if "eval_collapsed" in entry]
    assert [entry["step"] for entry in entries] == [2, 4, 6]
    assert all(set(entry) >= FIELDS for entry in entries)


def test_monitor_of_mlm_logs_geometry_alone(tmp_path):
    trainer = run(tmp_path, objective="mlm")
    entry = next(entry for entry in trainer.state.log_history if "eval_collapsed" in entry)
    assert {"eval_uniformity", "eval_effective_rank", "eval_text_spread"} <= set(entry)
    assert "eval_jepa_margin" not in entry


def test_healthy_run_is_not_reported(tmp_path):
    assert flags(run(tmp_path)) == [0.0, 0.0, 0.0]


def test_monitor_batch_is_fixed(tmp_path):
    trainer = training.trainer(tmp_path, eval_strategy="steps")
    monitor = next(c for c in trainer.callback_handler.callbacks if type(c).__name__ == "CollapseMonitorCallback")
    first = {key: value.clone() for key, value in monitor.batch().items()}
    trainer.eval_dataset.set_epoch(3)
    monitor._batch = None
    assert all(torch.equal(value, first[key]) for key, value in monitor.batch().items())
    trainer.eval_dataset.set_epoch(0)


def test_monitor_batch_is_evenly_spread_over_the_evaluation_data(tmp_path):
    trainer = training.trainer(tmp_path, eval_strategy="steps", monitor_examples=5)
    monitor = next(c for c in trainer.callback_handler.callbacks if type(c).__name__ == "CollapseMonitorCallback")
    count = len(trainer.eval_dataset)
    assert count > 10
    assert monitor.batch()["example_ids"].tolist() == [number * count // 5 for number in range(5)]


def test_evaluation_does_not_change_training(tmp_path):
    """SIGReg draws random directions in every pass, evaluation's among them."""
    watched = run(tmp_path / "watched", jepa_loss="sigreg")
    alone = run(tmp_path / "alone", jepa_loss="sigreg", eval_strategy="no")
    losses = [
        [entry["loss"] for entry in trainer.state.log_history if "loss" in entry] for trainer in (watched, alone)
    ]
    assert len(losses[0]) == 6
    assert losses[0] == losses[1]


@pytest.mark.parametrize(
    ("ema", "stop_gradient", "expected"),
    [(True, True, [0.0, 0.0, 0.0]), (True, False, [1.0, 1.0, 1.0]), (False, False, [1.0, 1.0, 1.0])],
    ids=["healthy", "no stop-gradient", "no stop-gradient, no average"],
)
def test_sabotage_is_reported_and_its_healthy_twin_is_not(tmp_path, monkeypatch, ema, stop_gradient, expected):
    """Where a gradient runs through the targets, the encoder makes them equal: the monitor says so.

    The average alone, without its decay, does not collapse within these steps; the stopped gradient is what holds.
    """
    decays = {} if ema else {"ema_decay": 0.0, "ema_decay_end": 0.0}
    options = {"learning_rate": 3e-3, "max_steps": 60, "eval_strategy": "steps", "eval_steps": 20, "logging_steps": 60}
    trainer = training.trainer(tmp_path, **options, **decays)
    model = trainer.model

    def leaking(input_ids, attention_mask, layout=None):
        states = model.encoder(input_ids=input_ids, attention_mask=attention_mask)[0]
        return F.layer_norm(states.float(), states.shape[-1:])

    if not stop_gradient:
        monkeypatch.setattr(model, "target_states", leaking)
    trainer.train()
    assert flags(trainer) == expected


def test_collapse_is_warned_of(tmp_path, monkeypatch):
    messages = []
    monkeypatch.setattr("predrec.trainers.collapse.logger.warning", messages.append)
    trainer = run(tmp_path, callbacks=[Flatten()])
    assert flags(trainer) == [1.0, 1.0, 1.0]
    assert "representations collapse" in messages[0]
    assert "text_spread" in messages[0]
    assert trainer.state.global_step == 6


def test_collapse_stops_after_the_patience(tmp_path):
    trainer = run(tmp_path, callbacks=[Flatten(3)], collapse_action="stop", collapse_patience=2, max_steps=20)
    assert flags(trainer) == [0.0, 1.0, 1.0]
    assert trainer.state.global_step == 6
    assert (tmp_path / "checkpoint-6").is_dir()


def test_collapse_switches_to_mlm(tmp_path):
    trainer = run(
        tmp_path, callbacks=[Flatten()], collapse_action="switch", collapse_patience=1, max_steps=6, logging_steps=1
    )
    terms = {entry["step"]: set(entry) for entry in trainer.state.log_history if "loss" in entry}
    assert "jepa_loss" in terms[2]
    assert "jepa_loss" not in terms[3]
    assert trainer.model.config.active_objective == "mlm"


@pytest.mark.parametrize("objective", ["hybrid", "jepa"])
def test_padded_rows_are_monitored(tmp_path, objective):
    trainer = run(tmp_path, objective=objective, packing=False, metric_for_best_model=None)
    entry = next(entry for entry in trainer.state.log_history if "eval_collapsed" in entry)
    assert all(value == value for value in entry.values())
