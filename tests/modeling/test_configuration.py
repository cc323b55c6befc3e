"""The two configurations: defaults, refusals, round trips, and that every field has an effect."""

from dataclasses import fields

import pytest
import torch
from huggingface_hub.errors import StrictDataclassFieldValidationError
from transformers import AutoConfig, BertConfig, PreTrainedConfig

from predrec.modeling import PredRecConfig, PredRecForMaskedLM, PredRecPreTrainingConfig

from .tiny import HIDDEN_SIZE, encoder_config, pretraining_config, pretraining_model

# The encoder's configuration


def test_config_defaults_are_those_of_the_paper():
    config = PredRecConfig()
    sizes = (config.vocab_size, config.hidden_size, config.num_hidden_layers, config.num_attention_heads)
    assert sizes == (30522, 512, 6, 8)
    assert (config.intermediate_size, config.max_position_embeddings, config.hidden_act) == (2048, 512, "gelu")
    assert (config.position_embedding_type, config.scale_embeddings) == ("sinusoidal", False)
    assert (config.layer_norm_eps, config.head_layer_norm_eps, config.tie_word_embeddings) == (1e-6, 1e-5, False)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hidden_size": 0}, "`hidden_size` is 0; it must be at least 1"),
        ({"vocab_size": -1}, "`vocab_size` is -1"),
        ({"max_position_embeddings": 0}, "`max_position_embeddings` is 0"),
        ({"num_hidden_layers": -1}, "`num_hidden_layers` is -1; it must not be negative"),
        ({"hidden_size": 20, "num_attention_heads": 3}, r"`hidden_size` \(20\) is not a multiple"),
        (
            {"hidden_size": 6, "num_attention_heads": 2, "position_embedding_type": "rotary"},
            "rotary positions need an even head width",
        ),
        ({"hidden_size": 7, "num_attention_heads": 1}, "sinusoidal positions need an even `hidden_size`, not 7"),
    ],
)
def test_config_refuses_impossible_sizes(fields, message):
    with pytest.raises(ValueError, match=message):
        PredRecConfig(**fields)


@pytest.mark.parametrize("fields", [{"hidden_size": "64"}, {"position_embedding_type": "learned"}])
def test_config_refuses_wrong_types(fields):
    with pytest.raises(StrictDataclassFieldValidationError):
        PredRecConfig(**fields)


def test_config_survives_saving(tmp_path):
    config = encoder_config(position_embedding_type="rotary", rotary_base=500.0, scale_embeddings=True)
    config.save_pretrained(tmp_path)
    loaded = AutoConfig.from_pretrained(tmp_path)
    assert type(loaded) is PredRecConfig and loaded.to_diff_dict() == config.to_diff_dict()


def signature(**fields) -> tuple[list, torch.Tensor]:
    """Shapes and outputs of a model in training mode: what a field can change."""
    config = encoder_config()
    for name, value in fields.items():
        setattr(config, name, value)
    torch.manual_seed(0)
    model = PredRecForMaskedLM(config).train()
    torch.manual_seed(0)
    logits = model(torch.arange(5, 13)[None]).logits
    shapes = [tuple(tensor.shape) for tensor in (*model.parameters(), *model.buffers())]
    return shapes, logits


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("vocab_size", 170),
        ("hidden_size", 32),
        ("num_hidden_layers", 3),
        ("num_attention_heads", 4),
        ("intermediate_size", 48),
        ("hidden_act", "relu"),
        ("hidden_dropout_prob", 0.5),
        ("attention_probs_dropout_prob", 0.5),
        ("max_position_embeddings", 32),
        ("position_embedding_type", "rotary"),
        ("scale_embeddings", True),
        ("initializer_range", 0.1),
        ("layer_norm_eps", 0.1),
        ("head_layer_norm_eps", 0.1),
        ("tie_word_embeddings", True),
        ("pad_token_id", 6),
    ],
)
def test_every_encoder_field_has_an_effect(name, value):
    shapes, logits = signature()
    other_shapes, other_logits = signature(**{name: value})
    assert shapes != other_shapes or not torch.equal(logits, other_logits)


def test_rotary_base_has_an_effect():
    rotary = [signature(position_embedding_type="rotary", rotary_base=base)[1] for base in (10000.0, 10.0)]
    assert not torch.equal(*rotary)


# The pre-training configuration


def test_pretraining_config_defaults_to_a_predrec_encoder():
    assert type(PredRecPreTrainingConfig().encoder_config) is PredRecConfig


def test_pretraining_config_resolves_a_dict_by_its_model_type():
    config = PredRecPreTrainingConfig(
        encoder_config={"model_type": "bert", "hidden_size": 24, "num_attention_heads": 2}
    )
    assert type(config.encoder_config) is BertConfig and config.encoder_config.hidden_size == 24


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"loss_lambda": 1.5}, r"`loss_lambda` is 1.5; it must be in \[0, 1\]"),
        ({"loss_lambda_end": -0.1}, r"`loss_lambda_end` is -0.1"),
        ({"loss_lambda": 0.0}, "`loss_weighting=learned` starts from it"),
        ({"loss_lambda": 1.0, "loss_weighting": "uncertainty"}, "strictly between 0 and 1"),
        ({"center_decay": 1.0}, r"`center_decay` is 1.0; it must be in \[0, 1\)"),
        ({"jepa_dropout": 1.0}, r"`jepa_dropout` is 1.0; it must be in \[0, 1\)"),
        ({"jepa_dropout": -0.1}, r"`jepa_dropout` is -0.1; it must be in \[0, 1\)"),
        ({"jepa_dropout": 0.5, "objective": "mlm"}, r"`jepa_dropout` needs `objective=hybrid`"),
        ({"target_network": "online"}, "`target_network=online` needs a loss that holds vectors apart"),
        ({"jepa_start": 1.0}, r"`jepa_start` is 1.0; it must be in \[0, 1\)"),
        ({"jepa_start": 0.5, "objective": "jepa"}, r"`jepa_start` needs `objective=hybrid`"),
        ({"jepa_temperature": 0.0}, "`jepa_temperature` is 0.0; it must be positive"),
        ({"jepa_regularizer_weight": 0.0}, "`jepa_regularizer_weight` is 0.0; it must be positive"),
        ({"target_layers": "all"}, "`target_layers` is 'all'; it must be 'output' or a number of blocks"),
        ({"target_layers": 3}, r"`target_layers` is 3; it must be in \[0, 2\]"),
        ({"target_layers": -1}, "`target_layers` is -1"),
        ({"whiten_epsilon": 0.0}, "`whiten_epsilon` is 0.0; it must be positive"),
        ({"context_text": "original", "mlm_view": "context"}, "reconstructs what `context_text=original` would show"),
        ({"objective": "mlm", "mlm_view": "context"}, "`mlm_view=context` needs a context pass"),
        ({"predictor_hidden_size": 15}, r"`hidden_size` \(15\) is not a multiple"),
        ({"predictor_num_hidden_layers": 0}, "`predictor_num_hidden_layers` is 0; it must be at least 1"),
    ],
)
def test_pretraining_config_refuses_values_out_of_range(fields, message):
    with pytest.raises(ValueError, match=message):
        pretraining_config(**fields)


@pytest.mark.parametrize("fields", [{"objective": "both"}, {"jepa_loss": "l1"}, {"loss_weighting": "auto"}])
def test_pretraining_config_refuses_unknown_choices(fields):
    with pytest.raises(StrictDataclassFieldValidationError):
        pretraining_config(**fields)


@pytest.mark.parametrize("weighting", ["fixed", "schedule"])
@pytest.mark.parametrize("loss_lambda", [0.0, 1.0])
def test_pretraining_config_lets_given_weights_reach_the_ends(weighting, loss_lambda):
    assert pretraining_config(loss_weighting=weighting, loss_lambda=loss_lambda).loss_lambda == loss_lambda


def test_target_layers_may_be_a_number_in_text():
    assert pretraining_config(target_layers="2").target_layers == 2


def test_pretraining_config_takes_tying_and_special_tokens_from_the_encoder():
    config = pretraining_config("roberta")
    assert (config.tie_word_embeddings, config.pad_token_id) == (True, 1)


@pytest.mark.parametrize(
    ("fields", "branch", "target"),
    [
        ({}, True, True),
        ({"objective": "mlm"}, False, False),
        ({"jepa_loss": "sigreg"}, True, False),
        ({"jepa_loss": "infonce", "target_network": "online"}, True, False),
        ({"jepa_loss": "sigreg", "target_network": "online"}, True, False),
    ],
)
def test_pretraining_config_says_which_parts_exist(fields, branch, target):
    config = pretraining_config(**fields)
    assert (config.has_jepa_branch, config.has_target_encoder) == (branch, target)


def test_predictor_config_defaults_to_the_width_of_the_encoder():
    config = pretraining_config().predictor_config()
    assert (config.hidden_size, config.num_attention_heads, config.intermediate_size) == (HIDDEN_SIZE, 2, 64)


def test_predictor_config_takes_its_own_sizes():
    config = pretraining_config(
        predictor_hidden_size=24,
        predictor_num_hidden_layers=3,
        predictor_num_attention_heads=4,
        predictor_intermediate_size=40,
        predictor_position_embedding_type="rotary",
    ).predictor_config()
    assert (config.hidden_size, config.num_hidden_layers, config.num_attention_heads) == (24, 3, 4)
    assert (config.intermediate_size, config.position_embedding_type) == (40, "rotary")


@pytest.mark.parametrize("model_type", ["predrec", "bert", "modernbert"])
def test_pretraining_config_survives_saving(model_type, tmp_path):
    config = pretraining_config(
        model_type, objective="jepa", jepa_loss="infonce", target_layers=2, center_targets=True
    )
    config.save_pretrained(tmp_path)
    loaded = AutoConfig.from_pretrained(tmp_path)
    assert type(loaded) is PredRecPreTrainingConfig and loaded.to_diff_dict() == config.to_diff_dict()


def loss_after_an_update(batch, **fields) -> float:
    """Loss in training mode, halfway through training, after the running mean has moved once."""
    model = pretraining_model(**fields).train()
    model.training_progress.fill_(0.3)
    batch = {name: value for name, value in batch.items() if name != "label_indices"}
    torch.manual_seed(0)
    model(**batch)
    if model.target_center is not None:
        # Another batch: the running mean is that of its targets only in part.
        model(**(batch | {"original_input_ids": batch["original_input_ids"].flip(0)}))
    return model(**batch).loss.item()


EFFECTS = (
    ({}, {"objective": "jepa"}),
    ({}, {"objective": "mlm"}),
    ({}, {"predictor_hidden_size": 24}),
    ({}, {"predictor_num_hidden_layers": 2}),
    ({}, {"predictor_num_attention_heads": 4}),
    ({}, {"predictor_intermediate_size": 8}),
    ({}, {"predictor_attention": "cross"}),
    ({}, {"jepa_dropout": 0.5}),
    ({}, {"jepa_start": 0.5}),
    ({}, {"predictor_position_embedding_type": "rotary"}),
    ({}, {"jepa_loss": "mse"}),
    ({"jepa_loss": "infonce"}, {"jepa_temperature": 0.5}),
    ({"jepa_loss": "sigreg"}, {"jepa_regularizer_weight": 5.0}),
    ({"jepa_loss": "vicreg"}, {"jepa_regularizer_weight": 5.0}),
    ({"jepa_loss": "vicreg"}, {"target_network": "online"}),
    ({}, {"loss_weighting": "uncertainty"}),
    ({}, {"loss_lambda": 0.2}),
    ({"loss_weighting": "schedule"}, {"loss_lambda_end": 0.9}),
    ({"loss_weighting": "schedule", "loss_lambda_end": 0.9}, {"loss_schedule": "cosine"}),
    ({}, {"target_layers": 2}),
    ({}, {"center_targets": True}),
    ({}, {"whiten_targets": True}),
    ({"whiten_targets": True}, {"whiten_epsilon": 0.5}),
    ({}, {"pool_targets": True}),
    ({"pool_targets": True}, {"jepa_view": "crops"}),
    ({}, {"context_text": "original"}),
    ({"center_targets": True}, {"center_decay": 0.1}),
    ({}, {"mlm_view": "context"}),
    ({}, {"active_objective": "mlm"}),
    ({}, {"initializer_range": 0.02}),
)
"""Changes of one field, beside those that let it matter."""

NO_EFFECT = {
    "encoder_config": "a configuration of its own",
    "padding_is_text": "of batches, and of the exported encoder",
    **dict.fromkeys(
        ("pad_token_id", "bos_token_id", "eos_token_id", "tie_word_embeddings"), "copies of the encoder's"
    ),
}
"""Fields that change no loss, and why."""


def test_every_pretraining_field_is_tried_or_excused():
    own, stock = ({entry.name for entry in fields(kind)} for kind in (PredRecPreTrainingConfig, PreTrainedConfig))
    tried = {name for _, change in EFFECTS for name in change}
    assert own - stock == tried | set(NO_EFFECT)
    assert not tried & set(NO_EFFECT)


@pytest.mark.parametrize(("base", "change"), EFFECTS, ids=str)
def test_every_pretraining_field_has_an_effect(batch, base, change):
    assert loss_after_an_update(batch, **base) != loss_after_an_update(batch, **(base | change))
