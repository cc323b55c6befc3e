"""The pre-training model: losses, their balance, the target encoder, gradients, and what survives saving."""

import math

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModelForMaskedLM, AutoModelForPreTraining, BertForMaskedLM

from predrec.modeling import PredRecForPreTraining
from predrec.modeling.losses import JEPA_LOSSES

from .tiny import (
    HIDDEN_SIZE,
    UNPADDED_ROWS,
    block_batch,
    context_visibility,
    drift,
    encoder_config,
    part_of,
    pretraining_config,
    pretraining_model,
)

# Float32: the same sums in another order.
CLOSE = {"rtol": 1e-5, "atol": 1e-6}
LISTED = ("predrec", "bert", "roberta", "distilbert", "electra", "modernbert", "deberta-v2")


def batch_for(model: PredRecForPreTraining, **kwargs) -> dict[str, torch.Tensor]:
    return block_batch(pad_token_id=model.config.encoder_config.pad_token_id, **kwargs)


def gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Gradients of the trainable parameters, by name."""
    return {name: p.grad for name, p in model.named_parameters() if p.requires_grad}


def weights(module: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in module.parameters()])


# Output fields


def test_forward_in_evaluation_fills_every_field(batch):
    output = pretraining_model()(**batch)
    assert not [name for name in output.__dataclass_fields__ if getattr(output, name) is None]
    assert output.predicted_latents.shape == output.target_latents.shape == (*batch["target_mask"].shape, HIDDEN_SIZE)


def test_forward_in_training_leaves_evaluation_fields_out(batch):
    output = pretraining_model().train()(**batch)
    assert output.mlm_correct is output.predicted_latents is output.target_latents is None


@pytest.mark.parametrize(
    ("objective", "absent"),
    [
        ("mlm", ("jepa_loss", "num_targets", "predicted_latents", "target_latents")),
        ("jepa", ("mlm_loss", "num_labels")),
    ],
)
def test_forward_leaves_out_what_the_objective_lacks(batch, objective, absent):
    output = pretraining_model(objective=objective)(**batch)
    assert all(getattr(output, name) is None for name in absent)


def test_forward_counts_labels_and_targets(batch):
    output = pretraining_model()(**batch)
    assert (output.num_labels, output.num_targets) == (5 + 4 + 4, (4 + 5) + (3 + 4) + (3 + 2))


def test_forward_counts_correct_tokens(batch):
    model = pretraining_model()
    logits = model.masked_lm(batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    expected = (logits.argmax(-1) == batch["labels"])[batch["labels"] != -100].sum()
    assert model(**batch).mlm_correct == expected


def test_logged_terms_are_detached(batch):
    output = pretraining_model().train()(**batch)
    assert output.loss.requires_grad
    assert not any(term.requires_grad for term in (output.jepa_loss, output.mlm_loss, output.loss_lambda))


# Losses


def test_hybrid_loss_is_the_weighted_sum(batch):
    output = pretraining_model(loss_lambda=0.3, loss_weighting="fixed")(**batch)
    torch.testing.assert_close(output.loss, 0.3 * output.jepa_loss + 0.7 * output.mlm_loss, **CLOSE)


def test_hybrid_equals_the_specification(batch):
    """Section by section: context pass, predictor, normalised targets, cosine; full pass, cross-entropy."""
    model = drift(pretraining_model(loss_weighting="fixed"))
    online, real = model.masked_lm.model, batch["attention_mask"]
    context = online(batch["input_ids"], attention_mask=context_visibility(batch)).last_hidden_state
    context = torch.stack([row[places] for row, places in zip(context, batch["context_indices"], strict=True)])
    places = {name: batch[name] for name in ("context_indices", "context_mask", "target_indices", "target_mask")}
    predicted = model.predictor(context, **places)
    targets = model.target_encoder(batch["original_input_ids"], attention_mask=real).last_hidden_state
    targets = F.layer_norm(targets, targets.shape[-1:])
    distances = [
        1 - F.cosine_similarity(predicted[row, block, i], targets[row, position], dim=0)
        for row, blocks in enumerate(batch["target_indices"])
        for block, positions in enumerate(blocks)
        for i, position in enumerate(positions)
        if batch["target_mask"][row, block, i]
    ]
    mlm = model.masked_lm(batch["input_ids"], attention_mask=real, labels=batch["labels"]).loss
    torch.testing.assert_close(model(**batch).loss, (torch.stack(distances).mean() + mlm) / 2, **CLOSE)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_mlm_objective_equals_bert_for_masked_lm(batch, attention):
    model = pretraining_model("bert", objective="mlm", attn_implementation=attention).train()
    stock = BertForMaskedLM(encoder_config("bert")).train()
    stock.load_state_dict(model.masked_lm.state_dict())
    loss = model(**batch).loss
    expected = stock(batch["input_ids"], attention_mask=batch["attention_mask"], labels=batch["labels"]).loss
    loss.backward()
    expected.backward()
    torch.testing.assert_close(loss, expected, **CLOSE)
    torch.testing.assert_close(gradients(model.masked_lm), gradients(stock), **CLOSE)


@pytest.mark.parametrize("model_type", [*LISTED, "mpnet"])
def test_mlm_loss_equals_that_of_the_stock_model(model_type):
    model = pretraining_model(model_type, objective="mlm")
    batch = batch_for(model)
    expected = model.masked_lm(batch["input_ids"], attention_mask=batch["attention_mask"], labels=batch["labels"]).loss
    torch.testing.assert_close(model(**batch).mlm_loss, expected, **CLOSE)


def test_hybrid_with_weight_zero_equals_the_mlm_objective(batch):
    hybrid = pretraining_model(loss_weighting="fixed", loss_lambda=0.0)
    mlm = pretraining_model(objective="mlm")
    mlm.masked_lm.load_state_dict(hybrid.masked_lm.state_dict())
    assert torch.equal(hybrid(**batch).loss, mlm(**batch).loss)


def test_jepa_objective_is_the_jepa_loss_alone(batch):
    output = pretraining_model(objective="jepa")(**batch)
    assert torch.equal(output.loss, output.jepa_loss) and output.loss_lambda == 1


@pytest.mark.parametrize("name", [name for name in JEPA_LOSSES if name not in ("infonce", "sigreg")])
def test_jepa_loss_is_the_chosen_function_of_the_latents(batch, name):
    output = drift(pretraining_model(jepa_loss=name))(**batch)
    chosen = batch["target_mask"]
    predicted, target = output.predicted_latents[chosen], output.target_latents[chosen]
    expected = JEPA_LOSSES[name](predicted, target, torch.ones(len(target), dtype=torch.bool))
    torch.testing.assert_close(output.jepa_loss, expected, **CLOSE)


def test_infonce_treats_overlapping_targets_as_one_token(batch):
    """The blocks of the last two rows share a position each; the token's number in the batch tells."""
    output = drift(pretraining_model(jepa_loss="infonce", jepa_temperature=0.5))(**batch)
    chosen = batch["target_mask"]
    token_ids = (batch["target_indices"] + 24 * torch.arange(3)[:, None, None])[chosen]
    assert len(token_ids) - len(token_ids.unique()) == 2
    expected = JEPA_LOSSES["infonce"](
        output.predicted_latents[chosen],
        output.target_latents[chosen],
        torch.ones(len(token_ids), dtype=torch.bool),
        token_ids=token_ids,
        temperature=0.5,
    )
    torch.testing.assert_close(output.jepa_loss, expected, **CLOSE)


def blocks_of(batch, latents):
    """Returns the means of the target blocks that have a target, and the rows they are of."""
    found = [
        (latents[row, block][chosen].mean(0), row)
        for row, blocks in enumerate(batch["target_mask"])
        for block, chosen in enumerate(blocks)
        if chosen.any()
    ]
    means, rows = zip(*found, strict=True)
    return torch.stack(means), torch.tensor(rows)


@pytest.mark.parametrize("name", [name for name in JEPA_LOSSES if name != "sigreg"])
def test_pooled_targets_are_means_of_blocks(batch, name):
    output = drift(pretraining_model(jepa_loss=name, jepa_temperature=0.5, pool_targets=True))(**batch)
    (predicted, rows), (target, _) = (
        blocks_of(batch, latents) for latents in (output.predicted_latents, output.target_latents)
    )
    # Blocks of one text are about the same: they are not told apart.
    options = {"token_ids": rows, "temperature": 0.5} if name == "infonce" else {}
    expected = JEPA_LOSSES[name](predicted, target, torch.ones(len(rows), dtype=torch.bool), **options)
    torch.testing.assert_close(output.jepa_loss, expected, **CLOSE)
    assert output.num_targets == len(rows) < batch["target_mask"].sum()


def test_pooled_targets_of_one_token_are_the_token():
    batch = block_batch(((24, ((4, 1), (14, 1))), (24, ((2, 1), (9, 1)))))
    pooled, plain = (drift(pretraining_model(pool_targets=flag)) for flag in (True, False))
    plain.load_state_dict(pooled.state_dict())
    torch.testing.assert_close(pooled(**batch).jepa_loss, plain(**batch).jepa_loss, **CLOSE)


def test_sigreg_draws_its_directions_from_the_global_generator(batch):
    model = pretraining_model(jepa_loss="sigreg")
    losses = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        losses.append(model(**batch).jepa_loss.item())
    assert losses[0] == losses[1] != losses[2]


def test_forward_without_any_target_is_finite(batch):
    model = pretraining_model().train()
    output = model(**(batch | {"target_mask": torch.zeros_like(batch["target_mask"])}))
    output.loss.backward()
    assert output.jepa_loss == 0 and all(g.isfinite().all() for g in gradients(model).values())


def test_forward_without_any_label_is_finite(batch):
    model = pretraining_model().train()
    output = model(**(batch | {"labels": torch.full_like(batch["labels"], -100)}))
    output.loss.backward()
    assert output.mlm_loss == 0 and all(g.isfinite().all() for g in gradients(model).values())


@pytest.mark.parametrize("view", ["full", "context"])
def test_label_indices_equal_the_search_for_labels(batch, view):
    model = pretraining_model(mlm_view=view).train()
    if view == "context":
        labels = batch["labels"].gather(1, batch["context_indices"]).masked_fill(~batch["context_mask"], -100)
        unlabelled = (labels.flatten() == -100).nonzero()[:1, 0]
        batch["label_indices"] = torch.cat([(labels.flatten() != -100).nonzero()[:, 0], unlabelled])
    searched = model(**{name: value for name, value in batch.items() if name != "label_indices"})
    given = model(**batch)
    torch.testing.assert_close(given.mlm_loss, searched.mlm_loss, **CLOSE)
    assert given.num_labels == searched.num_labels > 0


def test_context_view_scores_visible_labels_from_context_states(batch):
    model = pretraining_model(mlm_view="context").train()
    del batch["label_indices"]
    visible = context_visibility(batch)
    labels = batch["labels"].masked_fill(visible == 0, -100)
    expected = model.masked_lm(batch["input_ids"], attention_mask=visible, labels=labels).loss
    output = model(**batch)
    torch.testing.assert_close(output.mlm_loss, expected, **CLOSE)
    assert output.num_labels == (labels != -100).sum() < (batch["labels"] != -100).sum()


def test_context_view_is_the_full_view_in_evaluation(batch):
    context, full = pretraining_model(mlm_view="context"), pretraining_model()
    context.load_state_dict(full.state_dict())
    assert torch.equal(context(**batch).mlm_loss, full(**batch).mlm_loss)


@pytest.mark.parametrize("view", ["full", "context"])
@pytest.mark.parametrize("objective", ["hybrid", "jepa"])
@pytest.mark.parametrize("pool", [False, True])
def test_count_tokens_agrees_with_the_output(batch, view, objective, pool):
    model = pretraining_model(mlm_view=view, objective=objective, pool_targets=pool).train()
    del batch["label_indices"]
    output = model(**batch)
    labels, targets = model.count_tokens(batch)
    assert targets == output.num_targets and (objective == "jepa" or labels == output.num_labels)


def test_count_tokens_without_target_blocks_counts_none(batch):
    model = pretraining_model(objective="mlm")
    counts = model.count_tokens({name: value for name, value in batch.items() if "target" not in name})
    assert [int(count) for count in counts] == [13, 0]


@pytest.mark.parametrize("weighting", ["learned", "fixed", "uncertainty"])
@pytest.mark.parametrize(
    "fields",
    [{}, {"mlm_view": "context"}, {"objective": "jepa"}, {"objective": "mlm"}, {"pool_targets": True}],
    ids=str,
)
def test_parts_of_an_update_add_up_to_the_whole(batch, fields, weighting):
    model = pretraining_model(loss_weighting=weighting, loss_lambda=0.3, **fields).train()
    del batch["label_indices"]
    whole = model(**batch)
    whole.loss.backward()
    expected = gradients(model)
    model.zero_grad()

    labels, targets = model.count_tokens(batch)
    total = 0.0
    for rows in (slice(0, 2), slice(2, 3)):
        part = model(**part_of(batch, rows), labels_in_update=labels, targets_in_update=targets).loss
        part.backward()
        total += part.detach()
    torch.testing.assert_close(total, whole.loss.detach(), **CLOSE)
    torch.testing.assert_close(gradients(model), expected, **CLOSE)


def test_row_order_changes_no_loss(batch):
    model = drift(pretraining_model())
    del batch["label_indices"]
    shuffled = {name: value[[2, 0, 1]] for name, value in batch.items()}
    torch.testing.assert_close(model(**shuffled).loss, model(**batch).loss, **CLOSE)


@pytest.mark.parametrize("model_type", LISTED)
def test_extra_padding_changes_no_loss(model_type):
    model = drift(pretraining_model(model_type))
    batch = batch_for(model)
    del batch["label_indices"]
    pad = model.config.encoder_config.pad_token_id
    fill = {"input_ids": pad, "original_input_ids": pad, "labels": -100, "attention_mask": 0}
    longer = batch | {name: F.pad(batch[name], (0, 7), value=value) for name, value in fill.items()}
    for name in ("context_indices", "context_mask", "target_indices", "target_mask"):
        longer[name] = F.pad(batch[name], (0, 3))
    outputs = model(**longer), model(**batch)
    for name in ("loss", "mlm_loss", "jepa_loss"):
        torch.testing.assert_close(outputs[0][name], outputs[1][name], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("model_type", [*LISTED, "mpnet"])
def test_hidden_tokens_do_not_change_predictions(model_type):
    model = pretraining_model(model_type)
    batch = batch_for(model)
    hidden = (batch["attention_mask"] == 1) & (context_visibility(batch) == 0)
    changed = batch | {"input_ids": batch["input_ids"].masked_fill(hidden, 9)}
    chosen = batch["target_mask"]
    latents = [model(**inputs).predicted_latents[chosen] for inputs in (batch, changed)]
    assert torch.equal(*latents)


@pytest.mark.parametrize("model_type", ["predrec", "bert", "modernbert"])
def test_eager_equals_sdpa(batch, model_type):
    losses = []
    for attention in ("eager", "sdpa"):
        losses.append(drift(pretraining_model(model_type, attn_implementation=attention))(**batch).loss)
    torch.testing.assert_close(*losses, **CLOSE)


def attention_of_parts(model: PredRecForPreTraining) -> set[str]:
    return {part.config._attn_implementation for part in (model.encoder, model.target_encoder, model.predictor)}


def test_attention_implementation_reaches_every_part():
    assert attention_of_parts(pretraining_model(attn_implementation="eager")) == {"eager"}


def test_set_attention_implementation_reaches_every_part():
    model = pretraining_model(attn_implementation="eager")
    model.set_attn_implementation("sdpa")
    assert attention_of_parts(model) == {"sdpa"}


def test_loading_with_an_attention_implementation_reaches_every_part(tmp_path):
    pretraining_model().save_pretrained(tmp_path)
    assert attention_of_parts(PredRecForPreTraining.from_pretrained(tmp_path, attn_implementation="eager")) == {
        "eager"
    }


# The balance of the losses


def test_learned_weight_has_the_gradient_of_the_specification(batch):
    model = pretraining_model(loss_lambda=0.3).train()
    output = model(**batch)
    output.loss.backward()
    # lambda (1 - lambda) (jepa - mlm), from lambda = sigmoid(w).
    expected = 0.3 * 0.7 * (output.jepa_loss - output.mlm_loss)
    torch.testing.assert_close(output.loss_lambda.item(), 0.3, **CLOSE)
    torch.testing.assert_close(model.loss_logit.grad, expected[None], **CLOSE)


@pytest.mark.parametrize(
    ("weighting", "shape", "formula"),
    [
        ("fixed", "linear", lambda progress: 0.2),
        ("schedule", "linear", lambda progress: 0.2 + 0.6 * progress),
        ("schedule", "cosine", lambda progress: 0.8 - 0.6 * (1 + math.cos(math.pi * progress)) / 2),
    ],
)
@pytest.mark.parametrize("progress", [0.0, 0.25, 0.5, 1.0])
def test_scheduled_weight_follows_its_formula(weighting, shape, formula, progress):
    fields = {"loss_weighting": weighting, "loss_schedule": shape}
    model = pretraining_model(**fields, loss_lambda=0.2, loss_lambda_end=0.8)
    model.training_progress.fill_(progress)
    jepa, mlm, addend = (value.item() for value in model.loss_weights())
    torch.testing.assert_close((jepa, mlm, addend), (formula(progress), 1 - formula(progress), 0.0), **CLOSE)


def test_uncertainty_loss_follows_its_formula(batch):
    model = pretraining_model(loss_weighting="uncertainty").train()
    with torch.no_grad():
        model.loss_log_variances.copy_(torch.tensor([0.5, -0.2]))
    output = model(**batch)
    jepa, mlm = output.jepa_loss, output.mlm_loss
    expected = math.exp(-0.5) * jepa + math.exp(0.2) * mlm + 0.5 - 0.2
    torch.testing.assert_close(output.loss, expected, **CLOSE)


def test_uncertainty_gradient_is_one_minus_the_weighted_loss(batch):
    model = pretraining_model(loss_weighting="uncertainty").train()
    output = model(**batch)
    output.loss.backward()
    expected = 1 - torch.stack([output.jepa_loss, output.mlm_loss])
    torch.testing.assert_close(model.loss_log_variances.grad, expected, **CLOSE)


@pytest.mark.parametrize("weighting", ["learned", "fixed", "schedule", "uncertainty"])
def test_loss_lambda_is_the_start_of_every_weighting(batch, weighting):
    output = pretraining_model(loss_weighting=weighting, loss_lambda=0.3, loss_lambda_end=0.9)(**batch)
    torch.testing.assert_close(output.loss_lambda.item(), 0.3, **CLOSE)


# Targets


def test_target_latents_are_normalised_outputs_of_the_target_encoder(batch):
    model = drift(pretraining_model())
    states = model.target_encoder(batch["original_input_ids"], attention_mask=batch["attention_mask"])[0]
    states = F.layer_norm(states, states.shape[-1:])
    latents = model(**batch).target_latents
    for row, places in enumerate(batch["target_indices"]):
        torch.testing.assert_close(latents[row], states[row][places], **CLOSE)


@pytest.mark.parametrize("model_type", ["predrec", "bert", "modernbert"])
@pytest.mark.parametrize("layers", [1, 2])
def test_target_layers_average_normalised_top_layers(batch, model_type, layers):
    model = drift(pretraining_model(model_type, target_layers=layers))
    ids, mask = batch["original_input_ids"], batch["attention_mask"]
    outputs = model.target_encoder(ids, attention_mask=mask, output_hidden_states=True)
    states = [F.layer_norm(state, state.shape[-1:]) for state in outputs.hidden_states[-layers:]]
    real = mask.bool()
    torch.testing.assert_close(model.target_states(ids, mask)[real], (sum(states) / layers)[real], **CLOSE)


@pytest.mark.parametrize("layers", ["output", 2])
def test_target_latents_have_no_gradient(batch, layers):
    output = pretraining_model(target_layers=layers)(**batch)
    assert output.predicted_latents.requires_grad and not output.target_latents.requires_grad


def test_target_encoder_gets_no_gradient(batch):
    model = pretraining_model().train()
    model(**batch).loss.backward()
    assert all(p.grad is None for p in model.target_encoder.parameters())


@pytest.mark.parametrize(
    "fields",
    [
        {"jepa_loss": "sigreg"},
        {"jepa_loss": "infonce", "target_network": "online"},
        {"jepa_loss": "vicreg", "target_network": "online"},
    ],
)
def test_online_targets_carry_a_gradient_to_the_encoder(batch, fields):
    model = pretraining_model(**fields)
    latents = model(**batch).target_latents
    assert model.target_encoder is None and latents.requires_grad


def test_target_encoder_stays_in_evaluation_mode():
    model = pretraining_model().train()
    assert model.encoder.training and not any(module.training for module in model.target_encoder.modules())


def test_center_is_the_plain_average_at_first():
    model = pretraining_model(center_targets=True, center_decay=0.99)
    plain = pretraining_model()
    plain.load_state_dict(model.state_dict(), strict=False)
    means = []
    for seed in range(3):
        batch = block_batch(seed=seed)
        means.append(plain(**batch).target_latents[batch["target_mask"]].mean(0))
        model.train()(**batch)
    torch.testing.assert_close(model.target_center, torch.stack(means).mean(0), **CLOSE)


def test_center_decays_once_the_average_is_long():
    model = pretraining_model(center_targets=True, center_decay=0.5)
    plain = pretraining_model()
    plain.load_state_dict(model.state_dict(), strict=False)
    expected = torch.zeros(HIDDEN_SIZE)
    for step, weight in enumerate((1.0, 0.5, 0.5, 0.5)):
        batch = block_batch(seed=step)
        mean = plain(**batch).target_latents[batch["target_mask"]].mean(0)
        expected = (1 - weight) * expected + weight * mean
        model.train()(**batch)
    torch.testing.assert_close(model.target_center, expected, **CLOSE)


def test_center_is_subtracted_from_targets(batch):
    model = pretraining_model(center_targets=True)
    plain = pretraining_model()
    plain.load_state_dict(model.state_dict(), strict=False)
    model.target_center.fill_(0.25)
    torch.testing.assert_close(model(**batch).target_latents, plain(**batch).target_latents - 0.25, **CLOSE)


@pytest.mark.parametrize("fields", [{}, {"center_targets": True}, {"whiten_targets": True}], ids=str)
def test_targets_of_measured_texts_are_those_of_the_loss(batch, fields):
    model = drift(pretraining_model(**fields)).train()
    model(**batch)
    output = model.eval()(**batch)
    _, targets = model.states_of_texts(batch["original_input_ids"], batch["attention_mask"])
    found = model.gather_latents(targets, batch["target_indices"])
    chosen = batch["target_mask"]
    torch.testing.assert_close(found[chosen], output.target_latents[chosen], rtol=1e-4, atol=1e-5)


def test_center_does_not_move_in_evaluation(batch):
    model = pretraining_model(center_targets=True)
    model(**batch)
    assert model.target_center.eq(0).all() and model.num_centered == 0


# The moving average


def test_target_encoder_starts_as_a_copy():
    model = pretraining_model()
    assert torch.equal(weights(model.target_encoder), weights(model.encoder))


def test_target_encoder_shares_no_memory_with_the_encoder():
    model = pretraining_model("bert")
    online = {p.data_ptr() for p in model.encoder.parameters()}
    assert online.isdisjoint(p.data_ptr() for p in model.target_encoder.parameters())


def test_update_with_decay_one_leaves_the_target():
    model = drift(pretraining_model())
    before = weights(model.target_encoder)
    model.update_target_encoder(1.0)
    assert torch.equal(weights(model.target_encoder), before)


def test_update_with_decay_zero_copies():
    model = drift(pretraining_model())
    model.update_target_encoder(0.0)
    assert torch.equal(weights(model.target_encoder), weights(model.encoder))


@pytest.mark.parametrize("model_type", ["predrec", "bert"])
def test_updates_follow_the_closed_form(model_type):
    """After n updates: d^n target + (1 - d) sum over k of d^(n - k) online_k."""
    model, decay, steps = pretraining_model(model_type), 0.9, 5
    expected = decay**steps * weights(model.target_encoder).double()
    for step in range(1, steps + 1):
        drift(model, seed=step)
        expected += (1 - decay) * decay ** (steps - step) * weights(model.encoder).double()
        model.update_target_encoder(decay)
    # Five roundings to float32.
    torch.testing.assert_close(weights(model.target_encoder).double(), expected, rtol=1e-5, atol=1e-6)


def test_update_touches_the_target_only():
    model = drift(pretraining_model())
    before = weights(model.masked_lm), weights(model.predictor)
    model.update_target_encoder(0.5)
    assert torch.equal(weights(model.masked_lm), before[0]) and torch.equal(weights(model.predictor), before[1])


def test_update_refuses_bfloat16():
    with pytest.raises(ValueError, match="must be float32"):
        pretraining_model().bfloat16().update_target_encoder(0.9)


@pytest.mark.parametrize(
    "fields", [{"objective": "mlm"}, {"jepa_loss": "sigreg"}, {"jepa_loss": "infonce", "target_network": "online"}]
)
def test_update_without_a_target_encoder_is_refused(fields):
    with pytest.raises(ValueError, match="has no target encoder"):
        pretraining_model(**fields).update_target_encoder(0.9)


# Gradients


OBJECTIVES = [
    {"objective": "hybrid"},
    {"objective": "hybrid", "loss_weighting": "uncertainty"},
    {"objective": "hybrid", "mlm_view": "context"},
    {"objective": "hybrid", "jepa_loss": "sigreg"},
    {"objective": "hybrid", "jepa_loss": "barlow_twins", "target_network": "online", "center_targets": True},
    {"objective": "hybrid", "jepa_loss": "infonce", "target_layers": 2, "center_targets": True},
    {"objective": "hybrid", "jepa_loss": "infonce", "pool_targets": True, "predictor_attention": "cross"},
    {"objective": "hybrid", "jepa_view": "crops", "target_layers": 0, "whiten_targets": True},
    {"objective": "jepa"},
    {"objective": "jepa", "jepa_loss": "vicreg", "predictor_position_embedding_type": "rotary"},
    {"objective": "mlm"},
]


@pytest.mark.parametrize("fields", OBJECTIVES, ids=str)
@pytest.mark.parametrize("model_type", ["predrec", "bert"])
def test_every_trainable_parameter_gets_a_gradient(batch, model_type, fields):
    model = pretraining_model(model_type, **fields).train()
    if fields.get("mlm_view") == "context":
        del batch["label_indices"]
    model(**batch).loss.backward()
    assert not [name for name, gradient in gradients(model).items() if gradient is None]


@pytest.mark.parametrize("model_type", [*LISTED, "mpnet"])
def test_every_architecture_trains_every_parameter(model_type):
    model = pretraining_model(model_type).train()
    model(**batch_for(model)).loss.backward()
    assert not [name for name, gradient in gradients(model).items() if gradient is None]


def test_jepa_objective_freezes_the_head_but_not_tied_embeddings():
    model = pretraining_model("bert", objective="jepa")
    frozen = {name for name, p in model.masked_lm.named_parameters() if not p.requires_grad}
    assert frozen and all(name.startswith("cls.") for name in frozen)
    assert model.masked_lm.get_input_embeddings().weight.requires_grad


def test_activation_checkpointing_gives_the_same_gradients(batch):
    found = []
    for checkpointing in (False, True):
        model = pretraining_model(predictor_num_hidden_layers=2).train()
        if checkpointing:
            enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
            enable()
        model(**batch).loss.backward()
        found.append(gradients(model))
    torch.testing.assert_close(*found, rtol=0, atol=0)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"encoder": {"position_embedding_type": "rotary"}, "predictor_position_embedding_type": "rotary"},
        {"center_targets": True, "loss_weighting": "schedule", "jepa_loss": "infonce"},
        {"pool_targets": True, "jepa_loss": "infonce", "jepa_start": 0.5},
        {"jepa_view": "crops", "target_layers": 0, "whiten_targets": True, "context_text": "original"},
        {"objective": "mlm"},
    ],
    ids=str,
)
@pytest.mark.parametrize("rows", ["padded", "full"])
def test_training_forward_compiles_without_a_graph_break(batch, full_batch, fields, rows):
    inputs = batch if rows == "padded" else full_batch
    torch._dynamo.reset()
    model = pretraining_model(attn_implementation="sdpa", **fields).train()
    expected = model(**inputs)
    expected.loss.backward()
    expected_gradients = gradients(model)
    model.zero_grad()
    if model.target_center is not None:
        model.num_centered.zero_()
        model.target_center.zero_()
    if model.target_covariance is not None:
        model.target_covariance.copy_(torch.eye(HIDDEN_SIZE))
    output = torch.compile(model, fullgraph=True, backend="eager")(**inputs)
    output.loss.backward()
    torch.testing.assert_close(output.loss, expected.loss, **CLOSE)
    torch.testing.assert_close(gradients(model), expected_gradients, **CLOSE)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("model_type", ["predrec", "modernbert"])
def test_bfloat16_autocast_keeps_losses_in_float32(batch, model_type, attention):
    model = pretraining_model(model_type, attn_implementation=attention).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(**batch)
    output.loss.backward()
    assert output.loss.dtype == output.jepa_loss.dtype == output.mlm_loss.dtype == torch.float32
    assert all(gradient.isfinite().all() for gradient in gradients(model).values())


@pytest.mark.slow
@pytest.mark.parametrize("jepa_loss", ["cosine", "sigreg"])
def test_one_batch_overfits(batch, jepa_loss):
    model = pretraining_model(jepa_loss=jepa_loss, loss_weighting="fixed").train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    torch.manual_seed(0)
    terms = []
    for _ in range(60):
        output = model(**batch)
        output.loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        terms.append((output.mlm_loss.item(), output.jepa_loss.item()))
    assert terms[-1][0] < 0.1 * terms[0][0] and terms[-1][1] < 0.5 * terms[0][1]


# Saving, loading, switching


@pytest.mark.parametrize(
    ("model_type", "fields"),
    [
        ("predrec", {"center_targets": True}),
        ("predrec", {"encoder": {"tie_word_embeddings": True}}),
        ("predrec", {"loss_weighting": "uncertainty"}),
        ("predrec", {"jepa_loss": "sigreg"}),
        ("predrec", {"jepa_loss": "infonce", "target_network": "online"}),
        ("predrec", {"objective": "mlm"}),
        ("bert", {}),
        ("modernbert", {}),
        ("roberta", {"objective": "jepa"}),
    ],
    ids=str,
)
def test_save_and_load_keep_every_tensor(model_type, fields, tmp_path):
    model = drift(pretraining_model(model_type, **fields))
    batch = batch_for(model)
    model.train()(**batch)  # Fills the running mean.
    with torch.no_grad():
        for parameter in (model.loss_logit, model.loss_log_variances):
            if parameter is not None:
                parameter.add_(0.3)
    model.save_pretrained(tmp_path)
    loaded, info = AutoModelForPreTraining.from_pretrained(tmp_path, output_loading_info=True)
    assert type(loaded) is PredRecForPreTraining and not info["missing_keys"] and not info["unexpected_keys"]
    torch.testing.assert_close(loaded.state_dict(), model.state_dict(), rtol=0, atol=0)
    torch.manual_seed(0)
    expected = model.eval()(**batch).loss
    torch.manual_seed(0)
    assert torch.equal(loaded(**batch).loss, expected)


@pytest.mark.parametrize("model_type", ["predrec", "bert"])
def test_loaded_target_encoder_is_the_saved_one(model_type, tmp_path):
    model = drift(pretraining_model(model_type))
    model.save_pretrained(tmp_path)
    loaded = PredRecForPreTraining.from_pretrained(tmp_path)
    assert torch.equal(weights(loaded.target_encoder), weights(model.target_encoder))
    assert not torch.equal(weights(loaded.target_encoder), weights(loaded.encoder))


@pytest.mark.parametrize("train", [False, True])
def test_loaded_model_trains_what_a_new_one_trains(train, tmp_path):
    model = pretraining_model("bert", objective="jepa")
    model.save_pretrained(tmp_path)
    loaded = PredRecForPreTraining.from_pretrained(tmp_path).train(train)
    expected = {name for name, p in model.named_parameters() if p.requires_grad}
    assert {name for name, p in loaded.named_parameters() if p.requires_grad} == expected


def test_loaded_tied_bert_is_still_tied(tmp_path):
    pretraining_model("bert").save_pretrained(tmp_path)
    masked_lm = PredRecForPreTraining.from_pretrained(tmp_path).masked_lm
    assert masked_lm.get_output_embeddings().weight is masked_lm.get_input_embeddings().weight


def test_switch_objective_trains_the_other_loss_alone(batch):
    model = pretraining_model()
    model.switch_objective("mlm")
    output = model(**batch)
    assert torch.equal(output.loss, output.mlm_loss) and output.jepa_loss is None and output.loss_lambda == 0


@pytest.mark.parametrize("weighting", ["learned", "uncertainty"])
@pytest.mark.parametrize("objective", ["mlm", "jepa"])
def test_switched_objective_still_gives_every_parameter_a_gradient(batch, objective, weighting):
    """Otherwise a data-parallel run would stop at the step after the switch."""
    model = pretraining_model(loss_weighting=weighting).train()
    model.switch_objective(objective)
    model(**batch).loss.backward()
    assert not [name for name, gradient in gradients(model).items() if gradient is None]


def test_switched_objective_leaves_the_other_gradients_as_they_are(batch):
    switched, mlm = pretraining_model().train(), pretraining_model(objective="mlm").train()
    mlm.masked_lm.load_state_dict(switched.masked_lm.state_dict())
    switched.switch_objective("mlm")
    for model in (switched, mlm):
        model(**batch).loss.backward()
    torch.testing.assert_close(gradients(switched.masked_lm), gradients(mlm.masked_lm), rtol=0, atol=0)
    assert all(p.grad.eq(0).all() for p in switched.predictor.parameters())


def test_switch_objective_is_saved(tmp_path):
    model = pretraining_model()
    model.switch_objective("jepa")
    model.save_pretrained(tmp_path)
    loaded = PredRecForPreTraining.from_pretrained(tmp_path)
    assert (loaded.active_objective, loaded.config.objective) == ("jepa", "hybrid")


@pytest.mark.parametrize(("built", "wanted"), [("mlm", "hybrid"), ("mlm", "jepa"), ("jepa", "mlm")])
def test_switch_objective_refuses_what_was_not_built(built, wanted):
    with pytest.raises(ValueError, match=f"cannot switch to '{wanted}'"):
        pretraining_model(objective=built).switch_objective(wanted)


@pytest.mark.parametrize("model_type", ["predrec", "bert"])
def test_load_masked_lm_starts_encoder_head_and_target(batch, model_type):
    torch.manual_seed(7)
    trained = AutoModelForMaskedLM.from_config(encoder_config(model_type)).eval()
    model = drift(pretraining_model(model_type))
    model.load_masked_lm(trained)
    expected = trained(batch["input_ids"], attention_mask=batch["attention_mask"], labels=batch["labels"]).loss
    torch.testing.assert_close(model(**batch).mlm_loss, expected, **CLOSE)
    assert torch.equal(weights(model.target_encoder), weights(trained.base_model))


def test_initialisation_depends_on_the_seed_only():
    states = [pretraining_model(seed=seed).state_dict() for seed in (0, 0, 1)]
    torch.testing.assert_close(states[0], states[1], rtol=0, atol=0)
    assert not torch.equal(states[0]["predictor.embed.weight"], states[2]["predictor.embed.weight"])


def test_predictor_has_its_own_initialisation_range():
    model = pretraining_model(encoder={"initializer_range": 0.2}, initializer_range=0.02)
    assert model.predictor.embed.weight.abs().max() <= 0.04 < model.encoder.layers[0].mlp.fc1.weight.abs().max()


def test_forward_ignores_example_ids(batch):
    model = pretraining_model()
    assert torch.equal(model(**(batch | {"example_ids": torch.tensor([7, 8, 9])})).loss, model(**batch).loss)


def test_unpadded_batch_equals_one_with_a_mask_of_ones(full_batch):
    model = drift(pretraining_model("modernbert"))
    ones = full_batch | {"attention_mask": torch.ones_like(full_batch["input_ids"])}
    assert "attention_mask" not in block_batch(UNPADDED_ROWS)
    torch.testing.assert_close(model(**full_batch).loss, model(**ones).loss, **CLOSE)


def test_pretraining_config_is_what_the_model_saves(tmp_path):
    config = pretraining_config(jepa_loss="mse")
    PredRecForPreTraining(config).save_pretrained(tmp_path)
    loaded = type(config).from_pretrained(tmp_path)
    assert (loaded.jepa_loss, loaded.encoder_config.hidden_size) == ("mse", HIDDEN_SIZE)
