"""The heads that are fine-tuned: what they say, their losses, and what transformers expects of such models."""

import json
import os
import subprocess
import sys

import pytest
import torch
from transformers import AutoModel, Trainer, TrainingArguments, default_data_collator

from predrec.modeling import (
    PredRecForMaskedLM,
    PredRecForMultipleChoice,
    PredRecForTokenClassification,
    PredRecModel,
    PredRecPreTrainingConfig,
)
from predrec.trainers.export import export_encoder

from .heads import CLOSE, HEADS, LENGTH, REAL, Head, padding_mask, random_ids
from .tiny import encoder_config, pretraining_model


@pytest.fixture(params=HEADS)
def head(request) -> Head:
    return HEADS[request.param]


@pytest.fixture
def input_ids() -> torch.Tensor:
    return random_ids(3, LENGTH)


@pytest.fixture
def attention_mask() -> torch.Tensor:
    return padding_mask()


@pytest.fixture
def inputs(input_ids, attention_mask) -> dict[str, torch.Tensor]:
    return {"input_ids": input_ids, "attention_mask": attention_mask}


# What the heads say


@pytest.mark.parametrize("num_labels", [1, 2, 5])
def test_token_logits_have_one_column_per_label_for_every_token(input_ids, num_labels):
    assert HEADS["token"].build(num_labels=num_labels)(input_ids).logits.shape == (3, LENGTH, num_labels)


def test_answer_logits_have_one_number_per_token(input_ids):
    output = HEADS["question"].build()(input_ids)
    assert output.start_logits.shape == output.end_logits.shape == (3, LENGTH)


@pytest.mark.parametrize("num_choices", [1, 2, 5])
def test_choice_logits_have_one_column_per_choice(num_choices):
    assert HEADS["choice"].build()(random_ids(4, num_choices, LENGTH)).logits.shape == (4, num_choices)


def test_scores_are_the_layer_of_the_states(head, input_ids):
    model = head.build()
    states = model.model(input_ids).last_hidden_state
    layer = getattr(model, head.layer)
    states = states if head.scores_tokens else states.mean(1)
    torch.testing.assert_close(head.scores(model, input_ids), states @ layer.weight.T + layer.bias, **CLOSE)


def test_choices_of_one_question_do_not_touch_those_of_another():
    model, input_ids = HEADS["choice"].build(), random_ids(4, 3, LENGTH)
    alone = torch.cat([model(question[None]).logits for question in input_ids])
    torch.testing.assert_close(model(input_ids).logits, alone, **CLOSE)


@pytest.mark.parametrize("positions", ["sinusoidal", "rotary"])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("row", range(3))
def test_scores_of_a_padded_row_equal_those_of_the_row_alone(head, inputs, row, attention, positions):
    model = head.build(position_embedding_type=positions)
    model.set_attn_implementation(attention)
    in_batch = head.scores(model, **inputs)[row]
    alone = head.scores(model, inputs["input_ids"][row : row + 1, : REAL[row]])[0]
    torch.testing.assert_close(in_batch[: REAL[row]] if head.scores_tokens else in_batch, alone, **CLOSE)


def test_scores_ignore_tokens_at_padding(head, input_ids, attention_mask):
    model, real = head.build(), attention_mask.bool() if head.scores_tokens else slice(None)
    changed = input_ids.masked_fill(attention_mask == 0, 7)
    scores = [head.scores(model, ids, attention_mask)[real] for ids in (input_ids, changed)]
    assert torch.equal(*scores)


def test_scores_with_a_mask_of_ones_equal_those_without_a_mask(head, input_ids):
    model = head.build()
    with_mask = head.scores(model, input_ids, torch.ones_like(input_ids))
    torch.testing.assert_close(with_mask, head.scores(model, input_ids), **CLOSE)


def test_scores_of_embeddings_equal_those_of_their_ids(head, input_ids, attention_mask):
    model = head.build()
    embeds = model.get_input_embeddings()(input_ids)
    found = head.scores(model, None, attention_mask, inputs_embeds=embeds)
    assert torch.equal(found, head.scores(model, input_ids, attention_mask))


def test_scores_use_position_ids(head, input_ids):
    model, places = head.build(), torch.arange(LENGTH).expand(3, -1)
    scores = [head.scores(model, input_ids, position_ids=ids) for ids in (None, places, 2 * places)]
    assert torch.equal(scores[0], scores[1])
    assert (scores[0] - scores[2]).abs().max() > 1e-2


def test_scores_do_not_depend_on_token_type_ids(head, input_ids):
    model = head.build()
    found = head.scores(model, input_ids, token_type_ids=torch.ones_like(input_ids))
    assert torch.equal(found, head.scores(model, input_ids))


@pytest.mark.parametrize("both", [True, False])
def test_heads_refuse_both_or_neither_kind_of_input(head, input_ids, both):
    model = head.build()
    given = {"input_ids": input_ids, "inputs_embeds": model.get_input_embeddings()(input_ids)} if both else {}
    with pytest.raises(ValueError, match="exactly one"):
        head.call(model, given)


def test_return_dict_false_gives_loss_and_scores(head, inputs):
    model = head.build()
    expected = head.call(model, inputs, labels=True)
    found = head.call(model, inputs, labels=True, return_dict=False)
    assert isinstance(found, tuple) and len(found) == len(expected)
    assert all(torch.equal(a, b) for a, b in zip(found, expected.values(), strict=True))


def test_hidden_states_are_those_of_the_encoder(head, inputs):
    model = head.build()
    states = head.call(model, inputs, output_hidden_states=True).hidden_states
    expected = model.model(**inputs, output_hidden_states=True).hidden_states
    assert len(states) == 3 and all(torch.equal(a, b) for a, b in zip(states, expected, strict=True))


def test_attentions_are_those_of_the_encoder(head, inputs):
    model = head.build()
    model.set_attn_implementation("eager")
    shares = head.call(model, inputs, output_attentions=True).attentions
    expected = model.model(**inputs, output_attentions=True).attentions
    assert len(shares) == 2 and all(torch.equal(a, b) for a, b in zip(shares, expected, strict=True))


# Dropout


@pytest.mark.parametrize("name", ["sequence", "token", "choice"])
def test_classifier_dropout_acts_in_training_only(name, input_ids):
    head = HEADS[name]
    model = head.build(classifier_dropout=0.5)
    evaluated = [head.scores(model.eval(), input_ids) for _ in range(2)]
    trained = [head.scores(model.train(), input_ids) for _ in range(2)]
    assert torch.equal(*evaluated) and not torch.equal(*trained)


# Losses


def naive_cross_entropy(scores: list[list[float]], labels: list[int]) -> float:
    """Returns the mean over pairs of scores and the number of the right one."""
    losses = [-torch.tensor(row).log_softmax(0)[label].item() for row, label in zip(scores, labels, strict=True)]
    return sum(losses) / len(losses)


def test_loss_is_absent_without_labels(head, inputs):
    assert head.call(head.build(), inputs).loss is None


@pytest.mark.parametrize("given", ["start_positions", "end_positions"])
def test_loss_of_answers_needs_both_ends(given, inputs):
    head = HEADS["question"]
    assert head.build()(**inputs, **{given: head.labels[given]}).loss is None


def test_loss_of_tokens_is_the_mean_cross_entropy_of_those_with_a_label(inputs):
    labels = HEADS["token"].labels["labels"]
    output = HEADS["token"].build()(**inputs, labels=labels)
    pairs = [
        (output.logits[row, place].tolist(), labels[row, place].item())
        for row in range(3)
        for place in range(LENGTH)
        if labels[row, place] != -100
    ]
    assert 0 < len(pairs) < sum(REAL)
    torch.testing.assert_close(output.loss.item(), naive_cross_entropy(*zip(*pairs, strict=True)), **CLOSE)


@pytest.mark.parametrize("kind", [PredRecForMaskedLM, PredRecForTokenClassification])
def test_accumulated_batches_of_unequal_labels_are_one_batch(kind, tmp_path):
    """As `Trainer` accumulates: a mean of the batches' means would be another loss."""
    torch.manual_seed(0)
    model, rows = kind(encoder_config()), []
    for kept in (6, 1, 3, 2):
        ids = random_ids(8, seed=kept).tolist()
        rows.append({"input_ids": ids, "labels": [-100] * (8 - kept) + [1] * kept})
    losses = []
    for batch_size in (4, 1):
        options = {"per_device_train_batch_size": batch_size, "gradient_accumulation_steps": 4 // batch_size}
        more = {"max_steps": 1, "learning_rate": 0.0, "logging_steps": 1, "report_to": [], "save_strategy": "no"}
        arguments = TrainingArguments(tmp_path, use_cpu=True, disable_tqdm=True, **options, **more)
        trainer = Trainer(model, arguments, data_collator=default_data_collator, train_dataset=rows)
        trainer.train()
        losses.append(trainer.state.log_history[0]["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.parametrize("kind", [PredRecForMaskedLM, PredRecForTokenClassification])
def test_loss_is_the_same_whatever_a_subclass_is_called(kind):
    """transformers chooses losses by the name of a class, and one for language models where it finds none."""
    torch.manual_seed(0)
    model = kind(encoder_config())
    named = type("Domain", (kind,), {})(encoder_config())
    named.load_state_dict(model.state_dict())
    labels = torch.randint(0, 2, (2, 9))[:, :8]  # Not contiguous.
    inputs = {"input_ids": random_ids(2, 8, seed=1), "labels": labels}
    assert named.eval()(**inputs).loss == model.eval()(**inputs).loss > 0


def naive_answer_loss(output, starts: list[int], ends: list[int]) -> float:
    """Returns the mean of both ends, each the mean over the rows whose answer lies inside."""
    halves = []
    for logits, places in ((output.start_logits, starts), (output.end_logits, ends)):
        inside = [row for row, place in enumerate(places) if 0 <= place < logits.shape[1]]
        scores, labels = [logits[row].tolist() for row in inside], [places[row] for row in inside]
        halves.append(naive_cross_entropy(scores, labels) if inside else 0.0)
    return sum(halves) / 2


@pytest.mark.parametrize("shape", [(3,), (3, 1)])
@pytest.mark.parametrize(
    ("starts", "ends"),
    [
        ([0, 3, 1], [4, 5, 1]),
        ([0, 3, LENGTH - 1], [0, 5, LENGTH - 1]),
        ([0, LENGTH, 1], [4, LENGTH + 30, 1]),
        ([-1, 3, 1], [-100, 5, 1]),
        ([LENGTH, 3, -1], [4, LENGTH, 1]),
        ([LENGTH, LENGTH, -1], [4, LENGTH, 1]),
    ],
    ids=["inside", "at the edges", "beyond the end", "negative", "one end only", "no start inside"],
)
def test_loss_of_answers_is_the_mean_cross_entropy_of_those_inside(inputs, starts, ends, shape):
    positions = {"start_positions": torch.tensor(starts).view(shape), "end_positions": torch.tensor(ends).view(shape)}
    output = HEADS["question"].build()(**inputs, **positions)
    torch.testing.assert_close(output.loss.item(), naive_answer_loss(output, starts, ends), **CLOSE)


@pytest.mark.parametrize("outside", [-1, -100, LENGTH, 10_000])
def test_loss_without_an_answer_inside_is_zero_and_so_is_its_gradient(inputs, outside):
    model, places = HEADS["question"].build(), torch.full((3,), outside)
    loss = model(**inputs, start_positions=places, end_positions=places).loss
    loss.backward()
    assert loss == 0
    assert all(parameter.grad.eq(0).all() for parameter in model.parameters())


def test_loss_of_answers_leaves_the_positions_as_they_were(inputs):
    places = torch.tensor([0, LENGTH, -1])
    HEADS["question"].build()(**inputs, start_positions=places, end_positions=places)
    assert places.tolist() == [0, LENGTH, -1]


@pytest.mark.parametrize("shape", [(2,), (2, 1)])
def test_loss_of_choices_is_the_mean_cross_entropy_of_padded_questions(shape):
    model, input_ids = HEADS["choice"].build(), random_ids(2, 3, LENGTH)
    real = torch.tensor([REAL, REAL[::-1]])
    mask = (torch.arange(LENGTH) < real[..., None]).long()
    alone = [[model(input_ids[i : i + 1, j : j + 1, : real[i, j]]).logits.item() for j in range(3)] for i in range(2)]
    loss = model(input_ids, attention_mask=mask, labels=torch.tensor([2, 0]).view(shape)).loss
    torch.testing.assert_close(loss.item(), naive_cross_entropy(alone, [2, 0]), **CLOSE)


def test_loss_reaches_every_parameter(head, inputs):
    model = head.build()
    head.call(model, inputs, labels=True).loss.backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize("name", ["sequence", "token", "choice"])
def test_loss_does_not_reach_padding_tokens(name, input_ids, attention_mask):
    head = HEADS[name]
    model = head.build()
    embeds = model.get_input_embeddings()(input_ids).detach().requires_grad_()
    head.call(model, {"inputs_embeds": embeds, "attention_mask": attention_mask}, labels=True).loss.backward()
    assert torch.equal(embeds.grad.abs().sum(-1) > 0, attention_mask.bool())


def test_one_batch_is_learned_by_heart(head, inputs):
    model = head.build().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        head.call(model, inputs, labels=True).loss.backward()
        optimizer.step()
    assert head.call(model, inputs, labels=True).loss < 0.02


def test_loss_in_bfloat16_autocast_is_that_of_float32(head, inputs):
    model = head.build()
    expected = head.call(model, inputs, labels=True).loss
    with torch.autocast("cpu", torch.bfloat16):
        loss = head.call(model, inputs, labels=True).loss
    assert loss.dtype == torch.float32 and not torch.equal(loss, expected)
    # Bfloat16 has eight bits, and the logits are of size 1.
    torch.testing.assert_close(loss, expected, rtol=0, atol=0.05)


def test_gradients_in_bfloat16_autocast_are_finite(head, inputs):
    model = head.build()
    with torch.autocast("cpu", torch.bfloat16):
        loss = head.call(model, inputs, labels=True).loss
    loss.backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_bfloat16_weights_give_bfloat16_scores_and_a_float32_loss(head, inputs):
    model = head.build().bfloat16()
    output = head.call(model, inputs, labels=True)
    assert head.scores(model, **inputs).dtype == torch.bfloat16
    assert output.loss.dtype == torch.float32 and output.loss.isfinite()


@pytest.mark.parametrize("positions", ["sinusoidal", "rotary"])
def test_activation_checkpointing_gives_the_same_gradients(head, inputs, positions):
    gradients, calls = [], []
    for checkpointing in (False, True):
        model = head.build(position_embedding_type=positions).train()
        if checkpointing:
            enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
            enable()
            model.model.layers[0].attn.register_forward_hook(lambda *_: calls.append(1))
        head.call(model, inputs, labels=True).loss.backward()
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in model.parameters()]))
    assert torch.equal(*gradients)
    assert len(calls) == 2


# Checkpoints


def test_auto_class_builds_it_from_a_configuration(head):
    assert type(head.auto_class.from_config(head.config())) is head.model_class


@pytest.mark.parametrize("positions", ["sinusoidal", "rotary"])
def test_save_and_load_give_equal_scores(head, inputs, positions, tmp_path):
    model = head.build(position_embedding_type=positions)
    model.save_pretrained(tmp_path)
    loaded = head.auto_class.from_pretrained(tmp_path)
    assert type(loaded) is head.model_class
    # A product with one column is summed in an order that depends on where the weights lie in memory.
    torch.testing.assert_close(head.scores(loaded, **inputs), head.scores(model, **inputs), **CLOSE)


@pytest.mark.parametrize("name", ["sequence", "token"])
def test_save_and_load_keep_the_names_of_the_labels(name, tmp_path):
    names = {0: "O", 1: "B-PER", 2: "I-PER"}
    HEADS[name].build(id2label=names, label2id={label: i for i, label in names.items()}).save_pretrained(tmp_path)
    assert HEADS[name].auto_class.from_pretrained(tmp_path).config.id2label == names


@pytest.fixture(params=[False, True], ids=["untied", "tied"])
def masked_lm_checkpoint(request, tmp_path):
    """A masked language model and the folder it was saved to."""
    model = PredRecForMaskedLM(encoder_config(tie_word_embeddings=request.param)).eval()
    model.save_pretrained(tmp_path)
    return model, tmp_path


def test_masked_lm_checkpoint_lacks_only_the_layer_of_the_head(head, masked_lm_checkpoint):
    _, info = head.auto_class.from_pretrained(masked_lm_checkpoint[1], output_loading_info=True)
    assert set(info["missing_keys"]) == head.weights


@pytest.mark.parametrize("problem", ["unexpected_keys", "mismatched_keys"])
def test_masked_lm_checkpoint_has_no_weights_to_complain_about(head, masked_lm_checkpoint, problem):
    _, info = head.auto_class.from_pretrained(masked_lm_checkpoint[1], output_loading_info=True)
    assert not info[problem]


def test_masked_lm_checkpoint_gives_its_encoder(head, masked_lm_checkpoint, input_ids):
    model, path = masked_lm_checkpoint
    loaded = head.auto_class.from_pretrained(path)
    assert torch.equal(loaded.model(input_ids)[0], model.model(input_ids)[0])


def test_masked_lm_checkpoint_gives_a_fresh_layer(head, masked_lm_checkpoint):
    layer = getattr(head.auto_class.from_pretrained(masked_lm_checkpoint[1]), head.layer)
    assert layer.weight.isfinite().all() and layer.weight.abs().sum() > 0 and layer.bias.eq(0).all()


@pytest.mark.parametrize("problem", ["missing_keys", "unexpected_keys", "mismatched_keys"])
def test_checkpoint_of_a_head_is_complete_for_the_bare_encoder(head, problem, tmp_path):
    head.build().save_pretrained(tmp_path)
    _, info = AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not info[problem]


def test_checkpoint_of_a_head_gives_the_states_of_its_encoder(head, input_ids, tmp_path):
    model = head.build()
    model.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path)
    assert type(loaded) is PredRecModel
    assert torch.equal(loaded(input_ids).last_hidden_state, model.model(input_ids).last_hidden_state)


# Attention masks that are ignored


def test_attend_to_padding_gives_the_states_without_a_mask(input_ids, attention_mask):
    torch.manual_seed(0)
    model = PredRecModel(encoder_config(attend_to_padding=True)).eval()
    assert torch.equal(model(input_ids, attention_mask)[0], model(input_ids)[0])


def test_attend_to_padding_is_what_the_same_weights_do_without_a_mask(input_ids, attention_mask):
    models = []
    for attend in (True, False):
        torch.manual_seed(0)
        models.append(PredRecForMaskedLM(encoder_config(attend_to_padding=attend)).eval())
    ignoring, heeding = models
    expected = heeding(input_ids).logits
    assert torch.equal(ignoring(input_ids, attention_mask).logits, expected)
    assert not torch.allclose(heeding(input_ids, attention_mask).logits, expected, atol=1e-2)


@pytest.mark.parametrize("name", ["token", "question"])
def test_attend_to_padding_gives_the_scores_without_a_mask(name, input_ids, attention_mask):
    model = HEADS[name].build(attend_to_padding=True)
    scores = [HEADS[name].scores(model, input_ids, mask) for mask in (attention_mask, None)]
    assert torch.equal(*scores)


@pytest.mark.parametrize("name", ["sequence", "choice"])
def test_attend_to_padding_still_pools_real_tokens_only(name, input_ids, attention_mask):
    head = HEADS[name]
    model = head.build(attend_to_padding=True)
    states = model.model(input_ids).last_hidden_state
    pooled = torch.stack([row[:real].mean(0) for row, real in zip(states, REAL, strict=True)])
    torch.testing.assert_close(head.scores(model, input_ids, attention_mask), model.classifier(pooled), **CLOSE)


def test_attend_to_padding_is_saved(tmp_path):
    PredRecModel(encoder_config(attend_to_padding=True)).save_pretrained(tmp_path)
    assert AutoModel.from_pretrained(tmp_path).config.attend_to_padding is True


def test_attend_to_padding_is_refused_for_pre_training():
    with pytest.raises(ValueError, match="`attend_to_padding` is for trained checkpoints"):
        PredRecPreTrainingConfig(encoder_config=encoder_config(attend_to_padding=True))


# A process without the package

CLEAN_PROCESS = """
import json, sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "predrec":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocker())
import torch, transformers

found = {}
for folder, auto_class, inputs in json.loads(sys.argv[1]):
    load = getattr(transformers, auto_class).from_pretrained
    model, info = load(folder, trust_remote_code=True, output_loading_info=True)
    with torch.no_grad():
        output = model(torch.tensor(inputs))
    found[folder + " " + auto_class] = {
        "class": type(model).__name__,
        "missing": sorted(info["missing_keys"]),
        "unexpected": sorted(info["unexpected_keys"]),
        "output": output[0].tolist(),
    }
print(json.dumps({"found": found, "imported": "predrec" in sys.modules}))
"""


@pytest.fixture(scope="module")
def clean_process(tmp_path_factory):
    """What a process that cannot import the package makes of an exported run and of heads saved after loading it.

    Also holds, for every head, the output in this process.
    """
    directory = tmp_path_factory.mktemp("heads")
    export_encoder(pretraining_model(), None, directory / "export")
    rows, jobs, outputs = random_ids(2, 4), [], {}
    for name, head in HEADS.items():
        ids = rows[None] if head.model_class is PredRecForMultipleChoice else rows
        jobs += [(folder, head.auto_class.__name__, ids.tolist()) for folder in ("export", name)]
        model = head.auto_class.from_pretrained(directory / "export").eval()
        model.save_pretrained(directory / name)
        with torch.no_grad():
            outputs[name] = model(ids)[0]
    environment = os.environ | {"HF_MODULES_CACHE": str(directory / "modules"), "HF_HUB_OFFLINE": "1"}
    environment.pop("PYTHONPATH", None)
    process = subprocess.run(
        [sys.executable, "-I", "-c", CLEAN_PROCESS, json.dumps(jobs)],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert process.returncode == 0, process.stderr
    return outputs, json.loads(process.stdout.splitlines()[-1])


@pytest.mark.slow
def test_package_is_not_imported_in_the_clean_process(clean_process):
    assert clean_process[1]["imported"] is False


@pytest.mark.slow
@pytest.mark.parametrize("name", HEADS)
def test_exported_run_loads_as_every_head_without_the_package(clean_process, name):
    found = clean_process[1]["found"][f"export {HEADS[name].auto_class.__name__}"]
    assert found["class"] == HEADS[name].model_class.__name__
    assert set(found["missing"]) == HEADS[name].weights and not found["unexpected"]


@pytest.mark.slow
@pytest.mark.parametrize("name", HEADS)
def test_saved_head_gives_equal_outputs_without_the_package(clean_process, name):
    outputs, process = clean_process
    found = process["found"][f"{name} {HEADS[name].auto_class.__name__}"]
    assert found["class"] == HEADS[name].model_class.__name__ and not found["missing"] + found["unexpected"]
    # The numbers went through JSON as decimal text, which keeps float32; threads may sum in another order.
    torch.testing.assert_close(torch.tensor(found["output"]), outputs[name], rtol=1e-5, atol=1e-6)
