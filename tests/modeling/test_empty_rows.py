"""A row from which nothing can be learned changes neither loss nor gradient, and neither becomes NaN."""

import pytest
import torch

from predrec.data_collators import DataCollatorForPreTraining
from predrec.modeling.layout import Layout
from predrec.modeling.losses import JEPA_LOSSES

from .tiny import block_batch, drift, part_of, pretraining_model

LISTED = ("predrec", "bert", "roberta", "distilbert", "electra", "modernbert", "deberta-v2", "mpnet")
LAST = 2
# Float32: the same sums in another order.
CLOSE = {"rtol": 1e-5, "atol": 1e-6}


def without_anything(batch):
    """The last row has neither label nor target."""
    batch["labels"][LAST] = -100
    batch["target_mask"][LAST] = False


def without_context(batch):
    """Nor is anything of it visible."""
    without_anything(batch)
    batch["context_mask"][LAST] = False


def special_tokens_only(batch):
    """It is [CLS][SEP], both of them visible."""
    without_anything(batch)
    batch["attention_mask"][LAST] = torch.arange(batch["attention_mask"].shape[1]) < 2
    batch["context_mask"][LAST] = torch.arange(batch["context_mask"].shape[1]) < 2
    batch["context_indices"][LAST] = torch.arange(batch["context_indices"].shape[1]).clamp(max=1)


EMPTY = (without_anything, without_context, special_tokens_only)


def emptied(change, model):
    batch = block_batch(pad_token_id=model.config.encoder_config.pad_token_id)
    del batch["label_indices"]
    change(batch)
    return batch


def laid_out(batch):
    masks = (batch[name].bool().numpy() for name in ("attention_mask", "context_mask", "target_mask"))
    return batch | {"layout": Layout.of(*masks)}


def step(model, batch):
    """Loss and gradients."""
    model.zero_grad()
    torch.manual_seed(0)
    loss = model(**batch).loss
    loss.backward()
    return loss.detach(), {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("change", EMPTY)
@pytest.mark.parametrize("view", ["full", "context"])
@pytest.mark.parametrize("model_type", LISTED)
def test_empty_row_changes_nothing(model_type, view, change):
    if (model_type, view) == ("mpnet", "context"):
        pytest.skip("an architecture that is not listed has no context view")
    model = drift(pretraining_model(model_type, mlm_view=view)).train()
    batch = emptied(change, model)
    torch.testing.assert_close(step(model, batch), step(model, part_of(batch, slice(0, LAST))), **CLOSE)


@pytest.mark.parametrize("change", EMPTY)
@pytest.mark.parametrize("jepa_loss", JEPA_LOSSES)
def test_empty_row_changes_no_jepa_loss(jepa_loss, change):
    model = drift(pretraining_model(jepa_loss=jepa_loss)).train()
    batch = emptied(change, model)
    torch.testing.assert_close(step(model, batch), step(model, part_of(batch, slice(0, LAST))), **CLOSE)


@pytest.mark.parametrize("change", EMPTY)
@pytest.mark.parametrize("attention", ["joint", "cross"])
@pytest.mark.parametrize("model_type", ["predrec", "bert"])
def test_empty_row_without_padding_changes_nothing(model_type, attention, change):
    model = drift(pretraining_model(model_type, predictor_attention=attention)).train()
    batch = emptied(change, model)
    rest = part_of(batch, slice(0, LAST))
    torch.testing.assert_close(step(model, laid_out(batch)), step(model, laid_out(rest)), **CLOSE)


@pytest.mark.parametrize("attention", ["joint", "cross"])
@pytest.mark.parametrize("with_layout", [False, True])
def test_targets_without_any_context_have_a_finite_loss(attention, with_layout):
    model = drift(pretraining_model(predictor_attention=attention)).train()
    batch = emptied(lambda batch: batch["context_mask"][LAST].fill_(False), model)
    loss, gradients = step(model, laid_out(batch) if with_layout else batch)
    assert loss.isfinite() and all(gradient.isfinite().all() for gradient in gradients.values())


@pytest.mark.parametrize("with_layout", [False, True])
@pytest.mark.parametrize("jepa_loss", JEPA_LOSSES)
@pytest.mark.parametrize("lacks", ["labels", "targets", "both"])
def test_whole_batch_without_a_part_has_no_gradient_of_it(lacks, jepa_loss, with_layout):
    """What is absent adds nothing to the loss: it is that of the other part alone."""
    model = drift(pretraining_model(jepa_loss=jepa_loss, loss_weighting="fixed", loss_lambda=0.5)).train()
    whole = emptied(lambda batch: None, model)
    batch = dict(whole)
    if lacks != "targets":
        batch["labels"] = torch.full_like(batch["labels"], -100)
    if lacks != "labels":
        batch["target_mask"] = torch.zeros_like(batch["target_mask"])
    output = model(**(laid_out(batch) if with_layout else batch))
    output.loss.backward()
    assert output.loss.isfinite()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    assert all(gradient.isfinite().all() for gradient in gradients.values())
    parts = {"labels": "masked_lm.lm_head", "targets": "predictor", "both": ""}
    absent = [gradient for name, gradient in gradients.items() if name.startswith(parts[lacks])]
    assert not any(gradient.any() for gradient in absent)
    assert (lacks == "both") != any(gradient.any() for gradient in gradients.values())
    # What vicreg and its like ask of no rows at all is a constant.
    assert output.mlm_loss == 0 if lacks != "targets" else output.mlm_loss > 0


@pytest.mark.parametrize("unpad", [False, True])
def test_collated_row_of_special_tokens_changes_nothing(tiny_tokenizer, unpad):
    generator = torch.Generator().manual_seed(0)
    texts = [[2, *torch.randint(5, 80, (length,), generator=generator).tolist(), 3] for length in (30, 22)]
    features = [{"input_ids": ids, "example_ids": i, "epoch": 0} for i, ids in enumerate([*texts, [2, 3]])]
    collator = DataCollatorForPreTraining(tiny_tokenizer, min_context_tokens=4, unpad=unpad)
    model = drift(pretraining_model()).train()
    assert collator(features)["labels"][LAST].eq(-100).all() and not collator(features)["target_mask"][LAST].any()
    torch.testing.assert_close(step(model, collator(features)), step(model, collator(features[:LAST])), **CLOSE)
