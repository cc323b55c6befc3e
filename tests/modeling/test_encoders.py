"""Every architecture in the table: the gathered context equals the masked full pass, the head equals the model's."""

import pytest
import torch
from transformers import AutoModel, AutoModelForMaskedLM

from predrec.modeling import PredRecForPreTraining
from predrec.modeling.encoders import (
    ENCODERS,
    attention_masks,
    check_encoder,
    encode_context,
    encoder_spec,
    token_logits,
)

from .tiny import FIRST_ORDINARY_ID, VOCAB_SIZE, block_batch, context_visibility, encoder_config, pretraining_config

# Name of the case, model type, fields of the encoder's configuration.
CASES = {
    "predrec": ("predrec", {}),
    "predrec-rotary": ("predrec", {"position_embedding_type": "rotary"}),
    "predrec-scaled": ("predrec", {"scale_embeddings": True}),
    "bert": ("bert", {}),
    "roberta": ("roberta", {}),
    "xlm-roberta": ("xlm-roberta", {}),
    "distilbert": ("distilbert", {}),
    "electra": ("electra", {}),
    "modernbert": ("modernbert", {}),
    "deberta-v2-absolute": ("deberta-v2", {"relative_attention": False, "position_biased_input": True}),
    "deberta-v2-relative": (
        "deberta-v2",
        {"relative_attention": True, "position_biased_input": False, "pos_att_type": ["p2c", "c2p"]},
    ),
    "deberta-v2-both": (
        "deberta-v2",
        {"relative_attention": True, "position_biased_input": True, "pos_att_type": ["c2p"]},
    ),
    "mpnet": ("mpnet", {}),  # Not in the table.
}
EAGER_ONLY = {"deberta-v2", "mpnet"}
CASES_WITH_ATTENTION = [
    (name, attention)
    for name, (model_type, _) in CASES.items()
    for attention in ("eager", "sdpa")
    if attention == "eager" or model_type not in EAGER_ONLY
]
LISTED = [name for name, (model_type, _) in CASES.items() if model_type in ENCODERS]
# Float32 through two or three layers with large weights; states are of size 1.
CLOSE = {"rtol": 0, "atol": 1e-5}


def masked_lm_of(name: str, attention: str = "eager", **fields):
    model_type, own = CASES[name]
    torch.manual_seed(0)
    config = encoder_config(model_type, **(own | fields))
    return AutoModelForMaskedLM.from_config(config, attn_implementation=attention).eval()


def batch_for(model, **kwargs) -> dict[str, torch.Tensor]:
    return block_batch(pad_token_id=model.config.pad_token_id, **kwargs)


def context_states(encoder, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    return encode_context(encoder, batch["input_ids"], batch["context_indices"], batch["context_mask"])


@pytest.mark.parametrize(("name", "attention"), CASES_WITH_ATTENTION)
@torch.no_grad()
def test_encode_context_equals_masked_full_pass(name, attention):
    encoder = masked_lm_of(name, attention).base_model
    batch = batch_for(encoder)
    full = encoder(input_ids=batch["input_ids"], attention_mask=context_visibility(batch))[0]
    actual = context_states(encoder, batch)
    for row, (indices, mask) in enumerate(zip(batch["context_indices"], batch["context_mask"], strict=True)):
        torch.testing.assert_close(actual[row, mask], full[row, indices[mask]], **CLOSE)


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_encode_context_never_sees_a_hidden_token(name):
    encoder = masked_lm_of(name).base_model
    batch = batch_for(encoder)
    visible = context_visibility(batch).bool()
    other = FIRST_ORDINARY_ID + (batch["input_ids"] + 11) % (VOCAB_SIZE - FIRST_ORDINARY_ID)
    hidden_text = batch["attention_mask"].bool() & ~visible
    changed = batch | {"input_ids": torch.where(hidden_text, other, batch["input_ids"])}
    mask = batch["context_mask"]
    assert torch.equal(context_states(encoder, changed)[mask], context_states(encoder, batch)[mask])


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_encode_context_sees_every_visible_token(name):
    encoder = masked_lm_of(name).base_model
    batch = batch_for(encoder)
    changed = batch | {"input_ids": batch["input_ids"].clone()}
    changed["input_ids"][:, 20] = 9  # Visible in the first row only, padding in the others.
    difference = (context_states(encoder, changed) - context_states(encoder, batch))[batch["context_mask"]]
    of_first_row = int(batch["context_mask"][0].sum())
    assert difference[:of_first_row].abs().max() > 1e-3 and difference[of_first_row:].eq(0).all()


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_encode_context_ignores_the_length_of_its_padding(name):
    encoder = masked_lm_of(name).base_model
    batch = batch_for(encoder)
    mask = batch["context_mask"]
    longer = batch | {
        "context_indices": torch.cat([batch["context_indices"], torch.full((3, 5), 4)], dim=1),
        "context_mask": torch.cat([mask, torch.zeros(3, 5, dtype=torch.bool)], dim=1),
    }
    actual = context_states(encoder, longer)[:, : mask.shape[1]][mask]
    torch.testing.assert_close(actual, context_states(encoder, batch)[mask], **CLOSE)


@pytest.mark.parametrize(("name", "attention"), [case for case in CASES_WITH_ATTENTION if case[0] in LISTED])
@torch.no_grad()
def test_attention_masks_on_the_whole_text_equal_the_plain_padding_mask(name, attention):
    encoder = masked_lm_of(name, attention).base_model
    batch = batch_for(encoder)
    input_ids, mask = batch["input_ids"], batch["attention_mask"]
    prepared = attention_masks(encoder.config, mask, encoder.dtype)
    expected = encoder(input_ids=input_ids, attention_mask=mask)[0]
    actual = encoder(input_ids=input_ids, attention_mask=prepared)[0]
    torch.testing.assert_close(actual[mask.bool()], expected[mask.bool()], **CLOSE)


def test_attention_masks_of_deberta_stay_two_dimensional():
    """Its embeddings multiply by the mask, so it takes no other."""
    config = masked_lm_of("deberta-v2-absolute").config
    mask = torch.ones(1, 4)
    assert attention_masks(config, mask, torch.float32) is mask


@pytest.mark.parametrize("name", ["bert", "modernbert"])
def test_attention_masks_leave_the_mask_to_other_kernels(name):
    config = encoder_config(CASES[name][0])
    config._attn_implementation = "flash_attention_2"
    mask = torch.ones(1, 4)
    assert attention_masks(config, mask, torch.float32) is mask


def test_attention_masks_leave_every_query_a_key():
    """A query far into the padding has no real token in its window, and some kernels make NaN of that."""
    config = masked_lm_of("modernbert", "sdpa").config
    masks = attention_masks(config, torch.arange(12)[None] < 3, torch.float32)
    assert masks["sliding_attention"].any(-1).all() and masks["full_attention"].any(-1).all()


def test_attention_masks_of_no_padding_is_none():
    assert attention_masks(masked_lm_of("bert").config, None, torch.float32) is None


@torch.no_grad()
def test_modernbert_window_measured_in_the_gathered_row_would_be_wrong():
    """Shows that the tiny windows matter: a plain mask on the gathered row gives other states."""
    encoder = masked_lm_of("modernbert").base_model
    batch = batch_for(encoder)
    naive = encoder(
        input_ids=batch["input_ids"].gather(1, batch["context_indices"]),
        attention_mask=batch["context_mask"].long(),
        position_ids=batch["context_indices"],
    )[0]
    difference = (naive - context_states(encoder, batch))[batch["context_mask"]]
    assert difference.abs().max() > 0.05


@pytest.mark.parametrize("name", LISTED)
@torch.no_grad()
def test_token_logits_equal_those_of_the_model(name):
    masked_lm = masked_lm_of(name)
    batch = batch_for(masked_lm)
    inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    real = batch["attention_mask"].bool()
    states = masked_lm.base_model(**inputs)[0][real]
    expected = masked_lm(**inputs).logits[real]
    # A head on a list of tokens instead of a batch of rows: the same sums in another order.
    torch.testing.assert_close(token_logits(masked_lm, states), expected, rtol=1e-5, atol=2e-5)


@torch.no_grad()
def test_token_logits_equal_those_of_the_model_with_the_new_deberta_head():
    masked_lm = masked_lm_of("deberta-v2-absolute", legacy=False)
    batch = batch_for(masked_lm)
    inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    states = masked_lm.base_model(**inputs)[0]
    # As above.
    torch.testing.assert_close(token_logits(masked_lm, states), masked_lm(**inputs).logits, rtol=1e-5, atol=2e-5)


def test_token_logits_refuse_an_unknown_head():
    with pytest.raises(ValueError, match="does not know the head of `mpnet`"):
        token_logits(masked_lm_of("mpnet"), torch.zeros(2, 16))


def test_encoder_spec_of_an_unknown_architecture_is_none():
    assert encoder_spec(encoder_config("mpnet")) is None


@pytest.mark.parametrize("name", ["deberta-v2-relative", "deberta-v2-both"])
def test_relative_deberta_does_not_gather(name):
    config = masked_lm_of(name).config
    assert not encoder_spec(config).gathers(config)


@pytest.mark.parametrize("attention", ["flash_attention_2", "flash_attention_3", "flex_attention"])
def test_check_encoder_refuses_windows_on_other_kernels(attention):
    with pytest.raises(ValueError, match=f"`attn_implementation={attention}` measures modernbert's attention window"):
        check_encoder(encoder_config("modernbert"), attention)


@pytest.mark.parametrize(
    ("model_type", "attention"),
    [("modernbert", "sdpa"), ("modernbert", "eager"), ("modernbert", None), ("bert", "flash_attention_2")],
)
def test_check_encoder_accepts_what_is_exact(model_type, attention):
    check_encoder(encoder_config(model_type), attention)


def test_pretraining_model_refuses_windows_on_other_kernels():
    config = pretraining_config("modernbert", attn_implementation="flex_attention")
    with pytest.raises(ValueError, match="use sdpa or eager"):
        PredRecForPreTraining(config)


def test_pretraining_model_checks_the_kernel_of_the_context_pass_only():
    config = pretraining_config("modernbert", objective="mlm", attn_implementation="flex_attention")
    assert PredRecForPreTraining(config).encoder.config._attn_implementation == "flex_attention"


def test_context_of_an_architecture_that_ignores_its_mask_sees_nothing_hidden():
    """ConvBERT's convolutions read across the mask: what is hidden is replaced, so nothing comes through."""
    encoder = AutoModel.from_config(encoder_config("convbert", embedding_size=16)).eval()
    ids = torch.randint(FIRST_ORDINARY_ID, VOCAB_SIZE, (2, 12))
    indices = torch.tensor([[0, 1, 2, 7], [0, 3, 4, 5]])
    mask = torch.ones_like(indices, dtype=torch.bool)
    hidden = torch.ones_like(ids, dtype=torch.bool).scatter(1, indices, False)
    other = torch.where(hidden, FIRST_ORDINARY_ID + (ids + 3) % 100, ids)
    with torch.no_grad():
        states = [encode_context(encoder, tokens, indices, mask) for tokens in (ids, other)]
    assert torch.equal(states[0], states[1])
