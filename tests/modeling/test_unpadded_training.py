"""A pre-training model that is told where the padding is computes what it computes without being told."""

from copy import deepcopy

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoModelForMaskedLM

from predrec.data_collators import DataCollatorForPreTraining
from predrec.modeling import PredRecForPreTraining
from predrec.modeling.attention import UNPADDED
from predrec.modeling.encoders import encode_context, encode_text, segment_arguments, takes_segments
from predrec.modeling.layout import Layout, Segments
from predrec.modeling.losses import JEPA_LOSSES

from .tiny import (
    FIRST_ORDINARY_ID,
    ROWS,
    UNPADDED_ROWS,
    VOCAB_SIZE,
    block_batch,
    drift,
    encoder_config,
    pretraining_config,
    pretraining_model,
)

# Float32: the same sums in another order, through two layers with large weights.
CLOSE = {"rtol": 1e-5, "atol": 1e-5}
# Name of the case, model type, fields of the encoder's configuration.
TAKES = {
    "predrec": ("predrec", {}),
    "predrec-rotary": ("predrec", {"position_embedding_type": "rotary"}),
    "predrec-scaled": ("predrec", {"scale_embeddings": True}),
    "bert": ("bert", {}),
    "roberta": ("roberta", {}),
    "xlm-roberta": ("xlm-roberta", {}),
    "camembert": ("camembert", {"pad_token_id": 1}),
    "distilbert": ("distilbert", {}),
    "electra": ("electra", {}),
}
REFUSES = ("modernbert", "deberta-v2", "mpnet")  # The last is not in the table of encoders.
# Other target blocks of the same rows, for a second set of masks; the first row has one block, the last has none.
OTHER_ROWS = ((24, ((9, 3), (2, 0))), (20, ((12, 5), (6, 2))), (17, ((3, 0), (5, 0))))
OTHER_UNPADDED_ROWS = tuple((24, blocks) for _, blocks in OTHER_ROWS)
BLOCK_KEYS = ("context_indices", "context_mask", "target_indices", "target_mask")


def widened(tensors: list[Tensor]) -> Tensor:
    """Joins tensors along the first dimension, after filling up the last one with 0."""
    width = max(tensor.shape[-1] for tensor in tensors)
    return torch.cat([torch.nn.functional.pad(tensor, (0, width - tensor.shape[-1])) for tensor in tensors])


def batch_for(model: PredRecForPreTraining, padded: bool = True, num_mask_sets: int = 1) -> dict[str, Tensor]:
    pad_token_id = model.config.encoder_config.pad_token_id
    kinds = (ROWS, OTHER_ROWS) if padded else (UNPADDED_ROWS, OTHER_UNPADDED_ROWS)
    batch, other = (block_batch(rows, pad_token_id=pad_token_id) for rows in kinds)
    assert torch.equal(batch["input_ids"], other["input_ids"])
    if num_mask_sets == 2:
        batch |= {key: widened([batch[key], other[key]]) for key in BLOCK_KEYS}
    if model.config.mlm_view == "context":
        del batch["label_indices"]  # They count in the full view; the model looks for the others itself.
    return batch


def laid_out(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Adds the layout, as the collator does."""
    real = batch["attention_mask"].bool().numpy() if "attention_mask" in batch else None
    return batch | {"layout": Layout.of(real, batch["context_mask"].numpy(), batch["target_mask"].numpy())}


def pair(name: str = "predrec", **fields) -> tuple[PredRecForPreTraining, PredRecForPreTraining]:
    """Returns a model that takes layouts and one with the same weights that pads, both in training mode."""
    model_type, encoder = TAKES[name]
    unpadded = drift(pretraining_model(model_type, encoder, **fields)).train()
    padded = pretraining_model(model_type, encoder, attn_implementation="eager", **fields).train()
    padded.load_state_dict(unpadded.state_dict())
    assert unpadded.takes_layout and not padded.takes_layout
    return unpadded, padded


def run(model: PredRecForPreTraining, batch: dict, **options):
    """Returns the output and all gradients of one training step; `None` where there is none."""
    torch.manual_seed(0)  # SIGReg draws directions.
    model.zero_grad()
    output = model(**batch, **options)
    output.loss.backward()
    return output, {name: p.grad for name, p in model.named_parameters() if p.requires_grad}


def assert_same_step(unpadded: PredRecForPreTraining, padded: PredRecForPreTraining, batch: dict, other=None) -> None:
    """Losses, counts, gradients and the running centre agree, with a layout and without one."""
    output, gradients = run(unpadded, laid_out(batch) if other is None else other)
    expected, expected_gradients = run(padded, batch)
    for term in ("loss", "mlm_loss", "jepa_loss", "num_labels", "num_targets"):
        torch.testing.assert_close(getattr(output, term), getattr(expected, term), **CLOSE, msg=term)
    assert output.loss > 0.1
    assert gradients.keys() == expected_gradients.keys()
    missing = [name for name, gradient in expected_gradients.items() if gradient is None]
    assert missing == [name for name, gradient in gradients.items() if gradient is None]
    for name in expected_gradients.keys() - missing:
        gradient, expected = gradients[name], expected_gradients[name]
        torch.testing.assert_close(gradient, expected, **CLOSE, msg=lambda text, name=name: f"{name}: {text}")
    torch.testing.assert_close(dict(unpadded.named_buffers()), dict(padded.named_buffers()), **CLOSE)


# Every architecture that takes segments


@pytest.mark.parametrize("view", ["full", "context"])
@pytest.mark.parametrize("padded", [True, False], ids=["padded", "whole"])
@pytest.mark.parametrize("name", TAKES)
def test_step_with_a_layout_equals_the_padded_step(name, padded, view):
    models = pair(name, mlm_view=view)
    assert_same_step(*models, batch_for(models[0], padded))


@pytest.mark.parametrize("objective", ["mlm", "jepa"])
@pytest.mark.parametrize("name", TAKES)
def test_step_of_one_objective_with_a_layout_equals_the_padded_step(name, objective):
    models = pair(name, objective=objective)
    assert_same_step(*models, batch_for(models[0]))


@pytest.mark.parametrize("name", TAKES)
def test_step_on_two_mask_sets_with_a_layout_equals_the_padded_step(name):
    models = pair(name)
    assert_same_step(*models, batch_for(models[0], num_mask_sets=2))


@pytest.mark.parametrize("padded", [True, False], ids=["padded", "whole"])
@pytest.mark.parametrize("view", ["full", "context"])
@pytest.mark.parametrize("target_layers", ["output", 2])
@pytest.mark.parametrize("num_mask_sets", [1, 2])
def test_step_of_many_forms_with_a_layout_equals_the_padded_step(padded, view, target_layers, num_mask_sets):
    models = pair(
        "bert", mlm_view=view, target_layers=target_layers, center_targets=True, predictor_num_hidden_layers=2
    )
    assert_same_step(*models, batch_for(models[0], padded, num_mask_sets))


@pytest.mark.parametrize("num_mask_sets", [1, 2])
@pytest.mark.parametrize("pool", [False, True], ids=["tokens", "blocks"])
@pytest.mark.parametrize("jepa_loss", JEPA_LOSSES)
def test_step_of_every_jepa_loss_with_a_layout_equals_the_padded_step(jepa_loss, pool, num_mask_sets):
    """InfoNCE and SIGReg see all rows as long as they are few, so padding among them changes nothing."""
    models = pair(jepa_loss=jepa_loss, jepa_temperature=0.5, pool_targets=pool, center_targets=pool)
    assert_same_step(*models, batch_for(models[0], num_mask_sets=num_mask_sets))


@pytest.mark.parametrize("weighting", ["learned", "fixed", "schedule", "uncertainty"])
def test_step_of_every_weighting_with_a_layout_equals_the_padded_step(weighting):
    models = pair(loss_weighting=weighting, loss_lambda=0.3)
    assert_same_step(*models, batch_for(models[0]))


@pytest.mark.parametrize("positions", ["sinusoidal", "rotary"])
@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("attention", ["joint", "cross"])
def test_step_of_every_predictor_with_a_layout_equals_the_padded_step(attention, depth, positions):
    models = pair(
        predictor_attention=attention,
        predictor_num_hidden_layers=depth,
        predictor_position_embedding_type=positions,
        predictor_hidden_size=8,
    )
    assert_same_step(*models, batch_for(models[0], num_mask_sets=2))


@pytest.mark.parametrize("attention", ["joint", "cross"])
@pytest.mark.parametrize("view", ["full", "context"])
def test_step_without_any_target_equals_the_padded_step(view, attention):
    """A batch of rows too short for blocks."""
    models = pair(mlm_view=view, predictor_attention=attention)
    batch = batch_for(models[0])
    assert_same_step(*models, batch | {"target_mask": torch.zeros_like(batch["target_mask"])})


def test_step_of_a_mlm_batch_with_padding_only_equals_the_padded_step():
    models = pair("bert", objective="mlm")
    batch = {key: value for key, value in batch_for(models[0]).items() if key not in BLOCK_KEYS}
    layout = Layout.of(batch["attention_mask"].bool().numpy())
    assert_same_step(*models, batch, batch | {"layout": layout})


def test_step_under_gradient_checkpointing_equals_the_padded_step():
    models = pair("bert")
    enable = getattr(models[0], "activation_checkpointing_enable", None) or models[0].gradient_checkpointing_enable
    enable()
    assert_same_step(*models, batch_for(models[0]))


@pytest.mark.parametrize("view", ["full", "context"])
def test_step_of_an_unpadded_model_without_a_layout_equals_the_padded_step(view):
    models = pair(mlm_view=view)
    batch = batch_for(models[0])
    assert_same_step(*models, batch, batch)


@pytest.mark.parametrize("name", ["predrec", "predrec-rotary", "bert"])
def test_step_in_bfloat16_is_near_that_in_float32(name):
    models = pair(name)
    batch = batch_for(models[0])
    with torch.autocast("cpu", torch.bfloat16):
        output, gradients = run(models[0], laid_out(batch))
    expected, expected_gradients = run(models[1], batch)
    # Eight bits of precision, through two layers with large weights.
    torch.testing.assert_close(output.loss, expected.loss, rtol=0.05, atol=0.05)

    def flat(values: dict[str, Tensor]) -> Tensor:
        return torch.cat([value.flatten() for value in values.values()])

    assert torch.cosine_similarity(flat(gradients), flat(expected_gradients), dim=0) > 0.98


@pytest.mark.parametrize("num_mask_sets", [1, 2])
@pytest.mark.parametrize("view", ["full", "context"])
@pytest.mark.parametrize("name", ["predrec", "bert"])
def test_step_on_a_collators_batch_equals_the_padded_step(tiny_tokenizer, name, view, num_mask_sets):
    """With the positions of labels that the collator gives for each of both."""
    rows = [np.concatenate([[2], np.random.default_rng(n).integers(5, 150, size), [3]]) for n, size in
            enumerate((40, 21, 8, 30))]  # fmt: skip
    features = [{"input_ids": row, "example_ids": number, "epoch": 0} for number, row in enumerate(rows)]
    options = {"label_view": view, "num_mask_sets": num_mask_sets, "min_context_tokens": 4, "max_seq_length": 64}
    models = pair(name, mlm_view=view)
    batches = [DataCollatorForPreTraining(tiny_tokenizer, unpad=unpad, **options)(features) for unpad in (True, False)]
    assert "layout" in batches[0] and "layout" not in batches[1]
    assert_same_step(*models, batches[1], batches[0])


@pytest.mark.parametrize("name", ["predrec", "bert"])
@torch.no_grad()
def test_evaluation_with_a_layout_equals_the_padded_one(name):
    unpadded, padded = (model.eval() for model in pair(name))
    batch = batch_for(unpadded, num_mask_sets=2)
    output, expected = unpadded(**laid_out(batch)), padded(**batch)
    for term in ("loss", "mlm_loss", "jepa_loss", "mlm_correct"):
        torch.testing.assert_close(getattr(output, term), getattr(expected, term), **CLOSE)
    for term in ("predicted_latents", "target_latents"):
        torch.testing.assert_close(getattr(output, term), getattr(expected, term)[batch["target_mask"]], **CLOSE)


# What the passes see


def changed_tokens(ids: Tensor, where: Tensor) -> Tensor:
    other = FIRST_ORDINARY_ID + (ids + 11) % (VOCAB_SIZE - FIRST_ORDINARY_ID)
    return torch.where(where, other, ids)


def visible(batch: dict[str, Tensor], context: int) -> Tensor:
    """True at the tokens of one context, `(batch_size, sequence_length)`; only in the row that it is one of."""
    seen = torch.zeros_like(batch["input_ids"], dtype=torch.bool)
    places = batch["context_indices"][context][batch["context_mask"][context]]
    seen[context % len(seen), places] = True
    return seen


@pytest.mark.parametrize("attention", ["joint", "cross"])
@pytest.mark.parametrize("name", TAKES)
@torch.no_grad()
def test_hidden_token_never_influences_a_prediction(name, attention):
    """Neither one outside of all contexts nor one that is visible in another row or another set of masks only."""
    model = pair(name, objective="jepa", predictor_attention=attention)[0].eval()
    batch = batch_for(model, num_mask_sets=2)
    before = model(**laid_out(batch)).predicted_latents
    contexts = torch.arange(6)[:, None, None].expand_as(batch["target_mask"])[batch["target_mask"]]
    for context in range(6):
        ids = changed_tokens(batch["input_ids"], ~visible(batch, context))
        after = model(**laid_out(batch | {"input_ids": ids})).predicted_latents
        own = contexts == context
        assert torch.equal(after[own], before[own])
        of_other_rows = contexts % 3 != context % 3
        assert (after != before).any(1)[of_other_rows].all()


@pytest.mark.parametrize("view", ["full", "context"])
@torch.no_grad()
def test_padding_never_influences_the_loss(view):
    model = pair(mlm_view=view)[0]
    batch = batch_for(model)
    padding = ~batch["attention_mask"].bool()
    changed = {key: changed_tokens(batch[key], padding) for key in ("input_ids", "original_input_ids")}
    assert torch.equal(model(**laid_out(batch)).loss, model(**laid_out(batch | changed)).loss)


@pytest.mark.parametrize("name", TAKES)
@torch.no_grad()
def test_encode_context_with_a_layout_equals_the_padded_pass(name):
    unpadded, padded = (model.eval() for model in pair(name))
    batch = batch_for(unpadded)
    arguments = batch["input_ids"], batch["context_indices"], batch["context_mask"]
    actual = encode_context(unpadded.encoder, *arguments, laid_out(batch)["layout"])
    expected = encode_context(padded.encoder, *arguments)[batch["context_mask"]]
    torch.testing.assert_close(actual, expected, **CLOSE)


@pytest.mark.parametrize("num_layers", [0, 1, 2])
@pytest.mark.parametrize("name", TAKES)
@torch.no_grad()
def test_encode_text_with_a_layout_equals_the_padded_pass(name, num_layers):
    unpadded, padded = (model.eval() for model in pair(name))
    batch = batch_for(unpadded)
    ids, mask = batch["input_ids"], batch["attention_mask"]
    actual = encode_text(unpadded.encoder, ids, None, laid_out(batch)["layout"], num_layers)
    outputs = padded.encoder(ids, attention_mask=mask, output_hidden_states=True)
    expected = outputs.hidden_states[-num_layers:] if num_layers else [outputs.last_hidden_state]
    assert len(actual) == len(expected)
    for one, other in zip(actual, expected, strict=True):
        torch.testing.assert_close(one, other[mask.bool()], **CLOSE)


# Several sets of masks


@pytest.mark.parametrize("with_layout", [True, False])
def test_jepa_loss_of_two_mask_sets_is_the_mean_over_their_targets(with_layout):
    model = pair()[0]
    form = laid_out if with_layout else dict
    both = batch_for(model, num_mask_sets=2)
    single = [both | {key: both[key][rows] for key in BLOCK_KEYS} for rows in (slice(0, 3), slice(3, 6))]
    outputs = [model(**form(batch)) for batch in single]
    expected = sum(output.jepa_loss * output.num_targets for output in outputs)
    output = model(**form(both))
    assert output.num_targets == sum(output.num_targets for output in outputs) == 21 + 10
    torch.testing.assert_close(output.jepa_loss, expected / output.num_targets, **CLOSE)
    torch.testing.assert_close(output.mlm_loss, outputs[0].mlm_loss, **CLOSE)


def test_mlm_loss_of_two_contexts_is_the_mean_over_their_labels():
    model = pair(mlm_view="context")[0]
    both = batch_for(model, num_mask_sets=2)
    single = [both | {key: both[key][rows] for key in BLOCK_KEYS} for rows in (slice(0, 3), slice(3, 6))]
    outputs = [model(**laid_out(batch)) for batch in single]
    expected = sum(output.mlm_loss * output.num_labels for output in outputs)
    output = model(**laid_out(both))
    assert output.num_labels == sum(output.num_labels for output in outputs)
    assert model.count_tokens(both) == (output.num_labels, output.num_targets)
    torch.testing.assert_close(output.mlm_loss, expected / output.num_labels, **CLOSE)


# Which models take a layout


@pytest.mark.parametrize("objective", ["hybrid", "mlm", "jepa"])
@pytest.mark.parametrize("name", TAKES)
def test_listed_encoders_unpad_unless_told_otherwise(name, objective):
    model_type, encoder = TAKES[name]
    model = pretraining_model(model_type, encoder, objective=objective)
    assert model.config._attn_implementation == model.encoder.config._attn_implementation == UNPADDED
    assert model.takes_layout and takes_segments(model.encoder.config)


@pytest.mark.parametrize("model_type", REFUSES)
def test_other_encoders_refuse_a_layout(model_type):
    model = pretraining_model(model_type)
    assert not model.takes_layout and not takes_segments(model.encoder.config)
    assert model.encoder.config._attn_implementation in ("sdpa", "eager")
    with pytest.raises(ValueError, match=r"A layout needs attention within sequences.*leave `unpad` of the collator"):
        model(**laid_out(batch_for(model)))


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("name", TAKES)
def test_explicit_attention_refuses_a_layout(name, attention):
    model_type, encoder = TAKES[name]
    model = pretraining_model(model_type, encoder, attn_implementation=attention)
    parts = model.config, model.encoder.config, model.predictor.config
    assert {part._attn_implementation for part in parts} == {attention} and not model.takes_layout
    with pytest.raises(ValueError, match=f"`attn_implementation` is {attention}: .* use 'unpadded'"):
        model(**laid_out(batch_for(model)))


def test_explicit_attention_of_the_encoder_refuses_a_layout():
    """The predictor could take it; the encoder would mix the sequences."""
    config = pretraining_config("bert")
    config.encoder_config._attn_implementation = "sdpa"
    model = PredRecForPreTraining(config)
    assert model.encoder.config._attn_implementation == "sdpa" and not model.takes_layout
    with pytest.raises(ValueError, match="`attn_implementation` is sdpa"):
        model(**laid_out(batch_for(model)))


def test_explicit_unpadded_attention_takes_a_layout():
    assert pretraining_model("bert", attn_implementation=UNPADDED).takes_layout


def test_saved_model_takes_a_layout_again(tmp_path):
    model = pair("bert")[0].eval()
    model.save_pretrained(tmp_path)
    loaded = PredRecForPreTraining.from_pretrained(tmp_path).eval()
    batch = laid_out(batch_for(model))
    assert loaded.takes_layout
    torch.testing.assert_close(loaded(**batch).loss, model(**batch).loss)


@pytest.mark.parametrize("name", TAKES)
def test_exported_encoder_asks_for_no_attention_of_predrecs(tmp_path, name):
    """Its users may not have predrec at all."""
    pair(name)[0].masked_lm.save_pretrained(tmp_path)
    assert UNPADDED not in (tmp_path / "config.json").read_text()
    assert AutoModelForMaskedLM.from_pretrained(tmp_path).config._attn_implementation in ("sdpa", "eager")


@pytest.mark.parametrize("attention", [None, "", "eager", "sdpa", "flex_attention"])
def test_takes_segments_wants_a_kernel_that_keeps_sequences_apart(attention):
    config = deepcopy(pretraining_model("bert").encoder.config)
    assert takes_segments(config)
    config._attn_implementation_internal = attention
    assert not takes_segments(config)


@pytest.mark.parametrize("model_type", REFUSES)
def test_takes_segments_wants_an_architecture_that_keeps_sequences_apart(model_type):
    config = encoder_config(model_type)
    config._attn_implementation = "flash_attention_2"
    assert not takes_segments(config)


def test_segment_arguments_have_the_names_of_flash_attention():
    config = deepcopy(pretraining_model("bert").encoder.config)
    segments = Segments.of(np.array([2, 3]), 4)
    assert segment_arguments(config, segments)["segments"] is segments
    config._attn_implementation_internal = "flash_attention_2"
    assert takes_segments(config)
    arguments = segment_arguments(config, segments)
    assert arguments.keys() == {"cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k"}
    assert arguments["cu_seq_lens_q"].tolist() == arguments["cu_seq_lens_k"].tolist() == [0, 2, 5]
    assert arguments["max_length_q"] == arguments["max_length_k"] == 4


# Updates without the JEPA branch

WEIGHTINGS = ["learned", "fixed", "schedule", "uncertainty"]


@pytest.mark.parametrize("view", ["full", "context"])
@pytest.mark.parametrize("with_layout", [True, False])
def test_update_without_jepa_has_the_weighted_mlm_loss(with_layout, view):
    model = pair(mlm_view=view, loss_weighting="fixed", loss_lambda=0.3, jepa_dropout=0.25)[0]
    batch = (laid_out if with_layout else dict)(batch_for(model))
    output, active = model(**batch, skip_jepa=True), model(**batch)
    torch.testing.assert_close(output.loss, 0.7 * output.mlm_loss, **CLOSE)
    assert torch.equal(output.mlm_loss, active.mlm_loss)
    assert output.jepa_loss is output.num_targets is None and output.loss_lambda == active.loss_lambda


@pytest.mark.parametrize("dropout", [0.25, 0.75])
def test_update_with_jepa_counts_it_the_more(dropout):
    model = pair(loss_weighting="fixed", loss_lambda=0.3, jepa_dropout=dropout)[0]
    output = model(**laid_out(batch_for(model)))
    torch.testing.assert_close(output.loss, 0.3 * output.jepa_loss / (1 - dropout) + 0.7 * output.mlm_loss, **CLOSE)


def test_evaluation_counts_jepa_as_ever():
    model = pair(loss_weighting="fixed", loss_lambda=0.3, jepa_dropout=0.75)[0].eval()
    output = model(**laid_out(batch_for(model)))
    torch.testing.assert_close(output.loss, 0.3 * output.jepa_loss + 0.7 * output.mlm_loss, **CLOSE)


@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize("view", ["full", "context"])
def test_update_without_jepa_gives_every_trainable_parameter_a_gradient(view, weighting):
    """Data-parallel training waits for each of them; the predictor's are zero."""
    model = pair(mlm_view=view, loss_weighting=weighting, jepa_dropout=0.5)[0]
    _, gradients = run(model, laid_out(batch_for(model)), skip_jepa=True)
    idle = {name for name, gradient in gradients.items() if gradient.eq(0).all()}
    assert {name for name in gradients if name.startswith("predictor.")} <= idle
    assert {name for name in gradients if name not in idle} >= {
        name for name in gradients if name.startswith("masked_lm.") and name.endswith("weight")
    }
    if weighting in ("learned", "uncertainty"):
        assert not {"loss_logit", "loss_log_variances"} & idle


@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize("view", ["full", "context"])
def test_expected_step_equals_the_step_without_dropout(view, weighting):
    fields = {"mlm_view": view, "loss_weighting": weighting, "loss_lambda": 0.3}
    plain, model = pair(**fields)[0], pair(jepa_dropout=0.4, **fields)[0]
    batch = laid_out(batch_for(model))
    expected, expected_gradients = run(plain, batch)
    active, active_gradients = run(model, batch)
    skipped, skipped_gradients = run(model, batch, skip_jepa=True)
    torch.testing.assert_close(0.6 * active.loss + 0.4 * skipped.loss, expected.loss, **CLOSE)
    for name, gradient in expected_gradients.items():
        torch.testing.assert_close(0.6 * active_gradients[name] + 0.4 * skipped_gradients[name], gradient, **CLOSE)


def test_update_without_jepa_leaves_the_centre_alone():
    model = pair(center_targets=True, jepa_dropout=0.5)[0]
    batch = laid_out(batch_for(model))
    run(model, batch)
    before = model.target_center.clone()
    run(model, batch, skip_jepa=True)
    assert torch.equal(model.target_center, before) and model.num_centered == 1
