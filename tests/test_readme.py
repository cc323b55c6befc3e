"""What the README says, done."""

import re
from pathlib import Path

import pytest

from predrec.commands.pretrain import ARGUMENTS, check_together
from predrec.configuration import parse_recipe
from predrec.configuration.recipes import RecipeParser
from tests import training
from tests.commands.test_pretrain import TINY, main

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
TEXTS = README + (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^accelerate launch scripts/pretrain.py (.*)$", README, flags=re.MULTILINE)


def test_embedding_example_runs(tmp_path, monkeypatch, capfd):
    """On an encoder of another width: the shape it prints has that width."""
    (tmp_path / "corpus.txt").write_text("\n".join(training.corpus()), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert main(["--train_file", "corpus.txt", "--output_dir", "outputs/quickstart", *TINY]) == 0
    code = re.search(r"```python\n(.*?)```", README, flags=re.DOTALL)[1]
    capfd.readouterr()
    exec(code, {})
    assert capfd.readouterr().out.strip() == "torch.Size([2, 16])"


@pytest.mark.parametrize("name", sorted(set(re.findall(r"\b(?:recipes|results|scripts)/[\w./-]+\.\w+", README))))
def test_named_file_exists(name):
    assert (ROOT / name).is_file()


@pytest.mark.parametrize("command", COMMANDS)
def test_command_is_accepted(command):
    words = command.replace("'", "").split()
    words[0] = str(ROOT / words[0])
    check_together(*parse_recipe(words, ARGUMENTS)[0])


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`--(\w+)", README))))
def test_named_argument_exists(name):
    assert name in [*RecipeParser(ARGUMENTS).field_names, "help"]


@pytest.mark.parametrize("target", sorted(set(re.findall(r"(?:`|^)make ([a-z-]+)", TEXTS, flags=re.MULTILINE))))
def test_named_target_exists(target):
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
