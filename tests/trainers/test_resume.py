"""A run that stopped and went on equals one that never stopped, to the bit."""

import json
import shutil

import pytest
import torch
from transformers import TrainerCallback

from predrec.trainers.checkpoints import checkpoints_in
from tests import training

TIMES = {
    "tokens_per_second",
    "eval_tokens_per_second",
    "eval_runtime",
    "eval_samples_per_second",
    "eval_steps_per_second",
}


class StopAfter(TrainerCallback):
    """Ends a run as an interruption does: a checkpoint, then no more steps."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            control.should_save = control.should_training_stop = True


def lines(trainer):
    """The log without what a clock decides, and without the summary at the end."""
    return [
        {name: value for name, value in entry.items() if name not in TIMES}
        for entry in trainer.state.log_history
        if "train_runtime" not in entry
    ]


def stop_workers(trainer):
    """Ends persistent workers now; left to the garbage collector they take five seconds each."""
    loader = trainer.callback_handler.train_dataloader
    iterator = getattr(getattr(loader, "base_dataloader", loader), "_iterator", None)
    if iterator is not None:
        iterator._shutdown_workers()


def compare(tmp_path, stop, **overrides):
    options = {"save_strategy": "steps", "save_steps": 1000, "max_steps": 40, "logging_steps": 3} | overrides
    whole = training.trainer(tmp_path / "whole", **options)
    whole.train()
    first = training.trainer(tmp_path / "parts", callbacks=[StopAfter(stop)], **options)
    first.train()
    second = training.trainer(tmp_path / "parts", **options)
    second.train(resume_from_checkpoint=str(tmp_path / "parts" / f"checkpoint-{stop}"))
    for (name, expected), (other, value) in zip(
        whole.model.state_dict().items(), second.model.state_dict().items(), strict=True
    ):
        assert name == other
        assert torch.equal(expected, value), name
    assert lines(second) == lines(whole)
    for trainer in (whole, first, second):
        stop_workers(trainer)


# 100 documents give 97 packed rows or so: 13 steps an epoch. Step 5 is in epoch 0, 20 in epoch 1, 26 at a boundary.
@pytest.mark.parametrize(
    ("stop", "workers", "persistent", "options"),
    [
        (5, 0, False, {}),
        (20, 0, False, {}),
        (20, 2, False, {}),
        (20, 2, True, {}),
        (7, 0, False, {"packing": False}),
        (7, 0, False, {"objective": "mlm"}),
        (9, 0, False, {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}),
        (8, 0, False, {"jepa_loss": "sigreg"}),
        (8, 0, False, {"center_targets": True, "loss_weighting": "schedule", "loss_lambda_end": 0.1}),
        (10, 0, False, {"eval_strategy": "steps", "eval_steps": 4, "save_steps": 4}),
    ],
    ids=str,
)
def test_resumed_run_equals_an_uninterrupted_one(tmp_path, stop, workers, persistent, options):
    compare(
        tmp_path,
        stop,
        dataloader_num_workers=workers,
        dataloader_persistent_workers=persistent,
        **options,
    )


def test_resume_at_an_epoch_boundary_is_exact(tmp_path):
    steps = -(-len(training.rows(0, 100)) // 8)
    compare(tmp_path, stop=steps)


def test_number_of_workers_does_not_change_a_run(tmp_path):
    runs = []
    for workers in (0, 2):
        trainer = training.trainer(tmp_path / str(workers), max_steps=16, dataloader_num_workers=workers)
        trainer.train()
        runs.append(lines(trainer))
    assert runs[0] == runs[1]


def test_masks_differ_between_epochs(tmp_path):
    trainer = training.trainer(tmp_path)
    rows, collator = trainer.train_dataset, trainer.data_collator
    batches = []
    for epoch in (0, 1):
        rows.set_epoch(epoch)
        batches.append(collator([rows[index] for index in range(8)]))
    rows.set_epoch(0)
    assert not torch.equal(batches[0]["labels"], batches[1]["labels"])
    assert torch.equal(batches[0]["original_input_ids"], batches[1]["original_input_ids"])


def test_checkpoint_holds_what_resuming_needs(tmp_path):
    trainer = training.trainer(tmp_path, save_strategy="steps", save_steps=3, recipe={"max_steps": 6})
    trainer.train()
    names = {path.name for path in (tmp_path / "checkpoint-6").iterdir()}
    assert {"model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"} <= names
    assert {"metric_sums_0.json", "recipe.json", "tokenizer.json", "config.json"} <= names


@pytest.mark.parametrize("save_steps", [1, 5])
def test_best_and_last_checkpoint_are_kept(tmp_path, monkeypatch, save_steps):
    """The best of five is the second, saved because it is the best; of the others only the last remains."""
    losses = iter([5.0, 1.0, 4.0, 3.0, 2.0])
    options = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": save_steps}
    trainer = training.trainer(tmp_path, max_steps=5, **options)
    original = trainer.evaluation_loop

    def scripted(*args, **kwargs):
        result = original(*args, **kwargs)
        result.metrics["eval_mlm_loss"] = next(losses)
        return result

    monkeypatch.setattr(trainer, "evaluation_loop", scripted)
    trainer.train()
    assert [path.name for path in checkpoints_in(tmp_path)] == ["checkpoint-2", "checkpoint-5"]
    state = json.loads((tmp_path / "checkpoint-5" / "trainer_state.json").read_text())
    assert state["best_model_checkpoint"].endswith("checkpoint-2")


def test_switched_objective_survives_a_resume(tmp_path):
    class Switch(TrainerCallback):
        def on_step_end(self, args, state, control, model=None, **kwargs):
            if state.global_step == 2:
                model.switch_objective("mlm")

    options = {"save_strategy": "steps", "save_steps": 1000, "max_steps": 8}
    first = training.trainer(tmp_path, callbacks=[Switch(), StopAfter(4)], **options)
    first.train()
    second = training.trainer(tmp_path, **options)
    second.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    after = [entry for entry in second.state.log_history if "loss" in entry and entry["step"] > 2]
    assert len(after) == 6
    assert not any("jepa_loss" in entry for entry in after)


def test_checkpoint_of_another_process_count_restarts_the_sums(tmp_path):
    options = {"save_strategy": "steps", "save_steps": 1000, "max_steps": 6, "logging_steps": 4}
    first = training.trainer(tmp_path, callbacks=[StopAfter(3)], **options)
    first.train()
    (tmp_path / "checkpoint-3" / "metric_sums_0.json").unlink()
    second = training.trainer(tmp_path, **options)
    second.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    assert second.state.global_step == 6
    shutil.rmtree(tmp_path / "checkpoint-3")


@pytest.mark.parametrize("workers", [0, 1])
def test_held_out_masks_never_change(tmp_path, workers):
    """Accelerate tells the dataset of a cached loader a new epoch at every pass."""
    trainer = training.trainer(
        tmp_path,
        eval_strategy="steps",
        dataloader_num_workers=workers,
        dataloader_persistent_workers=workers > 0,
    )
    losses = {trainer.evaluate()["eval_mlm_loss"] for _ in range(3)}
    assert len(losses) == 1


def test_pushing_saves_the_export_not_the_whole_model(tmp_path):
    """`Trainer.push_to_hub` saves "internally", without a directory, and uploads the output directory's root."""
    trainer = training.trainer(tmp_path)
    trainer.save_model(_internal_call=True)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "predrec"
    trainer.save_model(str(tmp_path / "checkpoint-1"), _internal_call=True)
    assert json.loads((tmp_path / "checkpoint-1/config.json").read_text())["model_type"] == "predrec_pretraining"
