"""The encoder with a classifier: pooling, losses, and what transformers expects of such a model."""

import json
import os
import subprocess
import sys

import pytest
import torch
from transformers import AutoModel, AutoModelForSequenceClassification

from predrec.modeling import PredRecForMaskedLM, PredRecForSequenceClassification, PredRecModel

from .tiny import FIRST_ORDINARY_ID, VOCAB_SIZE, encoder_config

LENGTH = 12
REAL = (LENGTH, LENGTH - 5, 3)
"""Real tokens of each row."""

# Float32: the same sums in another order.
CLOSE = {"rtol": 1e-6, "atol": 1e-6}


def classifier_config(num_labels: int = 3, **fields):
    """Returns the configuration of a tiny classifier without dropout."""
    return encoder_config(num_labels=num_labels, **({"classifier_dropout": 0.0} | fields))


def classifier_with(num_labels: int = 3, seed: int = 0, **fields) -> PredRecForSequenceClassification:
    torch.manual_seed(seed)
    return PredRecForSequenceClassification(classifier_config(num_labels, **fields)).eval()


@pytest.fixture
def input_ids() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(FIRST_ORDINARY_ID, VOCAB_SIZE, (3, LENGTH), generator=generator)


@pytest.fixture
def attention_mask() -> torch.Tensor:
    return (torch.arange(LENGTH) < torch.tensor(REAL)[:, None]).long()


@pytest.mark.parametrize("num_labels", [1, 2, 3])
def test_logits_have_one_column_per_label(input_ids, num_labels):
    assert classifier_with(num_labels)(input_ids).logits.shape == (3, num_labels)


def test_logits_without_padding_are_of_the_mean_state(input_ids):
    model = classifier_with()
    states = model.model(input_ids).last_hidden_state
    expected = states.mean(1) @ model.classifier.weight.T + model.classifier.bias
    torch.testing.assert_close(model(input_ids).logits, expected, **CLOSE)


@pytest.mark.parametrize("positions", ["sinusoidal", "rotary"])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("row", range(3))
def test_logits_of_a_padded_row_equal_those_of_the_row_alone(input_ids, attention_mask, row, attention, positions):
    model = classifier_with(position_embedding_type=positions)
    model.set_attn_implementation(attention)
    in_batch = model(input_ids, attention_mask=attention_mask).logits[row]
    alone = model(input_ids[row : row + 1, : REAL[row]]).logits[0]
    torch.testing.assert_close(in_batch, alone, **CLOSE)


def test_logits_ignore_tokens_at_padding(input_ids, attention_mask):
    model = classifier_with()
    changed = input_ids.masked_fill(attention_mask == 0, 7)
    assert torch.equal(model(input_ids, attention_mask).logits, model(changed, attention_mask).logits)


def test_logits_with_a_mask_of_ones_equal_those_without_a_mask(input_ids):
    model = classifier_with()
    with_mask = model(input_ids, attention_mask=torch.ones_like(input_ids)).logits
    torch.testing.assert_close(with_mask, model(input_ids).logits, **CLOSE)


def test_logits_of_embeddings_equal_those_of_their_ids(input_ids, attention_mask):
    model = classifier_with()
    embeds = model.get_input_embeddings()(input_ids)
    found = model(inputs_embeds=embeds, attention_mask=attention_mask).logits
    assert torch.equal(found, model(input_ids, attention_mask).logits)


def test_logits_do_not_depend_on_token_type_ids(input_ids):
    model = classifier_with()
    assert torch.equal(model(input_ids, token_type_ids=torch.ones_like(input_ids))[0], model(input_ids)[0])


def test_logits_are_finite_in_bfloat16(input_ids, attention_mask):
    logits = classifier_with().bfloat16()(input_ids, attention_mask).logits
    assert logits.dtype == torch.bfloat16 and logits.isfinite().all()


def test_loss_is_absent_without_labels(input_ids):
    assert classifier_with()(input_ids).loss is None


def test_loss_of_classes_is_cross_entropy(input_ids, attention_mask):
    labels = torch.tensor([2, 0, 1])
    output = classifier_with()(input_ids, attention_mask, labels=labels)
    expected = -torch.stack([output.logits[i].log_softmax(-1)[label] for i, label in enumerate(labels)]).mean()
    torch.testing.assert_close(output.loss, expected, **CLOSE)


@pytest.mark.parametrize("labels", [[0.5, 4.0, 2.25], [[0.5], [4.0], [2.25]], [0, 4, 2]])
def test_loss_of_a_score_is_the_mean_squared_error(input_ids, labels):
    labels = torch.tensor(labels)
    output = classifier_with(1)(input_ids, labels=labels)
    expected = (output.logits[:, 0] - labels.flatten().float()).pow(2).mean()
    torch.testing.assert_close(output.loss, expected, **CLOSE)


@pytest.mark.parametrize("dtype", [torch.float32, torch.long])
def test_loss_of_several_labels_at_once_is_binary_cross_entropy(input_ids, dtype):
    labels = torch.tensor([[1, 0, 1], [0, 0, 0], [1, 1, 1]], dtype=dtype)
    output = classifier_with(problem_type="multi_label_classification")(input_ids, labels=labels)
    chances = output.logits.sigmoid()
    expected = -(labels * chances.log() + (1 - labels) * (1 - chances).log()).mean()
    torch.testing.assert_close(output.loss, expected, **CLOSE)


def test_loss_reaches_every_parameter(input_ids, attention_mask):
    model = classifier_with()
    model(input_ids, attention_mask, labels=torch.tensor([0, 1, 2])).loss.backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


def test_loss_does_not_reach_padding_tokens(input_ids, attention_mask):
    model = classifier_with()
    embeds = model.get_input_embeddings()(input_ids).detach().requires_grad_()
    model(inputs_embeds=embeds, attention_mask=attention_mask, labels=torch.tensor([0, 1, 2])).loss.backward()
    assert torch.equal(embeds.grad.abs().sum(-1) > 0, attention_mask.bool())


def test_one_batch_is_learned_by_heart(input_ids, attention_mask):
    model, labels = classifier_with().train(), torch.tensor([2, 0, 1])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(40):
        optimizer.zero_grad()
        model(input_ids, attention_mask, labels=labels).loss.backward()
        optimizer.step()
    assert model(input_ids, attention_mask, labels=labels).loss < 0.01


def test_classifier_dropout_acts_in_training(input_ids):
    model = classifier_with(classifier_dropout=0.5).train()
    assert not torch.equal(model(input_ids).logits, model(input_ids).logits)


def test_classifier_dropout_does_not_act_in_evaluation(input_ids):
    model = classifier_with(classifier_dropout=0.5)
    assert torch.equal(model(input_ids).logits, model(input_ids).logits)


def test_return_dict_false_gives_loss_and_logits(input_ids):
    model, labels = classifier_with(), torch.tensor([0, 1, 2])
    output = model(input_ids, labels=labels, return_dict=False)
    assert torch.equal(output[1], model(input_ids).logits) and len(output) == 2


def test_hidden_states_are_those_of_the_encoder(input_ids):
    model = classifier_with()
    states = model(input_ids, output_hidden_states=True).hidden_states
    expected = model.model(input_ids, output_hidden_states=True).hidden_states
    assert len(states) == 3 and all(torch.equal(a, b) for a, b in zip(states, expected, strict=True))


def test_auto_class_builds_it_from_a_configuration():
    model = AutoModelForSequenceClassification.from_config(classifier_config())
    assert type(model) is PredRecForSequenceClassification


def test_auto_class_loads_it(tmp_path):
    classifier_with().save_pretrained(tmp_path)
    assert type(AutoModelForSequenceClassification.from_pretrained(tmp_path)) is PredRecForSequenceClassification


@pytest.mark.parametrize("positions", ["sinusoidal", "rotary"])
def test_save_and_load_give_equal_logits(input_ids, attention_mask, positions, tmp_path):
    model = classifier_with(position_embedding_type=positions)
    model.save_pretrained(tmp_path)
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert torch.equal(loaded(input_ids, attention_mask).logits, model(input_ids, attention_mask).logits)


@pytest.mark.parametrize(("name", "value"), [("num_labels", 1), ("problem_type", "multi_label_classification")])
def test_save_and_load_keep_the_kind_of_labels(name, value, tmp_path):
    classifier_with(**{name: value}).save_pretrained(tmp_path)
    assert getattr(AutoModelForSequenceClassification.from_pretrained(tmp_path).config, name) == value


@pytest.fixture(params=[False, True], ids=["untied", "tied"])
def masked_lm_checkpoint(request, tmp_path):
    """A masked language model and the folder it was saved to."""
    model = PredRecForMaskedLM(encoder_config(tie_word_embeddings=request.param)).eval()
    model.save_pretrained(tmp_path)
    return model, tmp_path


def test_masked_lm_checkpoint_lacks_only_the_classifier(masked_lm_checkpoint):
    load = PredRecForSequenceClassification.from_pretrained
    _, info = load(masked_lm_checkpoint[1], num_labels=3, output_loading_info=True)
    assert set(info["missing_keys"]) == {"classifier.weight", "classifier.bias"}


@pytest.mark.parametrize("problem", ["unexpected_keys", "mismatched_keys"])
def test_masked_lm_checkpoint_has_no_weights_to_complain_about(masked_lm_checkpoint, problem):
    load = PredRecForSequenceClassification.from_pretrained
    _, info = load(masked_lm_checkpoint[1], num_labels=3, output_loading_info=True)
    assert not info[problem]


def test_masked_lm_checkpoint_gives_its_encoder(masked_lm_checkpoint, input_ids):
    model, path = masked_lm_checkpoint
    loaded = PredRecForSequenceClassification.from_pretrained(path, num_labels=3)
    states = [encoder(input_ids).last_hidden_state for encoder in (loaded.model, model.model)]
    assert torch.equal(*states)


def test_masked_lm_checkpoint_gives_a_fresh_classifier(masked_lm_checkpoint):
    loaded = PredRecForSequenceClassification.from_pretrained(masked_lm_checkpoint[1], num_labels=3)
    weight, bias = loaded.classifier.weight, loaded.classifier.bias
    assert weight.isfinite().all() and weight.abs().sum() > 0 and bias.eq(0).all()


@pytest.mark.parametrize("problem", ["missing_keys", "unexpected_keys", "mismatched_keys"])
def test_classifier_checkpoint_is_complete_for_the_bare_encoder(problem, tmp_path):
    classifier_with().save_pretrained(tmp_path)
    _, info = AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not info[problem]


def test_classifier_checkpoint_gives_the_states_of_its_encoder(input_ids, tmp_path):
    model = classifier_with()
    model.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path)
    assert type(loaded) is PredRecModel
    assert torch.equal(loaded(input_ids).last_hidden_state, model.model(input_ids).last_hidden_state)


# A process without the package

CLEAN_PROCESS = """
import json, sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "predrec":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocker())
import torch
from transformers import AutoModelForSequenceClassification

directory, ids = sys.argv[1], torch.tensor(json.loads(sys.argv[2]))
load = AutoModelForSequenceClassification.from_pretrained
model, info = load(directory, trust_remote_code=True, output_loading_info=True)
found = {
    "class": type(model).__name__,
    "problems": sorted(info["missing_keys"]) + sorted(info["unexpected_keys"]),
    "logits": model(ids).logits.tolist(),
    "imported": "predrec" in sys.modules,
}
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def clean_process(tmp_path_factory):
    """What a process that cannot import the package gets out of a saved classifier, and what this one does."""
    directory = tmp_path_factory.mktemp("classifier")
    model, ids = classifier_with(), [[5, 6, 7, 8]]
    model.save_pretrained(directory / "model")
    environment = os.environ | {"HF_MODULES_CACHE": str(directory / "modules"), "HF_HUB_OFFLINE": "1"}
    environment.pop("PYTHONPATH", None)
    process = subprocess.run(
        [sys.executable, "-I", "-c", CLEAN_PROCESS, str(directory / "model"), json.dumps(ids)],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert process.returncode == 0, process.stderr
    with torch.no_grad():
        return model(torch.tensor(ids)).logits, json.loads(process.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "expected"), [("class", "PredRecForSequenceClassification"), ("problems", []), ("imported", False)]
)
def test_saved_classifier_loads_completely_without_the_package(clean_process, name, expected):
    assert clean_process[1][name] == expected


@pytest.mark.slow
def test_saved_classifier_gives_equal_logits_without_the_package(clean_process):
    logits, found = clean_process
    # The numbers went through JSON as decimal text, which keeps float32; threads may sum in another order.
    torch.testing.assert_close(torch.tensor(found["logits"]), logits, rtol=1e-5, atol=1e-6)
