"""Any masked-LM encoder can be pre-trained: a step, the target encoder behind it, the vocabulary.

That its export loads as the stock class is shown in `tests/trainers/test_export.py`.
"""

import pytest
import torch

from predrec.modeling import PredRecForPreTraining
from predrec.modeling.encoders import encode_context

from .tiny import block_batch, drift, pretraining_model

EVERY = ["predrec", "bert", "roberta", "distilbert", "electra", "modernbert", "deberta-v2"]


def batch_for(model: PredRecForPreTraining) -> dict[str, torch.Tensor]:
    return block_batch(pad_token_id=model.config.encoder_config.pad_token_id)


@pytest.fixture(params=EVERY)
def model(request) -> PredRecForPreTraining:
    """A tiny model whose encoders have drifted apart."""
    return drift(pretraining_model(request.param)).train()


def test_step_lowers_the_loss_and_leaves_the_target_encoder_alone(model):
    batch = batch_for(model)
    before = {name: tensor.clone() for name, tensor in model.target_encoder.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    output = model(**batch)
    output.loss.backward()
    untouched = [n for n, p in model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    optimizer.step()
    assert untouched == []
    assert model(**batch).loss < output.loss
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.target_encoder.state_dict().items())


def test_target_encoder_follows_by_the_moving_average(model):
    before = {name: tensor.clone() for name, tensor in model.target_encoder.named_parameters()}
    model.update_target_encoder(0.9)
    for name, parameter in model.encoder.named_parameters():
        expected = 0.9 * before[name] + 0.1 * parameter
        torch.testing.assert_close(model.target_encoder.get_parameter(name), expected, rtol=1e-6, atol=1e-6)


def test_resized_vocabulary_is_that_of_every_part_and_configuration(model, tmp_path):
    model.eval()
    before = model.target_encoder.get_input_embeddings().weight.clone()
    size = len(before) + 3
    model.resize_token_embeddings(size)
    online, target = model.get_input_embeddings().weight, model.target_encoder.get_input_embeddings().weight
    assert torch.equal(target[:-3], before) and torch.equal(target[-3:], online[-3:])
    configs = (model.config.encoder_config, model.masked_lm.config, model.encoder.config, model.target_encoder.config)
    assert {config.vocab_size for config in configs} == {size}
    assert not any(parameter.requires_grad for parameter in model.target_encoder.parameters())
    batch = batch_for(model)
    batch["input_ids"][0, 2] = size - 1
    batch["labels"][0, 2] = size - 1
    del batch["label_indices"]
    model.save_pretrained(tmp_path)
    loaded = PredRecForPreTraining.from_pretrained(tmp_path).eval()
    assert torch.equal(loaded(**batch).loss, model(**batch).loss)


def test_position_ids_of_roberta_count_from_after_the_padding_id():
    """The encoder's own positions are those that the context pass gives it: a context of everything is the text."""
    model = pretraining_model("roberta")
    batch = block_batch(rows=((24, ((4, 4), (14, 5))),) * 2, pad_token_id=1)
    everything = torch.arange(24).expand(2, -1)
    states = encode_context(model.encoder, batch["input_ids"], everything, torch.ones(2, 24, dtype=torch.bool))
    torch.testing.assert_close(states, model.encoder(batch["input_ids"])[0], rtol=1e-5, atol=1e-5)
