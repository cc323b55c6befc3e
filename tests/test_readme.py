"""What the README says, done."""

import re
from pathlib import Path

import pytest

from predrec.commands import analyze_representations, evaluate_sts, probe_glue
from predrec.commands.pretrain import ARGUMENTS, check_together
from predrec.configuration import parse_recipe
from predrec.configuration.benchmark_arguments import BenchmarkArguments
from predrec.configuration.export_arguments import ExportArguments
from predrec.configuration.push_arguments import PushArguments
from predrec.configuration.recipes import RecipeParser
from predrec.configuration.report_arguments import ReportArguments
from tests import training
from tests.commands.test_pretrain import TINY, main

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
TEXTS = README + (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
EVALUATION_ARGUMENTS = {
    "probe_glue": probe_glue.ARGUMENTS,
    "analyze_representations": analyze_representations.ARGUMENTS,
    "evaluate_sts": evaluate_sts.ARGUMENTS,
    "report": (ReportArguments,),
    "export": (ExportArguments,),
    "push_to_hub": (PushArguments,),
}
EVERY_COMMAND = (ARGUMENTS, (BenchmarkArguments,), *EVALUATION_ARGUMENTS.values())
EVALUATIONS = [line.split() for line in re.findall(r"^python scripts/(\w+\.py .*)$", README, flags=re.MULTILINE)]
EVALUATIONS = [[words[0].removesuffix(".py"), *words[1:]] for words in EVALUATIONS]
BENCHMARKS = [words for words in EVALUATIONS if words[0] == "benchmark"]
EVALUATIONS = [words for words in EVALUATIONS if words[0] != "benchmark"]
COMMANDS = re.findall(r"^accelerate launch scripts/pretrain.py (.*)$", README, flags=re.MULTILINE)


def test_embedding_and_python_examples_run(tmp_path, monkeypatch, capfd):
    """On an encoder of another width: the shape it prints has that width."""
    (tmp_path / "corpus.txt").write_text("\n".join(training.corpus()), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert main(["--train_file", "corpus.txt", "--output_dir", "outputs/quickstart", *TINY]) == 0
    names: dict = {}
    embed, train, *_ = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    capfd.readouterr()
    exec(embed, names)
    assert capfd.readouterr().out.strip() == "torch.Size([2, 16])"
    exec(train, names)
    assert (tmp_path / "outputs/more/checkpoint-2/model.safetensors").is_file()


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
    known = {field for arguments in EVERY_COMMAND for field in RecipeParser(arguments).field_names}
    assert name.removeprefix("no_") in known | {"help", "help_all"}


@pytest.mark.parametrize("words", EVALUATIONS, ids=lambda words: words[0])
def test_evaluation_command_is_accepted(words):
    name, *arguments = words
    while not arguments[0].startswith("-"):
        arguments.pop(0)
    parse_recipe(arguments, EVALUATION_ARGUMENTS[name])


@pytest.mark.parametrize("words", BENCHMARKS)
def test_benchmark_command_is_accepted(words):
    (arguments,), _ = parse_recipe(words[1:], (BenchmarkArguments,), "benchmark")
    assert arguments.quick


@pytest.mark.parametrize("target", sorted(set(re.findall(r"(?:`|^)make ([a-z-]+)", TEXTS, flags=re.MULTILINE))))
def test_named_target_exists(target):
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
