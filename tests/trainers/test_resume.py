"""A run that stopped and went on equals one that never stopped, to the bit."""

import itertools
import json
import shutil
import time
from functools import cache
from hashlib import sha256

import pytest
import torch
from transformers import TrainerCallback

from predrec.errors import UserError
from predrec.trainers import PredRecTrainer
from predrec.trainers.checkpoints import checkpoints_in, resume_point
from predrec.trainers.ending import close_connections
from predrec.trainers.integrity import CHECKSUMS_FILE
from predrec.trainers.streaming import STREAM_FILE
from tests import training
from tests.processes import in_two_processes

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
    for loader in (trainer.callback_handler.train_dataloader, *getattr(trainer, "_eval_dataloaders", {}).values()):
        iterator = getattr(getattr(loader, "base_dataloader", loader), "_iterator", None)
        if iterator is not None:
            iterator._shutdown_workers()


def digest(batch) -> str:
    """Of all tensors of a batch: tokens, labels, both mask sets, the numbers of the rows."""
    tensors = sorted((name, value) for name, value in batch.items() if name != "layout")
    return sha256(b"".join(name.encode() + value.numpy().tobytes() for name, value in tensors)).hexdigest()


def trained(folder, resume=None, **options):
    """Runs a trainer to its end, or to where a callback stops it, and returns it with digests of its batches."""
    trainer, digests, compute_loss = training.trainer(folder, **options), [], PredRecTrainer.compute_loss

    def watched(model, inputs, *args, **kwargs):
        digests.append(digest(inputs))
        return compute_loss(trainer, model, inputs, *args, **kwargs)

    trainer.compute_loss = watched
    trainer.train(resume_from_checkpoint=resume)
    stop_workers(trainer)
    return trainer, digests


def in_parts(folder, stops, **options):
    """The same, stopped after each of these steps and resumed by a trainer that knows nothing but the checkpoint."""
    digests, resume = [], None
    for stop in (*stops, None):
        callbacks = [] if stop is None else [StopAfter(stop)]
        trainer, more = trained(folder, resume, callbacks=callbacks, **options)
        digests += more
        resume = str(folder / f"checkpoint-{stop}")
    return trainer, digests


def watch_rows(collator, numbers):
    """A collator that also notes the number of every row of a stream."""

    def watched(features):
        numbers.extend(feature["number"] for feature in features)
        return collator(features)

    return watched


def flat(value, name=""):
    """Every leaf of nested dictionaries and lists, with its path."""
    if isinstance(value, dict | list | tuple):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from flat(part, f"{name}/{key}")
    else:
        yield name, value


def states(trainer):
    """All that a run ends with, by name."""
    return dict(
        flat(
            {
                "weights": trainer.model.state_dict(),
                "optimizer": trainer.optimizer.state_dict(),
                "schedule": trainer.lr_scheduler.state_dict(),
                "random": torch.random.get_rng_state(),
                "log": lines(trainer),
                "best": (trainer.state.best_metric, trainer.state.best_global_step),
                "epoch": trainer.state.epoch,
            }
        )
    )


def assert_equal(parts, whole):
    """Bit for bit: batches, weights of all networks, optimizer, schedule, random state, losses, monitor."""
    assert parts[1] == whole[1], "other batches"
    found, expected = states(parts[0]), states(whole[0])
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        same = torch.equal(found[name], value) if isinstance(value, torch.Tensor) else found[name] == value
        assert same, (name, found[name], value)


KINDS = ("packed", "documents", "isolated", "streamed", "streamed documents")
ACCUMULATION = {1: {"per_device_train_batch_size": 8}, 2: {"per_device_train_batch_size": 4}}
"""The same updates of 8 rows: 13 or 14 an epoch, the last one shorter."""

DROPPING = {"encoder": training.encoder_config(hidden_dropout_prob=0.1)}
DRAWING = {"jepa_loss": "sigreg", **DROPPING}
"""What draws from the global random state in every update: sliced directions, dropout."""

OPTIONS = {
    **{"max_steps": 24, "logging_steps": 4, "eval_strategy": "steps", "eval_steps": 6},
    **{"save_strategy": "steps", "save_steps": 25, **DRAWING},
}


def stops(kind):
    """In the middle of an epoch, at its end, and in the middle of the next."""
    rows = training.train_rows(kind)
    return 4, -(-len(rows) // 8) if hasattr(rows, "__len__") else 14, 18


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Gives an uninterrupted run without workers; each is made once."""

    @cache
    def run(kind, accumulation):
        options = OPTIONS | ACCUMULATION[accumulation] | {"gradient_accumulation_steps": accumulation, "kind": kind}
        return trained(tmp_path_factory.mktemp("whole"), **options)

    return run


@pytest.mark.parametrize(
    ("kind", "accumulation", "workers"),
    [
        *itertools.product(KINDS, [1], ["none", "some", "some, persistent"]),
        *itertools.product(["packed", "streamed"], [2], ["some"]),
    ],
)
def test_run_in_parts_equals_an_uninterrupted_one(tmp_path, whole, kind, accumulation, workers):
    """The uninterrupted one has no workers: their number changes nothing. A stream has at most one."""
    options = OPTIONS | ACCUMULATION[accumulation] | {"gradient_accumulation_steps": accumulation, "kind": kind}
    if workers != "none":
        options["dataloader_num_workers"] = 1 if kind.startswith("streamed") else 2
        options["dataloader_persistent_workers"] = "persistent" in workers
    assert_equal(in_parts(tmp_path, stops(kind), **options), whole(kind, accumulation))


VARIANTS = (
    {"objective": "mlm"},
    {"objective": "jepa", "metric_for_best_model": None},
    {"jepa_dropout": 0.5, "mlm_view": "context"},
    {"center_targets": True, "loss_weighting": "schedule", "loss_lambda_end": 0.1},
    {"loss_weighting": "uncertainty", "num_mask_sets": 2},
    {"bf16": True},
    training.CROPS | {"context_text": "original", "jepa_dropout": 0.5},
    {"lr_scheduler_type": "constant", "max_steps": 20},
    {"eval_strategy": "epoch", "save_strategy": "epoch", "logging_strategy": "epoch"},
    {"save_strategy": "best"},
    {"train_sampling_strategy": "group_by_length", "kind": "documents"},
)


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda options: "-".join(map(str, options.values())))
def test_variant_in_parts_equals_an_uninterrupted_one(tmp_path, variant):
    options = {name: value for name, value in OPTIONS.items() if name not in DRAWING} | variant
    parts = in_parts(tmp_path / "parts", [stop for stop in stops("packed") if stop < options["max_steps"]], **options)
    assert_equal(parts, trained(tmp_path / "whole", **options))


TWO = """
import sys, torch
torch.set_num_threads(1)
from pathlib import Path
from tests.trainers import test_resume
test_resume.in_parts_and_whole(Path(sys.argv[1]))
"""
OF_TWO = (("packed", 0, 1), ("documents", 2, 2), ("streamed", 1, 2))
"""Kinds of rows, workers of each process, batches in an update."""


def in_parts_and_whole(folder):
    """Compares, on each process, runs in parts with uninterrupted ones without workers, and says so."""
    for kind, workers, accumulation in OF_TWO:
        options = {"gradient_accumulation_steps": accumulation, "per_device_train_batch_size": 4 // accumulation}
        options |= {name: value for name, value in OPTIONS.items() if name not in DRAWING} | {"kind": kind, **DROPPING}
        options["max_steps"] = 18
        whole = trained(folder / kind / "whole", **options)
        parts = in_parts(folder / kind / "parts", stops(kind)[:2], dataloader_num_workers=workers, **options)
        assert whole[0].args.world_size == 2 and len(whole[1]) >= 18
        assert_equal(parts, whole)
        print(f"rank {whole[0].args.process_index}: {kind} in parts equals an uninterrupted run\n", end="", flush=True)
    close_connections(whole[0])


@pytest.mark.slow
def test_run_of_two_processes_in_parts_equals_an_uninterrupted_one(tmp_path):
    printed = in_two_processes(TWO, tmp_path).splitlines()
    for kind, _, _ in OF_TWO:
        for rank in (0, 1):
            assert f"rank {rank}: {kind} in parts equals an uninterrupted run" in printed


def test_every_step_of_a_run_can_be_resumed(tmp_path):
    options = OPTIONS | {"max_steps": 16, "save_steps": 1, "save_total_limit": None, "eval_steps": 4}
    whole = trained(tmp_path / "whole", **options)
    for step in range(1, 17):
        trainer, digests = trained(tmp_path / str(step), str(tmp_path / f"whole/checkpoint-{step}"), **options)
        assert_equal((trainer, whole[1][:step] + digests), whole)


def test_finished_run_is_not_trained_further(tmp_path):
    """As when it is killed while the encoder is exported. The stock loop makes one update more in mid-epoch."""
    options = {"save_strategy": "steps", "max_steps": 6, "lr_scheduler_type": "constant"}
    whole, _ = trained(tmp_path, **options)
    again, digests = trained(tmp_path, str(tmp_path / "checkpoint-6"), **options)
    assert digests == []
    assert again.state.global_step == 6
    assert all(map(torch.equal, again.model.state_dict().values(), whole.model.state_dict().values()))


def test_resumed_stream_reads_nothing_to_skip_it(tmp_path):
    options = {"save_strategy": "steps", "save_steps": 10, "max_steps": 20, "kind": "streamed"}
    trained(tmp_path, **options)
    trainer = training.trainer(tmp_path, **options)
    rows = []
    trainer.data_collator = watch_rows(trainer.data_collator, rows)
    trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-10"))
    # The loader fetches one batch ahead.
    assert rows[0] == 80 and len(rows) <= 8 * 11


def test_stream_of_an_older_checkpoint_is_read_again(tmp_path):
    options = OPTIONS | {"max_steps": 12, "kind": "streamed"}
    whole = trained(tmp_path / "whole", **options)
    _, first = trained(tmp_path / "parts", callbacks=[StopAfter(7)], **options)
    for name in (STREAM_FILE, CHECKSUMS_FILE):
        (tmp_path / "parts/checkpoint-7" / name).unlink()
    trainer, rest = trained(tmp_path / "parts", str(tmp_path / "parts/checkpoint-7"), **options)
    assert_equal((trainer, first + rest), whole)


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


@pytest.mark.parametrize(
    ("save_steps", "limit", "metric", "values"),
    [
        *((*how, "eval_mlm_loss", (5.0, 1.0, 4.0, 3.0, 2.0)) for how in ((1, 2), (5, 2), (1, 1))),
        (1, 2, "eval_mlm_accuracy", (0.1, 0.3, 0.2, 0.05, 0.25)),
    ],
)
def test_best_and_last_checkpoint_are_kept(tmp_path, monkeypatch, save_steps, limit, metric, values):
    """The best of five is the second, saved because it is the best; of the others only the last remains."""
    values = iter(values)
    options = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": save_steps}
    options["metric_for_best_model"] = metric
    trainer = training.trainer(tmp_path, max_steps=5, save_total_limit=limit, **options)
    original = trainer.evaluation_loop

    def scripted(*args, **kwargs):
        result = original(*args, **kwargs)
        result.metrics[metric] = next(values)
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
    for name in ("metric_sums_0.json", CHECKSUMS_FILE):
        (tmp_path / "checkpoint-3" / name).unlink()
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


def test_speed_after_a_resume_is_that_of_training(tmp_path):
    """The first line counts the tokens since the last one before the stop, and the time since then."""

    class Slow(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            time.sleep(0.2)

    options = {"save_strategy": "steps", "save_steps": 1000, "max_steps": 10, "logging_steps": 5}
    training.trainer(tmp_path, callbacks=[Slow(), StopAfter(9)], **options).train()
    second = training.trainer(tmp_path, callbacks=[Slow()], **options)
    second.train(resume_from_checkpoint=str(tmp_path / "checkpoint-9"))
    (line,) = [entry for entry in second.state.log_history if entry.get("step") == 10 and "loss" in entry]
    assert line["tokens_per_second"] <= line["tokens"] / (5 * 0.2)
    (whole,) = training.logged(second, "train_runtime")
    assert whole >= 10 * 0.2
    assert "s, evaluation included" in (second.create_model_card() or (tmp_path / "README.md").read_text())


def test_checkpoint_of_weights_alone_is_no_place_to_resume_from(tmp_path):
    options = {"save_strategy": "steps", "save_steps": 2, "max_steps": 2}
    training.trainer(tmp_path, save_only_model=True, **options).train()
    with pytest.raises(UserError, match=r"checkpoint-2.*holds weights alone.*`save_only_model`"):
        resume_point(tmp_path, True)
