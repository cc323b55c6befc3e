"""The documentation: its commands run, its site builds and needs nothing from elsewhere."""

import json
import os
import re
import shutil
import string
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers.dynamic_module_utils
import yaml
from transformers import BertTokenizer

import predrec
from predrec.commands import experiment_runs
from predrec.commands.pretrain import main as pretrain
from tests import training
from tests.commands import planted
from tests.commands.test_pretrain import TINY
from tests.conftest import SPECIAL
from tests.documentation import ROOT, Reader, blocks
from tests.modeling.reference import reference_checkpoint
from tests.processes import pretrained_here

DOCS = ROOT / "docs"
PAGES = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))
WITH_BLOCKS = [name for name in PAGES if list(blocks((DOCS / name).read_text(encoding="utf-8")))]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    """What readers are supposed to have: texts, GLUE, the encoder of `make pretrain`, a file from elsewhere."""
    folder = tmp_path_factory.mktemp("prepared")
    (folder / "my").mkdir()
    texts = list(training.corpus())
    (folder / "my/texts.txt").write_text("\n".join(texts), encoding="utf-8")
    for name, part in (("data", texts[:100]), ("held-out", texts[100:])):
        (folder / f"my/{name}.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in part))
    for task in planted.TASKS:
        planted.write_task(folder / "glue", task)
    for task in ("sts12", "sts16", "sickr"):
        columns = planted.similarities(np.random.default_rng(0), 30, "score")
        columns["score"] = [max(1.0, score) for score in columns["score"]]  # SICK has no lower ones.
        planted.write_split(folder / "glue", task, "test", columns)
    torch.save(reference_checkpoint("hybrid"), folder / "checkpoint.pth.tar")
    vocabulary = [*SPECIAL, *string.ascii_lowercase]
    BertTokenizer(vocab={token: number for number, token in enumerate(vocabulary)}).save_pretrained(
        folder / "tokenizer"
    )
    run = ["--train_file", str(folder / "my/texts.txt"), "--output_dir", str(folder / "outputs/quickstart")]
    assert pretrain([*run, *TINY]) == 0
    return folder


@pytest.fixture
def here(prepared, tmp_path, monkeypatch) -> Path:
    """A copy of it, as the current folder of a reader."""
    shutil.copytree(prepared, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("PREDREC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(transformers.dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path / "modules")])
    monkeypatch.setattr(experiment_runs, "pretrain_in_process", pretrained_here)
    return tmp_path / "here"


def follow(page: str) -> None:
    """Every block, in order; blocks that need a network or a GPU have their arguments checked."""
    reader = Reader()
    for block in blocks(page):
        reader.follow(block)


@pytest.mark.slow
@pytest.mark.parametrize("name", WITH_BLOCKS)
def test_page_can_be_followed(name, here):
    follow((DOCS / name).read_text(encoding="utf-8"))


@pytest.mark.slow
def test_readme_can_be_followed(here):
    """Beginning without the encoder of `make pretrain`, with the four that the evaluation is about."""
    for name in ("h1", "h2", "m1", "m2"):
        shutil.copytree(here / "outputs/quickstart", here / "outputs" / name)
    shutil.rmtree(here / "outputs/quickstart")
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    follow(page.replace("torch.Size([2, 192])", "torch.Size([2, 16])"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("```bash\ncurl example.org\n```", "neither run nor marked"),
        ("```sh\nls\n```", "neither run nor marked"),
        ("```bash\nmake coffee\n```", "no target coffee"),
        ('```bash\npip install -e ".[coffee]"\n```', "extra"),
        ("```bash\npython scripts/coffee.py\n```", "there is no scripts/coffee.py"),
        ("```python\nprint(2)\n```\n\n```text\n3\n```", "It prints"),
        ("```python\nprint(2)\n```\nThat is:\n```text\n3\n```", "It prints"),
        ('```bash title="needs the network"\npredrec push out --coffee 1\n```', "coffee"),
        ('```bash title="needs a GPU"\nfor a in 1 2; do\n  predrec sts --coffee $a\ndone\n```', "coffee"),
    ],
)
def test_reader_refuses_what_nobody_can_follow(text, message):
    reader = Reader()
    with pytest.raises((AssertionError, ValueError), match=message):
        for block in blocks(text):
            reader.follow(block)


def test_every_page_is_in_the_navigation():
    def pages(entry) -> list[str]:
        entries = entry if isinstance(entry, list) else entry.values() if isinstance(entry, dict) else None
        return [entry] if entries is None else [name for one in entries for name in pages(one)]

    assert set(PAGES) <= set(pages(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]))


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    pytest.importorskip("mkdocs")
    pytest.importorskip("mkdocstrings_handlers.python")
    pytest.importorskip("material")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return folder


@pytest.mark.slow
def test_site_loads_nothing_from_elsewhere(site):
    elsewhere = r"[\"']?(?:https?:)?//"
    loads = rf"<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)={elsewhere}[^>]*>|url\({elsewhere}|@import"
    found = {
        path.relative_to(site): re.findall(loads, path.read_text(encoding="utf-8"))
        for pattern in ("*.html", "*.css")
        for path in site.rglob(pattern)
    }
    assert found and not any(found.values()), {path: hits for path, hits in found.items() if hits}


@pytest.mark.slow
@pytest.mark.parametrize("name", predrec.__all__)
def test_public_name_is_in_the_reference(site, name):
    pages = "".join(path.read_text(encoding="utf-8") for path in (site / "reference").glob("*.html"))
    assert re.search(rf'id="predrec\.[\w.]+\.{name}"', pages)


@pytest.mark.slow
def test_pages_show_no_markup(site):
    for path in site.rglob("*.html"):
        text = re.sub(r"<(pre|script)\b.*?</\1>", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
        text = re.sub(r"<code\b.*?</code>|<[^>]*>", "", text, flags=re.DOTALL)
        assert not re.search(r"`|\]\[|^\|.*\|$|^:::|\bArgs:|\bReturns:", text, flags=re.MULTILINE), path


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere_in_the_repository(name):
    text = re.sub(r"```.*?```", "", (DOCS / name).read_text("utf-8"), flags=re.DOTALL)
    targets = re.findall(r"\]\((?!https?:|#)([^()\s#]+)", text)
    assert not [target for target in targets if not ((DOCS / name).parent / target).exists()]


@pytest.mark.parametrize("name", PAGES)
def test_number_is_in_the_file_that_the_text_names(name):
    """Every decimal of a paragraph, or of a row, that links to a measurement."""
    file = None
    for part in re.split(
        r"\n\n|(?<=\|)\n", re.sub(r"```.*?```", "", (DOCS / name).read_text("utf-8"), flags=re.DOTALL)
    ):
        links = re.findall(r"\]\(([^)#]*(?:results|benchmarks)/[^)#]*\.md)", part)
        file = (DOCS / name).parent / links[-1] if links else file if part.rstrip(" |").endswith("the same") else None
        if file is not None:
            text = file.read_text(encoding="utf-8")
            missing = [number for number in re.findall(r"\d+\.\d+", part) if number not in text]
            assert not missing, (part, missing)
