"""Predictor tokens come, are reproducible, are never generated, and go again."""

import copy

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from predrec.modeling.predictor_tokens import NAME, add_predictor_tokens, strip_predictor_tokens

from .. import causal


@pytest.fixture
def pair():
    tokenizer = causal.tokenizer("qwen")
    return causal.model(vocab_size=len(tokenizer)), tokenizer


def generate(model, tokenizer, text="lines with"):
    ids = torch.tensor([tokenizer(text)["input_ids"]])
    return model.generate(ids, max_new_tokens=12, do_sample=False, eos_token_id=None, pad_token_id=2)[0].tolist()


@pytest.mark.parametrize("count", [0, 1, 3, 10])
def test_the_one_that_is_read_is_number_one(pair, count):
    model, tokenizer = pair
    ids = add_predictor_tokens(model, tokenizer, count)
    assert tokenizer.convert_ids_to_tokens(list(ids)) == [NAME.format(number) for number in range(count, 0, -1)]
    assert model.get_input_embeddings().weight.shape[0] >= len(tokenizer)


@pytest.mark.parametrize(
    ("before", "count", "after"), [(384, 1, 448), (384, 10, 448), (376, 3, 384), (381, 2, 383), (384, 0, 384)]
)
def test_a_table_stays_as_even_as_it_was(before, count, after):
    """Products with an odd number of rows are slower on GPUs."""
    tokenizer = causal.tokenizer("qwen")
    model = causal.model(vocab_size=before)
    tokenizer.add_tokens([f"<{number}>" for number in range(before - len(tokenizer))])
    add_predictor_tokens(model, tokenizer, count)
    assert model.get_input_embeddings().weight.shape[0] == model.lm_head.weight.shape[0] == after
    assert model.config.vocab_size == after and len(tokenizer) == before + count


def test_rows_that_only_make_it_even_are_never_generated_and_go_again():
    tokenizer = causal.tokenizer("qwen")
    tokenizer.add_tokens([f"<{number}>" for number in range(384 - len(tokenizer))])
    model = causal.model(vocab_size=384)
    add_predictor_tokens(model, tokenizer, 2)
    with torch.no_grad():
        model.lm_head.weight[384:] = 100 * model.lm_head.weight[:300].abs().sum(0)
        model.lm_head.weight[400:] *= -1
    before = generate(model, tokenizer)
    assert max(before) < 384
    plain = strip_predictor_tokens(model, tokenizer)
    assert generate(model, plain) == before and model.lm_head.weight.shape[0] == 384
    assert model.generation_config.suppress_tokens is None


def test_other_special_tokens_stay(pair):
    model, tokenizer = pair
    before = list(tokenizer.extra_special_tokens)
    add_predictor_tokens(model, tokenizer, 2)
    assert set(before) < set(tokenizer.extra_special_tokens)
    assert tokenizer("a<|predictor_2|>b")["input_ids"].count(tokenizer.convert_tokens_to_ids("<|predictor_2|>")) == 1


def test_rows_that_pad_the_vocabulary_are_used_first():
    tokenizer = causal.tokenizer("qwen")
    model = causal.model(vocab_size=len(tokenizer) + 2)
    add_predictor_tokens(model, tokenizer, 2)
    assert model.get_input_embeddings().weight.shape[0] == len(tokenizer)
    longer = causal.model(vocab_size=len(causal.tokenizer("qwen")) + 64)
    add_predictor_tokens(longer, causal.tokenizer("qwen"), 3)
    assert longer.get_input_embeddings().weight.shape[0] == len(causal.tokenizer("qwen")) + 64


def test_new_rows_are_the_mean_and_a_little_seeded_noise(pair):
    model, tokenizer = pair
    twin, twin_tokenizer = copy.deepcopy(model), copy.deepcopy(tokenizer)
    old = [model.get_input_embeddings().weight.detach().clone(), model.get_output_embeddings().weight.detach().clone()]
    ids = list(add_predictor_tokens(model, tokenizer, 3, seed=5))
    torch.manual_seed(99)
    add_predictor_tokens(twin, twin_tokenizer, 3, seed=5)
    layers = zip(
        old,
        (model.get_input_embeddings(), model.get_output_embeddings()),
        (twin.get_input_embeddings(), twin.get_output_embeddings()),
        strict=True,
    )
    for before, layer, again in layers:
        assert torch.equal(layer.weight[: len(before)], before)
        assert torch.equal(layer.weight, again.weight)
        offset = layer.weight[ids] - before.mean(0)
        assert 0.5 < (offset.std() / (0.02 * before.std())) < 1.5


def test_tokens_that_are_there_are_found(pair):
    model, tokenizer = pair
    first = add_predictor_tokens(model, tokenizer, 2)
    weight = model.get_input_embeddings().weight.detach().clone()
    assert add_predictor_tokens(model, tokenizer, 2) == first
    assert torch.equal(model.get_input_embeddings().weight, weight)


def test_they_are_never_generated(pair):
    model, tokenizer = pair
    ids = add_predictor_tokens(model, tokenizer, 2)
    with torch.no_grad():  # Without suppression they would be all that is generated.
        model.lm_head.weight[list(ids)] = 100 * model.lm_head.weight[:300].abs().sum(0)
        model.lm_head.weight[list(ids)[1]] *= -1
    assert not set(ids) & set(generate(model, tokenizer))
    model.generation_config.suppress_tokens = None
    assert set(ids) & set(generate(model, tokenizer))


def test_stripping_changes_nothing_that_is_generated(pair, tmp_path):
    model, tokenizer = pair
    rows = model.get_input_embeddings().weight.shape[0]
    vocabulary = tokenizer.get_vocab()
    add_predictor_tokens(model, tokenizer, 3)
    before = generate(model, tokenizer)
    plain = strip_predictor_tokens(model, tokenizer)
    assert generate(model, plain) == before
    assert model.get_input_embeddings().weight.shape[0] == rows == model.config.vocab_size
    assert plain.get_vocab() == vocabulary and "predictor" not in str(plain.extra_special_tokens)
    model.save_pretrained(tmp_path)
    plain.save_pretrained(tmp_path)
    assert (
        "predictor" not in (tmp_path / "config.json").read_text() + (tmp_path / "generation_config.json").read_text()
    )
    assert generate(AutoModelForCausalLM.from_pretrained(tmp_path), AutoTokenizer.from_pretrained(tmp_path)) == before


@pytest.mark.parametrize("count", [-1, 11])
def test_too_many_are_refused(pair, count):
    with pytest.raises(ValueError, match=f"`num_predictor_tokens` is {count}"):
        add_predictor_tokens(*pair, count)
