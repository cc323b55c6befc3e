"""The command that exports: a run in, a folder for another library out, and nothing when something is wrong."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer

from predrec.commands import pretrain
from predrec.commands.export import main
from predrec.publish import formats
from tests import training

from .test_pretrain import TINY

ROOT = Path(__file__).parents[2]
EXTRAS = {"sentence-transformers": ("sentence_transformers",), "onnx": ("onnxscript", "onnxruntime")}
FORMATS = ("transformers", *EXTRAS)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """The folder of a finished run; tests read it and do not change it."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "corpus.txt").write_text("\n".join(training.corpus()), encoding="utf-8")
    words = ["--train_file", str(folder / "corpus.txt"), "--output_dir", str(folder / "tiny")]
    assert pretrain.main([*words, *TINY]) == 0
    return folder / "tiny"


@pytest.fixture
def refused(refusal, tmp_path):
    """Runs the command, expects that it refuses and leaves no folder, and returns the message."""

    def call(*words: object, output_dir: object = None) -> str:
        message = refusal(main, *words, "--output_dir", output_dir or tmp_path / "new")
        assert not (tmp_path / "new").exists()
        return message

    return call


def need(format: str) -> None:
    for name in EXTRAS.get(format, ()):
        pytest.importorskip(name)


def digest(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def vectors_of(run: Path, encoder: torch.nn.Module, texts: list[str]) -> torch.Tensor:
    """Returns means over real tokens."""
    batch = AutoTokenizer.from_pretrained(run)(texts, padding=True, truncation=True, return_tensors="pt")
    with torch.no_grad():
        states = encoder.eval()(**batch).last_hidden_state
    mask = batch["attention_mask"][..., None]
    return (states * mask).sum(1) / mask.sum(1)


def target_encoder(run: Path, checkpoint: Path) -> torch.nn.Module:
    """Returns the run's encoder with the target weights of a checkpoint."""
    encoder = AutoModel.from_pretrained(run)
    saved = load_file(checkpoint / "model.safetensors")
    encoder.load_state_dict({name: saved[f"target_encoder.{name}"] for name in encoder.state_dict()})
    return encoder


@pytest.mark.parametrize("format", FORMATS)
def test_export_leaves_its_source_as_it_is(run, tmp_path, format):
    need(format)
    before = digest(run)
    assert main([str(run), "--format", format, "--output_dir", str(tmp_path / "new"), "--weights", "ema"]) == 0
    assert digest(run) == before
    assert not (tmp_path / "new" / ".export.partial").exists()


def test_export_for_transformers_is_what_the_run_wrote(run, tmp_path, capsys):
    assert main([str(run), "--format", "transformers", "--output_dir", str(tmp_path / "new")]) == 0
    states = [AutoModelForMaskedLM.from_pretrained(folder).state_dict() for folder in (run, tmp_path / "new")]
    torch.testing.assert_close(states[0], states[1], rtol=0, atol=0)
    card = (tmp_path / "new" / "README.md").read_text(encoding="utf-8")
    assert "## Training" in card and "corpus.txt" in card and "training_curves" not in card
    assert capsys.readouterr().out == f"{tmp_path / 'new'}: the masked-LM model in tiny, for transformers.\n"


@pytest.mark.parametrize("weights", ["online", "ema"])
def test_export_for_sentence_transformers_gives_the_vectors_of_the_weights(run, tmp_path, weights):
    need("sentence-transformers")
    from sentence_transformers import SentenceTransformer

    words = ["--format", "sentence-transformers", "--weights", weights]
    assert main([str(run), *words, "--output_dir", str(tmp_path / "new")]) == 0
    encoder = AutoModel.from_pretrained(run) if weights == "online" else target_encoder(run, run / "checkpoint-4")
    texts = ["the old sea", "a slow grey ship past two quiet towns", "news " * 50]
    found = SentenceTransformer(str(tmp_path / "new"), device="cpu").encode(texts, convert_to_tensor=True)
    torch.testing.assert_close(found, vectors_of(run, encoder, texts), rtol=0, atol=1e-5)


def test_export_for_onnx_gives_the_vectors_of_a_checkpoint(run, tmp_path, capsys):
    need("onnx")
    import onnxruntime

    words = ["--format", "onnx", "--pooling", "mean", "--normalize", "--weights", "ema"]
    assert main([str(run / "checkpoint-2"), *words, "--output_dir", str(tmp_path / "new")]) == 0
    printed = capsys.readouterr().out
    assert "the target encoder (EMA) of checkpoint-2 of tiny, for onnx." in printed
    assert "Texts are cut at 32 tokens; mean pooling, normalised." in printed and "differs from torch by" in printed
    texts = ["the old sea", "a slow grey ship past two quiet towns", "news " * 50]
    batch = AutoTokenizer.from_pretrained(tmp_path / "new")(texts, padding=True, truncation=True, return_tensors="np")
    session = onnxruntime.InferenceSession(str(tmp_path / "new" / "onnx" / "model.onnx"))
    feeds = {name: batch[name] for name in ("input_ids", "attention_mask")}
    [found] = session.run(["sentence_embedding"], feeds)
    expected = torch.nn.functional.normalize(vectors_of(run, target_encoder(run, run / "checkpoint-2"), texts))
    torch.testing.assert_close(torch.from_numpy(found), expected, rtol=0, atol=1e-4)


def test_export_of_target_weights_says_so_on_the_console_and_in_the_card(run, tmp_path, capsys):
    words = ["--format", "transformers", "--weights", "ema", "--output_dir", str(tmp_path / "new")]
    assert main([str(run), *words]) == 0
    printed, card = capsys.readouterr().out, (tmp_path / "new" / "README.md").read_text(encoding="utf-8")
    for text in (printed, card):
        assert "the target encoder (EMA) of checkpoint-4 of tiny" in text
        assert "The head is the online encoder's: the target encoder has none." in text
    assert "## What was measured" not in card


def test_export_of_a_bare_encoder_for_onnx(tiny_encoder, tmp_path):
    need("onnx")
    folder = tiny_encoder(tmp_path / "bert", "bert")
    assert main([str(folder), "--format", "onnx", "--output_dir", str(tmp_path / "new")]) == 0
    assert json.loads((tmp_path / "new" / "config.json").read_text())["architectures"] == ["BertModel"]


def test_export_can_be_exported(run, tmp_path):
    need("sentence-transformers")
    for source, format, target in (
        (run, "transformers", "one"),
        (tmp_path / "one", "sentence-transformers", "two"),
        (tmp_path / "two", "sentence-transformers", "three"),
    ):
        assert main([str(source), "--format", format, "--output_dir", str(tmp_path / target)]) == 0
    first, last = (AutoModel.from_pretrained(folder).state_dict() for folder in (run, tmp_path / "three"))
    torch.testing.assert_close(last, first, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--format", "transformers", "--pooling", "mean"], "`pooling` has no effect on `format` transformers"),
        (["--format", "transformers", "--normalize"], "`normalize` has no effect on `format` transformers"),
        (["--format", "transformers", "--max_seq_length", "8"], "`max_seq_length` has no effect on `format`"),
        (["--format", "onnx", "--normalize"], "`normalize` is about pooled vectors: add `--pooling mean`"),
        (["--format", "onnx", "--max_seq_length", "-1"], "`max_seq_length` is -1; it must be at least 1"),
        (["--format", "onnx", "--max_seq_length", "9999"], "`max_seq_length` is 9999, but the encoder takes"),
        (["--format", "tflite"], "invalid choice: 'tflite'"),
        (["--format", "onnx", "--pooling", "attention"], "invalid choice: 'attention'"),
        (["--format", "onnx", "--weights", "target"], "invalid choice: 'target'"),
        (["--format", "onnx", "--poling", "mean"], "did you mean `pooling`?"),
        ([], "--format"),
    ],
)
def test_export_refuses_arguments(run, refused, words, message):
    assert message in refused(run, *words)


@pytest.mark.parametrize("sources", [[], ["one", "two"]])
def test_export_takes_one_source(refused, sources):
    assert f"Give one folder or Hub id first, not {len(sources)}" in refused(*sources, "--format", "transformers")


@pytest.mark.parametrize("format", FORMATS)
def test_export_names_a_source_that_is_not_there(refused, tmp_path, format):
    need(format)
    assert "nowhere" in refused(tmp_path / "nowhere", "--format", format)


def test_export_refuses_target_weights_of_an_export(run, refused, tmp_path):
    assert main([str(run), "--format", "transformers", "--output_dir", str(tmp_path / "plain")]) == 0
    message = refused(tmp_path / "plain", "--format", "transformers", "--weights", "ema")
    assert "has no intact checkpoint-N" in message


def test_export_writes_into_no_folder_that_holds_something(run, refused, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("x")
    message = refused(run, "--format", "transformers", output_dir=tmp_path / "mine")
    assert "is not empty (notes.txt)" in message
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("name", [".", "onnx", "checkpoint-4"])
def test_export_writes_nothing_into_its_source(run, refused, name):
    before = digest(run)
    assert "is the source or in it" in refused(run, "--format", "transformers", output_dir=run / name)
    assert digest(run) == before


def test_export_names_a_library_that_is_not_installed(run, refused, monkeypatch):
    monkeypatch.setattr(formats, "find_spec", lambda name: None)
    assert "pip install 'predrec[onnx]'" in refused(run, "--format", "onnx")


@pytest.mark.slow
def test_export_script_prints_errors_without_traceback(tmp_path):
    command = [sys.executable, "scripts/export.py", str(tmp_path), "--format", "transformers"]
    result = subprocess.run([*command, "--output_dir", "x"], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stderr.startswith("error: ") and "Traceback" not in result.stderr
