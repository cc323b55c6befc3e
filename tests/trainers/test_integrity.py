"""A damaged checkpoint is found, named and passed over; the run goes on from the one before as if nothing was lost."""

import json
import shutil

import pytest
import torch

from predrec.errors import UserError
from predrec.trainers.checkpoints import checkpoints_in, resume_point
from predrec.trainers.integrity import CHECKSUMS_FILE, check_whole, damage, newest_whole, write_checksums
from tests import training

OPTIONS = {"save_strategy": "steps", "save_steps": 4, "max_steps": 12, "save_total_limit": 3}


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def empty(path):
    path.write_bytes(b"")


def remove(path):
    path.unlink()


DAMAGES = (truncate, flip, empty, remove)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run with checkpoints at steps 4, 8 and 12, and its weights."""
    folder = tmp_path_factory.mktemp("run")
    trainer = training.trainer(folder, **OPTIONS)
    trainer.train()
    return folder, {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}


@pytest.fixture
def run(finished, tmp_path):
    """A copy of the run, to be damaged."""
    return shutil.copytree(finished[0], tmp_path / "run")


def names_in(checkpoint):
    return sorted(path.name for path in checkpoint.iterdir())


def test_checksums_name_every_file_of_a_checkpoint(finished):
    for checkpoint in checkpoints_in(finished[0]):
        sums = json.loads((checkpoint / CHECKSUMS_FILE).read_text())
        assert sorted([*sums, CHECKSUMS_FILE]) == names_in(checkpoint)
        assert damage(checkpoint) is None


@pytest.mark.parametrize("how", DAMAGES, ids=lambda how: how.__name__)
def test_damage_of_every_file_is_found_and_named(run, how):
    for name in names_in(run / "checkpoint-12"):
        broken = shutil.copytree(run / "checkpoint-12", run / "broken", dirs_exist_ok=True)
        how(broken / name)
        problem = damage(broken)
        if name == CHECKSUMS_FILE and how is remove:
            assert problem is None  # As in a checkpoint of another program.
        else:
            assert problem is not None
            assert name in problem or name == CHECKSUMS_FILE
            with pytest.raises(UserError, match="is damaged: "):
                check_whole(broken)
        shutil.rmtree(broken)


@pytest.mark.parametrize("how", DAMAGES, ids=lambda how: how.__name__)
@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.pt", "trainer_state.json", "rng_state.pth"])
def test_run_goes_on_from_the_checkpoint_before(run, finished, how, name, caplog):
    how(run / "checkpoint-12" / name)
    checkpoint = resume_point(run, True)
    assert checkpoint == run / "checkpoint-8"
    assert "DAMAGED" in caplog.text and name in caplog.text and "checkpoint-8" in caplog.text
    assert [path.name for path in checkpoints_in(run)] == ["checkpoint-4", "checkpoint-8"]
    assert (run / "damaged-checkpoint-12").is_dir()


def test_resumed_run_ends_as_if_nothing_was_damaged(run, finished):
    flip(run / "checkpoint-12" / "model.safetensors")
    trainer = training.trainer(run, **OPTIONS)
    trainer.train(resume_from_checkpoint=str(resume_point(run, True)))
    for name, expected in finished[1].items():
        assert torch.equal(trainer.model.state_dict()[name], expected), name
    assert damage(run / "checkpoint-12") is None


def test_several_damaged_checkpoints_are_passed_over(run):
    truncate(run / "checkpoint-12" / "optimizer.pt")
    remove(run / "checkpoint-8" / "model.safetensors")
    assert newest_whole(checkpoints_in(run)) == run / "checkpoint-4"


def test_nothing_but_damaged_checkpoints_is_an_error(run):
    for checkpoint in checkpoints_in(run):
        flip(checkpoint / "optimizer.pt")
    with pytest.raises(UserError, match=r"Every checkpoint is damaged: .*checkpoint-12 .*checkpoint-4 "):
        resume_point(run, True)


def test_damaged_checkpoint_that_was_asked_for_is_refused(run):
    flip(run / "checkpoint-12" / "optimizer.pt")
    with pytest.raises(UserError, match=r"checkpoint-12' is damaged: optimizer.pt is not as it was written"):
        resume_point(run, str(run / "checkpoint-12"))
    assert (run / "checkpoint-12").is_dir()


def test_name_to_set_aside_under_is_free(run):
    (run / "damaged-checkpoint-12").mkdir()
    flip(run / "checkpoint-12" / "optimizer.pt")
    assert newest_whole(checkpoints_in(run)) == run / "checkpoint-8"
    assert (run / "damaged-checkpoint-12-1").is_dir()


def test_no_checkpoint_is_none():
    assert newest_whole([]) is None


def test_write_checksums_covers_subfolders(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "file").write_text("one")
    write_checksums(tmp_path)
    assert damage(tmp_path) is None
    (tmp_path / "sub" / "file").write_text("two")
    assert damage(tmp_path) == "sub/file is not as it was written"


def test_checkpoint_without_checksums_needs_the_state_of_a_trainer(tmp_path):
    assert damage(tmp_path) == "trainer_state.json is missing"
    (tmp_path / "trainer_state.json").touch()
    assert damage(tmp_path) is None
