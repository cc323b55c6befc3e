"""The console command hands over to the commands."""

import dataclasses
import importlib
import re
import sys
from pathlib import Path

import pytest
from transformers import TrainingArguments

from predrec.commands import main as console
from predrec.commands.main import COMMANDS
from predrec.configuration.help_screens import HEIGHT, SCREENS, WIDTH


@pytest.mark.parametrize("name", COMMANDS)
def test_command_gets_its_arguments(monkeypatch, name):
    got = []
    monkeypatch.setattr(importlib.import_module(f"predrec.commands.{COMMANDS[name]}"), "main", got.append)
    console.main([name, "recipe.yaml", "--seed", "1"])
    assert got == [["recipe.yaml", "--seed", "1"]]


@pytest.mark.parametrize("name", COMMANDS)
def test_exit_code_is_that_of_the_command(monkeypatch, name):
    monkeypatch.setattr(importlib.import_module(f"predrec.commands.{COMMANDS[name]}"), "main", lambda argv: 7)
    assert console.main([name]) == 7


@pytest.mark.parametrize("name", COMMANDS)
def test_mistake_has_exit_code_2(name, capsys):
    assert console.main([name, "--nonsense_argument", "1"]) == 2
    assert "Unknown argument `nonsense_argument`" in capsys.readouterr().err


def test_arguments_come_from_the_command_line(monkeypatch):
    got = []
    monkeypatch.setattr(importlib.import_module("predrec.commands.report"), "main", got.append)
    monkeypatch.setattr(sys, "argv", ["predrec", "report", "folder"])
    console.main()
    assert got == [["folder"]]


@pytest.mark.parametrize("argv", [["-h"], ["--help"]], ids=["-h", "--help"])
def test_help_names_every_command(capsys, argv):
    assert console.main(argv) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in COMMANDS)


def test_no_argument_shows_the_help(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["predrec"])
    assert console.main() == 0
    assert "usage: predrec" in capsys.readouterr().out


def test_unknown_command_is_refused(capsys):
    assert console.main(["prob"]) == 2
    assert capsys.readouterr().err == "error: there is no command 'prob'; did you mean `probe`?\n"


@pytest.mark.parametrize("module", SCREENS)
def test_script_of_every_command_is_there(module):
    text = (Path(__file__).parents[2] / "scripts" / f"{module}.py").read_text(encoding="utf-8")
    # By way of the command, so that it says which extra it lacks, as that does.
    assert f'sys.exit(main(["{SCREENS[module].name}", *sys.argv[1:]]))' in text


def test_every_script_has_a_command():
    assert {path.stem for path in (Path(__file__).parents[2] / "scripts").glob("*.py")} == set(SCREENS)


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("word", ["-h", "--help"])
def test_help_of_a_command_fits_one_screen(capsys, name, word):
    with pytest.raises(SystemExit, match=r"^0$"):
        console.main([name, word])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"usage: predrec {name} ")
    assert len(lines) <= HEIGHT and max(map(len, lines)) <= WIDTH


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command_names_its_own_arguments(capsys, name):
    """Every argument that `--help_all` explains, except what transformers explains itself."""
    shown = {}
    for word in ("--help", "--help_all"):
        with pytest.raises(SystemExit, match=r"^0$"):
            console.main([name, word])
        shown[word] = set(re.findall(r"(?<=[ \[])--(\w+)(?![\w-])", capsys.readouterr().out))
    stock = {field.name for field in dataclasses.fields(TrainingArguments)}
    own = {name for name in shown["--help_all"] if not name.startswith("no_")} - stock - {"help"}
    assert own and own <= shown["--help"]


@pytest.mark.parametrize("module", SCREENS)
def test_example_of_the_help_names_the_command(module):
    screen = SCREENS[module]
    assert f"scripts/{module}.py" in screen.example or f"predrec {screen.name} " in screen.example


@pytest.fixture
def without_joblib(monkeypatch):
    """A library of the extra `eval` is not installed, and nothing that needs it was imported."""
    monkeypatch.setitem(sys.modules, "joblib", None)
    for name in [*(f"commands.{name}" for name in SCREENS), "eval.classical", "eval.sts"]:
        monkeypatch.delitem(sys.modules, f"predrec.{name}", raising=False)


@pytest.mark.parametrize("name", ["probe", "analyze", "sts"])
def test_missing_library_is_named_with_its_extra(without_joblib, capsys, name):
    assert console.main([name, "--help"]) == 2
    message = capsys.readouterr().err
    assert f"`{name}` needs joblib: pip install 'predrec[eval]'" in message


def test_mistake_inside_the_package_is_not_a_missing_library(monkeypatch):
    """A module of the package itself that cannot be found is no matter of extras."""
    monkeypatch.delitem(sys.modules, "predrec.commands.evaluate_sts", raising=False)
    monkeypatch.setitem(sys.modules, "predrec.eval.sts", None)
    with pytest.raises(ModuleNotFoundError, match=r"predrec\.eval\.sts"):
        console.main(["sts", "--help"])
