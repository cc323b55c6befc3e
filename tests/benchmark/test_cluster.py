"""The numbers on paper against models, optimizers, batches and backward passes that exist."""

import numpy as np
import pytest
import torch

from predrec.benchmark.cluster import (
    CONTEXT_SHARE,
    GPUS,
    LABEL_SHARE,
    STRATEGIES,
    TARGET_SHARE,
    Sizes,
    activations,
    fetched,
    one_gpu,
    row_flops,
    rows_that_hide,
    states,
    table,
    traffic,
    usual_config,
)
from predrec.data_collators import DataCollatorForPreTraining
from predrec.modeling import PredRecConfig, PredRecForPreTraining, PredRecPreTrainingConfig
from predrec.modeling.flops import training_flops
from tests import training
from tests.processes import ROOT

from ..modeling.tiny import block_batch, pretraining_config

LENGTH, ROWS = 256, 8
CONFIGS = [
    {},
    {"objective": "mlm"},
    {"objective": "jepa"},
    {"jepa_loss": "sigreg"},
    {"loss_weighting": "uncertainty", "predictor_hidden_size": 8},
]


def trained(part):
    return sum(parameter.numel() for parameter in part.parameters() if parameter.requires_grad) if part else 0


@pytest.mark.parametrize("fields", CONFIGS, ids=str)
@pytest.mark.parametrize("model_type", ["predrec", "bert"])
def test_sizes_are_those_of_a_real_model(model_type, fields):
    config = pretraining_config(model_type, **fields)
    model, sizes = PredRecForPreTraining(config), Sizes.of(config)
    layers = model.encoder.layers if model_type == "predrec" else model.encoder.encoder.layer
    assert (sizes.trained, sizes.encoder) == (trained(model), trained(model.encoder))
    assert sizes.encoder + sizes.head == trained(model.masked_lm)
    assert sizes.target == (0 if model.target_encoder is None else model.target_encoder.num_parameters())
    assert sizes.encoder_layers == trained(layers)
    assert sizes.predictor_layers == (trained(model.predictor.layers) if model.predictor else 0)


def test_states_of_copies_are_what_a_step_leaves_behind():
    config = pretraining_config()
    model, parts = PredRecForPreTraining(config).train(), states(Sizes.of(config), "DDP", 8)
    optimizer = torch.optim.AdamW([parameter for parameter in model.parameters() if parameter.requires_grad])
    model(**block_batch()).loss.backward()
    optimizer.step()
    gradients = sum(parameter.grad.nbytes for parameter in model.parameters() if parameter.grad is not None)
    moments = sum(v.nbytes for entry in optimizer.state.values() for name, v in entry.items() if name != "step")
    assert parts["weights"] == sum(parameter.nbytes for parameter in model.parameters())
    assert (parts["gradients"], parts["optimizer"]) == (gradients, moments)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_more_shards_hold_less(strategy):
    sizes = Sizes.of(usual_config(768, 12))
    held = [sum(states(sizes, strategy, processes).values()) for processes in GPUS]
    assert held == sorted(held, reverse=True) and (held[0] == held[-1]) == (strategy == "DDP")


def test_each_strategy_holds_less_than_the_one_before():
    sizes = Sizes.of(usual_config(1024, 24))
    held = [sum(states(sizes, strategy, 8).values()) for strategy in STRATEGIES]
    assert held == sorted(held, reverse=True) and len(set(held)) == len(STRATEGIES)


def test_traffic_follows_its_formula():
    """By hand, for 8 processes and an update from 4 batches: copies send once, shards are fetched for each."""
    sizes = Sizes(encoder=100, head=20, predictor=30, target=100, encoder_layers=60, predictor_layers=30)
    assert fetched(sizes) == 150 + 100 + 3 * 60 + 30
    expected = {"DDP": 4 * 300 * 7 / 8, "ZeRO-1": 4 * 300 * 7 / 8, "ZeRO-2": 4 * 5 * 150 * 7 / 8}
    expected["FSDP2"] = 4 * (4 * 460 + 150) * 7 / 8
    assert {strategy: traffic(sizes, strategy, 8, parts=4) for strategy in STRATEGIES} == expected


def config_of(layers=4, **fields):
    encoder = PredRecConfig(
        **{"vocab_size": 2000, "hidden_size": 128, "num_attention_heads": 2, "intermediate_size": 512},
        num_hidden_layers=layers,
        max_position_embeddings=LENGTH,
        position_embedding_type="rotary",
    )
    return PredRecPreTrainingConfig(encoder_config=encoder, predictor_num_hidden_layers=4, **fields)


@pytest.fixture(scope="module")
def batch():
    """Full rows, and one that is short, so that texts are laid end to end."""
    generator, tokenizer = np.random.default_rng(0), training.tokenizer()
    features = []
    for index in range(ROWS + 1):
        ids = generator.integers(10, 60, 14 if index == ROWS else LENGTH - 2)
        ids = np.concatenate([[tokenizer.cls_token_id], ids, [tokenizer.sep_token_id]])
        features.append({"input_ids": ids, "example_ids": index, "epoch": 0})
    return DataCollatorForPreTraining(tokenizer, unpad=True, max_seq_length=LENGTH)(features)


def kept_for_backward(config, batch):
    """Bytes of all that autograd keeps under bfloat16 autocast, but for weights, their copies and probabilities.

    Of the latter, flash attention keeps none.
    """
    model = PredRecForPreTraining(config).train()
    known = [*model.parameters(), *model.buffers(), *(value for value in batch.values() if torch.is_tensor(value))]
    shapes = {tensor.shape for tensor in model.parameters()} | {tensor.T.shape for tensor in model.parameters()}
    known, kept = {tensor.untyped_storage().data_ptr() for tensor in known}, {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        is_probabilities = tensor.ndim == 4 and tensor.shape[-2] == tensor.shape[-1]
        if storage.data_ptr() not in known and tensor.shape not in shapes and not is_probabilities:
            kept[storage.data_ptr()] = storage  # Held, so that no other takes its place.
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), torch.autocast("cpu", torch.bfloat16):
        output = model(**batch)
    assert output.loss.isfinite()
    return sum(storage.nbytes() for storage in kept.values())


@pytest.mark.parametrize("objective", ["mlm", "hybrid"])
def test_activations_are_what_autograd_keeps(batch, objective):
    if objective == "mlm":
        batch = {name: value for name, value in batch.items() if "context" not in name and "target" not in name}
    config = config_of(objective=objective)
    # The gradient of the logits is made later; what embeddings and heads keep is left out of the formula.
    logits = LABEL_SHARE * LENGTH * 2 * config.encoder_config.vocab_size
    expected = ROWS * (activations(config, LENGTH) - logits)
    assert kept_for_backward(config, batch) == pytest.approx(expected, rel=0.15)


def test_shares_are_those_of_the_collator(batch):
    features = [{"input_ids": np.arange(512) % 50 + 10, "example_ids": index, "epoch": 0} for index in range(300)]
    many = DataCollatorForPreTraining(training.tokenizer(), max_seq_length=512)(features)
    shares = [many["context_mask"].sum(), many["target_mask"].sum(), many["labels"].ne(-100).sum()]
    found = [int(count) / (300 * 512) for count in shares]
    assert found == pytest.approx([CONTEXT_SHARE, TARGET_SHARE, LABEL_SHARE], abs=0.02)


def test_operations_are_those_of_a_batch(batch):
    config = config_of()
    assert ROWS * row_flops(config, LENGTH) == pytest.approx(sum(training_flops(config, batch).values()), rel=0.1)


def test_network_between_machines_asks_for_more_rows():
    config = usual_config(768, 12)
    inside, between = (rows_that_hide(config, 512, "DDP", processes) for processes in (8, 64))
    # 450 against 50 GB/s, and 7/8 against 63/64 of the gradients.
    assert between / inside == pytest.approx(9 * (63 / 64) / (7 / 8))


def test_documentation_has_the_table():
    page = (ROOT / "docs/guides/memory.md").read_text(encoding="utf-8")
    assert table() in page and one_gpu() in page


def test_one_gpu_holds_no_buffers_for_sending():
    sizes = Sizes.of(config_of())
    alone, several = (states(sizes, "DDP", processes) for processes in (1, 2))
    assert sum(several.values()) - sum(alone.values()) == 4 * sizes.trained
