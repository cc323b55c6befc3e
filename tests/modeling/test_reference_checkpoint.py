"""A checkpoint of the original author's code computes, as our models, what it computed there."""

import pytest
import torch
from torch.nn import LayerNorm

from predrec.modeling.reference_checkpoint import (
    choose_heads,
    choose_predictor_heads,
    masked_lm_of,
    pretraining_model_of,
)
from predrec.modeling.reference_format import check_reference_checkpoint

from .reference import (
    HEADS,
    PAPER_HEADS,
    PAPER_SIZES,
    cosine,
    encode,
    predict,
    reference_checkpoint,
    regress,
    standardise,
)

NEAR = {"rtol": 0, "atol": 1e-5}
"""Float32 sums in another order."""

CONTEXT = torch.tensor([[0, 1, 2, 8, 9, 15], [0, 3, 4, 5, 10, 15], [1, 2, 3, 11, 12, 13]])
TARGETS = torch.tensor([[[3, 4, 5], [10, 11, 12]], [[1, 2, 6], [7, 8, 9]], [[4, 5, 6], [5, 6, 7]]])


def read(saved):
    return check_reference_checkpoint(saved, 10**9)


def texts(num_tokens=40, padding=(0, 3, 9), length=16):
    """Token ids with padding of the given lengths, and which are real."""
    generator = torch.Generator().manual_seed(5)
    ids = torch.randint(5, num_tokens, (len(padding), length), generator=generator)
    real = torch.arange(length) < length - torch.tensor(padding)[:, None]
    return ids.masked_fill(~real, 0), real.long()


@pytest.fixture(scope="module", params=["hybrid", "mlm"])
def saved(request):
    return reference_checkpoint(request.param)


@pytest.fixture(scope="module")
def hybrid():
    return reference_checkpoint("hybrid")


@pytest.fixture(scope="module")
def pretraining_model(hybrid):
    return pretraining_model_of(read(hybrid), HEADS["encoder"], HEADS["predictor"])


@pytest.mark.parametrize("padding", [(0, 0, 0), (0, 3, 9)], ids=["unpadded", "padded"])
@torch.no_grad()
def test_masked_lm_equals_the_plain_forward_pass(saved, padding):
    model = masked_lm_of(read(saved), HEADS["encoder"], attend_to_padding=True)
    ids, real = texts(padding=padding)
    states = encode(saved["encoder"], ids, HEADS["encoder"])
    torch.testing.assert_close(model.model(ids, attention_mask=real).last_hidden_state, states, **NEAR)
    torch.testing.assert_close(
        model(ids, attention_mask=real).logits, regress(saved["token_regressor"], states), **NEAR
    )


@torch.no_grad()
def test_padding_matters_to_the_original_forward_pass(saved):
    """So the test above does not pass for want of padding that could be seen."""
    model = masked_lm_of(read(saved), HEADS["encoder"], attend_to_padding=False)
    ids, real = texts()
    difference = model.model(ids, attention_mask=real)[0] - encode(saved["encoder"], ids, HEADS["encoder"])
    assert difference[0].abs().max() < 1e-5 < 1e-2 < difference[1:][real[1:].bool()].abs().max()


@torch.no_grad()
def test_target_encoder_is_the_checkpoints(hybrid, pretraining_model):
    ids, _ = texts()
    target = encode(hybrid["target_encoder"], ids, HEADS["encoder"])
    assert (target - encode(hybrid["encoder"], ids, HEADS["encoder"])).abs().max() > 0.1
    torch.testing.assert_close(pretraining_model.target_encoder(ids)[0], target, **NEAR)


@torch.no_grad()
def test_predictor_equals_the_plain_forward_pass(hybrid, pretraining_model):
    states = torch.randn(3, 6, 16, generator=torch.Generator().manual_seed(3))
    everywhere = torch.ones_like(CONTEXT, dtype=torch.bool), torch.ones_like(TARGETS, dtype=torch.bool)
    latents = pretraining_model.predictor(states, CONTEXT, everywhere[0], TARGETS, everywhere[1])
    expected = predict(hybrid["predictor"], states, CONTEXT, TARGETS, HEADS["predictor"])
    torch.testing.assert_close(latents, expected, **NEAR)


@torch.no_grad()
def test_losses_equal_those_of_the_plain_forward_pass(hybrid, pretraining_model):
    ids, _ = texts(padding=(0, 0, 0))
    masked = torch.arange(16) % 5 == 0
    view, labels = ids.masked_fill(masked, 4), ids.masked_fill(~masked, -100)
    everywhere = torch.ones_like(CONTEXT, dtype=torch.bool), torch.ones_like(TARGETS, dtype=torch.bool)
    output = pretraining_model(
        input_ids=view,
        labels=labels,
        original_input_ids=ids,
        context_indices=CONTEXT,
        context_mask=everywhere[0],
        target_indices=TARGETS,
        target_mask=everywhere[1],
    )
    heads = HEADS["encoder"]
    predicted = predict(
        hybrid["predictor"], encode(hybrid["encoder"], view, heads, CONTEXT), CONTEXT, TARGETS, HEADS["predictor"]
    )
    target = standardise(encode(hybrid["target_encoder"], ids, heads))
    target = torch.stack([row[places] for row, places in zip(target, TARGETS, strict=True)])
    jepa = 1 - cosine(predicted, target).mean()
    scores = regress(hybrid["token_regressor"], encode(hybrid["encoder"], view, heads)).log_softmax(-1)
    mlm = -scores.gather(-1, ids[..., None])[..., 0][:, masked].mean()
    weight = torch.sigmoid(hybrid["loss_weight"])[0]
    found = output.loss_lambda, output.jepa_loss, output.mlm_loss, output.loss
    torch.testing.assert_close(found, (weight, jepa, mlm, weight * jepa + (1 - weight) * mlm), **NEAR)


def test_epsilons_are_those_of_the_original_code(pretraining_model):
    """Too small to show in the outputs above."""
    found = {name: module.eps for name, module in pretraining_model.named_modules() if isinstance(module, LayerNorm)}
    assert found.pop("masked_lm.lm_head.norm") == 1e-5
    assert len(found) == 2 * (2 * 2 + 1) + (2 * 3 + 1) and set(found.values()) == {1e-6}


def test_every_weight_of_the_checkpoint_is_used(hybrid, pretraining_model):
    tables = {"encoder": 1, "target_encoder": 1, "predictor": 1, "token_regressor": 0}
    count = sum(len(hybrid[part]) - without for part, without in tables.items()) + 1
    assert len(pretraining_model.state_dict()) == count


@pytest.mark.slow
@torch.no_grad()
def test_paper_size_equals_the_plain_forward_pass():
    saved = reference_checkpoint(scale=0.02, **PAPER_SIZES)
    checkpoint = read(saved)
    heads = choose_heads(checkpoint, None)[0]
    assert {"encoder": heads, "predictor": choose_predictor_heads(checkpoint, None, heads)[0]} == PAPER_HEADS
    model = pretraining_model_of(checkpoint, heads, heads)
    ids, _ = texts(30522, padding=(0, 0, 0), length=32)
    states = encode(saved["encoder"], ids, heads)
    torch.testing.assert_close(model.masked_lm(ids).logits, regress(saved["token_regressor"], states), **NEAR)
    torch.testing.assert_close(model.target_encoder(ids)[0], encode(saved["target_encoder"], ids, heads), **NEAR)
    everywhere = torch.ones_like(CONTEXT, dtype=torch.bool), torch.ones_like(TARGETS, dtype=torch.bool)
    context = encode(saved["encoder"], ids, heads, CONTEXT)
    latents = model.predictor(context, CONTEXT, everywhere[0], TARGETS, everywhere[1])
    torch.testing.assert_close(latents, predict(saved["predictor"], context, CONTEXT, TARGETS, heads), **NEAR)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_becomes_float32(dtype):
    saved = reference_checkpoint("mlm")
    saved["encoder"] = {name: weight.to(dtype) for name, weight in saved["encoder"].items()}
    checkpoint = read(saved)
    assert str(dtype).removeprefix("torch.") in " ".join(checkpoint.notes)
    weight = masked_lm_of(checkpoint, 2).model.layers[1].attn.qkv.weight
    torch.testing.assert_close(weight, saved["encoder"]["blocks.1.attn.qkv.weight"].float(), rtol=0, atol=0)


def test_prefix_of_data_parallel_training_is_taken_off(hybrid):
    wrapped = hybrid | {"encoder": {f"module.{name}": weight for name, weight in hybrid["encoder"].items()}}
    checkpoint = read(wrapped)
    assert any("`module.`" in note and "`encoder`" in note for note in checkpoint.notes)
    torch.testing.assert_close(checkpoint.weights, read(hybrid).weights, rtol=0, atol=0)


def test_what_mlm_does_not_train_is_left_out():
    checkpoint = read(reference_checkpoint("mlm"))
    assert set(checkpoint.weights) == {"encoder", "token_regressor"}
    assert checkpoint.notes == ["`predictor` was left out: mlm does not train it"]


@pytest.mark.parametrize(
    ("config", "given", "number", "source"),
    [
        ({}, 4, 4, "`--num_attention_heads`"),
        ({"meta": {"num_heads": 8}}, 4, 4, "`--num_attention_heads`"),
        ({"meta": {"num_heads": 8}}, None, 8, "`config`"),
        ({"model": [{"encoder": {"n_heads": 8}}, {"predictor": {"num_heads": 3}}]}, None, 8, "`config`"),
        ({"meta": {"pred_num_heads": 3, "num_heads": True}}, None, 2, "the paper's width of 64"),
        ("num_heads", None, 2, "the paper's width of 64"),
        (None, None, 2, "the paper's width of 64"),
    ],
)
def test_heads_are_given_configured_or_of_the_papers_width(config, given, number, source):
    checkpoint = read(reference_checkpoint("mlm", width=128) | {"config": config})
    found = choose_heads(checkpoint, given)
    assert found[0] == number and source in found[1]


@pytest.mark.parametrize(
    ("config", "given", "number", "source"),
    [
        ({}, 3, 3, "`--predictor_num_attention_heads`"),
        ({"pred_num_heads": 6}, None, 6, "`config`"),
        ({"num_heads": 6}, None, 2, "as many as the encoder"),
    ],
)
def test_predictor_heads_are_given_configured_or_as_many_as_the_encoders(config, given, number, source):
    found = choose_predictor_heads(read(reference_checkpoint() | {"config": config}), given, 2)
    assert found[0] == number and source in found[1]


def test_configuration_that_holds_itself_is_searched_once():
    config = {"meta": {"heads": []}, "num_heads": 4}
    config["meta"]["heads"].append(config)
    assert choose_heads(read(reference_checkpoint("mlm") | {"config": config}), None)[0] == 4


def test_configuration_that_is_nested_beyond_reason_is_searched():
    config = {"num_heads": 4}
    for _ in range(100_000):
        config = [config]
    assert choose_heads(read(reference_checkpoint("mlm") | {"config": config}), None)[0] == 4


@pytest.mark.parametrize(
    ("config", "given", "message"),
    [
        ({}, None, "its width of 16 does not tell the number of heads: give `--num_attention_heads`"),
        ({}, 3, "3 heads .* do not divide its width of 16"),
        ({"num_heads": 0}, None, "0 heads .* do not divide"),
        ({"num_heads": -2}, None, "-2 heads .* do not divide"),
        ({"a": {"num_heads": 2}, "b": {"num_heads": 4}}, None, r"several numbers of heads \[2, 4\]"),
    ],
)
def test_heads_that_cannot_be_are_refused(config, given, message):
    with pytest.raises(ValueError, match=message):
        choose_heads(read(reference_checkpoint("mlm") | {"config": config}), given)
