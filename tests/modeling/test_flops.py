"""The FLOP count against torch's counter, on the real forward and backward pass."""

import pytest
from torch.utils.flop_counter import FlopCounterMode

from predrec.data_collators import DataCollatorForPreTraining
from predrec.modeling import PredRecConfig, PredRecPreTrainingConfig
from predrec.modeling.flops import head_flops, training_flops
from predrec.modeling.modeling_pretraining import SIGREG_DIRECTIONS

from .tiny import VOCAB_SIZE, pretraining_model


def batch(tokenizer, lengths=(48, 40, 33, 48), **options):
    collator = DataCollatorForPreTraining(tokenizer, unpad=True, min_context_tokens=4, pad_to_multiple_of=8, **options)
    rows = [{"input_ids": [2, *range(5, 4 + n)], "example_ids": n, "epoch": 0} for n in lengths]
    made = collator(rows)
    made["input_ids"] %= VOCAB_SIZE
    return made


@pytest.mark.parametrize(
    "fields",
    [
        {"objective": "mlm"},
        {"objective": "jepa"},
        {"predictor_num_hidden_layers": 3, "predictor_hidden_size": 8},
        {"predictor_num_hidden_layers": 2, "predictor_attention": "cross"},
        {"mlm_view": "context"},
        {"jepa_loss": "sigreg"},
        {"jepa_view": "crops"},
        {"jepa_view": "crops", "target_layers": 0},
    ],
    ids=lambda fields: "-".join(map(str, fields.values())),
)
@pytest.mark.parametrize("model_type", ["predrec", "bert"])
def test_training_flops_equal_the_counter(tiny_tokenizer, model_type, fields):
    model = pretraining_model(model_type, **fields).train()
    made = batch(
        tiny_tokenizer,
        num_target_blocks=2 if model.config.has_jepa_branch else 0,
        label_view=model.config.mlm_view,
        num_mask_sets=2 if fields.get("mlm_view") == "context" else 1,
        crop_length=(4, 9) if fields.get("jepa_view") == "crops" else None,
    )
    parts = training_flops(model.config, made)
    with FlopCounterMode(display=False) as counter:
        model(**made).loss.backward()
    config = model.config.encoder_config
    if parts["head"]:  # Entries of `label_indices` that only fill up go through the head, too.
        parts["head"] = 6 * len(made["label_indices"]) * config.hidden_size * (config.hidden_size + config.vocab_size)
    if model.config.jepa_loss == "sigreg":  # Its random projections, forward, and backward to the states.
        parts["projections"] = 4 * int(made["target_mask"].sum()) * config.hidden_size * SIGREG_DIRECTIONS
    assert counter.get_total_flops() == sum(parts.values())


def test_training_flops_count_labels_not_their_padding(tiny_tokenizer):
    made = batch(tiny_tokenizer, num_target_blocks=0)
    config = pretraining_model(objective="mlm").config
    num_labels = int(made["labels"].ne(-100).sum())
    assert num_labels < len(made["label_indices"])
    assert training_flops(config, made)["head"] == 3 * head_flops(config.encoder_config, num_labels)


def test_paper_objective_is_about_three_times_masked_lm(tiny_tokenizer):
    """At the paper's size: the target pass 0.3, the context pass 0.45, the predictor 1.15 of the masked-LM update."""
    config = PredRecPreTrainingConfig(encoder_config=PredRecConfig())
    collator = DataCollatorForPreTraining(tiny_tokenizer)
    rows = [{"input_ids": [2] + [6] * 511, "example_ids": n, "epoch": 0} for n in range(64)]
    parts = training_flops(config, collator(rows))
    assert 2.3 < sum(parts.values()) / (parts["text"] + parts["head"]) < 2.9
