"""The folder of an export is new, apart from its source, and complete or not there."""

import os

import pytest

from predrec.errors import UserError
from predrec.publish.folder import check_output_dir, new_folder


@pytest.fixture
def source(tmp_path):
    (tmp_path / "run" / "checkpoint-2").mkdir(parents=True)
    return tmp_path / "run"


@pytest.mark.parametrize("name", [".", "onnx", "checkpoint-2", "checkpoint-2/../new", "../run"])
def test_folder_in_the_source_is_refused(source, name):
    with pytest.raises(UserError, match="is the source or in it"):
        check_output_dir(str(source / name), str(source))


def test_link_into_the_source_is_refused(source, tmp_path):
    os.symlink(source, tmp_path / "link")
    with pytest.raises(UserError, match="is the source or in it"):
        check_output_dir(str(tmp_path / "link" / "new"), str(source))


def test_folder_beside_the_source_is_taken(source, tmp_path):
    check_output_dir(str(tmp_path / "run-onnx"), str(source))


def test_source_from_the_hub_has_no_folder(tmp_path):
    check_output_dir(str(tmp_path / "new"), "organisation/model")


def test_folder_that_holds_something_is_refused(source, tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("x")
    with pytest.raises(UserError, match=r"is not empty \(mine.txt\)"):
        check_output_dir(str(tmp_path / "notes"), str(source))


def test_what_a_killed_export_left_is_no_hindrance(source, tmp_path):
    """It lies beside the folder, which is not there."""
    (tmp_path / ".new.partial").mkdir()
    (tmp_path / ".new.partial" / "half.txt").write_text("x")
    check_output_dir(str(tmp_path / "new"), str(source))
    with new_folder(str(tmp_path / "new")) as folder:
        (folder / "whole.txt").write_text("x")
    assert [path.name for path in tmp_path.glob("*new*")] == ["new"]
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["whole.txt"]


@pytest.mark.parametrize("call", range(1, 3))
def test_export_that_is_killed_leaves_nothing_in_its_place(tmp_path, monkeypatch, call):
    """Whichever rename it is killed at."""
    calls, rename = [], os.replace

    def dying(*paths):
        calls.append(paths)
        if len(calls) == call:
            raise KeyboardInterrupt
        rename(*paths)

    (tmp_path / "new").mkdir()
    monkeypatch.setattr(os, "replace", dying)
    with pytest.raises(KeyboardInterrupt), new_folder(str(tmp_path / "new")) as folder:
        for name in ("config.json", "model.safetensors"):
            (folder / name).write_text("x")
    assert not (tmp_path / "new").exists() or not list((tmp_path / "new").iterdir())


def test_file_in_the_way_is_refused(source, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="is a file"):
        check_output_dir(str(tmp_path / "file" / "new"), str(source))


def test_new_folder_appears_when_the_block_ends(tmp_path):
    with new_folder(str(tmp_path / "a" / "b")) as folder:
        (folder / "onnx").mkdir()
        (folder / "onnx" / "model.onnx").write_text("x")
        assert not (tmp_path / "a" / "b" / "onnx").exists()
    assert [str(path.relative_to(tmp_path / "a" / "b")) for path in (tmp_path / "a" / "b").rglob("*")] == [
        "onnx",
        "onnx/model.onnx",
    ]


@pytest.mark.parametrize("existed", [True, False])
def test_failed_export_leaves_what_was_there(tmp_path, existed):
    target = tmp_path / "new"
    if existed:
        target.mkdir()
    with pytest.raises(RuntimeError, match="different"), new_folder(str(target)) as folder:
        (folder / "half.txt").write_text("x")
        raise RuntimeError("different")
    assert target.exists() == existed and not (existed and list(target.iterdir()))


def test_full_disk_is_the_users_to_mend(tmp_path):
    with (
        pytest.raises(UserError, match=r"Could not write `output_dir` .*No space left"),
        new_folder(str(tmp_path / "x")),
    ):
        raise OSError(28, "No space left on device")
    assert not (tmp_path / "x").exists()
