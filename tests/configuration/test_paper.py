"""Table 1 of the paper, typed a second time: what is the default, and what the paper's recipes say."""

from pathlib import Path

import pytest

from predrec.configuration import DataArguments, ModelArguments, parse_recipe
from predrec.data_collators import DataCollatorForPreTraining
from predrec.trainers import PredRecTrainingArguments

RECIPES = Path(__file__).parents[2] / "recipes"

TRAINING = {
    "num_train_epochs": 3,
    "per_device_train_batch_size": 64,
    "gradient_accumulation_steps": 1,
    "learning_rate": 5e-5,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 10,
    "weight_decay": 0.05,
    "ema_decay": 0.996,
    "ema_decay_end": 1.0,
}
MASKS = {
    "mlm_probability": 0.15,
    "mask_replace_prob": 0.8,
    "random_replace_prob": 0.1,
    "masking_unit": "token",
    "context_scale": (0.65, 0.85),
    "target_scale": (0.10, 0.25),
    "num_target_blocks": 2,
    "num_mask_sets": 1,
    "min_context_tokens": 32,
    "context_excludes_targets": True,
}
ENCODER = {
    "hidden_size": 512,
    "num_hidden_layers": 6,
    "num_attention_heads": 8,
    "intermediate_size": 2048,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "max_position_embeddings": 512,
    "position_embedding_type": "sinusoidal",
    "scale_embeddings": False,
    "layer_norm_eps": 1e-6,
    "tie_word_embeddings": False,
}
OBJECTIVE = {
    "objective": "hybrid",
    "predictor_attention": "joint",
    "predictor_position_embedding_type": "sinusoidal",
    "jepa_view": "blocks",
    "context_text": "masked",
    "jepa_loss": "cosine",
    "loss_weighting": "learned",
    "loss_lambda": 0.5,
    "target_network": "ema",
    "target_layers": "output",
    "center_targets": False,
    "whiten_targets": False,
    "pool_targets": False,
    "mlm_view": "full",
    "jepa_dropout": 0.0,
    "jepa_start": 0.0,
}
PREDICTOR = {"hidden_size": 512, "num_hidden_layers": 6, "num_attention_heads": 8, "intermediate_size": 2048}


def values(of: object, names: dict) -> dict:
    """The attributes of these names; lists, as recipes have them, as tuples."""
    found = {name: getattr(of, name) for name in names}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in found.items()}


@pytest.fixture(params=["defaults", "paper.yaml", "paper-mlm.yaml"])
def arguments(request, tmp_path):
    """Arguments of a run, and its objective."""
    recipe = [] if request.param == "defaults" else [str(RECIPES / request.param)]
    kinds = (DataArguments, ModelArguments, PredRecTrainingArguments)
    parsed, _ = parse_recipe([*recipe, "--output_dir", str(tmp_path)], kinds)
    return parsed, "mlm" if request.param == "paper-mlm.yaml" else "hybrid"


def test_training_is_that_of_the_paper(arguments):
    (_, _, training), _ = arguments
    assert values(training, TRAINING) == TRAINING
    assert training.optim.startswith("adamw")


def test_masks_are_those_of_the_paper(arguments):
    (data, _, _), _ = arguments
    assert values(data, MASKS) == MASKS
    assert data.max_seq_length == 512


def test_model_is_that_of_the_paper(arguments):
    (_, model, _), objective = arguments
    encoder = model.new_encoder_config(vocab_size=30522)
    config = model.pretraining_config(encoder)
    assert values(encoder, ENCODER) == ENCODER
    assert values(config, OBJECTIVE) == OBJECTIVE | {"objective": objective}
    assert values(config.predictor_config(), PREDICTOR) == PREDICTOR


@pytest.mark.parametrize("name", ["paper.yaml", "paper-mlm.yaml"])
def test_recipes_of_the_paper_train_in_bfloat16(name):
    assert "\nbf16: true\n" in (RECIPES / name).read_text(encoding="utf-8")


def test_masks_of_the_collator_alone_are_those_of_the_paper(tiny_tokenizer):
    assert values(DataCollatorForPreTraining(tiny_tokenizer), MASKS) == MASKS
