"""Whatever is wrong with an input: one clear error, an exit code, and nothing that was there is lost."""

import hashlib
from pathlib import Path

import pytest
from transformers import BertConfig, BertForMaskedLM

from predrec.commands.pretrain import main
from tests import training

from . import checkpoints, collators, command_lines, recipes, texts, tokenizers
from .cases import RAN, Case, Made, ProcessCase, tiny

AREAS = {
    "recipe": recipes.CASES,
    "command line": command_lines.CASES,
    "text data": texts.CASES,
    "tokenizer": tokenizers.CASES,
    "checkpoint": checkpoints.CASES,
    "collator": collators.CASES,
}


def table() -> list:
    rows = []
    for area, cases in AREAS.items():
        for case in cases:
            marks = [pytest.mark.slow] if isinstance(case, ProcessCase) else []
            rows.append(pytest.param(case, id=f"{area}: {case.name}", marks=marks))
    return rows


@pytest.fixture(scope="session")
def made(tmp_path_factory) -> Made:
    """A finished run, and an encoder to begin with."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        Path("corpus.txt").write_text("\n".join(training.corpus()), encoding="utf-8")
        assert main(tiny()) == 0
    config = BertConfig(vocab_size=len(training.tokenizer()), num_hidden_layers=1, num_attention_heads=2)
    config.hidden_size, config.intermediate_size, config.max_position_embeddings = 16, 32, 64
    BertForMaskedLM(config).save_pretrained(folder / "encoder")
    training.tokenizer().save_pretrained(folder / "encoder")
    return Made(folder / "run", folder / "encoder")


def contents(folder: Path) -> dict[str, str]:
    """Every file and folder below one, with what is in it."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        for path in folder.rglob("*")
    }


@pytest.mark.parametrize("case", table())
def test_bad_input_is_refused(case: Case, made: Made, tmp_path, monkeypatch):
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    Path("corpus.txt").write_text("\n".join(training.corpus()), encoding="utf-8")
    words = case.arrange(folder, made)
    before = contents(tmp_path)
    message = case.refusal(folder, words)
    assert all(part in message for part in case.parts), message
    assert contents(tmp_path) == before
    assert not list(tmp_path.rglob(RAN))


@pytest.mark.parametrize("area", AREAS)
def test_area_has_its_share_of_bad_inputs(area):
    assert len({case.name for case in AREAS[area]}) == len(AREAS[area]) >= 10


def test_real_command_line_gets_its_share():
    assert sum(isinstance(case, ProcessCase) for cases in AREAS.values() for case in cases) >= 20
