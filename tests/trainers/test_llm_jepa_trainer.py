"""LLM-JEPA in training: resume to the bit, pieces of updates, budgets, adapters, what is logged."""

import json
from dataclasses import replace
from functools import partial

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, MixtralConfig, MixtralForCausalLM

from predrec.errors import UserError
from predrec.modeling import LLMJepaModel, LLMJepaObjective, llm_flops
from predrec.modeling.llm_flops import skips_views
from predrec.trainers import llm_jepa_trainer, view_geometry
from predrec.trainers.adapters import with_lora
from predrec.trainers.language_models import load_trained
from predrec.trainers.llm_jepa_args import LLMJepaArguments
from predrec.trainers.llm_jepa_trainer import LLMJepaTrainer, load_language_model

from .. import llm_training
from ..training import logged
from .test_trainer import AfterUpdate


def weights(trainer):
    return {name: value.clone() for name, value in trainer.model.state_dict().items()}


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    "arguments",
    [
        {"method": "ntp"},
        {"method": "llm_jepa", "jepa_dropout": 0.5},
        {"method": "llm_jepa", "target_grad": "ema", "ema_decay": 0.9},
        {"method": "tube"},
        {"method": "llm_jepa", "gradient_accumulation_steps": 2},
        {"method": "llm_jepa", "train_sampling_strategy": "group_by_length"},
        {"method": "llm_jepa", "lora": True},
        {"method": "ntp", "lora": True},
    ],
    ids=str,
)
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path, arguments):
    adapt = (lambda model: with_lora(model, 4)) if arguments.get("lora") else None
    arguments = {name: value for name, value in arguments.items() if name != "lora"}
    arguments = arguments | {"save_strategy": "steps", "save_steps": 3, "max_steps": 6, "save_total_limit": None}
    whole = llm_training.trainer(tmp_path / "a", adapt, **arguments)
    whole.train()
    again = llm_training.trainer(tmp_path / "a2", adapt, **arguments)
    again.train(resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-3"))
    assert same(weights(whole), weights(again))
    assert logged(whole, "ntp_loss")[3:] == logged(again, "ntp_loss")[3:]
    assert logged(whole, "jepa_loss") == logged(again, "jepa_loss")


class OwnConfig(LlamaConfig):
    model_type = "own_llama"


class OwnLlama(LlamaForCausalLM):
    """As a model with remote code: `AutoModelForCausalLM` does not know it."""

    config_class = OwnConfig


def saved_model(kind):
    small = {"vocab_size": 40, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
    small |= {"num_attention_heads": 2, "num_key_value_heads": 2, "tie_word_embeddings": kind == "tied"}
    if kind == "experts":
        return MixtralForCausalLM(MixtralConfig(**small, num_local_experts=2))
    return OwnLlama(OwnConfig(**small))


@pytest.mark.parametrize("kind", ["own code", "tied", "shards", "experts"])
def test_saved_weights_come_back_into_the_model(tmp_path, kind):
    model = saved_model(kind)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.save_pretrained(tmp_path, **({"max_shard_size": "10KB"} if kind == "shards" else {}))
    assert (len(list(tmp_path.glob("*.safetensors"))) > 1) == (kind == "shards")
    (tmp_path / "target_decoder.safetensors").write_bytes(b"of something else")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    load_language_model(model, str(tmp_path))
    assert same(before, model.state_dict())
    assert (model.lm_head.weight is model.model.embed_tokens.weight) == (kind == "tied")


def test_a_checkpoint_is_read_without_a_second_model(tmp_path, monkeypatch):
    model = saved_model("tied")
    model.save_pretrained(tmp_path)
    monkeypatch.setattr(OwnLlama, "__init__", None)
    load_language_model(model, str(tmp_path))


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("arguments", [{"method": "llm_jepa"}, {"method": "llm_jepa", "target_grad": "ema"}], ids=str)
def test_activations_may_be_computed_again(tmp_path, arguments, lora):
    """The same training, with every layer checkpointed."""
    adapt = (lambda model: with_lora(model, 4, dropout=0.0)) if lora else None
    trained, calls = [], []
    for again in (False, True):
        trainer = llm_training.trainer(tmp_path, adapt, max_steps=2, gradient_checkpointing=again, **arguments)
        layer = trainer.model.decoder.layers[0]
        layer.input_layernorm.register_forward_hook(lambda *_: calls.append(1))
        before = len(calls)
        trainer.train()
        trained.append((weights(trainer), len(calls) - before))
    assert same(trained[0][0], trained[1][0])
    assert trained[1][1] > trained[0][1]


@pytest.mark.parametrize("method", ["ntp", "llm_jepa"])
@pytest.mark.parametrize("pieces", [2, 4])
def test_accumulated_updates_equal_whole_ones(tmp_path, method, pieces):
    shared = {"method": method, "max_steps": 3, "learning_rate": 1e-2, "adam_epsilon": 1e-3}
    whole = llm_training.trainer(tmp_path / "a", **shared, per_device_train_batch_size=8)
    parts = llm_training.trainer(
        tmp_path / "b", **shared, per_device_train_batch_size=8 // pieces, gradient_accumulation_steps=pieces
    )
    for trainer in (whole, parts):
        trainer.train()
    for name, value in weights(parts).items():
        torch.testing.assert_close(value, weights(whole)[name], atol=1e-5, rtol=1e-4)
    for name in ("loss", "ntp_loss", *(["jepa_loss"] if method == "llm_jepa" else [])):
        assert logged(parts, name) == pytest.approx(logged(whole, name), rel=1e-4)


@pytest.mark.parametrize("accumulation", [1, 2])
def test_the_average_follows_the_closed_form(tmp_path, accumulation):
    """The target is a weighted sum of the weights after every update, however many batches an update has."""
    trainer = llm_training.trainer(
        tmp_path,
        target_grad="ema",
        ema_decay=0.5,
        ema_decay_end=0.9,
        max_steps=4,
        gradient_accumulation_steps=accumulation,
        per_device_train_batch_size=4 // accumulation,
    )
    history = []

    def flat(module):
        return torch.cat([parameter.detach().double().flatten() for parameter in module.parameters()])

    trainer.add_callback(
        AfterUpdate(lambda state, model: history.append((flat(model.decoder), flat(model.target_decoder))))
    )
    expected = flat(trainer.model.decoder)
    trainer.train()
    assert len(history) == 4
    for update, (online, target) in enumerate(history):
        decay = 0.5 + 0.4 * update / 4
        expected = decay * expected + (1 - decay) * online
        torch.testing.assert_close(target, expected, rtol=0, atol=1e-6)


def test_as_published_accumulated_batches_are_added_up(tmp_path):
    """There the clip at 1 acts on a gradient so many times as large, in one arm only."""
    norms = {}
    for name, summed in (("mean", False), ("sum", True)):
        trainer = llm_training.trainer(
            tmp_path / name, max_steps=1, gradient_accumulation_steps=2, sum_micro_batches=summed
        )
        trainer.train()
        norms[name] = logged(trainer, "grad_norm")[0]
    assert norms["sum"] == pytest.approx(2 * norms["mean"], rel=0.3)


def test_skipped_updates_make_one_pass_and_are_logged(tmp_path):
    trainer = llm_training.trainer(tmp_path, jepa_dropout=0.5, max_steps=8)
    calls = []
    trainer.model.decoder.register_forward_hook(lambda module, *_: calls.append(1) if module.training else None)
    trainer.train()
    drawn = [skips_views(3, update, 0.5) for update in range(8)]
    assert 0 < sum(drawn) < 8
    assert len(calls) == 8 + 8 - sum(drawn)
    assert len(logged(trainer, "jepa_loss")) == 8 - sum(drawn)
    assert logged(trainer, "jepa_active")[-1] == 1 - sum(drawn) / 8


def test_no_update_is_drawn_again_at_the_next_log_line(tmp_path, monkeypatch):
    trainer, draws = llm_training.trainer(tmp_path, jepa_dropout=0.5), []

    def watched(*draw):
        draws.append(draw)
        return skips_views(*draw)

    for module in (llm_flops, llm_jepa_trainer):
        monkeypatch.setattr(module, "skips_views", watched)
    for step in (5, 6, 8):  # The first may follow a resume.
        trainer.state.global_step = step
        made = [not skips_views(3, update, 0.5) for update in range(step)]
        assert trainer.schedule_values()["jepa_active"] == sum(made) / step
    assert len(draws) == 8


def test_every_method_is_measured_alike(tmp_path):
    for method in ("ntp", "llm_jepa", "tube"):
        trainer = llm_training.trainer(tmp_path / method, method=method, max_steps=2)
        trainer.train()
        last = {name: value for entry in trainer.state.log_history for name, value in entry.items()}
        expected = ("ntp_loss", "matched_cosine", "mismatched_cosine", "effective_rank", "retrieval")
        assert all(f"eval_{name}" in last for name in expected), method
        assert ("jepa_loss" in last) == (method != "ntp")


def test_no_more_views_are_kept_than_are_compared(tmp_path, monkeypatch):
    """Of a large evaluation set, all would have to fit beside the model, and be sent to every process."""
    for module in (llm_jepa_trainer, view_geometry):
        monkeypatch.setattr(module, "MOST", 6)
    trainer, seen = llm_training.trainer(tmp_path, per_device_eval_batch_size=4), []
    gather = trainer._of_all_processes
    trainer._of_all_processes = lambda *values: (seen.append([len(value) for value in values]), gather(*values))[1]
    found = trainer.evaluate()
    assert seen == [[6, 6, 6]] and found["eval_effective_rank"] <= 6


@pytest.mark.parametrize(("method", "said"), [("llm_jepa", True), ("ntp", False)])
def test_collapse_of_views_is_said_where_they_are_trained(tmp_path, caplog, method, said):
    """A last norm that adds the same large vector to every state makes all of them alike."""
    trainer = llm_training.trainer(tmp_path, method=method, max_steps=1)

    def alike(module, inputs, output):
        return output + 100

    trainer.model.causal_lm.base_model.norm.register_forward_hook(alike)
    found = trainer.evaluate()
    assert found["eval_mismatched_cosine"] > 0.99 and found["eval_collapsed"] == 1
    assert ("views collapse" in caplog.text) == said


def test_training_without_views_makes_none(tmp_path):
    for method, weight, expected in (("ntp", None, False), ("llm_jepa", 0.0, False), ("llm_jepa", None, True)):
        trainer = llm_training.trainer(tmp_path / f"{method}{weight}", method=method, jepa_lambda=weight)
        batch = next(iter(trainer.get_train_dataloader()))
        assert ("view_input_ids" in batch) == expected
        assert "view_input_ids" in next(iter(trainer.get_eval_dataloader()))


@pytest.mark.parametrize("strategy", ["group_by_length", "batch_rebalance"])
def test_records_of_similar_length_may_go_together(tmp_path, strategy):
    trainer = llm_training.trainer(tmp_path, train_sampling_strategy=strategy)
    order = [row for batch in trainer.get_train_dataloader() for row in batch["example_ids"].tolist()]
    assert sorted(order) == list(range(16))
    if strategy == "group_by_length":
        expected = [len(example.input_ids) for example in trainer.train_dataset.examples]
        assert trainer._get_train_sampler().lengths == expected


# Budget


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_budget_decides_the_updates_and_the_schedule(tmp_path, share):
    reference = llm_training.trainer(tmp_path / "r", jepa_dropout=share)
    budget = reference.spending.until(7)
    trainer = llm_training.trainer(tmp_path / "b", jepa_dropout=share, max_flops=budget)
    trainer.train()
    assert trainer.state.global_step == 7
    assert logged(trainer, "flops")[-1] == pytest.approx(budget)
    # The rate of update n is what a linear decay over what was spent before it gives.
    spent = [trainer.spending.until(update) / budget for update in range(7)]
    assert logged(trainer, "learning_rate") == pytest.approx([1e-3 * (1 - part) for part in spent])


def test_methods_get_different_numbers_of_updates_for_one_budget(tmp_path):
    budget = llm_training.trainer(tmp_path / "r", method="ntp").spending.until(20)
    steps = {}
    for method in ("ntp", "tube", "llm_jepa"):
        steps[method] = llm_training.trainer(tmp_path / method, method=method, max_flops=budget).args.max_steps
    assert steps["ntp"] == steps["tube"] == 20 > steps["llm_jepa"]


def test_spending_is_what_the_batches_cost(tmp_path):
    trainer = llm_training.trainer(tmp_path)
    lengths, views = [], []
    for example in trainer.train_dataset.examples:
        lengths.append(len(example.input_ids))
        views += [len(example.source_ids), len(example.target_ids)]
    whole = trainer.cost.flops(lengths, True) + trainer.cost.flops(views, False)
    assert trainer.spending.until(4) == pytest.approx(whole)  # Four updates of four records are an epoch of sixteen.


def test_an_averaged_copy_is_paid_for(tmp_path):
    plain = llm_training.trainer(tmp_path / "a")
    averaged = llm_training.trainer(tmp_path / "b", target_grad="ema")
    views = [len(ids) for row in plain.train_dataset.examples for ids in (row.source_ids, row.target_ids)]
    more = averaged.spending.until(4) - plain.spending.until(4)
    assert more == pytest.approx(plain.cost.forward_flops(views)) and more > 0


def test_lambda_warms_up(tmp_path):
    trainer = llm_training.trainer(
        tmp_path, jepa_lambda=2.0, jepa_lambda_schedule="warmup", lambda_warmup=0.5, num_train_epochs=2
    )
    trainer.train()
    assert logged(trainer, "loss_lambda")[:8] == pytest.approx([0.5, 1.0, 1.5, 2.0, 2.0, 2.0, 2.0, 2.0])
    first = trainer.state.log_history[0]
    assert first["loss"] == pytest.approx(first["ntp_loss"])


# What is left


def test_what_is_saved_is_an_ordinary_language_model(tmp_path):
    trainer = llm_training.trainer(tmp_path, max_steps=2, save_strategy="steps", save_steps=2)
    trainer.train()
    trainer.save_model()
    for folder in (tmp_path, tmp_path / "checkpoint-2"):
        model, report = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
        assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
        assert torch.equal(model.lm_head.weight, trainer.model.causal_lm.lm_head.weight)
    assert (tmp_path / "checkpoint-2" / "checksums.json").is_file()


def test_adapters_are_saved_as_adapters(tmp_path):
    trainer = llm_training.trainer(tmp_path / "run", lambda model: with_lora(model, 4), max_steps=2)
    base = trainer.model.base
    trainer.train()
    trainer.save_model()
    assert (tmp_path / "run" / "adapter_model.safetensors").is_file()
    assert not (tmp_path / "run" / "model.safetensors").exists()
    config = json.loads((tmp_path / "run" / "adapter_config.json").read_text())
    assert config["trainable_token_indices"]
    del base
    with pytest.raises(ValueError, match="cannot load the adapters"):  # The tiny base was never saved anywhere.
        load_trained(tmp_path / "run")


def parts(folder, **changes):
    """What a trainer is made of, from one that is in order."""
    right = llm_training.trainer(folder)
    given = {
        "model": right.model,
        "args": right.args,
        "data_collator": right.data_collator,
        "train_dataset": right.train_dataset,
        "processing_class": right.processing_class,
    }
    return given | changes


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("model", lambda right: right["model"].causal_lm, "`model` is LlamaForCausalLM; it must be LLMJepaModel"),
        ("args", lambda right: None, "`args` is NoneType; it must be LLMJepaArguments"),
        ("train_dataset", lambda right: [{"text": "a"}], "`train_dataset` is list; it must be ViewDataset"),
        ("processing_class", lambda right: None, "`processing_class` is missing"),
    ],
)
def test_what_is_of_another_kind_is_named(tmp_path, name, kind, message):
    given = parts(tmp_path)
    with pytest.raises(ValueError, match=message):
        LLMJepaTrainer(**given | {name: kind(given)})


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        ({"jepa_lambda": 50.0}, "`jepa_lambda` is 50.0 in the model's objective, 1.0 in the arguments"),
        ({"method": "ntp"}, "`method` is 'ntp' in the model's objective, 'llm_jepa' in the arguments"),
        ({"distance": "infonce"}, "`distance` is 'infonce'"),
        ({"target_grad": "stop"}, "`target_grad` is 'stop'"),
    ],
)
def test_one_objective_for_model_and_arguments(tmp_path, objective, message):
    given = parts(tmp_path)
    other = LLMJepaModel(given["model"].causal_lm, replace(given["args"].objective(), **objective))
    with pytest.raises(ValueError, match=message):
        LLMJepaTrainer(**given | {"model": other})


def test_predictor_tokens_that_the_model_lacks_are_missed(tmp_path):
    given = parts(tmp_path)
    given["model"].config.predictor_token_ids = []
    with pytest.raises(ValueError, match="`num_predictor_tokens` is 1, but the model has 0"):
        LLMJepaTrainer(**given)


@pytest.mark.parametrize("wrong", [{"method": "jepa"}, {"distance": "euclid"}, {"target_grad": "none"}])
def test_an_objective_that_does_not_exist_is_refused(tmp_path, wrong):
    [(name, value)] = wrong.items()
    for make in (LLMJepaObjective, partial(LLMJepaArguments, output_dir=str(tmp_path))):
        with pytest.raises(UserError, match=f"`{name}` is '{value}'; it must be one of"):
            make(**wrong)
