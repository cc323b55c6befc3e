import dataclasses
import json

import pytest
from huggingface_hub.errors import StrictDataclassError
from transformers import BertConfig

from predrec.configuration import ModelArguments, PredRecConfig
from predrec.configuration.model_arguments import ENCODER_FIELDS, ENCODER_ONLY
from predrec.errors import UserError

TINY = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}

CHANGED_ENCODER = {
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 96,
    "hidden_act": "relu",
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.2,
    "max_position_embeddings": 64,
    "position_embedding_type": "rotary",
    "rotary_base": 500.0,
    "scale_embeddings": True,
    "initializer_range": 0.1,
    "layer_norm_eps": 1e-3,
    "tie_word_embeddings": True,
}

CHANGED_OBJECTIVE = {
    "objective": "jepa",
    "predictor_hidden_size": 16,
    "predictor_num_hidden_layers": 1,
    "predictor_num_attention_heads": 2,
    "predictor_intermediate_size": 24,
    "predictor_position_embedding_type": "rotary",
    "jepa_view": "crops",
    "context_text": "original",
    "jepa_loss": "infonce",
    "jepa_temperature": 0.2,
    "jepa_regularizer_weight": 3.0,
    "loss_weighting": "fixed",
    "loss_schedule": "cosine",
    "loss_lambda": 0.3,
    "loss_lambda_end": 0.7,
    "target_network": "online",
    "target_layers": "2",
    "center_targets": True,
    "whiten_targets": True,
    "whiten_epsilon": 0.1,
    "center_decay": 0.5,
    "pool_targets": True,
    "mlm_view": "context",
    "predictor_attention": "cross",
    "jepa_dropout": 0.25,
    "jepa_start": 0.5,
}


def test_model_arguments_defaults_are_the_encoders():
    assert ModelArguments().new_encoder_config().to_dict() == PredRecConfig().to_dict()


@pytest.mark.parametrize("name", ENCODER_FIELDS)
def test_model_arguments_hand_every_encoder_field_on(name):
    arguments = ModelArguments(**TINY | {name: CHANGED_ENCODER[name]})
    assert getattr(arguments.new_encoder_config(), name) == CHANGED_ENCODER[name]


@pytest.mark.parametrize("name", [f.name for f in dataclasses.fields(ModelArguments) if f.name not in ENCODER_ONLY])
def test_model_arguments_hand_every_objective_field_on(name):
    changed = {name: CHANGED_OBJECTIVE[name]}
    if name == "target_network":
        changed["jepa_loss"] = "infonce"  # The default collapses with it, and is refused.
    arguments = ModelArguments(**TINY, **changed)
    config = arguments.pretraining_config(arguments.new_encoder_config())
    expected = 2 if name == "target_layers" else CHANGED_OBJECTIVE[name]
    assert getattr(config, name) == expected


def test_model_arguments_initialise_the_predictor_as_the_encoder():
    arguments = ModelArguments(**TINY, initializer_range=0.1)
    assert arguments.pretraining_config(arguments.new_encoder_config()).initializer_range == 0.1


def test_model_arguments_hand_the_attention_implementation_on():
    arguments = ModelArguments(**TINY, attn_implementation="eager")
    assert arguments.pretraining_config(arguments.new_encoder_config())._attn_implementation == "eager"


def test_model_arguments_build_another_type_of_encoder():
    config = ModelArguments(model_type="bert", **TINY).new_encoder_config(vocab_size=50)
    assert isinstance(config, BertConfig)
    assert (config.hidden_size, config.vocab_size) == (32, 50)


def test_model_arguments_understand_the_names_of_other_encoders():
    # DistilBERT calls the width `dim`, and knows `hidden_size` as another name of it.
    config = ModelArguments(model_type="distilbert", hidden_size=48, num_attention_heads=4).new_encoder_config()
    assert config.dim == 48


def test_model_arguments_win_over_defaults():
    assert ModelArguments(**TINY).new_encoder_config(hidden_size=64).hidden_size == 32


def test_model_arguments_leave_unknown_defaults_out():
    assert not hasattr(ModelArguments(**TINY).new_encoder_config(no_such_field=1), "no_such_field")


@pytest.mark.parametrize("as_text", [False, True])
def test_model_arguments_take_further_encoder_fields(as_text):
    further = {"head_layer_norm_eps": 0.1}
    arguments = ModelArguments(**TINY, encoder_config=json.dumps(further) if as_text else further)
    assert arguments.encoder_config == further
    assert arguments.new_encoder_config().head_layer_norm_eps == 0.1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"encoder_config": "{head_layer_norm_eps"}, r"`encoder_config` is not JSON"),
        ({"encoder_config": "[1]"}, r"`encoder_config` must be a mapping"),
        ({"encoder_config": [1]}, r"`encoder_config` must be a mapping"),
        ({"encoder_config": {"model_type": "bert"}}, r"`encoder_config` must not hold `model_type`"),
        (
            {"encoder_config": {"hiden_size": 32}},
            r"`hiden_size` is not a field of PredRecConfig; did .* `hidden_size`",
        ),
        ({"model_type": "bart5"}, r"`model_type` is 'bart5', which transformers does not know; did you mean `bart`\?"),
        ({"model_type": "bert", "rotary_base": 10.0}, r"`rotary_base` is not a field of BertConfig"),
        ({"init_from": "name", "hidden_size": 32}, r"`init_from` brings its own encoder: drop `hidden_size`"),
        ({"init_from": "name", "pad_vocab_to_multiple_of": 8}, r"encoder: drop `pad_vocab_to_multiple_of`"),
        (
            {"encoder_config": {"vocab_size": 301}, "pad_vocab_to_multiple_of": 64},
            r"`encoder_config` says how large the vocabulary is: drop `pad_vocab_to_multiple_of`",
        ),
        ({"pad_vocab_to_multiple_of": 0}, r"`pad_vocab_to_multiple_of` is 0; it must be at least 1"),
        (
            {"init_from": "name", "scale_embeddings": False, "encoder_config": {"head_layer_norm_eps": 0.1}},
            r"drop `scale_embeddings`, `encoder_config`",
        ),
        ({"hidden_size": 30}, r"`hidden_size` \(30\) is not a multiple of `num_attention_heads` \(8\)"),
        ({"hidden_size": 0}, r"`hidden_size` is 0; it must be at least 1"),
        ({"num_attention_heads": 0}, r"`num_attention_heads` is 0; it must be at least 1"),
        ({"intermediate_size": 0}, r"`intermediate_size` is 0; it must be at least 1"),
        ({"max_position_embeddings": 0}, r"`max_position_embeddings` is 0; it must be at least 1"),
        ({"num_hidden_layers": -1}, r"`num_hidden_layers` is -1; it must be not negative"),
        ({"hidden_size": 24, "position_embedding_type": "rotary"}, r"rotary positions need an even head width"),
        ({"hidden_size": 27, "num_attention_heads": 3}, r"sinusoidal positions need an even `hidden_size`, not 27"),
        ({"loss_lambda": -0.1}, r"`loss_lambda` is -0.1; it must be in \[0, 1\]"),
        ({"loss_lambda_end": 1.1}, r"`loss_lambda_end` is 1.1; it must be in \[0, 1\]"),
        ({"loss_lambda": 1.0}, r"`loss_lambda` is 1.0, but `loss_weighting=learned` starts from it"),
        ({"loss_lambda": 0.0, "loss_weighting": "uncertainty"}, r"`loss_weighting=uncertainty` starts from it"),
        ({"center_decay": 1.0}, r"`center_decay` is 1.0; it must be in \[0, 1\)"),
        ({"jepa_regularizer_weight": -1.0}, r"`jepa_regularizer_weight` is -1.0; it must be positive"),
        ({"jepa_temperature": 0.0}, r"`jepa_temperature` is 0.0; it must be positive"),
        ({"target_layers": "last"}, r"`target_layers` is 'last'; it must be 'output' or a number of blocks"),
        ({"target_layers": "7"}, r"`target_layers` is 7; it must be in \[0, 6\]"),
        ({"target_layers": "-1"}, r"`target_layers` is -1; it must be in \[0, 6\]"),
        ({"objective": "mlm", "mlm_view": "context"}, r"`mlm_view=context` needs a context pass"),
        ({"predictor_hidden_size": 36}, r"`hidden_size` \(36\) is not a multiple of `num_attention_heads` \(8\)"),
    ],
    ids=str,
)
def test_model_arguments_refuse_impossible_values(arguments, message):
    with pytest.raises(ValueError, match=message):
        ModelArguments(**arguments)


@pytest.mark.parametrize(
    "name",
    ["objective", "jepa_loss", "loss_weighting", "mlm_view", "position_embedding_type", "hidden_size"],
)
def test_model_arguments_refuse_a_value_of_the_wrong_kind(name):
    with pytest.raises(StrictDataclassError, match=f"field '{name}'"):
        ModelArguments(**{name: "nonsense"})


def test_model_arguments_with_init_from_read_nothing_yet():
    assert ModelArguments(init_from="nobody/nothing").init_from == "nobody/nothing"


def test_model_arguments_load_the_configuration_of_init_from(tmp_path):
    PredRecConfig(**TINY).save_pretrained(tmp_path)
    assert ModelArguments(init_from=str(tmp_path)).loaded_encoder_config().hidden_size == 32


def test_model_arguments_explain_an_init_from_that_cannot_be_loaded():
    with pytest.raises(UserError, match="`init_from`: cannot load a configuration from 'nobody/nothing'"):
        ModelArguments(init_from="nobody/nothing").loaded_encoder_config()
