"""Errors around a run are said in words, with what is left of it."""

import os
import resource
import signal
import time

import pytest
import torch
from datasets import Dataset
from transformers import TrainerCallback

from predrec.data_collators import StreamedRows
from predrec.errors import UserError
from predrec.trainers.checkpoints import checkpoints_in, write_errors_explained
from predrec.trainers.failures import RunFailedError, failures_explained
from predrec.trainers.interrupt import _unless_parent_is_gone
from predrec.trainers.resuming import BegunCallback, resume_errors_explained
from tests import training


class KillWorker(TrainerCallback):
    """kill -9 of a process that loads data, in the middle of a run."""

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == 6:
            with open(f"/proc/self/task/{os.getpid()}/children") as file:
                os.kill(int(file.read().split()[-1]), signal.SIGKILL)
            # torch's handler raises where the signal arrives: here, and not in a destructor or in pytest, later.
            time.sleep(30)


@pytest.mark.parametrize("persistent", [False, True])
def test_dead_worker_is_named_and_the_run_can_go_on(tmp_path, persistent):
    options = {"max_steps": 12, "save_strategy": "steps", "save_steps": 4, "dataloader_num_workers": 2}
    trainer = training.trainer(tmp_path, callbacks=[KillWorker()], dataloader_persistent_workers=persistent, **options)
    words = r"process that loads data died.* checkpoint-4 is intact: go on with"
    with pytest.raises(RunFailedError, match=words), failures_explained(tmp_path):
        trainer.train()
    resumed = training.trainer(tmp_path, **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    assert checkpoints_in(tmp_path)[-1].name == "checkpoint-12"


class Lost:
    """A batch whose process ends while it is fetched."""

    def __reduce__(self):
        return _lose, ()


def _lose():
    raise ConnectionResetError(104, "Connection reset by peer")


@pytest.mark.parametrize("signal_too", [False, True])
def test_worker_that_dies_while_a_batch_is_fetched_is_named(tmp_path, signal_too, monkeypatch):
    def sleep(seconds):
        if signal_too:
            raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed.")

    monkeypatch.setattr("predrec.trainers.failures.time.sleep", sleep)
    loader = torch.utils.data.DataLoader([1, 2], num_workers=1, collate_fn=lambda rows: Lost())
    words = r"process that loads data died.*\(\[Errno 104\] Connection reset by peer\) No checkpoint was written"
    with pytest.raises(RunFailedError, match=words), failures_explained(tmp_path):
        next(iter(loader))


def test_other_connection_stays_what_it_is(tmp_path):
    with pytest.raises(ConnectionResetError), failures_explained(tmp_path):
        _lose()


def test_worker_reports_errors_but_not_that_nobody_fetches_any_more(capsys):
    _unless_parent_is_gone(ConnectionResetError, ConnectionResetError(), None)
    assert capsys.readouterr().err == ""
    _unless_parent_is_gone(ValueError, ValueError("a row of 7"), None)
    assert capsys.readouterr().err == "ValueError: a row of 7\n"


@pytest.mark.parametrize(
    "message",
    [
        "[/gloo/transport/tcp/pair.cc:561] Connection closed by peer [127.0.0.1]:3270.",
        "NCCL error in: ProcessGroupNCCL.cpp:1234, remote process exited or there was a network error",
        "[/gloo/transport/tcp/unbound_buffer.cc:81] Timed out waiting 20000ms for recv operation to complete",
    ],
)
def test_dead_process_is_told_from_other_errors(tmp_path, message):
    (tmp_path / "checkpoint-8").mkdir()
    words = r"Another process of the run died.* checkpoint-8 is intact"
    with pytest.raises(RunFailedError, match=words), failures_explained(tmp_path):
        raise RuntimeError(message)


def test_failure_before_the_first_save_says_so(tmp_path):
    with pytest.raises(RunFailedError, match="No checkpoint was written before"), failures_explained(tmp_path):
        raise RuntimeError("Connection reset by peer")


def test_other_errors_stay_what_they_are(tmp_path):
    with pytest.raises(RuntimeError, match=r"^shapes disagree$") as caught, failures_explained(tmp_path):
        raise RuntimeError("shapes disagree")
    assert type(caught.value) is RuntimeError


def test_error_of_the_user_comes_out_of_a_worker_without_its_traceback(tmp_path):
    trainer = training.trainer(tmp_path, kind="streamed", dataloader_num_workers=1)
    nothing = Dataset.from_dict({"text": [" "]}).to_iterable_dataset()
    trainer.train_dataset = StreamedRows(nothing, training.tokenizer(), training.LENGTH)
    with (
        pytest.raises(
            UserError, match=r"^`streaming`: the corpus is empty, or holds less than one row of 32 tokens\.$"
        ),
        failures_explained(tmp_path),
    ):
        trainer.train()


def small_file(folder):
    torch.save({"weights": torch.zeros(10)}, folder / "small.pt")


def large_file(folder):
    torch.save({"weights": torch.zeros(100_000)}, folder / "large.pt")


def weights(folder):
    training.model().masked_lm.save_pretrained(folder)


def words(folder):
    training.tokenizer().save_pretrained(folder)


@pytest.fixture
def no_room():
    """Writes fail after 100 bytes of a file, as they do on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("write", [small_file, large_file, weights, words])
def test_write_that_fails_is_explained_whatever_library_it_is_of(tmp_path, no_room, write):
    staging = tmp_path / "staging"
    staging.mkdir()
    words = r"Could not save a thing in `output_dir` .* MiB were free\).*No checkpoint was written before: make room"
    with pytest.raises(UserError, match=words), write_errors_explained("a thing", tmp_path, staging):
        write(staging)
    assert not staging.exists()


def test_error_that_is_no_failed_write_stays_as_it_is(tmp_path):
    with (
        pytest.raises(RuntimeError, match="sizes differ"),
        write_errors_explained("a thing", tmp_path, tmp_path / "x"),
    ):
        raise RuntimeError("sizes differ")


def test_what_fails_around_a_resume_is_not_the_checkpoints_fault(tmp_path):
    """The first batch is fetched before the first update begins."""
    explained = resume_errors_explained(tmp_path / "checkpoint-2", BegunCallback())
    with pytest.raises(RunFailedError, match="process that loads data died"), explained, failures_explained(tmp_path):
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed.")


def test_explanation_is_given_once(tmp_path):
    with pytest.raises(RunFailedError) as error, failures_explained(tmp_path), failures_explained(tmp_path):
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed.")
    assert str(error.value).count("process that loads data died") == 1
