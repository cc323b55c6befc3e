"""Commands that are printed and published exist, and hold no secret."""

import pytest

from predrec.commands.evaluation import published_command
from predrec.commands.invocation import without_secrets
from predrec.commands.main import COMMANDS
from predrec.commands.pretrain import _again
from predrec.configuration.help_screens import SCREENS

TOKEN = "hf_secret"


@pytest.mark.parametrize("name", ["--hub_token", "--hub-token", "--push_to_hub_token", "--push-to-hub-token"])
@pytest.mark.parametrize("words", ["{name} {token}", "{name}={token}"])
def test_secret_is_in_no_command(name, words):
    argv = ["a.yaml", *words.format(name=name, token=TOKEN).split(), "--seed", "3"]
    assert without_secrets(argv) == ["a.yaml", "--seed", "3"]
    for command in (_again(argv), published_command("probe_glue", argv)):
        assert TOKEN not in command and name not in command and "--seed 3" in command


def test_other_words_stay():
    argv = ["--hub_model_id", "me/token", "--hub_strategy=end", "hub_token"]
    assert without_secrets(argv) == argv


@pytest.mark.parametrize("module", SCREENS)
def test_published_command_can_be_typed(module):
    assert published_command(module, ["--seed", "3"]).split()[1] in COMMANDS
