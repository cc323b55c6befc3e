import io
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from predrec.data_collators import documents, text_files
from predrec.data_collators.documents import LONGEST, cut


def test_text_that_is_not_too_long_stays_whole():
    assert list(cut("a b" * (LONGEST // 3))) == ["a b" * (LONGEST // 3)]


def test_cut_is_behind_white_space():
    assert list(cut("one two three", longest=9)) == ["one two ", "three"]


def test_word_that_is_too_long_is_cut():
    assert list(cut("abcdefghij", longest=4)) == ["abcd", "efgh", "ij"]


@settings(deadline=None, derandomize=True)
@given(st.text(alphabet="ab \n\u3000é", max_size=80), st.integers(2, 20))
def test_cut_loses_nothing_and_keeps_to_the_limit(text, longest):
    pieces = list(cut(text, longest))
    assert "".join(pieces) == text
    assert all(len(piece) <= longest for piece in pieces)


@settings(deadline=None, derandomize=True)
@given(st.lists(st.text(alphabet="abé", min_size=1, max_size=7), max_size=20), st.sampled_from(["\n", "\r\n", "\r"]))
def test_lines_are_those_of_the_whole_text(lines, end):
    """However the file is cut into reads, and whatever ends its lines."""
    file = io.BytesIO(end.join(lines).encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_files, "LONGEST", 9)
        assert list(text_files.documents(file, "line")) == lines


@settings(deadline=None, derandomize=True)
@given(st.text(alphabet="ab \n", max_size=60))
def test_long_lines_keep_their_words(text):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_files, "LONGEST", 8)
        patch.setattr(documents, "LONGEST", 8)
        found = list(text_files.documents(io.BytesIO(text.encode()), "line"))
    assert "".join(found).replace("\n", "") == text.replace("\n", "")


@settings(deadline=None, derandomize=True)
@given(st.lists(st.text(alphabet="ab\n", max_size=6).map(lambda text: text.strip("\n")).filter(len), max_size=8))
def test_paragraphs_are_those_of_the_whole_text(paragraphs):
    paragraphs = [text.replace("\n\n", "\n") for text in paragraphs if "\n\n\n" not in text]
    file = io.BytesIO("\n\n".join(paragraphs).encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_files, "LONGEST", 9)
        assert list(text_files.documents(file, "paragraph")) == paragraphs


def test_paragraphs_stand_between_any_number_of_blank_lines():
    found = text_files.documents(io.BytesIO(b"\none\n\n\n\ntwo\nlines\n\n"), "paragraph")
    assert [text for text in found if text] == ["one", "two\nlines"]


def test_byte_order_mark_is_no_text(tmp_path):
    (tmp_path / "bom.txt").write_bytes("one\ntwo".encode("utf-8-sig"))
    with Path(tmp_path / "bom.txt").open("rb") as file:
        assert list(text_files.documents(file, "line")) == ["one", "two"]


@pytest.mark.parametrize("before", [0, 5, 100_000])
def test_byte_that_is_not_utf8_is_named_with_its_place(before):
    file = io.BytesIO(b"x" * before + b"\xff" + b"y" * 10)
    with pytest.raises(ValueError, match=rf"byte 0xff at position {before:,}\. Convert it"):
        list(text_files.documents(file, "line"))
