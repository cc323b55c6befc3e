import pytest
import torch

from predrec.modeling.whitening import update_moments, whiten

from .tiny import HIDDEN_SIZE, block_batch, drift, pretraining_model

CLOSE = {"rtol": 1e-4, "atol": 1e-5}


def correlated(count: int, width: int = 8, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(width, width, generator=generator)
    return torch.randn(count, width, generator=generator) @ mixing + torch.arange(width)


def moments(width: int = 8) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return torch.zeros(width), torch.eye(width), torch.zeros(())


def test_whitened_vectors_have_the_identity_as_covariance():
    latents = correlated(500)
    center, covariance, count = moments()
    update_moments(center, covariance, count, latents, torch.ones(500, dtype=torch.bool), 0.9)
    torch.testing.assert_close(covariance, latents.T.cov(correction=0), **CLOSE)
    white = whiten(latents - center, covariance, 1e-6)
    torch.testing.assert_close(white.T.cov(correction=0), torch.eye(8), rtol=1e-3, atol=1e-3)


def test_whitening_is_the_same_for_any_shape_of_vectors():
    latents, covariance = correlated(24), correlated(100, seed=1).T.cov()
    white = whiten(latents, covariance, 0.01)
    assert torch.equal(whiten(latents.view(2, 3, 4, 8), covariance, 0.01), white.view(2, 3, 4, 8))


def test_epsilon_holds_small_directions_down():
    covariance = torch.diag(torch.tensor([1.99, 0.01]))
    white = whiten(torch.eye(2), covariance, 0.5)
    torch.testing.assert_close(white, torch.diag(torch.tensor([2.49, 0.51]).rsqrt()))


def test_moments_are_plain_averages_at_first_and_decay_later():
    center, covariance, count = moments(2)
    expected_center, expected = torch.zeros(2), torch.eye(2)
    for step, weight in enumerate((1, 1 / 2, 0.4, 0.4)):
        latents = correlated(50, 2, step)
        update_moments(center, covariance, count, latents, torch.ones(50, dtype=torch.bool), 0.6)
        expected_center = expected_center.lerp(latents.mean(0), weight)
        deviations = latents - expected_center
        expected = expected.lerp(deviations.T @ deviations / 50, weight)
        torch.testing.assert_close(center, expected_center, **CLOSE)
        torch.testing.assert_close(covariance, expected, **CLOSE)


def test_what_does_not_count_changes_nothing():
    latents, mask = correlated(20), torch.arange(20) < 12
    found, expected = moments(), moments()
    update_moments(*found, latents, mask, 0.9)
    update_moments(*expected, latents[:12], mask[:12], 0.9)
    torch.testing.assert_close(found, expected, **CLOSE)


@pytest.mark.parametrize("kind", ["nothing counts", "not a number"])
def test_batch_that_says_nothing_is_left_out(kind):
    latents, mask = correlated(20), torch.ones(20, dtype=torch.bool)
    found = moments()
    update_moments(*found, latents, mask, 0.9)
    before = [part.clone() for part in found]
    if kind == "nothing counts":
        update_moments(*found, latents, ~mask, 0.9)
    else:
        update_moments(*found, latents.log(), mask, 0.9)
    assert all(map(torch.equal, found, before))


def test_nothing_to_begin_with_is_forgotten():
    latents, mask = correlated(20), torch.ones(20, dtype=torch.bool)
    found, expected = moments(), moments()
    update_moments(*found, latents, ~mask, 0.9, torch.zeros(()))
    update_moments(*found, latents, mask, 0.9, torch.ones(()))
    update_moments(*expected, latents, mask, 0.9, torch.ones(()))
    torch.testing.assert_close(found, expected, **CLOSE)


def test_a_single_vector_is_whitened_to_nothing():
    assert torch.equal(whiten(torch.zeros(1, 4), torch.zeros(4, 4), 0.1), torch.zeros(1, 4))


# In the model


@pytest.mark.parametrize("pool", [False, True], ids=["tokens", "blocks"])
def test_model_whitens_by_the_moments_of_what_it_compares(pool):
    model = drift(pretraining_model(whiten_targets=True, whiten_epsilon=0.1, pool_targets=pool)).train()
    plain = pretraining_model(pool_targets=pool)
    plain.load_state_dict(model.state_dict(), strict=False)
    batch = block_batch()
    latents, counted = plain.pool(plain(**batch).target_latents, batch["target_mask"])
    latents = latents[counted]
    model(**batch)
    torch.testing.assert_close(model.target_center, latents.mean(0), **CLOSE)
    torch.testing.assert_close(model.target_covariance, latents.T.cov(correction=0), **CLOSE)
    found, _ = model.eval().pool(model(**batch).target_latents, batch["target_mask"])
    expected = whiten(latents - latents.mean(0), latents.T.cov(correction=0), 0.1)
    torch.testing.assert_close(found[counted], expected, rtol=1e-3, atol=1e-4)


def test_moments_stay_in_evaluation_and_in_updates_without_the_jepa_loss():
    model, batch = pretraining_model(whiten_targets=True), block_batch()
    model(**batch)
    model.train()(**batch, skip_jepa=True)
    assert torch.equal(model.target_covariance, torch.eye(HIDDEN_SIZE)) and model.num_centered == 0


def test_moments_are_saved_with_the_model(tmp_path):
    model = pretraining_model(whiten_targets=True).train()
    model(**block_batch())
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path)
    for name in ("target_center", "target_covariance", "num_centered"):
        assert torch.equal(getattr(loaded, name), getattr(model, name))


@pytest.mark.parametrize("autocast", [False, True])
def test_whitened_targets_are_float32(autocast):
    model, batch = pretraining_model(whiten_targets=True).train(), block_batch()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        output = model(**batch)
        assert model.eval()(**batch).target_latents.dtype == model.target_covariance.dtype == torch.float32
    assert output.jepa_loss.isfinite()
