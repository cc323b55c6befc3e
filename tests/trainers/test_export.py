"""The export of the trained encoder: complete, of its own architecture, and refused when it is not."""

import json
import logging as python_logging

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForMaskedLM
from transformers.utils import logging

from predrec.errors import UserError
from predrec.modeling import PredRecForMaskedLM
from predrec.trainers.export import check_export, export_encoder

from ..modeling.tiny import block_batch, drift, pretraining_model

STOCK_CLASSES = {
    "predrec": ("PredRecModel", "PredRecForMaskedLM"),
    "bert": ("BertModel", "BertForMaskedLM"),
    "roberta": ("RobertaModel", "RobertaForMaskedLM"),
    "modernbert": ("ModernBertModel", "ModernBertForMaskedLM"),
    "distilbert": ("DistilBertModel", "DistilBertForMaskedLM"),
    "electra": ("ElectraModel", "ElectraForMaskedLM"),
    "deberta-v2": ("DebertaV2Model", "DebertaV2ForMaskedLM"),
    "mpnet": ("MPNetModel", "MPNetForMaskedLM"),
}
UNLISTED = {"mpnet"}


@pytest.mark.parametrize("model_type", [name for name in STOCK_CLASSES if name not in UNLISTED])
def test_export_loads_as_the_stock_classes_with_equal_outputs(model_type, tmp_path):
    model = drift(pretraining_model(model_type))
    export_encoder(model, None, tmp_path)
    batch = block_batch(pad_token_id=model.config.encoder_config.pad_token_id)
    inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    bare, with_head = AutoModel.from_pretrained(tmp_path), AutoModelForMaskedLM.from_pretrained(tmp_path)
    assert (type(bare).__name__, type(with_head).__name__) == STOCK_CLASSES[model_type]
    assert torch.equal(with_head(**inputs).logits, model.masked_lm(**inputs).logits)
    assert torch.equal(bare(**inputs)[0], model.encoder(**inputs)[0])


@pytest.mark.parametrize("objective", ["mlm", "jepa", "hybrid"])
def test_export_of_every_objective_is_complete(objective, tmp_path):
    export_encoder(pretraining_model("bert", objective=objective), None, tmp_path)
    check_export(tmp_path)


def test_export_of_tied_predrec_is_complete(tmp_path):
    export_encoder(pretraining_model(encoder={"tie_word_embeddings": True}), None, tmp_path)
    check_export(tmp_path)


def test_export_holds_the_online_encoder_not_the_target(tmp_path):
    model = drift(pretraining_model())
    export_encoder(model, None, tmp_path)
    exported = AutoModel.from_pretrained(tmp_path).state_dict()
    torch.testing.assert_close(exported, model.encoder.state_dict(), rtol=0, atol=0)


def test_export_of_predrec_brings_its_code_and_names_every_class(tmp_path):
    export_encoder(pretraining_model(), None, tmp_path)
    auto_map = json.loads((tmp_path / "config.json").read_text())["auto_map"]
    assert auto_map == {
        "AutoConfig": "configuration_predrec.PredRecConfig",
        "AutoModel": "modeling_predrec.PredRecModel",
        "AutoModelForMaskedLM": "modeling_predrec.PredRecForMaskedLM",
        "AutoModelForSequenceClassification": "modeling_predrec.PredRecForSequenceClassification",
        "AutoModelForTokenClassification": "modeling_predrec.PredRecForTokenClassification",
        "AutoModelForQuestionAnswering": "modeling_predrec.PredRecForQuestionAnswering",
        "AutoModelForMultipleChoice": "modeling_predrec.PredRecForMultipleChoice",
    }
    assert {path.name for path in tmp_path.glob("*.py")} == {"configuration_predrec.py", "modeling_predrec.py"}


def test_export_of_a_stock_architecture_needs_no_code(tmp_path):
    export_encoder(pretraining_model("bert"), None, tmp_path)
    assert not list(tmp_path.glob("*.py")) and "auto_map" not in json.loads((tmp_path / "config.json").read_text())


def test_saving_an_export_again_keeps_every_class_loadable(tmp_path):
    export_encoder(pretraining_model(), None, tmp_path / "first")
    PredRecForMaskedLM.from_pretrained(tmp_path / "first").save_pretrained(tmp_path / "second")
    auto_map = json.loads((tmp_path / "second" / "config.json").read_text())["auto_map"]
    assert auto_map["AutoModel"] == "modeling_predrec.PredRecModel"


def test_export_saves_the_tokenizer_beside_it(tiny_tokenizer, tmp_path):
    export_encoder(pretraining_model(), tiny_tokenizer, tmp_path)
    loaded = type(tiny_tokenizer).from_pretrained(tmp_path)
    assert loaded("the cat sat")["input_ids"] == tiny_tokenizer("the cat sat")["input_ids"]


def test_export_leaves_other_files(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    export_encoder(pretraining_model(), None, tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def edit_weights(directory, edit) -> None:
    path = directory / "model.safetensors"
    tensors = load_file(path)
    edit(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("model_type", "name"),
    [
        ("predrec", "model.layers.0.attn.qkv.weight"),
        ("predrec", "lm_head.dense.weight"),
        ("bert", "bert.encoder.layer.1.output.dense.bias"),
        ("bert", "cls.predictions.transform.dense.weight"),
        ("roberta", "lm_head.layer_norm.weight"),
        ("modernbert", "model.final_norm.weight"),
        ("distilbert", "vocab_transform.bias"),
    ],
)
def test_check_export_refuses_a_missing_tensor(model_type, name, tmp_path):
    export_encoder(pretraining_model(model_type), None, tmp_path)
    edit_weights(tmp_path, lambda tensors: tensors.pop(name))
    with pytest.raises(RuntimeError, match=f"does not load completely.*missing.*{name}"):
        check_export(tmp_path)


@pytest.mark.parametrize("name", ["model.layers.7.norm1.weight", "predictor.embed.weight"])
def test_check_export_refuses_an_unexpected_tensor(name, tmp_path):
    export_encoder(pretraining_model(), None, tmp_path)
    edit_weights(tmp_path, lambda tensors: tensors.update({name: torch.zeros(16)}))
    with pytest.raises(RuntimeError, match=f"unexpected.*{name}"):
        check_export(tmp_path)


def test_check_export_refuses_a_checkpoint_of_the_whole_model(tmp_path):
    pretraining_model("bert").save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(pretraining_model("bert").masked_lm.config.to_json_string())
    with pytest.raises(RuntimeError, match="does not load completely"):
        check_export(tmp_path)


@pytest.mark.parametrize(("missing", "refused"), [("encoder.layer.0.output.dense.bias", True), ("pooler.x", False)])
def test_check_export_tells_trained_weights_from_added_ones(missing, refused, monkeypatch, tmp_path):
    """`AutoModel` may miss what it adds itself, such as a pooler, and nothing else."""
    export_encoder(pretraining_model("bert"), None, tmp_path)
    info = {"missing_keys": {missing}, "unexpected_keys": set()}
    monkeypatch.setattr(AutoModel, "from_pretrained", lambda *args, **kwargs: (None, info))
    if refused:
        with pytest.raises(RuntimeError, match=f"missing in the encoder.*{missing}"):
            check_export(tmp_path)
    else:
        check_export(tmp_path)


def test_check_export_restores_the_log_level(tmp_path):
    export_encoder(pretraining_model(), None, tmp_path)
    before = logging.get_verbosity()
    logging.set_verbosity(python_logging.INFO)
    try:
        check_export(tmp_path)
        assert logging.get_verbosity() == python_logging.INFO
    finally:
        logging.set_verbosity(before)


@pytest.mark.parametrize("model_type", sorted(UNLISTED))
def test_export_of_an_unlisted_architecture_is_complete(model_type, tmp_path):
    export_encoder(pretraining_model(model_type), None, tmp_path)
    assert type(AutoModelForMaskedLM.from_pretrained(tmp_path)).__name__ == STOCK_CLASSES[model_type][1]


def test_export_that_cannot_be_written_leaves_what_was_there(tmp_path, monkeypatch):
    model = pretraining_model()
    export_encoder(model, None, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def fill_the_disk(self, directory, **kwargs):
        directory.mkdir()
        (directory / "half.txt").write_text("x")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(model.masked_lm), "save_pretrained", fill_the_disk)
    with pytest.raises(UserError, match=r"Could not save the trained encoder .* No space left"):
        export_encoder(model, None, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
