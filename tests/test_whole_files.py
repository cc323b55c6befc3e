import pytest

from predrec.whole_files import whole_file


def test_whole_file_makes_its_folder(tmp_path):
    with whole_file(tmp_path / "new" / "scores.json") as staging:
        staging.write_text("1", encoding="utf-8")
    assert (tmp_path / "new" / "scores.json").read_text(encoding="utf-8") == "1"


def test_whole_file_is_not_there_before_the_end(tmp_path):
    with whole_file(tmp_path / "scores.json") as staging:
        staging.write_text("1", encoding="utf-8")
        assert not (tmp_path / "scores.json").exists()


def test_whole_file_keeps_what_was_there_when_writing_fails(tmp_path):
    path = tmp_path / "scores.json"
    path.write_text("before", encoding="utf-8")
    with pytest.raises(OSError, match="full"), whole_file(path) as staging:
        staging.write_text("aft", encoding="utf-8")
        raise OSError("The disk is full")
    assert [file.name for file in tmp_path.iterdir()] == ["scores.json"]
    assert path.read_text(encoding="utf-8") == "before"
