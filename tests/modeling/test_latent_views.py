"""Packed views equal views on their own, see nothing of each other, and are read where they should be."""

import dataclasses

import pytest
import torch

from predrec.data_collators.chat_format import find_format
from predrec.data_collators.llm_jepa import DataCollatorForLLMJepa, pack
from predrec.data_collators.view_examples import RecordEncoder, ViewDataset, encode_records
from predrec.modeling.latent_views import encode_views, find_separation
from predrec.modeling.predictor_tokens import add_predictor_tokens

from .. import causal as tiny

KINDS = [(kind, attention) for kind in ("llama", "gpt2") for attention in ("sdpa", "eager")]


def prepared(kind="llama", attention="sdpa", template="qwen", count=2, records=tiny.RECORDS, **options):
    tokenizer, model = tiny.tokenizer(template), tiny.model(kind, attention)
    ids = add_predictor_tokens(model, tokenizer, count)
    encoder = RecordEncoder(tokenizer, find_format(tokenizer), ids, **options)
    return model, encoder, ViewDataset(encode_records(records, encoder)[0])


def batch_of(dataset, layout="packed", **options):
    collator = DataCollatorForLLMJepa(pad_id=2, layout=layout, **options)
    return collator([dataset[index] for index in range(len(dataset))])


@pytest.mark.parametrize(("kind", "attention"), KINDS)
@pytest.mark.parametrize("separation", ["positions", "mask"])
def test_packed_views_equal_rows_and_so_do_their_gradients(kind, attention, separation):
    model, _, dataset = prepared(kind, attention)
    found = {}
    for layout, how in (("packed", separation), ("rows", "rows")):
        model.zero_grad()
        source, target = encode_views(model.base_model, batch_of(dataset, layout), how)
        (source * target.cos()).sum().backward()
        gradient = torch.cat([p.grad.flatten() for p in model.base_model.parameters() if p.grad is not None])
        found[layout] = source.detach(), target.detach(), gradient
    for packed, alone in zip(found["packed"], found["rows"], strict=True):
        assert torch.isfinite(packed).all()
        torch.testing.assert_close(packed, alone, atol=1e-5, rtol=1e-4)


def test_the_packed_batch_has_padding_and_shares_rows():
    """Else the comparison above would show little."""
    batch = batch_of(prepared()[2])
    assert (batch["view_input_ids"] == 2).any()
    assert len(batch["view_input_ids"]) < 2 * len(tiny.RECORDS)


@pytest.mark.parametrize(("kind", "attention"), KINDS)
def test_views_are_read_as_if_alone(kind, attention):
    """Against the model itself, one view at a time, without our code."""
    model, _, dataset = prepared(kind, attention)
    source, target = encode_views(model.base_model, batch_of(dataset), find_separation(model.base_model))
    for row, example in enumerate(dataset.examples):
        for states, ids in ((source, example.source_ids), (target, example.target_ids)):
            alone = model.base_model(input_ids=torch.tensor([ids])).last_hidden_state[0, -1]
            torch.testing.assert_close(states[row], alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("changed", ["text", "code"])
def test_a_view_sees_nothing_of_the_other(changed):
    model, _, dataset = prepared()
    records = [dataclasses.replace(record, **{changed: "dog and vowel"}) for record in tiny.RECORDS]
    other = prepared(records=records)[2]
    before = encode_views(model.base_model, batch_of(dataset))
    after = encode_views(model.base_model, batch_of(other))
    kept, moved = (1, 0) if changed == "text" else (0, 1)
    torch.testing.assert_close(before[kept], after[kept], atol=1e-5, rtol=1e-4)
    assert (before[moved] - after[moved]).abs().amax(-1).min() > 1e-3


def test_flash_attention_is_tried_in_half_precision():
    """It refuses float32; and bfloat16 is no reason to take views for mixed."""
    assert find_separation(tiny.with_flash(tiny.model()).base_model) != "rows"


def test_padding_changes_nothing():
    model, _, dataset = prepared()
    batch = batch_of(dataset)
    before = encode_views(model.base_model, batch)
    padding = batch["view_input_ids"] == 2
    after = encode_views(
        model.base_model, batch | {"view_input_ids": batch["view_input_ids"].masked_fill(padding, 77)}
    )
    for first, second in zip(before, after, strict=True):
        assert torch.equal(first, second)


def test_a_model_that_ignores_positions_gets_rows():
    """A recurrent layer carries one view's state into the next, whatever positions and masks say."""

    class Recurrent(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = tiny.model().base_model
            self.config = self.inner.config
            self.gru = torch.nn.GRU(32, 32, batch_first=True)

        def forward(self, **inputs):
            outputs = self.inner(**inputs)
            outputs.last_hidden_state = self.gru(outputs.last_hidden_state)[0]
            return outputs

    assert find_separation(Recurrent()) == "rows"
    assert find_separation(tiny.model().base_model) == "positions"


def test_pack_fills_rows_and_says_where_blocks_begin():
    ids, positions, begins = pack([[5, 5], [6, 6, 6], [7]], capacity=4, pad_id=0)
    assert ids.tolist() == [[6, 6, 6, 7], [5, 5, 0, 0]]
    assert positions.tolist() == [[0, 1, 2, 0], [0, 1, 0, 1]]
    assert begins.tolist() == [4, 0, 3]
