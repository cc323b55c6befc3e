"""The command that reproduces: runs are made once, whatever interrupts them, and never mixed with others."""

import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from contextlib import nullcontext, redirect_stdout
from dataclasses import replace
from pathlib import Path

import pytest
from datasets import Dataset
from filelock import FileLock

from predrec.commands import experiment_runs, reproduce
from predrec.commands.experiment_runs import StoppedError, pretrain_in_process
from predrec.commands.experiment_timing import timed_arguments
from predrec.commands.reproduce import main
from predrec.experiments.definition import Arm, resolve_arm
from predrec.experiments.run_files import read_run, write_run
from tests import training
from tests.processes import pretrained_here

ROOT = Path(__file__).parents[2]
EXPERIMENT = """
title: Tiny encoders
data: {train_file: train.txt, validation_file: held-out.txt}
pretrain:
  tokenizer_name: tokenizer
  max_seq_length: 32
  hidden_size: 16
  num_hidden_layers: 2
  num_attention_heads: 2
  intermediate_size: 32
  predictor_num_hidden_layers: 1
  min_context_tokens: 4
  max_steps: 10
  per_device_train_batch_size: 4
  learning_rate: 1e-3
  logging_steps: 5
  eval_steps: 0.5
  save_steps: 0.5
  monitor_examples: 4
  disable_tqdm: true
arms:
  hybrid: {why: both losses}
  mlm: {why: "one loss", objective: mlm, same_time_as: hybrid, updates_factor: 2}
order:
  - {arms: [mlm, hybrid], seeds: 2}
probe: {tasks: [sst2, stsb], seeds: 2, num_train_epochs: 2}
geometry: {tasks: [sst2], pooling: [mean, max], num_examples: 20}
pairs: [[hybrid, mlm]]
primary:
  question: Which is better
  model: hybrid
  baseline: mlm
  seeds: 5
  scores: {sst2: accuracy, stsb: spearmanr}
"""
RUNS = ["hybrid-1.json", "hybrid-2.json", "mlm-1.json", "mlm-2.json"]


class Place:
    """An experiment with its data, and the command on it."""

    def __init__(self, folder: Path, data: Path, glue: Path):
        self.folder, self.data, self.glue = folder, data, glue
        self.runs, self.work = folder / "results/tiny/runs", folder / "work"
        self.definition = folder / "results/tiny/experiment.yaml"

    def run(self, *words: object) -> int:
        shared = ["--data", str(self.data), "--glue", str(self.glue), "--tokenizer_name", str(self.data / "tokenizer")]
        work = ["--output_dir", str(self.work), "--num_threads", "1"]
        return main([str(self.definition), *shared, *work, *map(str, words)])

    def names(self) -> list[str]:
        return sorted(path.name for path in self.runs.glob("*"))


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("texts")
    (folder / "train.txt").write_text("\n".join(training.corpus()[:100]), encoding="utf-8")
    (folder / "held-out.txt").write_text("\n".join(training.corpus()[100:]), encoding="utf-8")
    training.tokenizer().save_pretrained(folder / "tokenizer")
    return folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny_data, data_dir) -> Place:
    """All runs, and what was printed; tests read it and do not change it."""
    place = Place(tmp_path_factory.mktemp("finished"), tiny_data, data_dir)
    place.definition.parent.mkdir(parents=True)
    place.definition.write_text(EXPERIMENT, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch, (place.folder / "printed").open("w") as stream:
        patch.setattr(experiment_runs, "pretrain_in_process", pretrained_here)
        with redirect_stdout(stream):
            assert place.run() == 0
    return place


@pytest.fixture
def trained(monkeypatch) -> list[str]:
    """Trains in this process; the list has the output folder of every training."""
    outputs: list[str] = []
    monkeypatch.setattr("predrec.eval.report.all_figures", lambda results: [])  # They take the most time.
    monkeypatch.setattr("predrec.experiments.report_training.training_figure", lambda runs: None)

    def train(words, log) -> int:
        outputs.append(Path(words[words.index("--output_dir") + 1]).parent.name)
        return pretrained_here(words, log)

    monkeypatch.setattr(experiment_runs, "pretrain_in_process", train)
    return outputs


@pytest.fixture
def place(finished, tmp_path) -> Place:
    """A copy of everything, without the work in progress: another clone."""
    shutil.copytree(finished.folder / "results", tmp_path / "results")
    return Place(tmp_path, finished.data, finished.glue)


def test_every_run_leaves_a_file(finished):
    assert finished.names() == RUNS


@pytest.mark.parametrize("name", ["report.md", "report.html", "results.json", "figures/training.png"])
def test_report_is_written(finished, name):
    assert (finished.runs.parent / name).stat().st_size > 0


def test_console_says_what_is_left(finished):
    printed = (finished.folder / "printed").read_text()
    assert "mlm-1 (1 of 4); time left: unknown until the first run has finished" in printed
    assert re.search(r"hybrid-2 \(4 of 4\); time left: (less than a|\d+) min", printed)
    assert len(re.findall("held-out masked-LM loss", printed)) == 4


def test_file_says_what_was_run(finished):
    content = read_run(finished.runs / "mlm-1.json")
    assert (content["steps"], content["tokens"]) == (20, 20 * 4 * 32)
    assert content["arguments"]["objective"] == "mlm"
    assert content["command"].startswith("predrec pretrain mlm.yaml --train_file 'DATA/train.txt'")
    assert set(content["seconds"]) == {"training", "rest", "probes", "geometry"}
    assert content["versions"]["torch"]
    assert set(content["texts"]) == {"sst2 (probe)", "stsb (probe)", "sst2 (geometry)"}


def test_file_has_curves_to_the_last_update(finished):
    curves = read_run(finished.runs / "hybrid-1.json")["curves"]
    assert [step for step, _ in curves["eval_mlm_loss"]] == [5, 10]
    assert [tokens for _, tokens in curves["tokens"]] == [5 * 4 * 32] * 2
    assert {"loss_lambda", "jepa_loss", "eval_trivial_loss_mean", "eval_jepa_margin"} <= curves.keys()


def test_committed_files_name_no_folder_of_the_machine(finished):
    for path in [*finished.runs.iterdir(), *finished.runs.parent.glob("re*")]:
        text = path.read_text(encoding="utf-8")
        assert not [part for part in (finished.folder, finished.data, finished.glue) if str(part) in text]


def test_seeds_of_an_arm_differ_and_arms_of_a_seed_share_the_data(finished):
    contents = [read_run(finished.runs / name) for name in RUNS]
    assert len({content["model"]["weights"] for content in contents}) == 4
    assert len({content["data"] for content in contents}) == 1


def test_only_the_export_is_kept(finished):
    folder = finished.work / "mlm-1/train"
    assert (folder / "model.safetensors").is_file()
    assert not list(folder.glob("checkpoint-*"))


def test_covered_runs_are_skipped_on_any_clone(place, trained, capsys):
    assert place.run() == 0
    assert trained == []
    assert "4 of 4 runs are finished; 0 to make now" in capsys.readouterr().out


def test_report_of_a_clone_is_the_same(place, finished):
    (place.runs.parent / "report.md").unlink()
    assert main([str(place.definition), "--report_only", "true"]) == 0
    names = "report.md", "results.json"
    assert [(place.runs.parent / name).read_text() for name in names] == [
        (finished.runs.parent / name).read_text() for name in names
    ]


def test_missing_run_alone_is_made_and_comes_out_the_same(place, finished, trained):
    (place.runs / "mlm-2.json").unlink()
    assert place.run("--keep", "nothing") == 0
    assert trained == ["mlm-2"]
    again, first = (read_run(one.runs / "mlm-2.json") for one in (place, finished))
    assert (again["measured"], again["model"]) == (first["measured"], first["model"])
    assert not (place.work / "mlm-2/train").exists()


def test_interrupted_after_training_goes_on_with_probing(place, trained, monkeypatch):
    (place.runs / "mlm-2.json").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(experiment_runs.probe_glue, "main", lambda words: (_ for _ in ()).throw(KeyboardInterrupt))
        assert place.run() == 130
    assert place.names() == [name for name in RUNS if name != "mlm-2.json"]
    assert place.run() == 0
    assert trained == ["mlm-2"]
    assert place.names() == RUNS


def test_interrupted_training_goes_on_from_its_checkpoint(place, finished, trained, monkeypatch, capsys):
    (place.runs / "mlm-2.json").unlink()

    def stopped(words, log) -> int:
        """Stops at the checkpoint in the middle, as a run that gets a signal there."""
        assert pretrained_here(words, log) == 0
        output = Path(words[words.index("--output_dir") + 1])
        shutil.rmtree(output / "checkpoint-20")
        (output / "model.safetensors").unlink()
        return 128 + signal.SIGTERM

    monkeypatch.setattr(experiment_runs, "pretrain_in_process", stopped)
    assert place.run() == 143
    assert "the same command goes on" in capsys.readouterr().out
    monkeypatch.setattr(experiment_runs, "pretrain_in_process", pretrained_here)
    assert place.run() == 0
    again, first = (read_run(one.runs / "mlm-2.json") for one in (place, finished))
    assert again["model"]["weights"] == first["model"]["weights"]
    assert again["curves"]["mlm_loss"] == first["curves"]["mlm_loss"]


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("learning_rate: 1e-3", "learning_rate: 2e-3", "another definition"),
        ("num_train_epochs: 2", "num_train_epochs: 3", "other settings"),
        ("hybrid: {why", "hybrids: {why", "no arm `hybrid`"),
    ],
)
def test_files_of_another_definition_are_refused(place, trained, capsys, old, new, reason):
    text = place.definition.read_text().replace(old, new)
    if "hybrids" in new:
        text = text.replace("[mlm, hybrid]", "[mlm, hybrids]").replace("[hybrid, mlm]", "[hybrids, mlm]")
        text = text.replace("model: hybrid", "model: hybrids").replace("as: hybrid", "as: hybrids")
    place.definition.write_text(text)
    assert place.run() == 2
    message = capsys.readouterr().err
    assert reason in message and "Nothing was run" in message and "hybrid-1" in message
    assert trained == []


def test_work_of_another_definition_is_refused(place, finished, trained, capsys):
    (place.runs / "mlm-2.json").unlink()
    shutil.copytree(finished.work / "mlm-2", place.work / "mlm-2")
    path = place.work / "mlm-2/trained.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"definition": "another"}))
    assert place.run() == 2
    assert "mlm-2 holds a run of another definition" in capsys.readouterr().err


def test_plan_runs_nothing(place, trained, capsys):
    (place.runs / "mlm-2.json").unlink()
    assert main([str(place.definition), "--plan_only", "true"]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"^  mlm-2 +(less than a|\d+) min", printed, flags=re.MULTILINE) and "time left: " in printed
    assert trained == []


def test_named_arms_alone_are_run(place, trained):
    for name in ("hybrid-2.json", "mlm-2.json"):
        (place.runs / name).unlink()
    assert place.run("--only", "hybrid", "--max_hours", "1") == 0
    assert trained == ["hybrid-2"]


def test_calls_at_the_same_time_share_the_runs(place, trained, capsys):
    """One is at `mlm-2`; another makes the rest and leaves that to it."""
    for name in ("hybrid-2.json", "mlm-2.json"):
        (place.runs / name).unlink()
    place.work.mkdir()
    with FileLock(place.work / "mlm-2.lock"):
        assert place.run() == 0
    assert trained == ["hybrid-2"]
    assert "mlm-2 is being made by another call" in capsys.readouterr().out
    assert place.run() == 0
    assert trained == ["hybrid-2", "mlm-2"]


def test_arms_are_timed_in_turn(place, trained, capsys):
    assert place.run("--time_rounds", 2, "--timed_updates", 12) == 0
    assert trained == ["timing"] * 4
    printed = capsys.readouterr().out
    assert re.findall(r"round (\d), (\w+): [\d.]+ seconds per update", printed) == [
        *(("1", "hybrid"), ("1", "mlm")),
        *(("2", "hybrid"), ("2", "mlm")),
    ]
    assert re.search(r"\| mlm \|.*\| 20 \| .* of hybrid \| [\d.]+ \(it is 2\) \|", printed)
    timing = json.loads((place.runs.parent / "timing.json").read_text())
    assert timing["updates"] == 12 and timing["machine"].startswith("1 CPU core,")
    assert all(len(rounds) == 2 and min(rounds) > 0 for rounds in timing["seconds"].values())
    assert str(place.folder) not in json.dumps(timing)
    assert place.names() == RUNS
    assert [path.name for path in (place.work / "timing").iterdir() if path.is_dir()] == []
    assert place.run() == 0
    assert "Timed in turn, with nothing beside them" in (place.runs.parent / "report.md").read_text()


def test_arms_are_not_timed_beside_runs(place, trained, capsys):
    place.work.mkdir()
    with FileLock(place.work / "mlm-2.lock"):
        assert place.run("--time_rounds", 1) == 2
    assert trained == []
    assert "mlm-2 is being made by another call" in capsys.readouterr().err


def test_timing_that_is_stopped_writes_nothing(place, monkeypatch, capsys):
    monkeypatch.setattr(experiment_runs, "pretrain_in_process", lambda words, log: 143)
    assert place.run("--time_rounds", 1) == 143
    assert capsys.readouterr().out == "stopped; nothing was written.\n"
    assert not (place.runs.parent / "timing.json").exists()


@pytest.mark.parametrize(
    "options",
    [
        {"collapse_action": "stop", "metric_for_best_model": "eval_loss", "load_best_model_at_end": "true"},
        {"lr_scheduler_type": "reduce_lr_on_plateau", "save_strategy": "best"},
        {"jepa_start": "0.5", "warmup_steps": "100"},
    ],
    ids=lambda options: "-".join(options),
)
def test_what_happens_between_updates_is_left_out_of_what_is_timed(tmp_path, options):
    arm = Arm("hybrid", "", {"max_steps": "4000", "eval_steps": "0.5", "save_steps": "100", **options})
    arguments = timed_arguments(arm, 60)
    _, training = resolve_arm(replace(arm, arguments=arguments), tokenizer_name="given")
    assert (training.max_steps, training.save_steps, training.logging_steps) == (60, 60, 5)
    assert training.eval_strategy == "no" and arguments.keys() >= {"jepa_start"} & options.keys()


def test_run_that_another_call_has_finished_is_taken_over(place, finished, trained, monkeypatch):
    for name in ("hybrid-2.json", "mlm-2.json"):
        (place.runs / name).unlink()

    def train(words, log) -> int:
        """Trains `mlm-2` while another call makes `hybrid-2`."""
        shutil.copy(finished.runs / "hybrid-2.json", place.runs)
        trained.append("mlm-2")
        return pretrained_here(words, log)

    monkeypatch.setattr(experiment_runs, "pretrain_in_process", train)
    assert place.run() == 0
    assert trained == ["mlm-2"]
    assert "| hybrid | 2 of 2 |" in (place.runs.parent / "report.md").read_text()


def test_run_that_another_call_finishes_before_it_is_claimed_is_not_made_again(place, finished, trained, monkeypatch):
    (place.runs / "mlm-2.json").unlink()

    def claimed(shop, run):
        """Gets the lock as another call lets go of it."""
        shutil.copy(finished.runs / "mlm-2.json", place.runs)
        return nullcontext()

    monkeypatch.setattr(reproduce, "claimed", claimed)
    monkeypatch.setattr(reproduce, "make_run", lambda shop, run: pytest.fail("was made again"))
    assert place.run() == 0
    assert place.names() == RUNS


def test_run_of_which_nothing_is_kept_can_be_made_again(place, trained):
    for _ in range(2):
        (place.runs / "mlm-2.json").unlink()
        assert place.run("--keep", "nothing") == 0
    assert trained == ["mlm-2", "mlm-2"]


def test_no_run_begins_that_would_end_too_late(place, trained, capsys):
    (place.runs / "mlm-2.json").unlink()
    assert place.run("--max_hours", "1e-9") == 0
    assert trained == []
    assert "mlm-2 would not end within" in capsys.readouterr().out


def test_failed_training_is_an_error_with_its_last_words(place, monkeypatch, capsys):
    (place.runs / "mlm-2.json").unlink()

    def fail(words, log) -> int:
        log.write_text("a lot\nerror: the disk is full\n")
        return 1

    monkeypatch.setattr(experiment_runs, "pretrain_in_process", fail)
    assert place.run() == 2
    message = capsys.readouterr().err
    assert "Training mlm-2 failed" in message and "the disk is full" in message


def test_missing_task_is_found_before_anything_is_trained(place, trained, tmp_path, capsys):
    (place.runs / "mlm-2.json").unlink()
    (tmp_path / "empty").mkdir()
    place.glue = tmp_path / "empty"
    assert place.run() == 2
    assert "there is no folder for the task `sst2`" in capsys.readouterr().err
    assert trained == []


def test_missing_split_is_found_before_anything_is_trained(place, trained, tmp_path, capsys):
    (place.runs / "mlm-2.json").unlink()
    place.glue = tmp_path / "glue"
    for task in ("sst2", "stsb"):
        (place.glue / task).mkdir(parents=True)
    assert place.run() == 2
    assert "has no `validation` split" in capsys.readouterr().err
    assert trained == []


@pytest.mark.parametrize("split", ["train", "validation"])
@pytest.mark.parametrize("change", ["fewer rows", "another text"])
def test_other_rows_of_a_task_are_found_before_anything_is_trained(place, trained, tmp_path, capsys, split, change):
    (place.runs / "mlm-2.json").unlink()
    place.glue = shutil.copytree(place.glue, tmp_path / "glue")
    path = place.glue / "sst2" / f"{split}.parquet"
    first, *rest = Dataset.from_parquet(str(path), cache_dir=str(tmp_path)).to_list()
    other = [] if change == "fewer rows" else [first | {"sentence": "the dog"}]
    Dataset.from_list([*other, *rest]).to_parquet(path)
    assert place.run() == 2
    message = capsys.readouterr().err
    assert "`glue`: the finished runs" in message and "rows of sst2 (probe)" in message
    assert trained == []


def test_new_runs_are_measured_in_the_precision_of_the_finished_ones(place, finished, trained):
    dtype = {"float32": "bfloat16", "bfloat16": "float32"}[read_run(finished.runs / "mlm-1.json")["model"]["dtype"]]
    for path in place.runs.iterdir():
        content = read_run(path)
        write_run(path, content | {"model": content["model"] | {"dtype": dtype}})
    (place.runs / "mlm-2.json").unlink()
    assert place.run() == 0
    assert read_run(place.runs / "mlm-2.json")["model"]["dtype"] == dtype


def test_failed_probe_is_an_error(place, trained, monkeypatch, capsys):
    (place.runs / "mlm-2.json").unlink()
    said = "sst2 ...\nerror: the heads diverged\n  in all seeds"
    monkeypatch.setattr(experiment_runs.probe_glue, "main", lambda words: print(said) or 2)
    assert place.run() == 2
    assert capsys.readouterr().err == "error: the heads diverged\n  in all seeds\n"
    assert trained == ["mlm-2"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "seeds: 2, num_train",
            "seed_count: 2, num_train",
            "`probe` of the experiment: Unknown argument",
        ),
        ("pooling: [mean, max]", "pooling: [mode]", "`geometry` of the experiment: `pooling` 'mode'"),
        ("tasks: [sst2, stsb]", "tasks: [sst3, stsb]", "Unknown task `sst3`"),
    ],
)
def test_mistake_in_the_evaluation_is_found_before_anything_is_trained(place, trained, capsys, old, new, message):
    place.definition.write_text(place.definition.read_text().replace(old, new))
    assert place.run() == 2
    assert message in capsys.readouterr().err
    assert trained == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--glue", "."], "`data` is missing"),
        (["--data", "."], "`glue` is missing"),
        (["--data", "nowhere", "--glue", "."], "there is no folder 'nowhere'"),
        (["--only", "mml"], "there is no arm 'mml'"),
        (["--max_hours", "0"], "`max_hours` is 0"),
        (["--num_threads", "0"], "`num_threads` is 0"),
        (["--plan_only", "true", "--report_only", "true"], "exclude each other"),
        (["--plan_only", "true", "--time_rounds", "2"], "`plan_only` and `time_rounds` exclude each other"),
        (["--time_rounds", "0"], "`time_rounds` is 0; it must be at least 1"),
        (["--time_rounds", "1", "--timed_updates", "9"], "`timed_updates` is 9; it must be at least 10"),
        (["--timed_updates", "20"], "`timed_updates` has no effect without `time_rounds`"),
    ],
)
def test_mistake_is_named(place, words, message, capsys):
    (place.runs / "mlm-2.json").unlink()
    assert main([str(place.definition), *words]) == 2
    assert message in capsys.readouterr().err


def test_experiment_comes_first(capsys):
    assert main([]) == 2
    assert "Give the experiment first" in capsys.readouterr().err


def test_nothing_finished_has_no_report(place, capsys):
    shutil.rmtree(place.runs)
    assert main([str(place.definition), "--report_only", "true"]) == 2
    assert "no finished run" in capsys.readouterr().err


# The process of its own


def script(path: Path, text: str) -> str:
    """Writes a program that stands for Python."""
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IEXEC)
    return str(path)


def test_training_gets_the_arguments_and_writes_its_log(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", script(tmp_path / "python", 'echo "$@"; exit 3'))
    assert pretrain_in_process(["a.yaml", "--seed", "1"], tmp_path / "log") == 3
    assert (tmp_path / "log").read_text() == "-m predrec.commands.pretrain a.yaml --seed 1\n"


def test_training_gets_the_signal_that_ends_this_process(tmp_path, monkeypatch):
    program = f"trap 'echo saved; exit 143' TERM; touch {tmp_path}/begun; while :; do sleep 0.05; done"
    monkeypatch.setattr(sys, "executable", script(tmp_path / "python", program))

    def stop() -> None:
        while not (tmp_path / "begun").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    threading.Thread(target=stop).start()
    assert pretrain_in_process([], tmp_path / "log") == 143
    assert (tmp_path / "log").read_text() == "saved\n"
    assert signal.getsignal(signal.SIGTERM) is before


def test_signal_while_training_begins_is_not_lost(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", script(tmp_path / "python", "sleep 30"))

    class Signalled(subprocess.Popen):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(subprocess, "Popen", Signalled)
    assert pretrain_in_process([], tmp_path / "log") == 128 + signal.SIGTERM


def test_training_that_was_killed_counts_as_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", script(tmp_path / "python", "kill -9 $$"))
    assert pretrain_in_process([], tmp_path / "log") == 128 + signal.SIGKILL


def test_module_of_the_process_is_the_command(tmp_path):
    assert pretrain_in_process(["--nonsense", "1"], tmp_path / "log") == 2
    assert "Unknown argument `nonsense`" in (tmp_path / "log").read_text()


def test_stop_has_the_exit_code_of_training():
    assert StoppedError(143).code == 143


@pytest.mark.parametrize(
    "path", sorted((ROOT / "results").glob("*/experiment.yaml")), ids=lambda path: path.parent.name
)
def test_experiment_of_the_repository_is_accepted(path, capsys):
    assert main([str(path), "--plan_only", "true"]) == 0
    assert "time left" in capsys.readouterr().out
