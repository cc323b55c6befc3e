import re
import sys

import pytest

from predrec.data_collators.python_docs import python_documents


@pytest.fixture(scope="module")
def imported() -> set[str]:
    """The modules that were there before the documents were read."""
    return set(sys.modules)


@pytest.fixture(scope="module")
def documents(imported) -> list[str]:
    return python_documents()


def test_python_documents_are_about_two_megabytes(documents):
    assert 1.5e6 < sum(map(len, documents)) < 4e6


def test_python_documents_are_several_hundred(documents):
    assert len(documents) > 300


def test_python_documents_are_english(documents):
    # In English prose one word in twenty is "the"; signatures and tables thin it out here.
    words = re.findall(r"[a-z]+", " ".join(documents).lower())
    assert words.count("the") / len(words) > 0.03


def test_python_documents_have_text(documents):
    assert all(document.strip() for document in documents)


def test_python_documents_hold_the_language_reference(documents):
    assert any('The "try" statement' in document for document in documents)


def test_python_documents_hold_docstrings(documents):
    import textwrap

    assert any(textwrap.dedent.__doc__.strip().splitlines()[0] in document for document in documents)


def test_python_documents_leave_installed_packages_out(documents):
    assert not any("BertTokenizer" in document for document in documents)


def test_python_documents_import_nothing(imported, documents):
    # `turtle` opens a window when used, `antigravity` a browser when imported.
    assert {"turtle", "antigravity", "this"}.isdisjoint(set(sys.modules) - imported)
