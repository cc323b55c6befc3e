"""Sharded by FSDP2 over two processes, a model trains as a whole one does, target encoder and export included."""

from collections import Counter

import pytest
import torch
from transformers import AutoModelForMaskedLM

from predrec.benchmark.cluster import Sizes, fetched, traffic

from ..modeling.tiny import UNPADDED_ROWS, block_batch, drift, pretraining_model
from ..processes import AT_ONCE, in_two_processes, once

STEPS, DECAY = 3, 0.9

SCRIPT = (
    """
import sys, torch
import torch.distributed as dist
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from predrec.trainers.export import export_encoder
from tests.trainers.test_sharded import DECAY, STEPS, batch_of, count_bytes, fresh_model, fresh_optimizer

torch.set_num_threads(1)
dist.init_process_group("gloo")
sent = count_bytes(dist)
rank, model = dist.get_rank(), fresh_model(sys.argv[2])
mesh = init_device_mesh("cpu", (dist.get_world_size(),))
for part in (model.encoder, model.target_encoder, model.predictor):
    for layer in getattr(part, "layers", None) or part.encoder.layer:
        fully_shard(layer, mesh=mesh)
fully_shard(model, mesh=mesh)
optimizer = fresh_optimizer(model)
for step in range(STEPS):
    assert all(isinstance(parameter, DTensor) for parameter in model.parameters())
    sent.clear()
    model(**batch_of(step, rank)).loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    model.update_target_encoder(DECAY)
torch.save(dict(sent), f"{sys.argv[1]}/sent-{rank}.pt")
state = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
if rank == 0:
    torch.save(state, sys.argv[1] + "/state.pt")
    export_encoder(model, None, sys.argv[1] + "/export", state)
dist.barrier()
dist.destroy_process_group()
"""
    + AT_ONCE
)


def count_bytes(dist):
    """Counts what the collectives of sharding are given, by their kind."""
    sent = Counter()

    def counted(name, kind, collective):
        def call(*args, **kwargs):
            given = kwargs["input"] if "input" in kwargs else args[1]
            sent[kind] += given.numel() * given.element_size()
            return collective(*args, **kwargs)

        setattr(dist, name, call)

    kinds = {"all_gather": "gathered", "reduce_scatter": "summed"}
    for name in ("all_gather_single", "all_gather_into_tensor", "reduce_scatter_single", "reduce_scatter_tensor"):
        if hasattr(dist, name):
            counted(name, kinds[name.rsplit("_", 2 if "into" in name else 1)[0]], getattr(dist, name))
    return sent


def fresh_model(model_type):
    return drift(pretraining_model(model_type)).train()


def fresh_optimizer(model):
    return torch.optim.AdamW([parameter for parameter in model.parameters() if parameter.requires_grad], lr=1e-2)


def batch_of(step, rank):
    """Batches of as many labels and targets each, so that their mean loss is that of both together."""
    return block_batch(rows=UNPADDED_ROWS, seed=10 * step + rank)


@pytest.fixture(scope="module", params=["predrec", "bert"])
def sharded(request, tmp_path_factory):
    """The model type, the folder with what two processes made, and a whole model that saw the same batches."""
    name = f"sharded-{request.param}"
    folder = once(tmp_path_factory, name, lambda folder: in_two_processes(SCRIPT, folder, request.param))
    whole = fresh_model(request.param)
    optimizer = fresh_optimizer(whole)
    for step in range(STEPS):
        for rank in range(2):
            (whole(**batch_of(step, rank)).loss / 2).backward()
        optimizer.step()
        optimizer.zero_grad()
        whole.update_target_encoder(DECAY)
    return request.param, folder, whole


@pytest.mark.slow
@pytest.mark.parametrize("part", ["masked_lm", "target_encoder", "predictor", "loss_logit"])
def test_sharded_training_equals_that_of_a_whole_model(sharded, part):
    model_type, folder, whole = sharded
    state, expected = torch.load(folder / "state.pt", weights_only=True), whole.state_dict()
    assert state.keys() == expected.keys()
    names = [name for name in expected if name.startswith(part)]
    begun = fresh_model(model_type).state_dict()
    assert any(not torch.equal(begun[name], expected[name]) for name in names)
    for name in names:
        torch.testing.assert_close(state[name], expected[name], rtol=1e-5, atol=1e-5, msg=name)


@pytest.mark.slow
def test_export_of_a_sharded_model_is_the_whole_encoder(sharded):
    _, folder, whole = sharded
    loaded = AutoModelForMaskedLM.from_pretrained(folder / "export").eval()
    ids = batch_of(0, 0)["input_ids"]
    torch.testing.assert_close(loaded(ids).logits, whole.masked_lm.eval()(ids).logits, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_traffic_is_what_the_formula_says(sharded):
    """Of each weight a process gives its half to be gathered, and its whole gradient to be summed."""
    model_type, folder, whole = sharded
    sizes, sent = Sizes.of(whole.config), torch.load(folder / "sent-0.pt")
    layer = whole.encoder.layers[0] if model_type == "predrec" else whole.encoder.encoder.layer[0]
    # A weight of odd length is filled up. One layer may be fetched early and once more.
    spare = 4 * sum(parameter.numel() for parameter in layer.parameters())
    assert sent["summed"] == pytest.approx(4 * sizes.trained, rel=0.01)
    assert 0 <= 2 * sent["gathered"] - 4 * fetched(sizes) < 1.2 * spare
    assert traffic(sizes, "FSDP2", 2) == pytest.approx(sent["gathered"] + sent["summed"] / 2, rel=0.1)
