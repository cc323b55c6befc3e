"""Which weights are exported, and from where."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from predrec.errors import UserError
from predrec.modeling import PredRecModel
from predrec.publish.weights import ONLINE_HEAD, TIED_HEAD, UNTRAINED_HEAD, load_source
from predrec.trainers.integrity import write_checksums

from .. import training
from .made import encoder_folder, trained_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run; tests read it and do not change it."""
    return trained_run(tmp_path_factory.mktemp("runs") / "hybrid")


@pytest.fixture
def own_run(run, tmp_path):
    """A copy of the run that a test may change."""
    return shutil.copytree(run, tmp_path / "own")


def part(folder, prefix: str) -> dict[str, torch.Tensor]:
    """Returns the tensors of a checkpoint whose names begin with the prefix, without it."""
    tensors = load_file(folder / "model.safetensors")
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def assert_holds(model, expected: dict[str, torch.Tensor]) -> None:
    state = model.state_dict()
    assert expected and all(torch.equal(state[name], value) for name, value in expected.items())


def refuse(path, weights="online", with_head=True) -> str:
    with pytest.raises(UserError) as error:
        load_source(str(path), weights, with_head)
    return str(error.value)


def test_online_of_a_run_is_its_export(run):
    assert_holds(load_source(str(run), "online", True).model, load_file(run / "model.safetensors"))


@pytest.mark.parametrize("step", [2, 4])
def test_online_of_a_checkpoint_is_the_encoder_with_its_head(run, step):
    checkpoint = run / f"checkpoint-{step}"
    source = load_source(str(checkpoint), "online", True)
    assert_holds(source.model, part(checkpoint, "masked_lm."))
    assert source.description == f"the online encoder of checkpoint-{step} of hybrid"


def test_online_of_a_checkpoint_without_head_is_its_encoder(run):
    checkpoint = run / "checkpoint-2"
    model = load_source(str(checkpoint), "online", False).model
    assert type(model) is PredRecModel
    assert_holds(model, part(checkpoint, "masked_lm.model."))


@pytest.mark.parametrize("path", [".", "checkpoint-4", "checkpoint-2"])
@pytest.mark.parametrize("with_head", [True, False])
def test_ema_is_the_target_encoder_of_the_checkpoint(run, path, with_head):
    checkpoint = run / ("checkpoint-4" if path == "." else path)
    source = load_source(str(run / path), "ema", with_head)
    encoder = source.model.base_model
    assert_holds(encoder, part(checkpoint, "target_encoder."))
    online = part(checkpoint, "masked_lm.model.")
    assert not torch.equal(encoder.norm.weight, online["norm.weight"])
    assert source.description == f"the target encoder (EMA) of {checkpoint.name} of hybrid"


def test_ema_has_the_head_of_the_online_encoder(run):
    source = load_source(str(run), "ema", True)
    assert_holds(source.model.lm_head, part(run / "checkpoint-4", "masked_lm.lm_head."))
    assert source.notes == [ONLINE_HEAD]


def test_ema_with_tied_embeddings_says_what_of_the_head_is_not_online(tmp_path):
    config = training.encoder_config(tie_word_embeddings=True)
    run = trained_run(tmp_path, max_steps=2, encoder=config)
    source = load_source(str(run), "ema", True)
    assert source.notes == [TIED_HEAD]
    target = part(run / "checkpoint-2", "target_encoder.")["embeddings.word_embeddings.weight"]
    assert torch.equal(source.model.lm_head.decoder.weight, target)


def test_ema_without_head_says_nothing_of_it(run):
    assert load_source(str(run), "ema", False).notes == []


def test_ema_passes_over_a_checkpoint_that_is_not_complete(own_run):
    (own_run / "checkpoint-4" / "trainer_state.json").unlink()
    source = load_source(str(own_run), "ema", True)
    assert_holds(source.model.model, part(own_run / "checkpoint-2", "target_encoder."))
    assert "The encoder in the run's own folder is of another step than checkpoint-2." in source.notes


def test_ema_takes_the_newest_checkpoint_by_number(own_run):
    (own_run / "checkpoint-4").rename(own_run / "checkpoint-10")
    assert "checkpoint-10" in load_source(str(own_run), "ema", True).description


def test_ema_of_a_run_that_switched_says_that_the_target_stopped(own_run):
    path = own_run / "checkpoint-4" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"active_objective": "mlm"}))
    write_checksums(path.parent)
    notes = load_source(str(own_run), "ema", False).notes
    assert notes == ["The run went on with `mlm` alone: the target encoder stopped following."]


def test_ema_comes_without_the_export_of_the_run(own_run):
    (own_run / "model.safetensors").unlink()
    (own_run / "config.json").unlink()
    assert load_source(str(own_run), "ema", False).notes == []


@pytest.mark.parametrize(
    ("objective", "overrides", "reason"),
    [
        ("mlm", {}, "which `objective=mlm` does without"),
        ("hybrid", {"jepa_loss": "sigreg"}, "which `objective=hybrid` with `jepa_loss=sigreg` does without"),
    ],
)
def test_ema_of_a_run_without_target_encoder_is_refused(tmp_path, objective, overrides, reason):
    run = trained_run(tmp_path, objective, max_steps=2, **overrides)
    message = refuse(run, "ema")
    assert message.startswith("`weights` ema: checkpoint-2 has no target encoder") and reason in message
    assert "--weights online" in message


def test_ema_of_a_run_that_kept_no_checkpoint_is_refused(own_run):
    for checkpoint in own_run.glob("checkpoint-*"):
        shutil.rmtree(checkpoint)
    assert "has no intact checkpoint-N" in refuse(own_run, "ema")


def test_ema_of_a_plain_encoder_is_refused(tiny_encoder, tmp_path):
    assert "has no intact checkpoint-N" in refuse(tiny_encoder(tmp_path, "bert"), "ema", False)


def test_head_of_a_jepa_run_is_said_to_be_untrained(tmp_path):
    run = trained_run(tmp_path, "jepa", max_steps=2)
    assert load_source(str(run / "checkpoint-2"), "online", True).notes == [UNTRAINED_HEAD]
    assert load_source(str(run / "checkpoint-2"), "online", False).notes == []


def test_run_that_did_not_end_names_its_checkpoint(own_run):
    (own_run / "config.json").unlink()
    message = refuse(own_run)
    assert "did not end" in message and str(own_run / "checkpoint-4") in message


def test_bare_encoder_has_no_head_to_export(tiny_encoder, tmp_path):
    folder = tiny_encoder(tmp_path / "bare")
    message = refuse(folder)
    assert "no masked-LM head" in message and "--format sentence-transformers" in message
    assert type(load_source(str(folder), "online", False).model) is PredRecModel


@pytest.mark.parametrize("with_head", [True, False])
def test_checkpoint_without_a_weight_is_refused(own_run, with_head):
    path = own_run / "checkpoint-4" / "model.safetensors"
    tensors = load_file(path)
    del tensors["masked_lm.model.norm.weight"]
    save_file(tensors, path, metadata={"format": "pt"})
    write_checksums(path.parent)
    message = refuse(own_run / "checkpoint-4", with_head=with_head)
    assert "do not belong to the configuration" in message and "norm.weight" in message


@pytest.mark.parametrize("with_head", [True, False])
@pytest.mark.parametrize("name", ["nowhere", "empty", "damaged"])
def test_what_cannot_be_loaded_is_named(own_run, tmp_path, name, with_head):
    (tmp_path / "empty").mkdir()
    (own_run / "model.safetensors").write_bytes(b"nothing")
    own_run.rename(tmp_path / "damaged")
    message = refuse(tmp_path / name, with_head=with_head)
    assert message.startswith("Cannot load") and name in message


def test_untrained_pooler_is_not_exported(tiny_tokenizer, tmp_path):
    model = load_source(str(encoder_folder(tmp_path, "bert", tiny_tokenizer)), "online", False).model
    assert not any("pooler" in name for name in model.state_dict())


def test_trained_pooler_is_exported(tiny_encoder, tmp_path):
    folder = tiny_encoder(tmp_path, "bert")
    assert_holds(load_source(str(folder), "online", False).model, load_file(folder / "model.safetensors"))


@pytest.mark.parametrize("with_head", [True, False])
def test_folder_without_a_tokenizer_is_refused(tiny_tokenizer, tmp_path, with_head):
    folder = encoder_folder(tmp_path / "encoder", "bert", tiny_tokenizer)
    for path in folder.glob("tokenizer*"):
        path.unlink()
    assert "there is no tokenizer, or one without words" in refuse(folder, with_head=with_head)
