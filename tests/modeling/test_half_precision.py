"""Loaded in bfloat16, a model keeps in float32 what moves by small steps, and that moves as far as it should."""

import pytest
import torch

from predrec.modeling import PredRecForPreTraining
from tests import training

from .tiny import block_batch, drift, pretraining_model

KEPT = ("target_encoder.", "target_center", "target_covariance", "num_centered", "loss_logit", "training_progress")


@pytest.fixture(params=["predrec", "bert"])
def half(request, tmp_path):
    """A model loaded in bfloat16."""
    drift(pretraining_model(request.param, whiten_targets=True)).save_pretrained(tmp_path)
    return PredRecForPreTraining.from_pretrained(tmp_path, dtype=torch.bfloat16)


def weights(module):
    return torch.cat([parameter.detach().flatten() for parameter in module.parameters()])


def test_what_moves_slowly_is_loaded_in_float32(half):
    tensors = [*half.named_parameters(), *half.named_buffers()]
    kept = {name: tensor.dtype for name, tensor in tensors if name.startswith(KEPT) and tensor.is_floating_point()}
    assert set(kept.values()) == {torch.float32}
    assert all(any(name.startswith(start) for name in kept) for start in KEPT)
    assert {p.dtype for part in (half.masked_lm, half.predictor) for p in part.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("attention", ["unpadded", "sdpa", "eager"])
def test_step_in_bfloat16_is_near_that_in_float32(tmp_path, attention):
    whole = drift(pretraining_model()).train()
    whole.save_pretrained(tmp_path)
    half = PredRecForPreTraining.from_pretrained(tmp_path, dtype=torch.bfloat16, attn_implementation=attention)
    output, expected = half.train()(**block_batch()), whole(**block_batch())
    output.loss.backward()
    assert output.loss.dtype == torch.float32
    # bfloat16 has three digits.
    torch.testing.assert_close(output.loss, expected.loss, rtol=2e-2, atol=0)


def test_target_follows_bfloat16_weights_as_the_closed_form_says(half):
    """n updates towards resting weights leave d^n of the distance. In bfloat16 the rounding eats every update."""
    decay, steps = 0.999, 200
    start, goal = weights(half.target_encoder).double(), weights(half.encoder).double()
    rounded, online = weights(half.target_encoder).bfloat16(), weights(half.encoder)
    for _ in range(steps):
        half.update_target_encoder(decay)
        rounded.lerp_(online, 1 - decay)
    expected = goal + decay**steps * (start - goal)
    # 200 roundings to float32.
    torch.testing.assert_close(weights(half.target_encoder).double(), expected, rtol=1e-5, atol=1e-6)
    assert (expected - start).norm() > 0.15 * (goal - start).norm()
    assert (rounded.double() - start.bfloat16()).norm() < 0.5 * (expected - start).norm()


def test_trained_in_bfloat16_the_target_moves_by_the_exact_amount(tmp_path):
    trainer = training.trainer(tmp_path / "run", ema_decay=0.999, ema_decay_end=0.999, max_steps=5)
    trainer.model.save_pretrained(tmp_path / "model")
    trainer.model = trainer.model_wrapped = PredRecForPreTraining.from_pretrained(
        tmp_path / "model", dtype=torch.bfloat16
    )
    model, history = trainer.model, []
    expected = weights(model.target_encoder).double()
    model.register_forward_pre_hook(lambda module, args: history.append(weights(module.encoder).double()))
    trainer.train()
    for after in [*history[1:], weights(model.encoder).double()]:
        expected = 0.999 * expected + 0.001 * after
    torch.testing.assert_close(weights(model.target_encoder).double(), expected, rtol=1e-6, atol=1e-7)
    assert model.masked_lm.dtype == torch.bfloat16 and not torch.equal(history[0], weights(model.encoder).double())
