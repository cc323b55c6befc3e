"""The encoder against a plain re-implementation of the paper, and against what transformers expects of a model."""

import json
import math
import os
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModel, AutoModelForMaskedLM

from predrec.modeling import PredRecConfig, PredRecForMaskedLM, PredRecModel
from predrec.modeling.modeling_predrec import _Rotation, apply_rotary, rotary_angles, sinusoidal_positions
from predrec.trainers.export import export_encoder

from .tiny import FIRST_ORDINARY_ID, VOCAB_SIZE, encoder_config, pretraining_model

LENGTH = 12
# Float32: the same sums in another order.
CLOSE = {"rtol": 1e-5, "atol": 1e-6}


def model_with(seed: int = 0, **fields) -> PredRecModel:
    torch.manual_seed(seed)
    return PredRecModel(encoder_config(**fields)).eval()


@pytest.fixture
def input_ids() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(FIRST_ORDINARY_ID, VOCAB_SIZE, (2, LENGTH), generator=generator)


@pytest.fixture
def attention_mask() -> torch.Tensor:
    """The second row has four tokens of padding."""
    return (torch.arange(LENGTH) < torch.tensor([[LENGTH], [LENGTH - 4]])).long()


# The paper


def plain_position_table(length: int, width: int) -> torch.Tensor:
    table = torch.empty(length, width)
    for position in range(length):
        for i in range(width // 2):
            angle = position / 10000 ** (2 * i / width)
            table[position, i], table[position, width // 2 + i] = math.sin(angle), math.cos(angle)
    return table


def plain_layer_norm(states: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    centred = states - states.mean(-1, keepdim=True)
    return centred / (centred.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt() * weight + bias


def plain_encoder(weights: dict[str, torch.Tensor], ids: list[int], heads: int) -> torch.Tensor:
    """The paper's encoder for one unpadded text, one head and one token at a time."""
    table = weights["embeddings.word_embeddings.weight"]
    width = table.shape[1]
    head_width = width // heads
    x = table[torch.tensor(ids)] + plain_position_table(len(ids), width)
    for i in range(sum(name.endswith("norm1.weight") for name in weights)):
        layer = {name.removeprefix(f"layers.{i}."): value for name, value in weights.items()}
        y = plain_layer_norm(x, layer["norm1.weight"], layer["norm1.bias"])
        query, key, value = (y @ layer["attn.qkv.weight"].T + layer["attn.qkv.bias"]).split(width, dim=-1)
        attended = torch.zeros_like(x)
        for head in range(heads):
            part = slice(head * head_width, (head + 1) * head_width)
            for token in range(len(ids)):
                scores = torch.stack([query[token, part] @ other for other in key[:, part]]) / math.sqrt(head_width)
                shares = scores.exp() / scores.exp().sum()
                attended[token, part] = sum(share * other for share, other in zip(shares, value[:, part], strict=True))
        x = x + attended @ layer["attn.proj.weight"].T + layer["attn.proj.bias"]
        y = plain_layer_norm(x, layer["norm2.weight"], layer["norm2.bias"])
        y = y @ layer["mlp.fc1.weight"].T + layer["mlp.fc1.bias"]
        y = 0.5 * y * (1 + torch.erf(y / math.sqrt(2)))
        x = x + y @ layer["mlp.fc2.weight"].T + layer["mlp.fc2.bias"]
    return plain_layer_norm(x, weights["norm.weight"], weights["norm.bias"])


@pytest.fixture
def trained_like() -> PredRecModel:
    """A model whose biases and norms are not those of initialisation."""
    model = model_with()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return model


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_model_equals_plain_encoder_of_the_paper(trained_like, input_ids, attention):
    trained_like.set_attn_implementation(attention)
    with torch.no_grad():
        expected = torch.stack([plain_encoder(trained_like.state_dict(), ids, heads=2) for ids in input_ids.tolist()])
        actual = trained_like(input_ids).last_hidden_state
    # Float32 through two layers, summed in another order; states are of size 1.
    torch.testing.assert_close(actual, expected, rtol=0, atol=2e-6)


def test_config_defaults_give_the_parameter_count_of_the_paper():
    with torch.device("meta"):
        model = PredRecModel(PredRecConfig())
    positions = 512 * 512
    assert round((sum(p.numel() for p in model.parameters()) + positions) / 1e6, 1) == 34.8


def test_position_table_is_sines_then_cosines():
    # Angles are computed in float64 in both and stored as float32.
    torch.testing.assert_close(sinusoidal_positions(20, 6), plain_position_table(20, 6), rtol=0, atol=1e-6)


def test_lm_head_equals_plain_regressor(input_ids):
    model = PredRecForMaskedLM(encoder_config()).eval()
    weights = model.lm_head.state_dict()
    with torch.no_grad():
        states = model.model(input_ids).last_hidden_state
        y = F.gelu(states @ weights["dense.weight"].T + weights["dense.bias"])
        y = F.layer_norm(y, y.shape[-1:], weights["norm.weight"], weights["norm.bias"], eps=1e-5)
        expected = y @ weights["decoder.weight"].T + weights["decoder.bias"]
        torch.testing.assert_close(model(input_ids).logits, expected, **CLOSE)


def test_masked_lm_loss_is_cross_entropy_of_labelled_tokens(input_ids):
    model = PredRecForMaskedLM(encoder_config()).eval()
    labels = input_ids.masked_fill(torch.arange(LENGTH) % 3 > 0, -100)
    output = model(input_ids, labels=labels)
    chosen = labels != -100
    torch.testing.assert_close(output.loss, F.cross_entropy(output.logits[chosen], labels[chosen]), **CLOSE)


# Attention, padding, positions


@pytest.mark.parametrize("positions", ["sinusoidal", "rotary"])
def test_eager_equals_sdpa(input_ids, attention_mask, positions):
    model = model_with(position_embedding_type=positions)
    states = {}
    for attention in ("eager", "sdpa"):
        model.set_attn_implementation(attention)
        states[attention] = model(input_ids, attention_mask=attention_mask).last_hidden_state[attention_mask.bool()]
    torch.testing.assert_close(states["eager"], states["sdpa"], **CLOSE)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_padding_does_not_change_real_tokens(input_ids, attention_mask, attention):
    model = model_with()
    model.set_attn_implementation(attention)
    in_batch = model(input_ids, attention_mask=attention_mask).last_hidden_state[1, : LENGTH - 4]
    alone = model(input_ids[1:, : LENGTH - 4]).last_hidden_state[0]
    torch.testing.assert_close(in_batch, alone, **CLOSE)


def test_tokens_at_padding_change_nothing(input_ids, attention_mask):
    model, real = model_with(), attention_mask.bool()
    changed = input_ids.masked_fill(~real, 7)
    states = [model(ids, attention_mask=attention_mask).last_hidden_state[real] for ids in (input_ids, changed)]
    assert torch.equal(*states)


@pytest.mark.parametrize("positions", ["sinusoidal", "rotary"])
def test_gathered_tokens_with_position_ids_equal_the_masked_full_pass(input_ids, positions):
    model = model_with(position_embedding_type=positions)
    indices = torch.tensor([[0, 2, 3, 7, 11], [1, 2, 8, 9, 10]])
    visible = torch.zeros_like(input_ids).scatter(1, indices, 1)
    full = model(input_ids, attention_mask=visible).last_hidden_state
    gathered = model(input_ids.gather(1, indices), position_ids=indices).last_hidden_state
    torch.testing.assert_close(gathered, full.gather(1, indices[..., None].expand_as(gathered)), **CLOSE)


@pytest.mark.parametrize("positions", ["sinusoidal", "rotary"])
def test_positions_matter(input_ids, positions):
    model = model_with(position_embedding_type=positions)
    stretched = 2 * torch.arange(LENGTH)[None]
    difference = model(input_ids).last_hidden_state - model(input_ids, position_ids=stretched).last_hidden_state
    assert difference.abs().max() > 1e-2


def test_rotary_model_sees_relative_positions_only(input_ids):
    model = model_with(position_embedding_type="rotary")
    shifted = torch.arange(LENGTH)[None] + 40
    # Angles of larger positions lose a few bits in float32.
    torch.testing.assert_close(
        model(input_ids, position_ids=shifted).last_hidden_state,
        model(input_ids).last_hidden_state,
        rtol=1e-4,
        atol=1e-5,
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_rotation_of_gpus_is_the_same(dtype):
    """The form with less memory traffic, and its gradient, on this device: both are rounded once."""
    generator = torch.Generator().manual_seed(0)
    states, upstream = (
        torch.randn(3, 5, 3, 2, 8, generator=generator)[:, :, 1].transpose(1, 2).to(dtype) for _ in range(2)
    )
    angles, found = rotary_angles(torch.arange(15).view(3, 5), 8, base=100.0), []
    for turn, precision in ((apply_rotary, torch.float64), (_Rotation.apply, dtype)):
        given = states.to(precision).requires_grad_()
        output = turn(given, *angles)
        output.backward(upstream.to(precision))
        assert output.dtype == given.grad.dtype == precision
        found.append((output.double(), given.grad.double()))
    for exact, other in zip(*found, strict=True):
        torch.testing.assert_close(other, exact, rtol=2**-8 if dtype == torch.bfloat16 else 1e-6, atol=1e-6)


def test_rotary_product_is_that_of_complex_numbers():
    """Pair (i, i + 4) of a head of width 8 is one complex number, turned by position * base ** (-i / 4)."""
    query, key = torch.randn(2, 8, generator=torch.Generator().manual_seed(0)).unbind()
    places = torch.tensor([[3, 10]])
    turned = apply_rotary(torch.stack([query, key])[None, None], *rotary_angles(places, 8, base=100.0))[0, 0]
    expected = 0.0
    for i in range(4):
        product = complex(query[i], query[i + 4]) * complex(key[i], key[i + 4]).conjugate()
        angle = (3 - 10) * 100.0 ** (-i / 4)
        expected += (product * complex(math.cos(angle), math.sin(angle))).real
    torch.testing.assert_close((turned[0] @ turned[1]).item(), expected, rtol=1e-5, atol=1e-5)


def test_scale_embeddings_multiplies_tokens_before_positions(input_ids):
    plain, scaled = model_with(), model_with(scale_embeddings=True)
    with torch.no_grad():
        plain.embeddings.word_embeddings.weight.mul_(16**0.5)
    assert torch.equal(scaled(input_ids).last_hidden_state, plain(input_ids).last_hidden_state)


def test_inputs_embeds_equal_input_ids(input_ids):
    model = model_with(scale_embeddings=True)
    embeds = model.get_input_embeddings()(input_ids)
    assert torch.equal(model(inputs_embeds=embeds).last_hidden_state, model(input_ids).last_hidden_state)


@pytest.mark.parametrize("model_class", [PredRecModel, PredRecForMaskedLM])
def test_token_type_ids_are_accepted_and_without_effect(input_ids, model_class):
    model = model_class(encoder_config()).eval()
    assert torch.equal(model(input_ids, token_type_ids=torch.ones_like(input_ids))[0], model(input_ids)[0])


def test_model_refuses_too_long_sequences():
    with pytest.raises(ValueError, match=r"65 tokens but `max_position_embeddings` is 64"):
        model_with()(torch.ones(1, 65, dtype=torch.long))


@pytest.mark.parametrize("both", [True, False])
def test_model_refuses_both_or_neither_kind_of_input(input_ids, both):
    model = model_with()
    given = {"input_ids": input_ids, "inputs_embeds": model.get_input_embeddings()(input_ids)} if both else {}
    with pytest.raises(ValueError, match="exactly one"):
        model(**given)


# What transformers expects of a model


@pytest.mark.parametrize("model_class", [PredRecModel, PredRecForMaskedLM])
def test_output_hidden_states_are_the_stream_between_layers(input_ids, model_class):
    model = model_class(encoder_config()).eval()
    states = model(input_ids, output_hidden_states=True).hidden_states
    encoder = model.base_model
    expected = [encoder.embeddings(input_ids, None, torch.arange(LENGTH)[None])]
    for layer in encoder.layers:
        expected.append(layer(expected[-1]))
    expected[-1] = encoder.norm(expected[-1])
    assert len(states) == 3 and all(torch.equal(a, b) for a, b in zip(states, expected, strict=True))


def test_output_attentions_are_distributions_over_real_tokens(input_ids, attention_mask):
    model = model_with()
    model.set_attn_implementation("eager")
    attentions = model(input_ids, attention_mask=attention_mask, output_attentions=True).attentions
    shares = torch.stack(attentions)
    expected = torch.zeros_like(shares).masked_fill(attention_mask[:, None, None, :].bool(), 1)
    assert shares.shape == (2, 2, 2, LENGTH, LENGTH)
    torch.testing.assert_close(shares.sum(-1), torch.ones(2, 2, 2, LENGTH), **CLOSE)
    assert torch.equal((shares > 0).float(), expected)


def test_return_dict_false_gives_a_tuple(input_ids):
    model = model_with()
    output = model(input_ids, return_dict=False)
    assert isinstance(output, tuple) and torch.equal(output[0], model(input_ids).last_hidden_state)


@pytest.mark.parametrize("positions", ["sinusoidal", "rotary"])
def test_activation_checkpointing_gives_the_same_gradients(input_ids, attention_mask, positions):
    gradients = []
    for checkpointing in (False, True):
        model = model_with(position_embedding_type=positions).train()
        if checkpointing:
            enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
            enable()
        model(input_ids, attention_mask=attention_mask).last_hidden_state.pow(3).sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    assert torch.equal(*gradients)


def test_activation_checkpointing_recomputes_every_layer(input_ids):
    model = model_with().train()
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable()
    calls = []
    for layer in model.layers:
        # Not the last part of the layer: recomputation ends with the last tensor that the gradient needs.
        layer.attn.register_forward_hook(lambda *_: calls.append(1))
    model(input_ids).last_hidden_state.sum().backward()
    assert len(calls) == 2 * len(model.layers)


def test_dropout_acts_in_training_only(input_ids):
    config = encoder_config()
    config.hidden_dropout_prob = 0.5
    model = PredRecModel(config)
    evaluated = [model.eval()(input_ids).last_hidden_state for _ in range(2)]
    trained = [model.train()(input_ids).last_hidden_state for _ in range(2)]
    assert torch.equal(*evaluated) and not torch.equal(*trained)


def test_initialisation_has_the_configured_standard_deviation():
    model = PredRecForMaskedLM(encoder_config(hidden_size=64, intermediate_size=128, initializer_range=0.02))
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2]
    values = torch.cat([p[p.abs().sum(1) > 0].flatten() for p in matrices])
    # A normal law cut at two standard deviations has 0.8796 of its standard deviation; 1 % is many standard errors.
    torch.testing.assert_close(values.std().item(), 0.8796 * 0.02, rtol=0.01, atol=0)
    assert values.abs().max() <= 2 * 0.02


def test_initialisation_has_zero_biases_and_unit_norms():
    model = PredRecForMaskedLM(encoder_config())
    vectors = {name: p for name, p in model.named_parameters() if p.ndim == 1}
    assert all(p.eq(0).all() for name, p in vectors.items() if name.endswith("bias"))
    assert all(p.eq(1).all() for name, p in vectors.items() if name.endswith("weight"))


def test_initialisation_leaves_the_padding_embedding_zero():
    weight = model_with().embeddings.word_embeddings.weight
    assert weight[0].eq(0).all() and weight[1:].ne(0).any(1).all()


@pytest.mark.parametrize("positions", ["sinusoidal", "rotary"])
@pytest.mark.parametrize("model_class", [PredRecModel, PredRecForMaskedLM])
def test_save_and_load_give_equal_outputs(input_ids, attention_mask, model_class, positions, tmp_path):
    model = model_class(encoder_config(position_embedding_type=positions)).eval()
    model.save_pretrained(tmp_path)
    loaded = model_class.from_pretrained(tmp_path)
    assert torch.equal(loaded(input_ids, attention_mask)[0], model(input_ids, attention_mask)[0])


@pytest.mark.parametrize("tied", [False, True])
def test_auto_classes_load_masked_lm_save_completely(tied, tmp_path):
    PredRecForMaskedLM(encoder_config(tie_word_embeddings=tied)).save_pretrained(tmp_path)
    for auto_class in (AutoModel, AutoModelForMaskedLM):
        _, info = auto_class.from_pretrained(tmp_path, output_loading_info=True)
        assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]


def test_auto_model_gives_the_states_of_the_masked_lm(input_ids, tmp_path):
    model = PredRecForMaskedLM(encoder_config()).eval()
    model.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path)
    assert type(loaded) is PredRecModel
    assert torch.equal(loaded(input_ids).last_hidden_state, model.model(input_ids).last_hidden_state)


def test_tied_decoder_is_the_embedding_matrix(tmp_path):
    PredRecForMaskedLM(encoder_config(tie_word_embeddings=True)).save_pretrained(tmp_path)
    loaded = PredRecForMaskedLM.from_pretrained(tmp_path)
    assert loaded.lm_head.decoder.weight is loaded.model.embeddings.word_embeddings.weight


def test_resize_token_embeddings_reaches_embeddings_and_head(input_ids):
    model = PredRecForMaskedLM(encoder_config()).eval()
    before = model(input_ids).logits
    model.resize_token_embeddings(VOCAB_SIZE + 3)
    after = model(input_ids).logits
    assert after.shape[-1] == VOCAB_SIZE + 3
    # A wider matrix product may sum in another order.
    torch.testing.assert_close(after[..., :VOCAB_SIZE], before, **CLOSE)


def test_bfloat16_model_runs(input_ids, attention_mask):
    model = model_with(position_embedding_type="rotary").bfloat16()
    states = model(input_ids, attention_mask=attention_mask).last_hidden_state
    assert states.dtype == torch.bfloat16 and states[attention_mask.bool()].isfinite().all()


# A process without the package

CLEAN_PROCESS = """
import json, sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "predrec":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocker())
import torch
from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer, pipeline

directory, ids = sys.argv[1], torch.tensor(json.loads(sys.argv[2]))
found = {}
for auto_class in (AutoModel, AutoModelForMaskedLM):
    model, info = auto_class.from_pretrained(directory, trust_remote_code=True, output_loading_info=True)
    found[auto_class.__name__] = {
        "class": type(model).__name__,
        "problems": sorted(info["missing_keys"]) + sorted(info["unexpected_keys"]),
        "output": model(ids)[0].tolist(),
    }
fill = pipeline("fill-mask", model=directory, trust_remote_code=True, device="cpu")
found["fill-mask"] = [answer["score"] for answer in fill("the cat [MASK]", top_k=3)]
found["imported"] = "predrec" in sys.modules
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def clean_process(tiny_tokenizer, tmp_path_factory):
    """What a process that cannot import the package gets out of an export, and what this one does."""
    directory = tmp_path_factory.mktemp("export")
    model = pretraining_model(encoder={"position_embedding_type": "rotary"})
    export_encoder(model, tiny_tokenizer, directory / "model")
    ids = tiny_tokenizer("the cat [MASK]")["input_ids"]
    environment = os.environ | {"HF_MODULES_CACHE": str(directory / "modules"), "HF_HUB_OFFLINE": "1"}
    environment.pop("PYTHONPATH", None)
    process = subprocess.run(
        [sys.executable, "-I", "-c", CLEAN_PROCESS, str(directory / "model"), json.dumps([ids])],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert process.returncode == 0, process.stderr
    return model.masked_lm, ids, json.loads(process.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("auto_class", "model_class"), [("AutoModel", "PredRecModel"), ("AutoModelForMaskedLM", "PredRecForMaskedLM")]
)
def test_export_loads_completely_without_the_package(clean_process, auto_class, model_class):
    _, _, found = clean_process
    assert (found[auto_class]["class"], found[auto_class]["problems"]) == (model_class, [])
    assert not found["imported"]


@pytest.mark.slow
def test_export_gives_equal_outputs_without_the_package(clean_process):
    model, ids, found = clean_process
    with torch.no_grad():
        output = model(torch.tensor([ids]), output_hidden_states=True)
    # The numbers went through JSON as decimal text, which keeps float32; threads may sum in another order.
    torch.testing.assert_close(torch.tensor(found["AutoModelForMaskedLM"]["output"]), output.logits, **CLOSE)
    torch.testing.assert_close(torch.tensor(found["AutoModel"]["output"]), output.hidden_states[-1], **CLOSE)


@pytest.mark.slow
def test_fill_mask_pipeline_works_without_the_package(clean_process):
    model, ids, found = clean_process
    with torch.no_grad():
        scores = model(torch.tensor([ids])).logits[0, ids.index(4)].softmax(-1).topk(3).values
    torch.testing.assert_close(torch.tensor(found["fill-mask"]), scores, **CLOSE)
