"""Options that a run would accept and ignore are named when it begins, and no others."""

import pytest
import torch

from predrec.modeling import PredRecPreTrainingConfig
from predrec.trainers import trainer as trainer_module
from predrec.trainers.unused_options import NEEDS, unused_options
from tests import training

WITHOUT = {
    "objective=hybrid": {"objective": "jepa"},
    "loss_weighting=schedule": {},
    "jepa_loss=infonce": {"jepa_loss": "vicreg"},
    "jepa_loss=sigreg or vicreg": {},
    "center_targets or whiten_targets": {},
    "whiten_targets=True": {"center_targets": True},
    "an averaged target encoder": {"jepa_loss": "sigreg"},
    "jepa_view=blocks": training.CROPS,
    "masked text": {"objective": "jepa", "context_text": "original"},
}
"""A run that does not have what the options need."""

OTHER = {
    "loss_weighting": "fixed",
    "loss_schedule": "cosine",
    "loss_lambda": 0.3,
    "loss_lambda_end": 0.1,
    "mlm_view": "context",
    "jepa_temperature": 0.5,
    "jepa_regularizer_weight": 3.0,
    "center_decay": 0.5,
    "whiten_epsilon": 0.5,
    "ema_decay": 0.5,
    "ema_decay_end": 0.6,
    "predictor_hidden_size": 8,
    "predictor_num_hidden_layers": 2,
    "predictor_num_attention_heads": 1,
    "predictor_intermediate_size": 8,
    "predictor_attention": "cross",
    "predictor_position_embedding_type": "rotary",
    "context_scale": (0.5, 0.6),
    "target_scale": (0.2, 0.3),
    "num_target_blocks": 3,
    "min_context_tokens": 2,
    "context_excludes_targets": False,
    "mlm_probability": 0.4,
    "mask_replace_prob": 0.4,
    "random_replace_prob": 0.5,
    "masking_unit": "word",
}
"""A value for every option that is neither its default nor what the tests train with."""

COLLATED = training.collator().__dataclass_fields__


def trained(folder, options, **changes):
    """Weights after two updates."""
    masks = {name: value for name, value in changes.items() if name in COLLATED}
    others = {name: value for name, value in changes.items() if name not in masks}
    trainer = training.trainer(folder, max_steps=2, **(dict(options) | others))
    trainer.data_collator = trainer.data_collator.changed(**masks)
    trainer.train()
    return {name: value.clone() for name, value in trainer.model.named_parameters()}


# Crops with `jepa_view=blocks` are refused by the Trainer.
@pytest.mark.parametrize(
    ("need", "names"), [(need, names) for need, _, names in NEEDS if need != "jepa_view=crops"], ids=str
)
def test_what_is_called_without_effect_has_none(tmp_path, need, names):
    options = WITHOUT[need]
    names = [name for name in names if name not in options]
    one = trained(tmp_path / "one", options)
    other = trained(tmp_path / "other", options, **{name: OTHER[name] for name in names})
    assert one.keys() == other.keys() and len(names) > 0
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("options", "arguments", "masks", "unused"),
    [
        ({"objective": "jepa", "loss_lambda": 0.2}, {}, {}, {"loss_lambda": "objective=hybrid"}),
        ({"loss_lambda_end": 0.2}, {}, {}, {"loss_lambda_end": "loss_weighting=schedule"}),
        ({"loss_weighting": "schedule", "loss_lambda_end": 0.2}, {}, {}, {}),
        ({"center_decay": 0.99}, {}, {}, {"center_decay": "center_targets or whiten_targets"}),
        ({"center_decay": 0.99, "whiten_targets": True, "whiten_epsilon": 0.1}, {}, {}, {}),
        ({"jepa_loss": "infonce", "jepa_temperature": 0.2}, {}, {}, {}),
        ({"jepa_loss": "sigreg"}, {"ema_decay": 0.9}, {}, {"ema_decay": "an averaged target encoder"}),
        ({}, {"ema_decay": 0.9}, {"context_scale": (0.5, 0.6), "mlm_probability": 0.2}, {}),
        ({"objective": "mlm", "center_decay": 0.99}, {"ema_decay": 0.9}, {}, {}),
    ],
    ids=str,
)
def test_what_is_set_and_not_looked_at_is_found(tmp_path, options, arguments, masks, unused):
    config = PredRecPreTrainingConfig(encoder_config=training.encoder_config(), **options)
    collator = training.collator().changed(**{"min_context_tokens": 32} | masks)
    assert unused_options(config, training.training_arguments(tmp_path, **arguments), collator) == unused


def test_monitor_without_held_out_rows_is_named(tmp_path):
    config = PredRecPreTrainingConfig(encoder_config=training.encoder_config())
    args, collator = training.training_arguments(tmp_path), training.collator().changed(min_context_tokens=32)
    assert unused_options(config, args, collator, evaluates=False) == {"monitor_examples": "held-out rows"}
    assert unused_options(config, args, collator, evaluates=True) == {}


def test_trainer_names_it_once_in_one_line(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(trainer_module.logger, "warning", said.append)
    training.trainer(tmp_path, center_decay=0.5, jepa_temperature=0.3)
    assert said == [
        "Without effect: `jepa_temperature` (without jepa_loss=infonce); "
        "`center_decay` (without center_targets or whiten_targets)"
    ]
