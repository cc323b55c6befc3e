"""What the collapse monitor measures: on states whose law is known, and against an oracle."""

import math

import pytest
import torch

from predrec.modeling import modeling_pretraining
from predrec.trainers import collapse
from predrec.trainers.collapse import collapse_reasons, measure, text_spread, token_spread
from predrec.trainers.geometry import effective_rank, uniformity

from ..modeling.test_crops import crop_batch
from ..modeling.tiny import block_batch, drift, pretraining_model

OF_ENCODER = {"uniformity", "effective_rank", "rank_share", "text_spread", "token_spread"}
OF_PREDICTION = {
    "target_spread",
    "target_token_spread",
    "matched_cosine",
    "mismatched_cosine",
    "trivial_loss_mean",
    "trivial_loss_position",
    "trivial_loss_text",
    "jepa_margin",
}


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# Spread of texts


def test_text_spread_of_equal_texts_is_zero():
    states = normal(1, 9, 16).expand(5, -1, -1)
    # The mean of equal numbers may differ from them by rounding.
    assert text_spread(states, torch.ones(5, 9, dtype=torch.bool)) < 1e-6


def test_text_spread_of_unrelated_texts_is_about_one():
    # 400 texts by 4 positions by 64 features: the mean of the standard deviations is known to a part in a hundred.
    spread = text_spread(normal(400, 4, 64), torch.ones(400, 4, dtype=torch.bool))
    torch.testing.assert_close(spread.item(), 1.0, rtol=0.01, atol=0)


def test_text_spread_equals_naive_twin():
    states, mask = normal(4, 3, 6), torch.tensor([[1, 1, 1], [1, 1, 0], [1, 1, 0], [1, 0, 0]]).bool()
    normalised = (states - states.mean(-1, keepdim=True)) / (states.var(-1, keepdim=True, correction=0) + 1e-5).sqrt()
    # The last position has one text only: it tells nothing.
    expected = [normalised[mask[:, i], i].std(0).mean() for i in (0, 1)]
    torch.testing.assert_close(text_spread(states, mask), torch.stack(expected).mean(), rtol=1e-5, atol=1e-6)


def test_text_spread_ignores_padding():
    states, mask = normal(4, 3, 6), torch.tensor([[1, 1, 1], [1, 1, 0], [1, 1, 1], [1, 0, 0]]).bool()
    assert torch.equal(text_spread(states.masked_fill(~mask[..., None], 9.0), mask), text_spread(states, mask))


def test_text_spread_does_not_count_what_positions_share():
    """A large position vector leaves little room for the text."""
    positions = 10 * normal(1, 9, 16)
    mask = torch.ones(50, 9, dtype=torch.bool)
    texts = normal(50, 9, 16, seed=1)
    assert text_spread(positions + texts, mask) < 0.2 < 0.9 < text_spread(texts, mask)


def test_token_spread_sees_tokens_that_are_alike_within_a_text():
    texts = normal(6, 1, 32).expand(-1, 20, -1)
    mask = torch.ones(6, 20, dtype=torch.bool)
    assert token_spread(texts, mask) < 1e-6 < 0.9 < text_spread(texts, mask)


def test_text_spread_of_one_text_is_zero():
    assert text_spread(normal(1, 3, 6), torch.ones(1, 3, dtype=torch.bool)) == 0


# All measures


@pytest.mark.parametrize(
    "fields",
    [{}, {"objective": "jepa"}, {"jepa_loss": "sigreg"}, {"center_targets": True}, {"pool_targets": True}],
    ids=str,
)
def test_measure_returns_every_documented_number(batch, fields):
    measures = measure(pretraining_model(**fields), batch)
    assert set(measures) == OF_ENCODER | OF_PREDICTION
    assert all(isinstance(value, float) and math.isfinite(value) for value in measures.values())


def test_measure_of_mlm_is_about_the_encoder_only(batch):
    names = ("input_ids", "labels", "attention_mask", "label_indices")
    assert set(measure(pretraining_model(objective="mlm"), {name: batch[name] for name in names})) == OF_ENCODER


def test_measure_of_a_switched_hybrid_is_about_the_encoder_only(batch):
    model = pretraining_model()
    model.switch_objective("mlm")
    assert set(measure(model, batch)) == OF_ENCODER


def test_measure_of_the_encoder_is_taken_on_unmasked_texts(batch):
    model = pretraining_model()
    states = model.encoder(batch["original_input_ids"], attention_mask=batch["attention_mask"])[0]
    pooled = torch.stack([row[mask.bool()].mean(0) for row, mask in zip(states, batch["attention_mask"], strict=True)])
    measures = measure(model, batch)
    found = [measures[name] for name in ("uniformity", "effective_rank", "rank_share")]
    expected = [uniformity(pooled).item(), effective_rank(pooled).item(), effective_rank(pooled).item() / 2]
    # Pooling in another order, in float32.
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_measure_restores_the_text_from_labels_when_it_is_not_given(batch):
    model = pretraining_model(objective="mlm")
    without = {name: value for name, value in batch.items() if name != "original_input_ids"}
    assert measure(model, without) == measure(model, batch)


def test_measure_of_an_unpadded_batch_equals_that_with_a_mask_of_ones():
    batch = block_batch(((24, ((4, 4), (14, 5))), (24, ((2, 3), (4, 4)))))
    model = drift(pretraining_model())
    ones = batch | {"attention_mask": torch.ones_like(batch["input_ids"])}
    left, right = measure(model, batch), measure(model, ones)
    # Attention with and without a mask takes different kernels.
    torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-5)


def test_trivial_losses_equal_naive_twins(batch):
    model = drift(pretraining_model())
    output, measures = model(**batch), measure(model, batch)
    states = model.target_states(batch["original_input_ids"], batch["attention_mask"])
    target, indices, chosen = output.target_latents, batch["target_indices"], batch["target_mask"]
    lengths, mean, shift = batch["attention_mask"].sum(1), target[chosen].mean(0), indices.shape[-1] // 2
    losses, margins = {"mean": [], "position": [], "text": []}, {"mean": [], "position": [], "text": []}
    for row, block, i in chosen.nonzero().tolist():
        here, guesses = target[row, block, i], {"mean": mean}
        if chosen[row, block, i - shift]:
            guesses["position"] = target[row, block, i - shift]
        if indices[row, block, i] < lengths[row - 1]:
            guesses["text"] = states[row - 1, indices[row, block, i]]
        own = 1 - torch.cosine_similarity(output.predicted_latents[row, block, i], here, dim=0)
        for name, guess in guesses.items():
            losses[name].append(1 - torch.cosine_similarity(guess, here, dim=0))
            margins[name].append(losses[name][-1] - own)
    expected = {f"trivial_loss_{name}": torch.stack(values).mean().item() for name, values in losses.items()}
    expected["jepa_margin"] = min(torch.stack(values).mean().item() for values in margins.values())
    torch.testing.assert_close({name: measures[name] for name in expected}, expected, rtol=1e-4, atol=1e-5)


def test_cosines_equal_naive_twins(batch):
    model = drift(pretraining_model())
    output, measures = model(**batch), measure(model, batch)
    predicted, target, chosen = output.predicted_latents, output.target_latents, batch["target_mask"]
    cosines = {"matched_cosine": [], "mismatched_cosine": []}
    for row, block, i in chosen.nonzero().tolist():
        here = target[row, block, i]
        cosines["matched_cosine"].append(torch.cosine_similarity(predicted[row, block, i], here, dim=0))
        if chosen[row - 1, block, i]:
            cosines["mismatched_cosine"].append(torch.cosine_similarity(predicted[row - 1, block, i], here, dim=0))
    expected = {name: torch.stack(values).mean().item() for name, values in cosines.items()}
    torch.testing.assert_close({name: measures[name] for name in expected}, expected, rtol=1e-4, atol=1e-5)


def test_trivial_losses_of_pooled_targets_equal_naive_twins():
    batch = block_batch(((24, ((4, 4), (14, 4))), (24, ((2, 4), (9, 4))), (24, ((3, 4), (17, 4)))))
    model = drift(pretraining_model(pool_targets=True))
    output, measures = model(**batch), measure(model, batch)
    states = model.target_states(batch["original_input_ids"], None)
    blocks, indices = output.target_latents.mean(2), batch["target_indices"]
    mean = blocks.flatten(0, 1).mean(0).expand_as(blocks)
    other = torch.stack([states[row - 1][indices[row]].mean(1) for row in range(3)])
    guesses = {"mean": mean, "position": blocks.flip(1), "text": other}
    expected = {
        f"trivial_loss_{name}": (1 - torch.cosine_similarity(guess, blocks, dim=-1)).mean().item()
        for name, guess in guesses.items()
    }
    cosines = torch.cosine_similarity(output.predicted_latents.mean(2), blocks, dim=-1)
    expected["matched_cosine"] = cosines.mean().item()
    expected["jepa_margin"] = min(expected[f"trivial_loss_{name}"] for name in guesses) - output.jepa_loss.item()
    torch.testing.assert_close({name: measures[name] for name in expected}, expected, rtol=1e-4, atol=1e-5)


def test_position_of_one_pooled_block_is_that_of_the_next_context_of_its_text():
    first, second = (((24, ((start, 4),)), (24, ((start + 2, 4),))) for start in (3, 12))
    batches = [block_batch(rows) for rows in (first, second)]
    names = [name for name in batches[0] if name.startswith(("context", "target"))]
    both = batches[0] | {name: torch.cat([batch[name] for batch in batches]) for name in names}
    model = drift(pretraining_model(pool_targets=True))
    assert "trivial_loss_position" not in measure(model, batches[0])
    measures, blocks = measure(model, both), model(**both).target_latents.mean(2)[:, 0]
    expected = (1 - torch.cosine_similarity(blocks, blocks[[2, 3, 0, 1]], dim=-1)).mean().item()
    torch.testing.assert_close(measures["trivial_loss_position"], expected, rtol=1e-4, atol=1e-5)


def test_measure_of_crops_is_complete_and_an_oracle_has_a_margin(monkeypatch):
    batch = crop_batch()
    model = drift(pretraining_model(jepa_view="crops", whiten_targets=True, target_layers=0)).train()
    model(**batch)
    assert set(measure(model.eval(), batch)) == OF_ENCODER | OF_PREDICTION
    means = model.pool(model(**batch).target_latents, batch["target_mask"])[0][:, 0]
    monkeypatch.setattr(modeling_pretraining, "mean_of_crops", lambda *args: means)
    measures = measure(model, batch)
    torch.testing.assert_close(measures["matched_cosine"], 1.0, rtol=0, atol=1e-5)
    assert measures["jepa_margin"] > 0.1


def noise_targets(monkeypatch, model, batch):
    """Makes the target of every token of every text independent noise: nothing can be predicted."""
    states = normal(*batch["input_ids"].shape, model.config.encoder_config.hidden_size)
    monkeypatch.setattr(model, "target_states", lambda *args: states)


@pytest.mark.parametrize(("second", "is_apart"), [(6, False), (8, True)])
def test_another_block_that_holds_a_part_of_the_answer_is_no_guess(monkeypatch, second, is_apart):
    """Pooled blocks of one text may overlap; of noise, their means would predict one another all the same."""
    batch = block_batch(((24, ((4, 4), (second, 4))),) * 8)
    model = pretraining_model(pool_targets=True)
    noise_targets(monkeypatch, model, batch)
    measures = measure(model, batch)
    assert ("trivial_loss_position" in measures) == is_apart
    if is_apart:
        assert 0.8 < measures["trivial_loss_position"] < 1.2


@pytest.mark.parametrize("name", ["cosine", "infonce"])
def test_a_prediction_as_good_as_a_trivial_one_has_no_margin(batch, name, monkeypatch):
    """A loss that compares targets with one another grows with their number: they must be the same."""
    model = drift(pretraining_model(jepa_loss=name))
    target = model(**batch).target_latents
    guess, half = target + 0.1 * normal(*target.shape), batch["target_mask"].clone()
    half[:, 1:] = False
    monkeypatch.setattr(collapse, "_elsewhere", lambda *args: (guess, half))
    monkeypatch.setattr(model.predictor, "forward", lambda *args: guess)
    torch.testing.assert_close(measure(model, batch)["jepa_margin"], 0.0, rtol=0, atol=1e-6)


@pytest.mark.parametrize("length", [1, 2, 3])
def test_short_blocks_have_another_position_or_none(monkeypatch, length):
    batch = block_batch(((24, ((4, length), (14, length))),) * 8)
    model = pretraining_model()
    noise_targets(monkeypatch, model, batch)
    measures = measure(model, batch)
    assert ("trivial_loss_position" in measures) == (length > 1)
    if length > 1:
        assert 0.8 < measures["trivial_loss_position"] < 1.2


def test_rows_without_targets_have_no_measure_of_the_prediction(batch):
    without = batch | {"target_mask": torch.zeros_like(batch["target_mask"])}
    measures = measure(pretraining_model(), without)
    assert set(measures) == OF_ENCODER | {"target_spread", "target_token_spread"}
    assert all(math.isfinite(value) for value in measures.values())


def oracle(model, batch, monkeypatch, change=lambda latents: latents):
    """Makes the predictor return the targets."""
    latents = change(model(**batch).target_latents)
    monkeypatch.setattr(model.predictor, "forward", lambda *args: latents)
    return model


@pytest.mark.parametrize("name", ["cosine", "mse", "smooth_l1", "infonce", "barlow_twins", "sigreg"])
def test_margin_of_an_oracle_is_positive(batch, name, monkeypatch):
    model = oracle(drift(pretraining_model(jepa_loss=name)), batch, monkeypatch)
    assert measure(model, batch)["jepa_margin"] > 0


def test_margin_of_an_oracle_on_centred_targets_is_positive(batch, monkeypatch):
    model = pretraining_model(center_targets=True)
    model.train()(**batch)
    assert measure(oracle(model.eval(), batch, monkeypatch), batch)["jepa_margin"] > 0


def test_margin_of_the_mean_target_is_not_positive(batch, monkeypatch):
    chosen = batch["target_mask"]
    model = oracle(
        drift(pretraining_model()), batch, monkeypatch, lambda latents: latents[chosen].mean(0).expand_as(latents)
    )
    assert measure(model, batch)["jepa_margin"] < 1e-6


def test_oracle_matches_its_own_text_better_than_another(batch, monkeypatch):
    measures = measure(oracle(drift(pretraining_model()), batch, monkeypatch), batch)
    torch.testing.assert_close(measures["matched_cosine"], 1.0, rtol=0, atol=1e-5)
    assert measures["mismatched_cosine"] < measures["matched_cosine"] - 0.01


def test_measure_of_a_collapsed_encoder_reports_it(batch):
    model = pretraining_model()
    with torch.no_grad():
        model.encoder.embeddings.word_embeddings.weight.zero_()
    model.reset_target_encoder()
    # Equal texts of equal length: padding would still tell them apart.
    batch = block_batch(((24, ((4, 4), (14, 5))), (24, ((2, 3), (4, 4))), (24, ((10, 3), (12, 2)))))
    measures = measure(model, batch)
    # Rounding, as above.
    assert max(measures[name] for name in ("rank_share", "text_spread", "target_spread", "jepa_margin")) < 1e-6


@pytest.mark.parametrize("jepa_loss", ["cosine", "sigreg"])
def test_measure_leaves_random_numbers_alone(batch, jepa_loss):
    model = pretraining_model(jepa_loss=jepa_loss)
    before = torch.get_rng_state()
    measure(model, batch)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_measure_leaves_random_numbers_of_the_gpu_alone(batch):
    model = pretraining_model().cuda()
    batch = {name: value.cuda() for name, value in batch.items()}
    torch.manual_seed(3)
    before = torch.cuda.get_rng_state()
    measure(model, batch)
    assert torch.equal(torch.cuda.get_rng_state(), before)


def test_measure_gives_no_gradient(batch):
    model = pretraining_model()
    measure(model, batch)
    assert all(parameter.grad is None for parameter in model.parameters())


# Reasons


HEALTHY = {"rank_share": 0.4, "text_spread": 0.6, "target_spread": 0.5}


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, []),
        ({"rank_share": 0.01}, ["rank_share"]),
        ({"text_spread": 0.01}, ["text_spread"]),
        ({"target_spread": 0.01}, ["target_spread"]),
        ({"token_spread": 0.01}, ["token_spread"]),
        ({"target_token_spread": 0.01}, ["target_token_spread"]),
        (
            {"rank_share": 0.0, "text_spread": 0.0, "target_spread": 0.0},
            ["rank_share", "text_spread", "target_spread"],
        ),
        ({"rank_share": math.nan}, ["rank_share"]),
        ({"rank_share": 0.05}, []),  # At the limit.
        ({"jepa_margin": -1.0}, []),
    ],
    ids=str,
)
def test_collapse_reasons_names_what_is_below_its_limit(changed, expected):
    reasons = collapse_reasons(HEALTHY | changed, min_rank=0.05, min_std=0.1)
    assert [reason.partition(" ")[0] for reason in reasons] == expected


def test_collapse_reasons_does_without_measures_of_the_prediction():
    assert collapse_reasons({"rank_share": 0.4, "text_spread": 0.6}, min_rank=0.05, min_std=0.1) == []


def test_collapse_reasons_says_value_and_limit():
    (reason,) = collapse_reasons(HEALTHY | {"rank_share": 0.0123}, min_rank=0.05, min_std=0.1)
    assert reason.startswith("rank_share 0.0123 is below 0.05: ")
