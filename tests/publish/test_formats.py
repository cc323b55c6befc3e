"""What each format writes gives the vectors of the encoder, in a process without this package, too."""

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer

from predrec.errors import UserError
from predrec.publish import formats
from predrec.publish.formats import (
    check_installed,
    sequence_limit,
    write_sentence_transformers,
    write_transformers,
)
from predrec.publish.weights import load_source

from .made import TEXTS, encoder_folder, pooled_by_hand, run_python, run_without_predrec, trained_run

ENCODERS = {
    "predrec": ("predrec", {}, 64),
    "rotary": ("predrec", {"position_embedding_type": "rotary"}, 64),
    "bert": ("bert", {}, 64),
    "roberta": ("roberta", {}, 62),
    "distilbert": ("distilbert", {}, 64),
    "modernbert": ("modernbert", {}, 64),
}


@pytest.fixture(scope="module", params=ENCODERS)
def named(request, tiny_tokenizer, tmp_path_factory):
    """The folder of a masked-LM model and the longest sequence that its encoder takes."""
    model_type, encoder, limit = ENCODERS[request.param]
    folder = tmp_path_factory.mktemp("encoders") / request.param
    return encoder_folder(folder, model_type, tiny_tokenizer, encoder), limit


@pytest.fixture
def predrec_folder(tiny_tokenizer, tmp_path):
    return encoder_folder(tmp_path / "encoder", "predrec", tiny_tokenizer)


def limit_of(folder, asked=None) -> int:
    source = load_source(str(folder), "online", False)
    return sequence_limit(source.model, source.tokenizer, asked)


def sentence_encoder(folder, directory, pooling="mean", normalize=False, asked=None):
    """Exports and loads it as a user would."""
    sentence_transformers = pytest.importorskip("sentence_transformers")
    source = load_source(str(folder), "online", False)
    limit = sequence_limit(source.model, source.tokenizer, asked)
    write_sentence_transformers(source, directory, pooling, normalize, limit)
    return sentence_transformers.SentenceTransformer(str(directory), device="cpu")


def test_transformers_is_the_model_it_was(named, tmp_path):
    folder, _ = named
    write_transformers(load_source(str(folder), "online", True), tmp_path)
    before, after = load_file(folder / "model.safetensors"), load_file(tmp_path / "model.safetensors")
    torch.testing.assert_close(after, before, rtol=0, atol=0)
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in folder.iterdir()}
    assert json.loads((tmp_path / "config.json").read_text()) == json.loads((folder / "config.json").read_text())


def test_transformers_of_target_weights_loads_completely(tmp_path):
    run = trained_run(tmp_path / "run", max_steps=2)
    write_transformers(load_source(str(run), "ema", True), tmp_path / "ema")
    _, info = AutoModelForMaskedLM.from_pretrained(tmp_path / "ema", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    target = AutoModel.from_pretrained(tmp_path / "ema").state_dict()
    saved = load_file(run / "checkpoint-2" / "model.safetensors")
    assert all(torch.equal(value, saved[f"target_encoder.{name}"]) for name, value in target.items())
    config = json.loads((tmp_path / "ema" / "config.json").read_text())
    assert config["model_type"] == "predrec" and "AutoModelForSequenceClassification" in config["auto_map"]


@pytest.mark.parametrize("pooling", ["mean", "cls", "max"])
def test_sentence_vectors_are_pooled_states(named, tiny_tokenizer, tmp_path, pooling):
    folder, limit = named
    model = sentence_encoder(folder, tmp_path, pooling)
    expected = pooled_by_hand(folder, pooling, tiny_tokenizer, limit)
    vectors = model.encode(TEXTS, convert_to_tensor=True)
    torch.testing.assert_close(vectors, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(model.encode(TEXTS[:1], convert_to_tensor=True), expected[:1], rtol=0, atol=1e-5)


def test_sentence_vectors_of_target_weights_are_those_of_the_target_encoder(tiny_tokenizer, tmp_path):
    pytest.importorskip("sentence_transformers")
    run = trained_run(tmp_path / "run", max_steps=2)
    for weights in ("online", "ema"):
        write_sentence_transformers(load_source(str(run), weights, False), tmp_path / weights, "mean", False, 32)
    online, ema = (load_file(tmp_path / weights / "model.safetensors") for weights in ("online", "ema"))
    saved = load_file(run / "checkpoint-2" / "model.safetensors")
    assert all(torch.equal(value, saved[f"target_encoder.{name}"]) for name, value in ema.items())
    assert all(torch.equal(value, saved[f"masked_lm.model.{name}"]) for name, value in online.items())


def test_normalised_sentence_vectors_have_length_one(predrec_folder, tiny_tokenizer, tmp_path):
    vectors = sentence_encoder(predrec_folder, tmp_path / "new", normalize=True).encode(TEXTS, convert_to_tensor=True)
    expected = torch.nn.functional.normalize(pooled_by_hand(predrec_folder, "mean", tiny_tokenizer, 64))
    torch.testing.assert_close(vectors, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(len(TEXTS)))


def test_sequence_limit_is_what_the_encoder_takes(named):
    folder, limit = named
    assert limit_of(folder) == limit_of(folder, limit) == limit
    with pytest.raises(UserError, match=f"`max_seq_length` is {limit + 1}, but the encoder takes {limit} tokens"):
        limit_of(folder, limit + 1)


def test_sequence_limit_is_that_of_the_tokenizer_unless_asked(predrec_folder):
    tokenizer = AutoTokenizer.from_pretrained(predrec_folder)
    tokenizer.model_max_length = 32
    tokenizer.save_pretrained(predrec_folder)
    assert (limit_of(predrec_folder), limit_of(predrec_folder, 64)) == (32, 64)


def test_sequence_limit_leaves_room_for_a_token(predrec_folder):
    with pytest.raises(UserError, match="`max_seq_length` is 2, and the tokenizer adds 2 tokens of its own"):
        limit_of(predrec_folder, 2)


def test_sentence_tokenizer_cuts_where_asked(predrec_folder, tiny_tokenizer, tmp_path):
    model = sentence_encoder(predrec_folder, tmp_path / "new", asked=20)
    assert model.max_seq_length == 20
    expected = pooled_by_hand(predrec_folder, "mean", tiny_tokenizer, 20)
    torch.testing.assert_close(model.encode(TEXTS, convert_to_tensor=True), expected, rtol=0, atol=1e-5)


def test_sentence_folder_holds_no_random_pooler(tiny_tokenizer, tmp_path):
    folder = encoder_folder(tmp_path / "bert", "bert", tiny_tokenizer)
    sentence_encoder(folder, tmp_path / "new")
    assert not any("pooler" in name for name in load_file(tmp_path / "new" / "model.safetensors"))


def test_sentence_folder_of_a_stock_architecture_has_no_code(tiny_tokenizer, tmp_path):
    folder = encoder_folder(tmp_path / "bert", "bert", tiny_tokenizer)
    sentence_encoder(folder, tmp_path / "new")
    assert not list((tmp_path / "new").glob("*.py"))
    assert "auto_map" not in json.loads((tmp_path / "new" / "config.json").read_text())


def test_sentence_folder_names_no_path(predrec_folder, tmp_path):
    sentence_encoder(predrec_folder, tmp_path / "new")
    for path in (tmp_path / "new").rglob("*.json"):
        assert "/tmp" not in path.read_text() and str(tmp_path) not in path.read_text()


def test_sentence_folder_names_every_class_of_its_code(predrec_folder, tmp_path):
    sentence_encoder(predrec_folder, tmp_path / "new")
    configs = [json.loads((folder / "config.json").read_text()) for folder in (predrec_folder, tmp_path / "new")]
    assert configs[0]["auto_map"] == configs[1]["auto_map"]
    assert {path.name for path in (tmp_path / "new").glob("*.py")} == {
        "configuration_predrec.py",
        "modeling_predrec.py",
    }


@pytest.mark.slow
def test_sentence_folder_loads_without_and_with_this_package(predrec_folder, tiny_tokenizer, tmp_path):
    sentence_encoder(predrec_folder, tmp_path / "new")

    def script(options: str) -> str:
        return (
            "from sentence_transformers import SentenceTransformer\n"
            f"vectors = SentenceTransformer('new', device='cpu'{options}).encode({TEXTS!r})\n"
            "print('vectors:', vectors.tolist())"
        )

    without = run_without_predrec(script(", trust_remote_code=True"), tmp_path, tmp_path)
    with_package = run_python("import predrec\n" + script(""), tmp_path, tmp_path)
    expected = pooled_by_hand(predrec_folder, "mean", tiny_tokenizer, 64)
    for printed in (without, with_package):
        vectors = torch.tensor(json.loads(printed.split("vectors:")[1]))
        torch.testing.assert_close(vectors, expected, rtol=0, atol=1e-5)


def test_sentence_vectors_that_differ_are_refused(predrec_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "_by_hand", lambda *args: torch.zeros(len(formats.PROBES), 16))
    with pytest.raises(RuntimeError, match="gives vectors that differ by"):
        sentence_encoder(predrec_folder, tmp_path / "new")


@pytest.mark.parametrize(
    ("format", "missing"),
    [("sentence-transformers", "sentence_transformers"), ("onnx", "onnx, onnxscript, onnxruntime")],
)
def test_missing_library_is_named_with_its_command(monkeypatch, format, missing):
    monkeypatch.setattr(formats, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=rf"needs {missing}: pip install 'predrec\[{format}\]'"):
        check_installed(format)


def test_transformers_needs_no_further_library(monkeypatch):
    monkeypatch.setattr(formats, "find_spec", lambda name: None)
    check_installed("transformers")
