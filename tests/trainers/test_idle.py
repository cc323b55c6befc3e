"""What an update does not train stays as it is, and so does what its optimizer knows about it."""

import pytest
import torch

from predrec.trainers.idle import fill_state
from tests import training


def steps(trainer, parameters) -> set[int]:
    """Updates of these parameters that the optimizer has counted."""
    state = trainer.optimizer.state
    return {int(state[parameter]["step"]) if parameter in state else 0 for parameter in parameters}


def values(parameters) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in parameters]


def trained(folder, **options):
    """Returns a trainer that has trained, and the predictor's first values."""
    trainer = training.trainer(folder, weight_decay=0.5, **options)
    before = values(trainer.model.predictor.parameters())
    trainer.train()
    return trainer, before


def test_predictor_is_left_alone_until_its_loss_sets_in(tmp_path):
    trainer, before = trained(tmp_path, max_steps=4, jepa_start=0.99)
    predictor = list(trainer.model.predictor.parameters())
    assert steps(trainer, predictor) == {0}
    assert all(map(torch.equal, before, values(predictor)))
    assert steps(trainer, trainer.model.encoder.parameters()) == {4}


@pytest.mark.parametrize("pieces", [1, 2])
def test_optimizer_begins_with_the_predictor_when_its_loss_does(tmp_path, pieces):
    options = {"gradient_accumulation_steps": pieces, "per_device_train_batch_size": 8 // pieces}
    trainer, before = trained(tmp_path, max_steps=6, jepa_start=0.5, loss_weighting="learned", **options)
    predictor = list(trainer.model.predictor.parameters())
    assert steps(trainer, [*predictor, trainer.model.loss_logit]) == {3}
    assert not any(map(torch.equal, before, values(predictor)))


def test_optimizer_counts_the_updates_that_were_not_dropped(tmp_path):
    trainer, _ = trained(tmp_path, max_steps=12, jepa_dropout=0.5, loss_weighting="learned")
    made = 0
    for trainer.state.global_step in range(12):
        made += not trainer.skips_jepa()
    assert 0 < made < 12
    assert steps(trainer, trainer.model.predictor.parameters()) == {made}
    assert steps(trainer, [trainer.model.loss_logit]) == {12}


def test_switched_run_leaves_its_predictor_alone(tmp_path):
    trainer = training.trainer(tmp_path, max_steps=3, weight_decay=0.5)
    trainer.model.switch_objective("mlm")
    before = values(trainer.model.predictor.parameters())
    trainer.train()
    assert all(map(torch.equal, before, values(trainer.model.predictor.parameters())))


@pytest.mark.parametrize("step", [2, 4])
def test_run_that_is_resumed_before_or_after_the_start_is_the_same(tmp_path, step):
    options = {"max_steps": 6, "jepa_start": 0.5, "save_strategy": "steps", "save_steps": 2, "save_total_limit": None}
    whole, _ = trained(tmp_path / "a", **options)
    again = training.trainer(tmp_path / "b", weight_decay=0.5, **options)
    again.train(resume_from_checkpoint=str(tmp_path / "a" / f"checkpoint-{step}"))
    assert all(map(torch.equal, values(whole.model.parameters()), values(again.model.parameters())))
    assert steps(again, again.model.predictor.parameters()) == {3}


@pytest.mark.parametrize("fused", [False, True])
def test_filled_state_is_that_of_an_optimizer_that_has_not_begun(fused):
    def run(fill: bool) -> list[torch.Tensor]:
        weights = [torch.nn.Parameter(torch.arange(4.0)), torch.nn.Parameter(torch.ones(3))]
        optimizer = torch.optim.AdamW(weights, lr=0.1, weight_decay=0.5, fused=fused)
        if fill:
            fill_state(optimizer)
            assert len(optimizer.state) == 2
        for _ in range(3):
            for weight in weights:
                weight.grad = weight.detach().cos()
            optimizer.step()
        return values(weights)

    assert all(map(torch.equal, run(False), run(True)))
