"""Crops against a naive twin: each is cut out, encoded alone, averaged, and compared with the mean of its targets."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from predrec.modeling import PredRecForPreTraining
from predrec.modeling.crops import encode_crops, mean_of_crops
from predrec.modeling.layout import Layout

from .tiny import FIRST_ORDINARY_ID, MASK_ID, VOCAB_SIZE, drift, padded, pretraining_config, pretraining_model

CLOSE = {"rtol": 1e-5, "atol": 1e-5}
EVERY = ["predrec", "bert", "roberta", "distilbert", "electra", "modernbert", "deberta-v2", "mpnet"]
CROPS = ((0, 3, 5), (1, 2, 9), (0, 10, 4), (1, 12, 3))
"""Row, start and length of each; crop `i` is of row `i % 2`."""
LENGTHS = (24, 17)
CLS_ID, SEP_ID = 2, 3


def crop_batch(pad_token_id: int = 0) -> dict[str, Tensor]:
    """Returns a batch in the collator's format: each context is the first token, a crop, and the last token."""
    generator = torch.Generator().manual_seed(0)
    real = torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]
    original = torch.randint(FIRST_ORDINARY_ID, VOCAB_SIZE, real.shape, generator=generator)
    for row, length in enumerate(LENGTHS):
        original[row, 0], original[row, length - 1] = CLS_ID, SEP_ID
    original = original.masked_fill(~real, pad_token_id)
    chosen = real & (torch.arange(max(LENGTHS)) % 4 == 2)
    contexts = [[0, *range(start, start + size), LENGTHS[row] - 1] for row, start, size in CROPS]
    targets = [list(range(start, start + size)) for _, start, size in CROPS]
    return {
        "input_ids": original.masked_fill(chosen, MASK_ID),
        "labels": original.masked_fill(~chosen, -100),
        "original_input_ids": original,
        "attention_mask": real.long(),
        # Padding points at a hidden token.
        "context_indices": padded(contexts, 1),
        "context_mask": padded([[1] * len(row) for row in contexts], 0).bool(),
        "target_indices": padded(targets, 0)[:, None],
        "target_mask": padded([[1] * len(row) for row in targets], 0).bool()[:, None],
        "example_ids": torch.arange(2),
    }


def model_of(model_type: str = "predrec", **fields) -> PredRecForPreTraining:
    defaults = {"jepa_view": "crops", "predictor_num_hidden_layers": 6}
    return drift(pretraining_model(model_type, **(defaults | fields)))


def batch_for(model: PredRecForPreTraining) -> dict[str, Tensor]:
    return crop_batch(model.config.encoder_config.pad_token_id)


def laid_out(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    masks = batch["attention_mask"].bool().numpy(), batch["context_mask"].numpy(), batch["target_mask"].numpy()
    return batch | {"layout": Layout.of(*masks)}


def alone(encoder, tokens: Tensor) -> Tensor:
    """Encodes one crop as a text that nothing is known about."""
    return encoder(input_ids=tokens[None])[0][0]


def cut_out(batch: dict[str, Tensor], name: str) -> list[Tensor]:
    """Returns the tokens of each crop, with the first and the last of its text."""
    return [
        torch.cat([batch[name][row, :1], batch[name][row, start : start + size], batch[name][row, [LENGTHS[row] - 1]]])
        for row, start, size in CROPS
    ]


@pytest.mark.parametrize("model_type", EVERY)
def test_crop_is_encoded_as_a_text_of_its_own(model_type):
    model = model_of(model_type)
    batch = batch_for(model)
    texts = batch["input_ids"].repeat(2, 1)
    states = encode_crops(model.encoder, texts, batch["context_indices"], batch["context_mask"])
    for number, tokens in enumerate(cut_out(batch, "input_ids")):
        found = states[number][batch["context_mask"][number]]
        torch.testing.assert_close(found, alone(model.encoder, tokens), **CLOSE)


def test_mean_of_crops_is_over_real_tokens():
    states, mask = torch.randn(2, 3, 4), torch.tensor([[True, True, False], [True, True, True]])
    expected = torch.stack([states[0, :2].mean(0), states[1].mean(0)])
    torch.testing.assert_close(mean_of_crops(states, mask), expected)
    assert mean_of_crops(states, torch.zeros_like(mask)).eq(0).all()


FORMS = [
    {},
    {"context_text": "original"},
    {"target_layers": 2},
    {"target_layers": 0},
    {"target_layers": 0, "whiten_targets": True, "context_text": "original"},
    {"jepa_loss": "mse", "center_targets": True},
]


@pytest.mark.parametrize("fields", FORMS, ids=str)
def test_loss_of_crops_equals_a_naive_twin(fields):
    model = model_of(**fields)
    batch = batch_for(model)
    texts, mask = batch["original_input_ids"], batch["attention_mask"]
    name = "original_input_ids" if fields.get("context_text") else "input_ids"
    predicted = torch.stack([alone(model.encoder, tokens).mean(0) for tokens in cut_out(batch, name)])
    hidden = model.target_encoder(texts, attention_mask=mask, output_hidden_states=True)
    if fields.get("target_layers") == 0:
        states = model.target_encoder.get_input_embeddings().weight[texts]
    elif fields.get("target_layers") == 2:
        states = torch.stack([F.layer_norm(state, state.shape[-1:]) for state in hidden.hidden_states[-2:]]).mean(0)
    else:
        states = F.layer_norm(hidden[0], hidden[0].shape[-1:])
    target = torch.stack([states[row, start : start + size].mean(0) for row, start, size in CROPS])
    if model.target_center is not None:
        model.target_center.copy_(target.mean(0))
        target = target - target.mean(0)
    if model.target_covariance is not None:
        raised = torch.eye(16) * 2 + torch.ones(16, 16)
        model.target_covariance.copy_(raised)
        factor = torch.linalg.cholesky(raised + 0.03 * torch.eye(16))
        target = torch.linalg.solve(factor, target.T).T
    compare = F.mse_loss if fields.get("jepa_loss") else lambda a, b: 1 - F.cosine_similarity(a, b).mean()
    output = model(**batch)
    torch.testing.assert_close(output.jepa_loss, compare(predicted, target), **CLOSE)
    assert output.num_targets == 4 and output.jepa_loss > 0.01


@pytest.mark.parametrize("fields", [*FORMS, {"mlm_view": "context"}], ids=str)
@pytest.mark.parametrize("model_type", ["predrec", "bert", "roberta"])
def test_step_on_crops_with_a_layout_equals_the_padded_step(model_type, fields):
    found = []
    for attention, change in ((None, laid_out), ("eager", dict)):
        model = model_of(model_type, attn_implementation=attention, **fields).train()
        output = model(**change(batch_for(model)))
        output.loss.backward()
        gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        found.append((output.loss.detach(), output.mlm_loss, output.jepa_loss, gradients, dict(model.named_buffers())))
    torch.testing.assert_close(*found, **CLOSE)


@pytest.mark.parametrize("model_type", EVERY)
def test_crops_train_every_parameter_of_any_encoder_and_have_no_predictor(model_type):
    model = model_of(model_type).train()
    model(**batch_for(model)).loss.backward()
    assert model.predictor is None
    assert not [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]


def test_crops_pool_their_targets():
    assert model_of().config.pool_targets and model_of(pool_targets=False).config.pool_targets


def test_reconstruction_in_crops_sees_the_labels_that_they_hold():
    model = model_of(mlm_view="context").train()
    batch = batch_for(model)
    output = model(**batch)
    labels = [batch["labels"][row, start : start + size] for row, start, size in CROPS]
    assert output.num_labels == torch.cat(labels).ne(-100).sum() > 0
    assert model.count_tokens(batch)[0] == output.num_labels


def test_word_embeddings_of_another_width_are_refused_as_targets():
    with pytest.raises(ValueError, match=r"`target_layers=0`.* electra have 8 features and its states 16"):
        pretraining_model("electra", target_layers=0)


def test_crops_need_no_predictor_that_fits():
    assert pretraining_config(jepa_view="crops", predictor_hidden_size=15).has_predictor is False
