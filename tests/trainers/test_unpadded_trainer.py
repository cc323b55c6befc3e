"""Training on sequences laid end to end, without the JEPA branch now and then, and on several sets of masks."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from predrec.data_collators import DataCollatorForPreTraining
from predrec.modeling.attention import UNPADDED
from predrec.trainers import PredRecTrainer
from tests import training

from . import test_resume as resume

# Plain gradient descent: Adam makes a step of full size of rounding errors where the true gradient is zero.
DESCENT = {"optim": "sgd", "learning_rate": 0.1, "lr_scheduler_type": "constant", "max_steps": 4}


def trained(output_dir, **overrides) -> PredRecTrainer:
    trainer = training.trainer(output_dir, **overrides)
    trainer.train()
    return trainer


def logged(trainer: PredRecTrainer, name: str) -> dict[int, float]:
    """Values by step."""
    return {entry["step"]: entry[name] for entry in trainer.state.log_history if name in entry}


def batches_seen(trainer: PredRecTrainer) -> list[dict]:
    """Collects what the model is given in every forward pass from now on, with the step as `"step"`."""
    seen = []

    def remember(module, args, kwargs):
        seen.append(kwargs | {"step": trainer.state.global_step})

    trainer.model.register_forward_pre_hook(remember, with_kwargs=True)
    return seen


def with_mask_sets(trainer: PredRecTrainer, num_mask_sets: int = 2) -> PredRecTrainer:
    trainer.data_collator = replace(trainer.data_collator, num_mask_sets=num_mask_sets)
    return trainer


# Layouts


@pytest.mark.parametrize("packing", [True, False], ids=["packed", "padded"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"objective": "mlm"},
        {"objective": "jepa"},
        {"mlm_view": "context"},
        {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2},
    ],
    ids=str,
)
def test_training_with_layouts_equals_training_with_padding(tmp_path, options, packing):
    unpadded = trained(tmp_path / "unpadded", packing=packing, **DESCENT, **options)
    padded = trained(tmp_path / "padded", packing=packing, attn_implementation="sdpa", **DESCENT, **options)
    assert unpadded.model.encoder.config._attn_implementation == UNPADDED
    assert padded.model.encoder.config._attn_implementation == "sdpa"
    assert unpadded.data_collator.unpad and not padded.data_collator.unpad
    start = training.trainer(tmp_path / "start", **DESCENT, **options).model.state_dict()
    expected = padded.model.state_dict()
    for name, value in unpadded.model.state_dict().items():
        # Float32 sums in another order, over four updates.
        torch.testing.assert_close(
            value, expected[name], rtol=1e-5, atol=1e-5, msg=lambda text, name=name: name + text
        )
    # The updates are far larger than that.
    assert max((expected[name] - value).abs().max() for name, value in start.items()) > 1e-3
    for name in ("loss", "mlm_loss", "jepa_loss", "grad_norm"):
        assert logged(unpadded, name) == pytest.approx(logged(padded, name), rel=1e-4)


def test_batches_of_training_and_evaluation_have_layouts(tmp_path):
    trainer = training.trainer(tmp_path, packing=False, max_steps=2)
    seen = batches_seen(trainer)
    trainer.train()
    assert len(seen) == 2 and all(batch["layout"].text is not None for batch in seen)
    seen.clear()
    trainer.evaluate()
    # The collapse monitor's own batch is without.
    assert sum("layout" in batch for batch in seen) == len(trainer.get_eval_dataloader()) == 3


def test_trainer_asks_for_layouts_whatever_its_collator_says(tmp_path):
    def made(unpad: bool, **options) -> PredRecTrainer:
        return PredRecTrainer(
            model=training.model(**options),
            args=training.training_arguments(tmp_path),
            data_collator=training.collator(unpad=unpad),
            train_dataset=training.rows(0, 100),
        )

    assert made(False).data_collator.unpad
    assert not made(True, attn_implementation="sdpa").data_collator.unpad
    assert made(False).eval_collator.unpad
    assert not made(True, attn_implementation="sdpa").eval_collator.unpad


def test_trainer_asks_for_no_layout_when_it_compiles_for_a_cpu(tmp_path):
    assert not training.trainer(tmp_path, torch_compile=True, use_cpu=True).data_collator.unpad


@pytest.mark.parametrize("packing", [True, False], ids=["packed", "padded"])
@pytest.mark.parametrize("options", [{}, {"mlm_view": "context"}, {"objective": "mlm"}], ids=str)
def test_evaluation_with_layouts_equals_evaluation_with_padding(tmp_path, options, packing):
    unpadded = training.trainer(tmp_path, packing=packing, **options)
    padded = training.trainer(tmp_path, packing=packing, attn_implementation="eager", **options)
    padded.model.load_state_dict(unpadded.model.state_dict())
    one, other = unpadded.evaluate(), padded.evaluate()
    names = {"eval_loss", "eval_mlm_loss", "eval_mlm_accuracy"}
    if options.get("objective") != "mlm":
        names |= {name for name in other if "collapse" in name or "jepa" in name}
        assert "eval_jepa_loss" in names
    assert {name: one[name] for name in names} == pytest.approx({name: other[name] for name in names}, rel=1e-4)


# Updates without the JEPA branch


def draws(trainer: PredRecTrainer, count: int = 1000) -> list[bool]:
    """Whether each of the first updates leaves the JEPA branch out."""
    drawn = []
    for step in range(count):
        trainer.state.global_step = step
        drawn.append(bool(trainer.skips_jepa()))
    return drawn


def test_jepa_dropout_depends_on_seed_and_step_only(tmp_path):
    trainer = training.trainer(tmp_path, jepa_dropout=0.5)
    first = draws(trainer, 50)
    torch.manual_seed(99)
    np.random.seed(99)
    assert draws(trainer, 50) == first
    trainer.state.global_step = 7
    assert {bool(trainer.skips_jepa()) for _ in range(5)} == {first[7]}
    other = training.trainer(tmp_path, jepa_dropout=0.5, per_device_train_batch_size=2, mlm_view="context")
    assert draws(other, 50) == first
    assert draws(training.trainer(tmp_path, jepa_dropout=0.5, seed=7), 50) != first


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_jepa_dropout_leaves_out_its_share_of_the_updates(tmp_path, share):
    drawn = draws(training.trainer(tmp_path, jepa_dropout=share))
    # Four standard deviations of a binomial.
    assert abs(sum(drawn) / 1000 - share) < 4 * (share * (1 - share) / 1000) ** 0.5


def test_jepa_dropout_of_zero_leaves_out_nothing(tmp_path):
    assert not any(draws(training.trainer(tmp_path), 50))


def test_jepa_dropout_leaves_the_term_out_of_the_log(tmp_path):
    trainer = trained(tmp_path, jepa_dropout=0.5, max_steps=10)
    expected = [step + 1 for step, skips in enumerate(draws(trainer, 10)) if not skips]
    assert 0 < len(expected) < 10
    assert list(logged(trainer, "jepa_loss")) == expected
    assert len(logged(trainer, "mlm_loss")) == 10


def test_jepa_dropout_weighs_the_logged_loss(tmp_path):
    trainer = trained(tmp_path, jepa_dropout=0.25, max_steps=10, loss_weighting="fixed", loss_lambda=0.3)
    mlm, jepa = logged(trainer, "mlm_loss"), logged(trainer, "jepa_loss")
    expected = {step: 0.7 * mlm[step] + 0.3 * jepa.get(step, 0) / 0.75 for step in mlm}
    assert logged(trainer, "loss") == pytest.approx(expected, rel=1e-5)


def test_jepa_dropout_skips_whole_updates(tmp_path):
    options = {"jepa_dropout": 0.5, "max_steps": 8, "packing": False}
    trainer = training.trainer(tmp_path, per_device_train_batch_size=2, gradient_accumulation_steps=4, **options)
    seen = batches_seen(trainer)
    trainer.train()
    skips = draws(trainer, 8)
    assert [batch.get("skip_jepa", False) for batch in seen] == [skip for skip in skips for _ in range(4)]
    assert len({*skips}) == 2
    whole = trained(tmp_path / "whole", per_device_train_batch_size=8, **options)
    for name in ("loss", "mlm_loss", "jepa_loss", "grad_norm"):
        # Float32 sums in another order; eight updates of Adam magnify that a little.
        assert logged(trainer, name) == pytest.approx(logged(whole, name), rel=2e-4), name


def test_jepa_dropout_still_moves_the_target_encoder(tmp_path):
    """Every update moves the encoder that the targets follow."""
    trainer = training.trainer(tmp_path, jepa_dropout=0.999, max_steps=2, ema_decay=0.5)
    before = [parameter.clone() for parameter in trainer.model.target_encoder.parameters()]
    trainer.train()
    assert all(draws(trainer, 2))
    assert any(not torch.equal(one, other) for one, other in zip(
        trainer.model.target_encoder.parameters(), before, strict=True
    ))  # fmt: skip


def test_jepa_dropout_gives_the_predictor_no_gradient_in_updates_without_it(tmp_path):
    trainer = training.trainer(tmp_path, jepa_dropout=0.999, weight_decay=0.0, **DESCENT)
    before = [parameter.clone() for parameter in trainer.model.predictor.parameters()]
    trainer.train()
    assert all(draws(trainer, 4))
    assert all(map(torch.equal, trainer.model.predictor.parameters(), before))


def test_jepa_dropout_does_not_reach_evaluation(tmp_path):
    with_dropout, without = training.trainer(tmp_path, jepa_dropout=0.999), training.trainer(tmp_path)
    one, other = with_dropout.evaluate(), without.evaluate()
    for name in ("eval_loss", "eval_jepa_loss", "eval_mlm_loss"):
        assert one[name] == other[name]


@pytest.mark.parametrize("options", [{}, {"packing": False, "mlm_view": "context", "center_targets": True}], ids=str)
def test_resumed_run_with_jepa_dropout_equals_an_uninterrupted_one(tmp_path, options):
    options |= {"jepa_dropout": 0.5, "max_steps": 12, "logging_steps": 3, "save_strategy": "steps", "save_steps": 1000}
    whole = resume.trained(tmp_path / "whole", **options)
    resume.assert_equal(resume.in_parts(tmp_path / "parts", [5], **options), whole)


# Several sets of masks


@pytest.mark.parametrize("packing", [True, False], ids=["packed", "padded"])
@pytest.mark.parametrize("view", ["full", "context"])
def test_two_mask_sets_train_alike_with_layouts_and_with_padding(tmp_path, view, packing):
    runs = []
    for attention in (None, "sdpa"):
        trainer = with_mask_sets(
            training.trainer(
                tmp_path / str(attention), packing=packing, mlm_view=view, attn_implementation=attention, **DESCENT
            )
        )
        seen = batches_seen(trainer)
        trainer.train()
        assert all(len(batch["context_mask"]) == 2 * len(batch["input_ids"]) for batch in seen)
        runs.append(trainer)
    for name in ("loss", "mlm_loss", "jepa_loss", "grad_norm"):
        assert logged(runs[0], name) == pytest.approx(logged(runs[1], name), rel=1e-4), name
    assert logged(runs[0], "loss")[4] < logged(runs[0], "loss")[1]


@pytest.mark.parametrize("view", ["full", "context"])
def test_two_mask_sets_accumulate_to_the_large_batch(tmp_path, view):
    options = {"packing": False, "mlm_view": view, **DESCENT}
    whole = with_mask_sets(training.trainer(tmp_path / "whole", per_device_train_batch_size=8, **options))
    parts = with_mask_sets(
        training.trainer(
            tmp_path / "parts", per_device_train_batch_size=2, gradient_accumulation_steps=4, **options
        )
    )  # fmt: skip
    for trainer in (whole, parts):
        trainer.train()
    for name in ("loss", "mlm_loss", "jepa_loss", "grad_norm"):
        assert logged(parts, name) == pytest.approx(logged(whole, name), rel=1e-4), name


def test_evaluation_takes_one_mask_set(tmp_path):
    results = []
    for num_mask_sets in (1, 2):
        trainer = PredRecTrainer(
            model=training.trainer(tmp_path).model,
            args=training.training_arguments(tmp_path),
            data_collator=DataCollatorForPreTraining(
                training.tokenizer(), min_context_tokens=4, num_mask_sets=num_mask_sets
            ),
            train_dataset=training.rows(0, 100),
            eval_dataset=training.rows(100, 120),
        )
        assert (trainer.data_collator.num_mask_sets, trainer.eval_collator.num_mask_sets) == (num_mask_sets, 1)
        results.append(trainer.evaluate())
    assert results[0]["eval_jepa_loss"] == results[1]["eval_jepa_loss"]


def test_jepa_dropout_leaves_a_switched_run_alone(tmp_path):
    trainer = training.trainer(tmp_path, jepa_dropout=0.9, max_steps=4)
    trainer.model.switch_objective("jepa")
    assert not any(trainer.skips_jepa() for trainer.state.global_step in range(50))


def test_jepa_start_leaves_the_jepa_loss_out_until_then(tmp_path):
    trainer = trained(tmp_path, jepa_start=0.5, max_steps=10, loss_weighting="fixed", loss_lambda=0.3)
    assert draws(trainer, 10) == [True] * 5 + [False] * 5
    mlm, jepa = logged(trainer, "mlm_loss"), logged(trainer, "jepa_loss")
    assert list(mlm) == list(range(1, 11)) and list(jepa) == list(range(6, 11))
    expected = {step: 0.7 * mlm[step] + 0.3 * jepa[step] if step in jepa else mlm[step] for step in mlm}
    assert logged(trainer, "loss") == pytest.approx(expected, rel=1e-5)


def test_trainer_and_model_agree_on_when_the_jepa_loss_begins(tmp_path):
    trainer = training.trainer(tmp_path, max_steps=2, loss_weighting="fixed", loss_lambda=0.3)
    for start, steps in itertools.product((0.07, 0.1, 0.29, 0.3, 0.55, 0.7), (10, 100, 300)):
        trainer.model.config.jepa_start, trainer.state.max_steps = start, steps
        for trainer.state.global_step in range(steps):
            trainer.model.training_progress.fill_(trainer.state.global_step / steps)
            assert trainer.jepa_has_begun() == (trainer.model.loss_weights()[0].item() > 0), (start, steps)


@pytest.mark.parametrize("weighting", ["learned", "uncertainty"])
def test_jepa_start_leaves_learned_weights_alone_until_then(tmp_path, weighting):
    def weights_of(trainer):
        model = trainer.model
        return (model.loss_logit if weighting == "learned" else model.loss_log_variances).detach().clone()

    options = {"loss_weighting": weighting, "max_steps": 4, "weight_decay": 0.0}
    before = weights_of(training.trainer(tmp_path / "new", **options))
    for start, moves in ((0.999, False), (0.5, True)):
        after = weights_of(trained(tmp_path / str(start), jepa_start=start, **options))
        assert torch.equal(before, after) is not moves


def test_jepa_start_goes_with_jepa_dropout(tmp_path):
    trainer = training.trainer(tmp_path, jepa_start=0.1, jepa_dropout=0.5, max_steps=1000)
    trainer.state.max_steps = 1000
    drawn = draws(trainer)
    assert all(drawn[:100]) and drawn[100:] == draws(training.trainer(tmp_path, jepa_dropout=0.5))[100:]
