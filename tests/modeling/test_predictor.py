"""The predictor: what may and what must not influence a prediction."""

import pytest
import torch
import torch.nn.functional as F

from predrec.modeling import PredRecPredictor
from predrec.modeling.modeling_predrec import rotary_angles
from predrec.modeling.predictor import CrossLayer

from .tiny import HIDDEN_SIZE, pretraining_config

# Float32, the same sums over rows of another length.
CLOSE = {"rtol": 1e-5, "atol": 1e-6}


def predictor_with(**fields) -> PredRecPredictor:
    torch.manual_seed(0)
    config = pretraining_config(**({"predictor_num_hidden_layers": 2} | fields))
    return PredRecPredictor(config.predictor_config(), HIDDEN_SIZE).eval()


@pytest.fixture(params=["sinusoidal", "rotary"])
def predictor(request) -> PredRecPredictor:
    return predictor_with(predictor_position_embedding_type=request.param)


@pytest.fixture
def inputs(batch) -> dict[str, torch.Tensor]:
    """Arguments of the predictor, with random states for the context."""
    generator = torch.Generator().manual_seed(0)
    names = ("context_indices", "context_mask", "target_indices", "target_mask")
    states = torch.randn(*batch["context_indices"].shape, HIDDEN_SIZE, generator=generator)
    return {"context_states": states} | {name: batch[name] for name in names}


def changed_at(values: torch.Tensor, where: torch.Tensor, value) -> torch.Tensor:
    return values.masked_fill(where.view(*where.shape, *[1] * (values.ndim - where.ndim)), value)


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("width", [8, 24])
def test_predictor_output_has_one_latent_per_target(inputs, layers, width):
    predictor = predictor_with(predictor_num_hidden_layers=layers, predictor_hidden_size=width)
    assert predictor(**inputs).shape == (*inputs["target_indices"].shape, HIDDEN_SIZE)


def test_predictor_without_layers_is_refused():
    """Nothing of the context would reach a prediction, so that the encoder would not be trained."""
    with pytest.raises(ValueError, match="`predictor_num_hidden_layers` is 0; it must be at least 1"):
        predictor_with(predictor_num_hidden_layers=0)


def test_predictor_equals_one_sequence_per_block(predictor, inputs):
    """Every block alone, without any padding, is predicted as in the batch."""
    predicted = predictor(**inputs)
    for row, context_mask in enumerate(inputs["context_mask"]):
        for block, target_mask in enumerate(inputs["target_mask"][row]):
            alone = predictor(
                inputs["context_states"][row, context_mask][None],
                inputs["context_indices"][row, context_mask][None],
                torch.ones(1, int(context_mask.sum()), dtype=torch.bool),
                inputs["target_indices"][row, block, target_mask][None, None],
                torch.ones(1, 1, int(target_mask.sum()), dtype=torch.bool),
            )
            torch.testing.assert_close(predicted[row, block, target_mask], alone[0, 0], **CLOSE)


def test_predictor_blocks_do_not_see_each_other(predictor, inputs):
    moved = inputs["target_indices"].clone()
    moved[:, 1] += 2
    assert torch.equal(predictor(**(inputs | {"target_indices": moved}))[:, 0], predictor(**inputs)[:, 0])


@pytest.mark.parametrize(
    ("name", "mask", "value"),
    [
        ("context_states", "context_mask", 9.0),
        ("context_indices", "context_mask", 5),
        ("target_indices", "target_mask", 5),
    ],
)
def test_predictor_ignores_what_stands_at_padding(predictor, inputs, name, mask, value):
    changed = inputs | {name: changed_at(inputs[name], ~inputs[mask], value)}
    chosen = inputs["target_mask"]
    assert torch.equal(predictor(**changed)[chosen], predictor(**inputs)[chosen])


def test_predictor_ignores_the_length_of_padding(predictor, inputs):
    longer = {
        "context_states": F.pad(inputs["context_states"], (0, 0, 0, 3), value=2.0),
        "context_indices": F.pad(inputs["context_indices"], (0, 3), value=6),
        "context_mask": F.pad(inputs["context_mask"], (0, 3)),
        "target_indices": F.pad(inputs["target_indices"], (0, 2), value=6),
        "target_mask": F.pad(inputs["target_mask"], (0, 2)),
    }
    chosen = inputs["target_mask"]
    actual = predictor(**longer)[:, :, : chosen.shape[-1]][chosen]
    torch.testing.assert_close(actual, predictor(**inputs)[chosen], **CLOSE)


def test_predictor_reads_the_context_states(predictor, inputs):
    predicted = predictor(**inputs)
    difference = predictor(**(inputs | {"context_states": inputs["context_states"].flip(1)})) - predicted
    assert difference[inputs["target_mask"]].abs().amax(-1).min() > 1e-3


@pytest.mark.parametrize("name", ["context_indices", "target_indices"])
def test_predictor_reads_positions(predictor, inputs, name):
    moved = inputs[name].clone()
    # Not all by the same step, which relative positions would not feel.
    moved[..., ::2] += 20
    difference = predictor(**(inputs | {name: moved})) - predictor(**inputs)
    assert difference[inputs["target_mask"]].abs().max() > 1e-3


def test_predictor_ignores_the_order_of_the_context(predictor, inputs):
    order = torch.randperm(inputs["context_mask"].shape[1], generator=torch.Generator().manual_seed(0))
    names = ("context_states", "context_indices", "context_mask")
    shuffled = inputs | {name: inputs[name][:, order] for name in names}
    torch.testing.assert_close(predictor(**shuffled), predictor(**inputs), **CLOSE)


def test_predictor_tells_target_positions_apart(predictor, inputs):
    first_row = predictor(**inputs)[0, 0]
    distances = torch.cdist(first_row, first_row) + torch.eye(len(first_row))
    assert distances[:4, :4].min() > 1e-3


def test_predictor_without_targets_is_finite(predictor, inputs):
    empty = inputs | {"target_mask": torch.zeros_like(inputs["target_mask"])}
    assert predictor(**empty).isfinite().all()


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_predictor_gradient_reaches_context_and_every_parameter(inputs, attention):
    predictor = predictor_with(attn_implementation=attention)
    inputs["context_states"].requires_grad_()
    predictor(**inputs)[inputs["target_mask"]].pow(3).sum().backward()
    assert all(parameter.grad is not None for parameter in predictor.parameters())
    assert inputs["context_states"].grad[inputs["context_mask"]].abs().amax(-1).min() > 0


def test_predictor_mask_token_is_initialised():
    assert predictor_with().mask_token.abs().max() > 0


# Cross-attention


TARGET_POSITIONS, CONTEXT_POSITIONS = torch.tensor([3, 4, 9, 30]), torch.tensor([0, 1, 2, 5, 6, 7, 20])


def naive_cross_layer(layer, targets, context, rotary_base=None):
    """A layer of cross-attention, target by target and head by head; rotations are products of complex numbers."""
    attention, size = layer.attn, layer.attn.head_dim

    def turned(vector, position):
        if rotary_base is None:
            return vector
        speeds = rotary_base ** -(torch.arange(0, size, 2).double() / size)
        pairs = torch.complex(*vector.double().chunk(2)) * torch.exp(1j * position * speeds)
        return torch.cat([pairs.real, pairs.imag]).float()

    keys, values = attention.key_value(context).chunk(2, dim=-1)
    found = []
    for target, position in zip(targets, TARGET_POSITIONS, strict=True):
        query, heads = attention.query(layer.norm1(target)), []
        for head in range(len(query) // size):
            own = slice(head * size, (head + 1) * size)
            turned_keys = [turned(key[own], there) for key, there in zip(keys, CONTEXT_POSITIONS, strict=True)]
            scores = torch.stack([turned(query[own], position) @ key for key in turned_keys]) / size**0.5
            heads.append(scores.softmax(0) @ values[:, own])
        state = target + attention.proj(torch.cat(heads))
        found.append(state + layer.mlp(layer.norm2(state)))
    return torch.stack(found)


@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
@pytest.mark.parametrize("positions", ["sinusoidal", "rotary"])
def test_cross_layer_equals_naive_twin(positions, kernel):
    torch.manual_seed(0)
    config = pretraining_config(predictor_position_embedding_type=positions, attn_implementation=kernel)
    config = config.predictor_config()
    assert config._attn_implementation == kernel
    layer = CrossLayer(config).eval()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    targets, context = torch.randn(4, config.hidden_size), torch.randn(7, config.hidden_size)
    angles, base = None, config.rotary_base if positions == "rotary" else None
    if base is not None:
        places = (TARGET_POSITIONS[None], CONTEXT_POSITIONS[None])
        angles = tuple(rotary_angles(part, layer.attn.head_dim, base) for part in places)
    found = layer(targets[None], context[None], rotary=angles, attention_mask=None)[0]
    torch.testing.assert_close(found, naive_cross_layer(layer, targets, context, base), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("attention", ["flex_attention", "flash_attention_2"])
def test_cross_predictor_masks_the_context_whatever_the_encoder_attends_with(inputs, attention):
    """Kernels that take a mask of their own, as long as the queries, must not be given that of the context."""
    torch.manual_seed(0)
    predictor = PredRecPredictor(pretraining_config().predictor_config(), HIDDEN_SIZE, attention="cross").eval()
    expected = predictor(**inputs)
    predictor.config._attn_implementation_internal = attention
    torch.testing.assert_close(predictor(**inputs), expected, **CLOSE)
