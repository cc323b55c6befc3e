"""Fine-tuning with the ordinary `Trainer`, and with LoRA: heads learn planted tasks, adapters come back."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import peft
import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from transformers import (
    AutoModel,
    DataCollatorForMultipleChoice,
    DataCollatorForTokenClassification,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
)

from predrec.modeling import PredRecForMaskedLM

from .heads import CLOSE, HEADS, LENGTH, Head, padding_mask, random_ids
from .tiny import encoder_config

ANIMALS = ("cat", "dog")
LETTERS = tuple("abcdefgh")


# Planted tasks: an animal stands in each text of letters, and all answers depend on which.


def planted(rng: np.random.Generator, *words: str) -> list[str]:
    """Returns a text of letters with the words at random places, in random order."""
    text = [*words, *rng.choice(LETTERS, size=rng.integers(3, 7))]
    rng.shuffle(text)
    return text


def one_text(tokenizer, rng) -> dict:
    """Which animal is in the text?"""
    label = int(rng.integers(2))
    return tokenizer(" ".join(planted(rng, ANIMALS[label]))) | {"labels": label}


def text_pair(tokenizer, rng) -> dict:
    """Which animal is in the second text?"""
    first, second = rng.integers(2, size=2)
    texts = (" ".join(planted(rng, ANIMALS[i])) for i in (first, second))
    return tokenizer(*texts) | {"labels": int(second)}


def tokens(tokenizer, rng) -> dict:
    """Letters bear the class of the animal in their text; the other tokens have none."""
    animal = int(rng.integers(2))
    words = planted(rng, ANIMALS[animal])
    labels = [-100, *(animal if word in LETTERS else -100 for word in words), -100]
    return tokenizer(" ".join(words)) | {"labels": labels}


def question(tokenizer, rng) -> dict:
    """Where is the animal that was asked for? The answer is it and the letter after it; short texts are padded."""
    asked = str(rng.choice(ANIMALS))
    words = planted(rng, *(animal for animal in ANIMALS if animal != asked))
    place = int(rng.integers(len(words)))
    words[place:place] = [asked, "a"]
    encoding = tokenizer(asked, " ".join(words), padding="max_length", max_length=16)
    start = 3 + words.index(asked)  # After [CLS], the question and [SEP].
    return encoding | {"start_positions": start, "end_positions": start + 1}


def choices(tokenizer, rng) -> dict:
    """Which of three texts has the animal of the prompt?"""
    right, asked = int(rng.integers(3)), int(rng.integers(2))
    texts = [" ".join(planted(rng, ANIMALS[asked if i == right else 1 - asked])) for i in range(3)]
    return dict(tokenizer([ANIMALS[asked]] * 3, texts)) | {"labels": right}


@dataclass(frozen=True)
class Task:
    """What one head learns: examples, the collator users take, and the accuracy of guessing."""

    head: Head
    example: Callable
    collator: Callable
    chance: float

    def examples(self, tokenizer, count: int, seed: int) -> Dataset:
        rng = np.random.default_rng(seed)
        return Dataset.from_list([dict(self.example(tokenizer, rng)) for _ in range(count)])


TASKS = {
    "sequence": Task(HEADS["sequence"], one_text, DataCollatorWithPadding, 1 / 2),
    "pair": Task(HEADS["sequence"], text_pair, DataCollatorWithPadding, 1 / 2),
    "token": Task(HEADS["token"], tokens, DataCollatorForTokenClassification, 1 / 2),
    "question": Task(HEADS["question"], question, DataCollatorWithPadding, 1 / 10),
    "choice": Task(HEADS["choice"], choices, DataCollatorForMultipleChoice, 1 / 3),
}


def accuracy(prediction) -> dict[str, float]:
    """Returns the share of right answers; an answer of two positions is right when both are."""
    several = isinstance(prediction.label_ids, tuple)
    scores = prediction.predictions if several else (prediction.predictions,)
    labels = prediction.label_ids if several else (prediction.label_ids,)
    hits = [score.argmax(-1) == label for score, label in zip(scores, labels, strict=True)]
    return {"accuracy": np.logical_and.reduce(hits)[labels[0] != -100].mean()}


@pytest.fixture(scope="module")
def checkpoint(tiny_tokenizer, tmp_path_factory):
    """The folder of a masked language model."""
    path = tmp_path_factory.mktemp("checkpoint")
    torch.manual_seed(0)
    config = encoder_config(vocab_size=len(tiny_tokenizer), hidden_size=32, intermediate_size=64)
    PredRecForMaskedLM(config).save_pretrained(path)
    return path


def trainer_of(task: Task, model, tokenizer, output_dir, **arguments) -> Trainer:
    defaults = {
        "max_steps": 150,
        "per_device_train_batch_size": 32,
        "per_device_eval_batch_size": 64,
        "learning_rate": 3e-3,
        "warmup_steps": 10,
        "save_strategy": "no",
        "logging_steps": 10,
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
        "seed": 0,
    }
    return Trainer(
        model=model,
        args=TrainingArguments(output_dir=str(output_dir), **(defaults | arguments)),
        train_dataset=task.examples(tokenizer, 600, seed=1),
        eval_dataset=task.examples(tokenizer, 200, seed=2),
        data_collator=task.collator(tokenizer),
        compute_metrics=accuracy,
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", TASKS)
def test_trainer_teaches_every_head_its_task(name, checkpoint, tiny_tokenizer, tmp_path):
    task = TASKS[name]
    torch.manual_seed(1)
    model = task.head.auto_class.from_pretrained(checkpoint)
    trainer = trainer_of(task, model, tiny_tokenizer, tmp_path)
    before = trainer.evaluate()["eval_accuracy"]
    trainer.train()
    after = trainer.evaluate()["eval_accuracy"]
    # 200 examples: guessing is off by at most 0.15, four standard errors.
    assert before < task.chance + 0.15 and after > 0.8


# LoRA

TARGET_MODULES = ["qkv", "proj", "fc1", "fc2"]
ENCODER_MODULES = {
    f"model.layers.{layer}.{module}"
    for layer in range(2)
    for module in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
}


@pytest.fixture(params=HEADS)
def head(request) -> Head:
    return HEADS[request.param]


@pytest.fixture
def inputs() -> dict[str, torch.Tensor]:
    return {"input_ids": random_ids(3, LENGTH, seed=3) % 100 + 5, "attention_mask": padding_mask()}


def load(head: Head, checkpoint, seed: int = 0):
    """Loads a head from the masked language model; its fresh layer depends on the seed."""
    torch.manual_seed(seed)
    return head.auto_class.from_pretrained(checkpoint, num_labels=3, classifier_dropout=0.0)


def with_adapters(head: Head, checkpoint, **fields):
    fields = {"r": 4, "lora_alpha": 8, "target_modules": TARGET_MODULES, "task_type": head.task_type} | fields
    config = peft.LoraConfig(**fields)
    return peft.get_peft_model(load(head, checkpoint), config)


def learn(head: Head, model, inputs, steps: int = 20) -> list[float]:
    """Returns the losses of some steps on one batch; leaves the model in evaluation mode."""
    model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for _ in range(steps):
        loss = head.call(model, inputs, labels=True).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    model.eval()
    return losses


@pytest.fixture
def learned(head, checkpoint, inputs):
    """A model with adapters after some steps."""
    model = with_adapters(head, checkpoint)
    learn(head, model, inputs)
    return model


def trainable(model) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def adapter_names(modules: set[str]) -> set[str]:
    names = {f"{module}.lora_{side}.default.weight" for module in modules for side in "AB"}
    return {f"base_model.model.{name}" for name in names}


def head_names(head: Head) -> set[str]:
    return {f"base_model.model.{head.layer}.modules_to_save.default.{kind}" for kind in ("weight", "bias")}


def test_lora_trains_adapters_of_every_layer_and_the_head(head, checkpoint):
    expected = adapter_names(ENCODER_MODULES) | head_names(head)
    assert trainable(with_adapters(head, checkpoint)) == expected


def all_linear(head: Head) -> dict:
    """Returns the fields for adapters in every linear layer; PEFT itself leaves out the head for `SEQ_CLS` only."""
    return {"target_modules": "all-linear", "exclude_modules": [head.layer]}


def test_lora_on_all_linear_layers_reaches_those_of_the_encoder(head, checkpoint):
    expected = adapter_names(ENCODER_MODULES) | head_names(head)
    assert trainable(with_adapters(head, checkpoint, **all_linear(head))) == expected


@pytest.mark.parametrize("name", ["sequence", "choice"])
def test_lora_on_all_linear_layers_needs_no_exclusion_where_texts_are_scored(name, checkpoint):
    model = with_adapters(HEADS[name], checkpoint, target_modules="all-linear")
    assert trainable(model) == adapter_names(ENCODER_MODULES) | head_names(HEADS[name])


def test_lora_starts_from_the_outputs_of_the_model(head, checkpoint, inputs):
    plain, adapted = load(head, checkpoint).eval(), with_adapters(head, checkpoint).eval()
    assert torch.equal(head.scores(adapted, **inputs), head.scores(plain, **inputs))


@pytest.mark.parametrize("every", [False, True], ids=["named", "all-linear"])
def test_lora_lowers_the_loss(head, checkpoint, inputs, every):
    losses = learn(head, with_adapters(head, checkpoint, **(all_linear(head) if every else {})), inputs)
    assert losses[-1] < 0.3 * losses[0]


def test_lora_leaves_the_weights_of_the_encoder(head, checkpoint, learned):
    before = AutoModel.from_pretrained(checkpoint).state_dict()
    encoder = learned.get_base_model().model
    after = {name.replace(".base_layer", ""): p for name, p in encoder.state_dict().items() if "lora_" not in name}
    assert set(after) == set(before) and all(torch.equal(after[name], p) for name, p in before.items())


def test_saved_adapter_holds_the_head(head, learned, tmp_path):
    learned.save_pretrained(tmp_path)
    saved = set(load_file(tmp_path / "adapter_model.safetensors"))
    assert {name for name in saved if "lora_" not in name} == {f"base_model.model.{name}" for name in head.weights}


def test_saved_adapter_gives_the_same_scores_on_another_fresh_head(head, checkpoint, learned, inputs, tmp_path):
    learned.save_pretrained(tmp_path)
    base = load(head, checkpoint, seed=7).eval()
    assert not torch.equal(getattr(base, head.layer).weight, getattr(load(head, checkpoint), head.layer).weight)
    loaded = peft.PeftModel.from_pretrained(base, tmp_path).eval()
    assert torch.equal(head.scores(loaded, **inputs), head.scores(learned, **inputs))


def test_saved_adapter_can_be_trained_on(head, checkpoint, learned, tmp_path):
    learned.save_pretrained(tmp_path)
    loaded = peft.PeftModel.from_pretrained(load(head, checkpoint), tmp_path, is_trainable=True)
    assert trainable(loaded) == trainable(learned)


def test_merged_adapter_gives_the_same_scores_in_a_plain_model(head, learned, inputs):
    expected = head.scores(learned, **inputs)
    merged = learned.merge_and_unload()
    assert type(merged) is head.model_class
    # The product of the adapters is added to the weights before, not after, the sums over the inputs.
    torch.testing.assert_close(head.scores(merged, **inputs), expected, rtol=1e-5, atol=1e-5)


def test_merged_adapter_saves_and_loads_as_a_plain_model(head, checkpoint, learned, inputs, tmp_path):
    merged = learned.merge_and_unload()
    merged.save_pretrained(tmp_path)
    loaded, info = head.auto_class.from_pretrained(tmp_path, output_loading_info=True)
    assert set(loaded.state_dict()) == set(load(head, checkpoint).state_dict())
    assert not info["missing_keys"] and not info["unexpected_keys"]
    # A product with one column is summed in an order that depends on where the weights lie in memory.
    torch.testing.assert_close(head.scores(loaded.eval(), **inputs), head.scores(merged, **inputs), **CLOSE)


def test_lora_without_a_task_type_saves_the_head_only_when_asked(head, checkpoint):
    def names(**fields) -> set[str]:
        config = peft.LoraConfig(target_modules=TARGET_MODULES, **fields)
        return trainable(peft.get_peft_model(load(head, checkpoint), config))

    assert names() == adapter_names(ENCODER_MODULES)
    assert names(modules_to_save=[head.layer]) == adapter_names(ENCODER_MODULES) | head_names(head)


def test_lora_gradients_with_activation_checkpointing_are_the_same(head, checkpoint, inputs):
    gradients = []
    for checkpointing in (False, True):
        model = with_adapters(head, checkpoint).train()
        if checkpointing:
            enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
            enable()
        head.call(model, inputs, labels=True).loss.backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.requires_grad]))
    assert torch.equal(*gradients)


@pytest.mark.slow
def test_trainer_teaches_adapters_in_bfloat16(checkpoint, tiny_tokenizer, tmp_path):
    task = TASKS["token"]
    model = with_adapters(task.head, checkpoint)
    trainer = trainer_of(task, model, tiny_tokenizer, tmp_path, bf16=True, learning_rate=1e-2)
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert trainer.evaluate()["eval_accuracy"] > task.chance + 0.3
    assert losses[-1] < 0.7 * losses[0]
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
