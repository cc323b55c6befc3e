"""The graph computes what torch computes, for every size of batch, with and without padding."""

import json
import re

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModel

from predrec.errors import UserError
from predrec.eval.pooling import POOLINGS
from predrec.publish import onnx_graph
from predrec.publish.card import render_card
from predrec.publish.onnx_graph import EncoderGraph, compare, pool, write_onnx
from predrec.publish.weights import load_source

from .made import TEXTS, encoder_folder, run_without_predrec, trained_run

ENCODERS = {
    "predrec": ("predrec", {}, 64),
    "rotary": ("predrec", {"position_embedding_type": "rotary"}, 64),
    "bert": ("bert", {}, 64),
    "roberta": ("roberta", {}, 62),
    "distilbert": ("distilbert", {}, 64),
    "modernbert": ("modernbert", {}, 64),
}


def session(directory):
    onnxruntime = pytest.importorskip("onnxruntime")
    return onnxruntime.InferenceSession(str(directory / "onnx" / "model.onnx"), providers=["CPUExecutionProvider"])


def exported(folder, directory, pooling=None, normalize=False, limit=64):
    """Exports; returns the source and a session on the graph."""
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    source = load_source(str(folder), "online", False)
    directory.mkdir(exist_ok=True)
    write_onnx(source, directory, pooling, normalize, limit)
    return source, session(directory)


@pytest.fixture(scope="module", params=ENCODERS)
def graph(request, tiny_tokenizer, tmp_path_factory):
    """An encoder from its own folder, the session on its graph with mean pooling, and its longest sequence."""
    model_type, encoder, limit = ENCODERS[request.param]
    folder = tmp_path_factory.mktemp("graphs")
    encoder_folder(folder / "encoder", model_type, tiny_tokenizer, encoder)
    _, running = exported(folder / "encoder", folder / "onnx", "mean", limit=limit)
    return AutoModel.from_pretrained(folder / "encoder").eval(), running, limit


@pytest.fixture
def small(tiny_tokenizer, tmp_path):
    return encoder_folder(tmp_path / "encoder", "predrec", tiny_tokenizer)


@torch.no_grad()
def assert_same(encoder, running, input_ids, mask):
    """Compares states of real tokens and their means."""
    feeds = {"input_ids": input_ids.numpy(), "attention_mask": mask.numpy()}
    states, vectors = (torch.from_numpy(output) for output in running.run(None, feeds))
    expected = encoder(input_ids=input_ids, attention_mask=mask).last_hidden_state
    torch.testing.assert_close(states[mask.bool()], expected[mask.bool()], rtol=0, atol=1e-4)
    torch.testing.assert_close(vectors, POOLINGS["mean"](expected, mask.bool()), rtol=0, atol=1e-4)


@pytest.mark.parametrize(("batch_size", "length"), [(1, 1), (1, 5), (2, 1), (3, 16), (2, 40), (9, 23), (4, 10**9)])
def test_graph_equals_torch(graph, batch_size, length):
    encoder, running, limit = graph
    length, pad = min(length, limit), encoder.config.pad_token_id
    input_ids = torch.randint(5, 100, (batch_size, length), generator=torch.Generator().manual_seed(length))
    mask = (torch.arange(length) < torch.linspace(length, 1, batch_size).long()[:, None]).long()
    assert_same(encoder, running, input_ids.masked_fill(mask == 0, pad), mask)


def test_graph_equals_torch_without_padding(graph):
    encoder, running, _ = graph
    input_ids = torch.arange(5, 53).view(4, 12)
    assert_same(encoder, running, input_ids, torch.ones_like(input_ids))


def test_graph_has_the_names_and_free_sizes_that_its_users_expect(graph):
    _, running, _ = graph
    free = ["batch_size", "sequence_length"]
    assert {one.name: one.shape for one in running.get_inputs()} == {"input_ids": free, "attention_mask": free}
    assert {one.name: one.shape for one in running.get_outputs()} == {
        "last_hidden_state": [*free, 16],
        "sentence_embedding": ["batch_size", 16],
    }
    assert {one.type for one in running.get_inputs()} == {"tensor(int64)"}


@pytest.mark.parametrize("pooling", ["mean", "cls", "max"])
@pytest.mark.parametrize("side", ["right", "left"])
def test_pool_is_the_pooling_of_evaluation(pooling, side):
    states = torch.randn(3, 7, 4, generator=torch.Generator().manual_seed(0)) - 3
    mask = (torch.arange(7) < torch.tensor([[7], [4], [1]])).long()
    mask = mask.flip(1) if side == "left" else mask
    torch.testing.assert_close(pool(states, mask, pooling), POOLINGS[pooling](states, mask.bool()))


def test_graph_without_pooling_gives_states_alone(small, tmp_path):
    _, running = exported(small, tmp_path / "onnx")
    assert [one.name for one in running.get_outputs()] == ["last_hidden_state"]


@pytest.mark.parametrize("pooling", ["cls", "max"])
def test_graph_pools_and_normalises(small, tmp_path, pooling):
    source, running = exported(small, tmp_path / "onnx", pooling, True)
    batch = source.tokenizer(TEXTS, padding=True, truncation=True, return_tensors="pt")
    feeds = {name: batch[name].numpy() for name in ("input_ids", "attention_mask")}
    [vectors] = running.run(["sentence_embedding"], feeds)
    with torch.no_grad():
        states = source.model(**batch).last_hidden_state
    expected = F.normalize(POOLINGS[pooling](states, batch["attention_mask"].bool()))
    torch.testing.assert_close(torch.from_numpy(vectors), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("weights", ["online", "ema"])
def test_graph_of_a_checkpoint_leaves_its_attention_behind(tmp_path, weights):
    """Training attends with a kernel of its own, which no graph can hold."""
    pytest.importorskip("onnxscript")
    run = trained_run(tmp_path / "run", max_steps=2)
    source = load_source(str(run / "checkpoint-2"), weights, False)
    assert source.model.config._attn_implementation == "unpadded"
    (tmp_path / "onnx").mkdir()
    assert write_onnx(source, tmp_path / "onnx", None, False, 32) <= 1e-4
    assert source.model.config._attn_implementation == "sdpa"


def test_graph_of_an_encoder_that_ignores_its_mask_keeps_the_input(tiny_encoder, tmp_path):
    folder = tiny_encoder(tmp_path / "encoder", attend_to_padding=True)
    _, running = exported(folder, tmp_path / "onnx")
    assert {one.name for one in running.get_inputs()} == {"input_ids", "attention_mask"}


def test_folder_holds_the_graph_its_tokenizer_and_configuration(small, tmp_path):
    exported(small, tmp_path / "onnx", limit=20)
    names = {str(path.relative_to(tmp_path / "onnx")) for path in (tmp_path / "onnx").rglob("*") if path.is_file()}
    expected = {"onnx/model.onnx", "config.json", "tokenizer.json", "tokenizer_config.json"}
    assert names == expected | {"configuration_predrec.py"}
    config = json.loads((tmp_path / "onnx" / "config.json").read_text())
    assert config["auto_map"] == {"AutoConfig": "configuration_predrec.PredRecConfig"}
    assert config["architectures"] == ["PredRecModel"]
    assert json.loads((tmp_path / "onnx" / "tokenizer_config.json").read_text())["model_max_length"] == 20


def test_graph_does_not_say_which_code_made_it(small, tmp_path):
    exported(small, tmp_path / "onnx", "mean")
    assert b".py" not in (tmp_path / "onnx" / "onnx" / "model.onnx").read_bytes()


@pytest.mark.slow
def test_example_of_the_card_runs_without_this_package(small, tmp_path):
    source, _ = exported(small, tmp_path / "tiny-onnx", "mean")
    card = render_card("tiny-onnx", source, "onnx", "mean", [])
    [code] = re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)
    assert "(2, 16)" in run_without_predrec(code, tmp_path, tmp_path)


def test_weights_too_large_for_one_file_go_beside_it(small, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_graph, "LARGEST_FILE", 0)
    source, running = exported(small, tmp_path / "onnx", "mean")
    assert (tmp_path / "onnx" / "onnx" / "model.onnx_data").stat().st_size > 1000
    assert_same(source.model, running, torch.arange(5, 17).view(2, 6), torch.ones(2, 6, dtype=torch.long))


@pytest.mark.parametrize("pooling", [None, "mean"])
def test_graph_of_other_weights_is_refused(small, tmp_path, pooling):
    source, _ = exported(small, tmp_path / "onnx", pooling)
    with torch.no_grad():
        source.model.norm.bias.add_(1e-3)
    graph = EncoderGraph(source.model, pooling, False)
    with pytest.raises(UserError, match=r"the graph of predrec differs from torch by 0.00\d+ on 1 texts of 1 tokens"):
        compare(graph, tmp_path / "onnx" / "onnx" / "model.onnx")


def test_graph_with_another_pooling_is_refused(small, tmp_path):
    source, _ = exported(small, tmp_path / "onnx", "mean")
    with pytest.raises(UserError, match="differs from torch"):
        compare(EncoderGraph(source.model, "max", False), tmp_path / "onnx" / "onnx" / "model.onnx")


def test_graph_that_is_not_a_number_is_refused(small, tmp_path):
    source, _ = exported(small, tmp_path / "onnx")
    with torch.no_grad():
        source.model.norm.bias.fill_(torch.nan)
    with pytest.raises(UserError, match="differs from torch by nan"):
        compare(EncoderGraph(source.model, None, False), tmp_path / "onnx" / "onnx" / "model.onnx")


def test_architecture_that_torch_cannot_export_is_refused(small, tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError("no operator\nof that kind")

    monkeypatch.setattr(torch.onnx, "export", fail)
    with pytest.raises(UserError, match="torch cannot export predrec: no operator of that kind"):
        exported(small, tmp_path / "onnx")
