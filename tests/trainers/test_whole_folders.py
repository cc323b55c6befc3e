"""Folders appear, are replaced and go as a whole, at whatever call the process is killed."""

import os
import shutil

import pytest

from predrec.trainers import whole_folders
from predrec.trainers.checkpoints import checkpoints_in, committed_checkpoint, rotate
from predrec.trainers.integrity import CHECKSUMS_FILE, damage
from predrec.trainers.whole_folders import put_in_place, remove, staging_of, sweep, take_back


class Killed(BaseException):
    """In the place of a kill: nothing may catch it."""


class Alone:
    """An accelerator of one process."""

    def wait_for_everyone(self):
        pass


def write(folder, content="new"):
    folder.mkdir(parents=True)
    (folder / "trainer_state.json").write_text(content)
    (folder / "sub").mkdir()
    (folder / "sub/file").write_text(content)


@pytest.fixture
def calls(monkeypatch):
    """Every call that syncs or changes names, in order, with what it is about."""
    made, opened = [], {}

    def watch(name, describe):
        original = getattr(os, name)

        def watched(*args, **kwargs):
            made.append((name, describe(*args)))
            return original(*args, **kwargs)

        monkeypatch.setattr(os, name, watched)

    original = os.open

    def remember(path, *args, **kwargs):
        handle = original(path, *args, **kwargs)
        opened[handle] = os.fspath(path)
        return handle

    monkeypatch.setattr(os, "open", remember)
    watch("fsync", lambda handle: os.path.basename(opened[handle]))
    watch("replace", lambda old, new: (os.path.basename(old), os.path.basename(new)))
    return made


def test_everything_is_on_disk_before_the_name_is(tmp_path, calls):
    with committed_checkpoint(tmp_path / "checkpoint-4", True, Alone()) as staging:
        shutil.rmtree(staging)
        write(staging)
    [renamed] = [index for index, (name, _) in enumerate(calls) if name == "replace"]
    assert calls[renamed][1] == (".checkpoint-4.partial", "checkpoint-4")
    synced = {what for name, what in calls[:renamed] if name == "fsync"}
    assert synced == {".checkpoint-4.partial", "trainer_state.json", "sub", "file", CHECKSUMS_FILE}
    assert calls[renamed + 1 :] == [("fsync", tmp_path.name)]


@pytest.mark.parametrize("replaces", [False, True], ids=["new", "again"])
def test_save_that_is_killed_leaves_a_whole_checkpoint_or_the_one_before(tmp_path, monkeypatch, replaces):
    """Killed at every call that it makes, one after the other."""
    for call in range(200):
        run = tmp_path / str(call)
        for step in (4, 8) if replaces else (4,):
            write(run / f"checkpoint-{step}", "old")
        countdown = iter(range(call, -1, -1))

        def until(original, countdown=countdown):
            def counted(*args, **kwargs):
                if next(countdown) == 0:
                    raise Killed
                return original(*args, **kwargs)

            return counted

        killed = False
        with monkeypatch.context() as patch:
            for name in ("replace", "fsync", "mkdir", "rmdir", "unlink"):
                patch.setattr(os, name, until(getattr(os, name)))
            try:
                with committed_checkpoint(run / "checkpoint-8", True, Alone()) as staging:
                    (staging / "trainer_state.json").write_text("new")
            except Killed:
                killed = True
        take_back(run, "checkpoint-*")
        found = checkpoints_in(run)[-1]
        content = (found / "trainer_state.json").read_text()
        assert damage(found) is None
        assert content == ("new" if (found / CHECKSUMS_FILE).exists() else "old")
        assert content == "old" or found.name == "checkpoint-8"
        assert found.name == "checkpoint-8" or not replaces
        if not killed:
            assert call > 5
            return
    raise AssertionError("It never ends.")


def test_deleting_that_is_killed_leaves_no_half_checkpoint(tmp_path, monkeypatch):
    for step in (4, 8, 12):
        write(tmp_path / f"checkpoint-{step}")

    def killed(path, **kwargs):
        if path.exists():
            (path / "trainer_state.json").unlink()
            raise Killed

    monkeypatch.setattr(whole_folders.shutil, "rmtree", killed)
    with pytest.raises(Killed):
        rotate(tmp_path, 2, None)
    assert [path.name for path in checkpoints_in(tmp_path)] == ["checkpoint-8", "checkpoint-12"]


def test_what_killed_runs_left_is_swept_by_the_next_save(tmp_path):
    for name in (".checkpoint-3.partial", ".checkpoint-1.deleted"):
        write(tmp_path / name)
    with committed_checkpoint(tmp_path / "checkpoint-8", True, Alone()) as staging:
        (staging / "trainer_state.json").write_text("new")
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-8"]


def test_other_folders_are_not_swept(tmp_path):
    write(tmp_path / ".mine")
    sweep(tmp_path, "checkpoint-*")
    assert (tmp_path / ".mine").is_dir()


def test_folder_that_gave_way_takes_its_name_back(tmp_path):
    write(tmp_path / ".checkpoint-8.replaced", "old")
    take_back(tmp_path, "checkpoint-*")
    assert (tmp_path / "checkpoint-8/sub/file").read_text() == "old"


def test_folder_is_replaced_and_removed(tmp_path):
    final = tmp_path / "checkpoint-8"
    write(final, "old")
    write(staging_of(final))
    put_in_place(staging_of(final), final)
    assert (final / "sub/file").read_text() == "new"
    remove(final)
    assert not list(tmp_path.iterdir())
