import sys

import pytest

from predrec.commands import invocation


@pytest.mark.parametrize(
    ("running", "expected"),
    [
        ("scripts/probe_glue.py", "python scripts/report.py"),
        ("/some/clone/scripts/pretrain.py", "python scripts/report.py"),
        ("/usr/bin/predrec", "predrec report"),
    ],
)
def test_next_command_is_typed_as_this_one_was(running, expected, monkeypatch):
    monkeypatch.setattr(sys, "argv", [running])
    monkeypatch.setattr(invocation, "typed_folder", lambda: "")
    assert invocation.next_command("report", "python scripts/report.py") == expected


def test_commands_of_another_environment_have_its_folder(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["predrec"])
    monkeypatch.setattr(sys, "prefix", "/elsewhere")
    monkeypatch.setattr(sys, "base_prefix", "/usr")
    monkeypatch.setattr(sys, "executable", "/elsewhere/bin/python")
    monkeypatch.delenv("VIRTUAL_ENV", raising=False)
    assert invocation.next_command("report", "").endswith("elsewhere/bin/predrec report")
    monkeypatch.setenv("VIRTUAL_ENV", "/elsewhere")
    assert invocation.next_command("report", "") == "predrec report"
