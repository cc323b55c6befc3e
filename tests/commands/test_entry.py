"""A command takes words, prints errors that a terminal can show, and returns its exit code."""

import pytest

from predrec.commands.entry import command
from predrec.errors import UserError
from predrec.trainers.failures import RunFailedError
from predrec.trainers.finite import NonFiniteLossError


def test_words_are_those_given_or_those_of_the_process(monkeypatch):
    seen = []
    main = command(lambda words: seen.append(words) or 7)
    monkeypatch.setattr("sys.argv", ["predrec", "--of", "the process"])
    assert main() == main(("a", "b")) == main([]) == 7
    assert seen == [["--of", "the process"], ["a", "b"], []]


@pytest.mark.parametrize(
    ("error", "code", "shown"),
    [
        (UserError("`seed` is -1"), 2, "error: `seed` is -1\n"),
        (UserError("from a library:\n\n  bad \x1b[31m"), 2, "error: from a library: bad \\x1b[31m\n"),
        (UserError("not fit:", ["- one", "- two\x07"]), 2, "error: not fit:\n  - one\n  - two\\x07\n"),
        (RunFailedError("the disk\nis full"), 1, "error: the disk is full\n"),
        (NonFiniteLossError("NaN"), 1, "error: NaN\n"),
    ],
)
def test_errors_are_shown_and_give_their_code(capsys, error, code, shown):
    @command
    def main(argv):
        raise error

    assert main([]) == code
    assert capsys.readouterr().err == shown


def test_other_errors_are_faults_of_the_program():
    @command
    def main(argv):
        raise KeyError("a fault")

    with pytest.raises(KeyError):
        main([])


def test_a_message_has_its_details():
    error = UserError("not fit:", ["- one", "- two"])
    assert str(error) == "not fit:\n  - one\n  - two" and error.details == ("- one", "- two")
