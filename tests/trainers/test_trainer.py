"""What one optimizer update does, and what is logged of it."""

import math
import multiprocessing
import warnings

import pytest
import torch
from transformers import TrainerCallback, TrainingArguments

from predrec.trainers import PredRecTrainer
from predrec.trainers.ema import ema_decay_at
from predrec.trainers.objective_trainer import compiles_itself
from tests import training
from tests.training import logged


class AfterUpdate(TrainerCallback):
    """Runs a function after every update, after the callbacks of the trainer itself."""

    def __init__(self, function):
        self.function = function

    def on_step_end(self, args, state, control, **kwargs):
        self.function(state, kwargs["model"])


@pytest.fixture
def flat(tmp_path):
    """Names and values of all parameters after some updates of a run."""

    def run(**overrides):
        trainer = training.trainer(
            tmp_path / str(len(list(tmp_path.iterdir()))), lr_scheduler_type="constant", **overrides
        )
        trainer.train()
        return trainer

    return run


@pytest.mark.parametrize("packing", [True, False], ids=["packed", "padded"])
@pytest.mark.parametrize("objective", ["hybrid", "mlm", "jepa"])
def test_accumulation_equals_the_large_batch(flat, objective, packing):
    whole = flat(objective=objective, packing=packing, per_device_train_batch_size=8)
    parts = flat(objective=objective, packing=packing, per_device_train_batch_size=2, gradient_accumulation_steps=4)
    for name in ("loss", "grad_norm", "mlm_loss", "jepa_loss"):
        # Float32 sums in another order; six updates of Adam magnify that a little.
        assert logged(parts, name) == pytest.approx(logged(whole, name), rel=2e-4), name
    assert len(logged(whole, "loss")) == 6


@pytest.mark.parametrize("options", [{"center_targets": True}, training.CROPS], ids=["center", "whiten"])
def test_accumulation_moves_center_and_covariance_as_far_as_the_large_batch(flat, options):
    options = options | {"max_steps": 12, "packing": False, "learning_rate": 1e-9, "center_decay": 0.5}
    whole = flat(**options, per_device_train_batch_size=8).model
    parts = flat(**options, per_device_train_batch_size=2, gradient_accumulation_steps=4).model
    assert parts.num_centered == pytest.approx(12, rel=1e-5) and whole.num_centered == 12
    # What comes first in an update counts a little less than what comes last.
    for name in ("target_center", "target_covariance"):
        one, other = getattr(whole, name), getattr(parts, name)
        if one is not None:
            assert (one - other).norm() < 0.1 * one.norm(), name


def test_accumulation_is_exact_for_the_context_view(flat):
    whole = flat(mlm_view="context", per_device_train_batch_size=8)
    parts = flat(mlm_view="context", per_device_train_batch_size=4, gradient_accumulation_steps=2)
    assert logged(parts, "loss") == pytest.approx(logged(whole, "loss"), rel=2e-4)


def test_log_names_every_term(flat):
    trainer = flat()
    entry = next(entry for entry in trainer.state.log_history if "loss" in entry)
    assert {"loss", "mlm_loss", "jepa_loss", "loss_lambda", "ema_decay", "tokens_per_second", "grad_norm"} <= set(
        entry
    )


def test_log_counts_the_tokens_since_the_last_line_without_padding(flat):
    each, pairs = (logged(flat(packing=False, logging_steps=steps), "tokens") for steps in (1, 2))
    assert pairs == [first + second for first, second in zip(each[::2], each[1::2], strict=True)]
    assert max(each) < 8 * training.LENGTH == logged(flat(), "tokens")[0]


def test_log_averages_over_the_steps_since_the_last_line(flat):
    each, pairs = flat(logging_steps=1), flat(logging_steps=2)
    losses = logged(each, "loss")
    expected = [(first + second) / 2 for first, second in zip(losses[::2], losses[1::2], strict=True)]
    assert logged(pairs, "loss") == pytest.approx(expected, rel=1e-6)


def test_log_of_mlm_has_no_jepa_terms(flat):
    entry = next(entry for entry in flat(objective="mlm").state.log_history if "loss" in entry)
    assert not {"jepa_loss", "loss_lambda", "ema_decay"} & set(entry)
    assert entry["loss"] == pytest.approx(entry["mlm_loss"])


def test_logged_loss_is_the_weighted_sum(flat):
    entry = next(entry for entry in flat(loss_weighting="fixed", loss_lambda=0.3).state.log_history if "loss" in entry)
    assert entry["loss"] == pytest.approx(0.3 * entry["jepa_loss"] + 0.7 * entry["mlm_loss"], rel=1e-5)


def test_decay_is_for_matrices_only(tmp_path):
    trainer = training.trainer(tmp_path, weight_decay=0.1)
    trainer.create_optimizer()
    shapes = {id(parameter): parameter.ndim for parameter in trainer.model.parameters()}
    for group in trainer.optimizer.param_groups:
        dims = {shapes[id(parameter)] for parameter in group["params"]}
        assert dims == ({2} if group["weight_decay"] else {1})


def test_optimizer_holds_every_trainable_parameter_once(tmp_path):
    trainer = training.trainer(tmp_path)
    trainer.create_optimizer()
    held = [id(parameter) for group in trainer.optimizer.param_groups for parameter in group["params"]]
    trainable = [id(parameter) for parameter in trainer.model.parameters() if parameter.requires_grad]
    assert sorted(held) == sorted(trainable)
    assert id(trainer.model.loss_logit) in held
    assert not {id(p) for p in trainer.model.target_encoder.parameters()} & set(held)


def test_optimizer_that_misses_a_parameter_is_refused(tmp_path):
    trainer = training.trainer(tmp_path)
    forgotten = torch.optim.AdamW(trainer.model.masked_lm.parameters())
    trainer.optimizer = forgotten
    with pytest.raises(ValueError, match="`optimizers`: an optimizer must hold every trainable parameter once"):
        trainer.create_optimizer()


@pytest.mark.parametrize("accumulation", [1, 4])
def test_ema_follows_the_closed_form(tmp_path, accumulation):
    """The target is a weighted sum of the weights after every update, however many batches an update has."""
    name, history, targets = "embeddings.word_embeddings.weight", [], []

    def remember(state, model):
        history.append(dict(model.encoder.named_parameters())[name].detach().double().clone())
        targets.append(dict(model.target_encoder.named_parameters())[name].detach().double().clone())

    trainer = training.trainer(
        tmp_path,
        ema_decay=0.5,
        ema_decay_end=0.9,
        gradient_accumulation_steps=accumulation,
        per_device_train_batch_size=8 // accumulation,
    )
    start = dict(trainer.model.encoder.named_parameters())[name].detach().double().clone()
    trainer.add_callback(AfterUpdate(remember))
    trainer.train()
    expected, steps = start, 6
    for update in range(1, steps + 1):
        decay = 0.5 + 0.4 * (update - 1) / steps
        expected = decay * expected + (1 - decay) * history[update - 1]
        torch.testing.assert_close(targets[update - 1], expected, rtol=0, atol=1e-6)
    assert len(history) == steps


def test_ema_decay_goes_from_start_to_end():
    assert ema_decay_at(1, 100, 0.996, 1.0) == 0.996
    assert ema_decay_at(51, 100, 0.996, 1.0) == pytest.approx(0.998)
    assert ema_decay_at(101, 100, 0.996, 1.0) == 1.0


def test_ema_skips_an_update_that_the_scaler_skipped(tmp_path):
    trainer = training.trainer(tmp_path, ema_decay=0.0, ema_decay_end=0.0, max_steps=1)
    callback = next(c for c in trainer.callback_handler.callbacks if type(c).__name__ == "EMACallback")
    before = [parameter.clone() for parameter in trainer.model.target_encoder.parameters()]
    with torch.no_grad():
        for parameter in trainer.model.encoder.parameters():
            parameter.add_(1)
    skipped = type("Optimizer", (), {"step_was_skipped": True})()
    callback.on_step_end(trainer.args, trainer.state, trainer.control, model=trainer.model, optimizer=skipped)
    assert all(map(torch.equal, trainer.model.target_encoder.parameters(), before))


def test_decay_of_every_update_is_logged(flat):
    logged_decays = logged(flat(ema_decay=0.5, ema_decay_end=0.9), "ema_decay")
    assert logged_decays == pytest.approx([0.5 + 0.4 * update / 6 for update in range(6)])


@pytest.mark.parametrize(("shape", "middle"), [("linear", 0.5), ("cosine", 0.5)])
def test_scheduled_lambda_reaches_the_log(flat, shape, middle):
    lambdas = logged(
        flat(loss_weighting="schedule", loss_schedule=shape, loss_lambda=0.9, loss_lambda_end=0.1, max_steps=4),
        "loss_lambda",
    )
    shares = [step / 4 for step in range(4)]
    curve = {"linear": lambda s: 0.9 - 0.8 * s, "cosine": lambda s: 0.1 + 0.4 * (1 + math.cos(math.pi * s))}[shape]
    assert lambdas == pytest.approx([curve(share) for share in shares], abs=1e-6)
    assert lambdas[2] == pytest.approx(middle, abs=1e-6)


def test_learned_lambda_drifts_towards_the_smaller_loss(flat):
    lambdas = logged(flat(max_steps=6, learning_rate=1e-2), "loss_lambda")
    assert lambdas == sorted(lambdas)
    assert lambdas[-1] > 0.5


def test_one_batch_is_overfitted(tmp_path):
    trainer = training.trainer(tmp_path, learning_rate=3e-3, max_steps=150, logging_steps=10, objective="mlm")
    features = [{**trainer.train_dataset[index], "epoch": 0} for index in range(8)]
    trainer.train_dataset = [feature for feature in features for _ in range(1)]
    trainer.train()
    # Every epoch is one batch with new masks; 17 words are learned far below ln(17) = 2.83.
    assert logged(trainer, "mlm_loss")[-1] < 2.3 < logged(trainer, "mlm_loss")[0]


def test_evaluation_does_not_depend_on_the_batch_size(tmp_path):
    results = []
    for size in (4, 16):
        trainer = training.trainer(tmp_path, eval_strategy="steps", per_device_eval_batch_size=size, packing=False)
        results.append(trainer.evaluate())
    for name in ("eval_mlm_loss", "eval_jepa_loss", "eval_mlm_accuracy"):
        assert results[0][name] == pytest.approx(results[1][name], rel=1e-5)


def test_accuracy_is_the_share_of_masked_tokens_guessed_right(tmp_path):
    trainer = training.trainer(tmp_path, objective="mlm", packing=False, learning_rate=1e-2, max_steps=30)
    trainer.train()
    found = trainer.evaluate()["eval_mlm_accuracy"]
    right = total = 0
    for batch in trainer.get_eval_dataloader():
        with torch.no_grad():
            logits = trainer.model.eval().masked_lm(batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        labelled = batch["labels"] != -100
        total += labelled.sum().item()
        right += (logits.argmax(-1) == batch["labels"])[labelled].sum().item()
    assert 0 < right < total / 2
    assert found == pytest.approx(right / total, rel=1e-6)


@pytest.mark.parametrize(("options", "sets"), [({}, 1), ({"crop_length": (3, 7)}, 2)], ids=["blocks", "crops"])
def test_evaluation_takes_one_context_of_a_text_but_all_crops(tmp_path, options, sets):
    model = training.model(**(training.CROPS if options else {}))
    collator = training.collator(num_mask_sets=2, **options)
    trainer = PredRecTrainer(model, training.training_arguments(tmp_path), collator)
    assert (trainer.data_collator.num_mask_sets, trainer.eval_collator.num_mask_sets) == (2, sets)


def test_evaluation_repeats_itself(tmp_path):
    trainer = training.trainer(tmp_path, eval_strategy="steps")
    first, second = trainer.evaluate(), trainer.evaluate()
    assert first["eval_mlm_loss"] == second["eval_mlm_loss"]
    assert first["eval_jepa_loss"] == second["eval_jepa_loss"]


def test_evaluation_of_the_context_view_is_that_of_the_full_view(tmp_path):
    context = training.trainer(tmp_path, eval_strategy="steps", mlm_view="context").evaluate()
    full = training.trainer(tmp_path, eval_strategy="steps", mlm_view="full").evaluate()
    assert context["eval_mlm_loss"] == full["eval_mlm_loss"]


def test_last_step_is_evaluated(flat):
    trainer = flat(eval_strategy="steps", eval_steps=4, max_steps=6)
    assert [entry["step"] for entry in trainer.state.log_history if "eval_mlm_loss" in entry] == [4, 6]


def test_bf16_autocast_keeps_the_target_encoder_float32(flat):
    trainer = flat(bf16=True, max_steps=2)
    assert {parameter.dtype for parameter in trainer.model.target_encoder.parameters()} == {torch.float32}
    assert all(map(math.isfinite, logged(trainer, "loss")))


VARIANTS = [
    {},
    {"packing": False},
    {"objective": "mlm"},
    {"predictor_attention": "cross", "mlm_view": "context"},
    {"jepa_dropout": 0.5},
    {"attn_implementation": "sdpa"},
    {"non_finite": "skip"},
]


@pytest.mark.parametrize("options", VARIANTS, ids=lambda options: "-".join(map(str, options.values())) or "default")
def test_training_never_reads_the_device_between_log_lines(tmp_path, monkeypatch, options):
    """Every way to wait for a device, counted over 20 updates of which none is logged."""
    calls = []
    trainer = training.trainer(tmp_path, max_steps=22, logging_steps=1000, logging_first_step=False, **options)

    def watch(state, model):
        if state.global_step == 1:
            for name in ("item", "__bool__", "tolist", "cpu", "numpy", "__float__", "__int__"):
                original = getattr(torch.Tensor, name)

                def spy(self, *args, _original=original, _name=name, **kwargs):
                    calls.append(_name)
                    return _original(self, *args, **kwargs)

                monkeypatch.setattr(torch.Tensor, name, spy)
        elif state.global_step == 21:
            monkeypatch.undo()

    trainer.add_callback(AfterUpdate(watch))
    # The collator and the loader work on CPU tensors by design; only what the trainer and the model do is counted.
    batches = list(trainer.get_train_dataloader())
    monkeypatch.setattr(trainer, "get_train_dataloader", lambda: _Fixed(batches))
    trainer.train()
    assert calls == []


class _Fixed(list):
    """Ready batches in the place of a data loader."""

    dataset = range(100)
    batch_size = 8
    sampler = None


@pytest.mark.parametrize("pinned", [True, False])
def test_batches_are_copied_without_waiting_where_their_memory_is_pinned(tmp_path, monkeypatch, pinned):
    settled = TrainingArguments.__post_init__

    def for_a_gpu(self):
        settled(self)
        self.dataloader_pin_memory = pinned  # It is never pinned for a CPU.

    monkeypatch.setattr(TrainingArguments, "__post_init__", for_a_gpu)
    assert training.trainer(tmp_path).accelerator.non_blocking is pinned


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("options", VARIANTS, ids=lambda options: "-".join(map(str, options.values())) or "default")
def test_training_never_waits_for_the_gpu_between_log_lines(tmp_path, options):
    """The same on a real device, which says itself when it is waited for."""
    trainer = training.trainer(tmp_path, bf16=True, use_cpu=False, max_steps=22, logging_steps=1000, **options)

    def watch(state, model):
        torch.cuda.set_sync_debug_mode("warn" if 1 <= state.global_step < 21 else "default")

    trainer.add_callback(AfterUpdate(watch))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer.train()
    assert not [str(warning.message) for warning in caught if "synchronizing" in str(warning.message)]


@pytest.mark.parametrize(
    ("options", "made_for", "message"),
    [
        ({}, {"label_view": "context"}, "`label_view` of the collator is context, but `mlm_view` full"),
        ({"mlm_view": "context"}, {}, "`label_view` of the collator is full, but `mlm_view` context"),
        (training.CROPS, {}, "`jepa_view` is crops, but `crop_length` None"),
        ({}, {"crop_length": (3, 7)}, r"`jepa_view` is blocks, but `crop_length` \(3, 7\)"),
        ({}, {"objective": "mlm"}, "`num_target_blocks` of the collator must not be 0"),
        ({}, {"padding_is_text": True}, "`padding_is_text` of the collator is True, but that of the model's config"),
        ({"padding_is_text": True}, {}, "`padding_is_text` of the collator is False, but that of the model's config"),
    ],
)
def test_batches_for_another_objective_are_refused(tmp_path, options, made_for, message):
    with pytest.raises(ValueError, match=message):
        PredRecTrainer(training.model(**options), training.training_arguments(tmp_path), training.collator(**made_for))


@pytest.mark.parametrize("name", ["compute_metrics", "preprocess_logits_for_metrics", "eval_dataset"])
def test_what_evaluations_cannot_use_is_refused(tmp_path, name):
    given = {name: {"one": training.rows(100, 120)} if name == "eval_dataset" else (lambda *values: {})}
    with pytest.raises(ValueError, match=f"`{name}`"):
        PredRecTrainer(training.model(), training.training_arguments(tmp_path), training.collator(), **given)


@pytest.mark.parametrize(("attention", "compiles"), [("flex_attention", True), ("sdpa", False), (None, False)])
def test_flex_attention_is_known_to_compile_itself(attention, compiles):
    model = training.model()
    model.encoder.config._attn_implementation = attention
    assert compiles_itself(model) is compiles


def test_prediction_takes_the_batches_of_evaluation(tmp_path):
    trainer = training.trainer(tmp_path, mlm_view="context")
    rows = training.rows(100, 120)
    assert trainer.predict(rows).metrics["test_mlm_loss"] == trainer.evaluate(rows)["eval_mlm_loss"]


def test_other_rows_are_evaluated_by_workers_that_persist_too(tmp_path):
    """The stock Trainer keeps one loader then, whatever rows it is asked for."""
    workers = {"dataloader_num_workers": 1, "dataloader_persistent_workers": True}
    one, other = training.trainer(tmp_path / "a", **workers), training.trainer(tmp_path / "b")
    rows = training.rows(110, 120)
    own = one.evaluate()["eval_mlm_loss"]
    assert own == other.evaluate()["eval_mlm_loss"] == one.evaluate()["eval_mlm_loss"]
    found = [one.evaluate(rows)["eval_mlm_loss"], one.predict(rows).metrics["test_mlm_loss"]]
    assert found == [other.evaluate(rows)["eval_mlm_loss"]] * 2 and own not in found


def test_rows_that_were_exchanged_are_evaluated_by_workers_that_persist(tmp_path):
    workers = {"dataloader_num_workers": 1, "dataloader_persistent_workers": True}
    trainer, rows = training.trainer(tmp_path, **workers), training.rows(110, 120)
    first = trainer.evaluate()["eval_mlm_loss"]
    trainer.eval_dataset = rows
    exchanged = trainer.evaluate()["eval_mlm_loss"]
    assert exchanged == training.trainer(tmp_path).evaluate(rows)["eval_mlm_loss"] != first


def test_evaluations_of_other_rows_are_not_in_the_history(tmp_path):
    """Cards show what is there last, and what was measured of a collapse counts from it."""
    trainer, rows = training.trainer(tmp_path), training.rows(110, 120)
    own = trainer.evaluate()
    history = list(trainer.state.log_history)
    other = trainer.evaluate(rows)
    assert trainer.state.log_history == history and other["eval_mlm_loss"] != own["eval_mlm_loss"]
    assert "eval_effective_rank" in own and "eval_effective_rank" not in other
    test = trainer.evaluate(rows, metric_key_prefix="test")
    assert trainer.state.log_history[-1]["test_mlm_loss"] == test["test_mlm_loss"] == other["eval_mlm_loss"]
    trainer.evaluate()
    assert "eval_mlm_loss" in trainer.state.log_history[len(history) + 1]


def test_arguments_serve_two_trainers(tmp_path):
    """Alone, the JEPA loss has no best checkpoint; another Trainer with the same arguments has one."""
    arguments, found = training.training_arguments(tmp_path), []
    for objective in ("jepa", "hybrid"):
        model, collator = training.model(objective), training.collator(objective)
        trainer = PredRecTrainer(model, arguments, collator, training.rows(0, 100), training.rows(100, 120))
        found.append(trainer.args.metric_for_best_model)
    assert found == [None, "eval_mlm_loss"]


def test_workers_that_persist_are_those_of_the_first_evaluation(tmp_path):
    """Each evaluation of a run had started workers of its own, and left them."""
    trainer = training.trainer(tmp_path, dataloader_num_workers=1, dataloader_persistent_workers=True)
    before, seen = set(multiprocessing.active_children()), []
    for _ in range(3):
        trainer.evaluate()
        trainer.evaluate(training.rows(110, 120))
        seen.append(set(multiprocessing.active_children()) - before)
    assert seen[0] == seen[1] == seen[2] and len(seen[0]) == 1


@pytest.mark.parametrize(
    "options",
    [
        {"loss_weighting": "fixed", "loss_lambda": 0.2},
        {"loss_weighting": "learned", "loss_lambda": 0.3},
        {"loss_weighting": "uncertainty"},
        {"loss_weighting": "schedule", "loss_lambda_end": 0.1},
        {"objective": "mlm"},
        {"objective": "jepa"},
    ],
    ids=str,
)
def test_evaluated_loss_is_that_of_its_terms_whatever_the_batches(tmp_path, options):
    """A mean over batches would be another number for each batch size, and for no split would it add up."""
    trainer = training.trainer(tmp_path, packing=False, max_steps=2, **options)
    trainer.train()
    whole = trainer.evaluate()
    trainer.args.per_device_eval_batch_size = 3
    parts = trainer.evaluate()
    jepa, mlm, addend = (weight.item() for weight in trainer.model.loss_weights())
    terms = jepa * whole.get("eval_jepa_loss", 0) + mlm * whole.get("eval_mlm_loss", 0) + addend
    assert whole["eval_loss"] == pytest.approx(terms) == pytest.approx(parts["eval_loss"], rel=1e-5)
