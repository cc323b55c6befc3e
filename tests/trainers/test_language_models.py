"""Language models made, loaded, and loaded again with their adapters; what does not fit is refused."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from predrec.configuration.llm_arguments import LLMModelArguments
from predrec.errors import UserError
from predrec.modeling.predictor_tokens import add_predictor_tokens, predictor_ids_of
from predrec.trainers import language_models
from predrec.trainers.adapters import with_lora
from predrec.trainers.language_models import (
    load_language_tokenizer,
    load_trained,
    prepare_language_model,
    prepare_language_tokenizer,
)

from .. import causal

TINY = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}


@pytest.fixture
def saved(tmp_path):
    tokenizer = causal.tokenizer("qwen")
    causal.model(vocab_size=len(tokenizer)).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_random_weights_are_those_of_the_seed():
    arguments = LLMModelArguments(model_type="llama", init="random", model_config=TINY, train_tokenizer=True)
    tokenizer = prepare_language_tokenizer(arguments, causal.TEXTS, 64)
    first, again, other = (prepare_language_model(arguments, tokenizer, 64, seed) for seed in (1, 1, 2))
    weights = [model.model.layers[1].mlp.up_proj.weight for model in (first, again, other)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    assert first.config.vocab_size == len(tokenizer) and first.config.eos_token_id == tokenizer.eos_token_id
    assert first.config.max_position_embeddings == 128 and first.dtype == torch.float32


def test_random_weights_for_a_known_model(saved):
    arguments = LLMModelArguments(model_name_or_path=str(saved), init="random", param_dtype="bfloat16")
    tokenizer = prepare_language_tokenizer(arguments, [], 64)
    model = prepare_language_model(arguments, tokenizer, 64, 7)
    trained = prepare_language_model(LLMModelArguments(model_name_or_path=str(saved)), tokenizer, 64, 7)
    assert model.config.hidden_size == trained.config.hidden_size == 32
    assert model.dtype == torch.bfloat16 and trained.dtype == torch.float32
    assert not torch.equal(model.model.norm.weight.new_zeros(1), model.lm_head.weight[:1, 0])
    assert not torch.allclose(model.lm_head.weight.float(), trained.lm_head.weight, atol=1e-2)


def test_flash_attention_is_tried_in_half_precision(monkeypatch):
    arguments = LLMModelArguments(model_type="llama", init="random", model_config=TINY, train_tokenizer=True)
    tokenizer = prepare_language_tokenizer(arguments, causal.TEXTS, 64)
    make = AutoModelForCausalLM.from_config
    monkeypatch.setattr(AutoModelForCausalLM, "from_config", lambda *a, **k: causal.with_flash(make(*a, **k)))
    assert prepare_language_model(arguments, tokenizer, 64, 1).dtype == torch.float32


def test_a_model_is_tried_where_it_is_to_be_trained(monkeypatch):
    arguments = LLMModelArguments(model_type="llama", init="random", model_config=TINY, train_tokenizer=True)
    tokenizer, devices = prepare_language_tokenizer(arguments, causal.TEXTS, 64), []
    monkeypatch.setattr(language_models, "_check_fit", lambda model, *_: devices.append(model.device.type))
    prepare_language_model(arguments, tokenizer, 64, 1, torch.device("meta"))
    assert devices == ["meta"]


def test_a_tokenizer_without_padding_pads_with_its_eos(tmp_path):
    tokenizer = causal.tokenizer("qwen")
    tokenizer.pad_token = None
    tokenizer.save_pretrained(tmp_path / "a")
    assert load_language_tokenizer(str(tmp_path / "a")).pad_token == "</s>"
    tokenizer.eos_token = None
    tokenizer.save_pretrained(tmp_path / "b")
    with pytest.raises(UserError, match="neither a padding nor an EOS"):
        load_language_tokenizer(str(tmp_path / "b"))


@pytest.mark.parametrize("spare", [0, 8])
def test_adapters_come_back_with_their_predictor_rows(tmp_path, spare):
    tokenizer = causal.tokenizer("qwen")
    base = causal.model(vocab_size=len(tokenizer) + spare)
    base.save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    arguments = LLMModelArguments(model_name_or_path=str(tmp_path / "base"))
    tokenizer = prepare_language_tokenizer(arguments, [], 64)
    model = prepare_language_model(arguments, tokenizer, 64, 0)
    ids = add_predictor_tokens(model, tokenizer, 2)
    adapted = with_lora(model, 4)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name or "trainable_tokens_delta" in name:
                parameter.normal_()
    adapted.save_pretrained(tmp_path / "run", save_embedding_layers=False)
    tokenizer.save_pretrained(tmp_path / "run")
    loaded, again = load_trained(tmp_path / "run")
    assert predictor_ids_of(again) == ids
    tokens = torch.tensor([[4, 5, *ids]])
    # Scores of the predictor tokens themselves are never used, nor kept.
    kept = [logits[..., : min(ids)] for logits in (loaded(tokens).logits, adapted.eval()(tokens).logits)]
    torch.testing.assert_close(*kept)
    size = (tmp_path / "run" / "adapter_model.safetensors").stat().st_size
    assert size < 4 * base.get_input_embeddings().weight.numel()


def test_a_whole_model_comes_back(saved):
    model, tokenizer = load_trained(saved)
    assert predictor_ids_of(tokenizer) == () and not model.training


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "`model_name_or_path` or `model_type`, one of them"),
        ({"model_name_or_path": "a", "model_type": "llama"}, "one of them"),
        ({"model_type": "llama", "train_tokenizer": True}, "has no weights"),
        ({"model_type": "llama", "init": "random"}, "no tokenizer"),
        ({"model_name_or_path": "a", "model_config": {"hidden_size": 8}}, "would not fit trained weights"),
        ({"model_name_or_path": "a", "train_tokenizer": True}, "`train_tokenizer` is for"),
        ({"model_name_or_path": "a", "init": "random", "use_lora": True}, "`use_lora` saves adapters alone"),
        (
            {"model_type": "llama", "init": "random", "train_tokenizer": True, "use_lora": True},
            "`use_lora` saves adapters alone",
        ),
        ({"model_name_or_path": "a", "lora_rank": 0}, "`lora_rank` is 0"),
        ({"model_name_or_path": "a", "lora_dropout": 1.0}, "`lora_dropout` is 1.0"),
        ({"model_type": "llama", "init": "random", "train_tokenizer": True, "model_config": "{"}, "not JSON"),
        (
            {"model_type": "llama", "init": "random", "train_tokenizer": True, "model_config": "[]"},
            "must be a mapping",
        ),
    ],
    ids=str,
)
def test_arguments_that_cannot_be_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        LLMModelArguments(**fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model_type": "lama"}, "`model_type` 'lama' is unknown; did you mean `llama`"),
        ({"model_type": "bert"}, "`model_type` bert sees later tokens"),
        ({"model_type": "t5"}, "`model_type`: cannot make a causal language model of 't5'"),
        ({"model_config": {"hiden_size": 8}}, "no `hiden_size`; did you mean `hidden_size`"),
        ({"model_config": TINY | {"num_attention_heads": 5}}, "cannot make a causal language model"),
        ({"model_config": TINY | {"vocab_size": 100}}, "do not belong together"),
        ({"model_config": TINY | {"max_position_embeddings": 32}}, "takes at most 32"),
    ],
    ids=str,
)
def test_models_that_cannot_be_made_are_refused(fields, message):
    arguments = LLMModelArguments(**{"model_type": "llama", "init": "random", "train_tokenizer": True} | fields)
    tokenizer = prepare_language_tokenizer(arguments, causal.TEXTS, 64)
    with pytest.raises(UserError, match=message):
        prepare_language_model(arguments, tokenizer, 64, 0)


def test_models_that_are_not_there_are_named(tmp_path):
    with pytest.raises(UserError, match=r"cannot load a tokenizer from .*nowhere"):
        load_trained(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"`tokenizer_name`: cannot load a tokenizer from .*nowhere"):
        load_language_tokenizer(str(tmp_path / "nowhere"))
    arguments = LLMModelArguments(model_name_or_path=str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match=r"`model_name_or_path`.*nowhere"):
        prepare_language_model(arguments, causal.tokenizer(), 64, 0)


def test_adapters_are_no_model_to_begin_with_and_need_their_own(tmp_path, saved):
    tokenizer = causal.tokenizer("qwen")
    adapted = with_lora(causal.model(vocab_size=len(tokenizer)), 4)
    adapted.peft_config["default"].base_model_name_or_path = str(saved)
    adapted.save_pretrained(tmp_path / "run")
    tokenizer.save_pretrained(tmp_path / "run")
    with pytest.raises(UserError, match="is an adapter"):
        prepare_language_model(LLMModelArguments(model_name_or_path=str(tmp_path / "run")), tokenizer, 64, 0)
    causal.model("gpt2", vocab_size=len(tokenizer)).save_pretrained(saved)  # Another base takes the name.
    with pytest.raises(UserError, match="cannot load the adapters"):
        load_trained(tmp_path / "run")
