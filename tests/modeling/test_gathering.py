"""Losses that compare rows see those of all processes: two processes give the numbers of one with both batches."""

import pytest
import torch

from predrec.modeling import losses
from predrec.modeling.gathering import SpreadRows, process_count, process_index, total
from predrec.modeling.losses import BATCH_LOSSES, JEPA_LOSSES

from ..processes import AT_ONCE, in_two_processes, once
from .tiny import block_batch, drift, part_of, pretraining_model

PARTS = (slice(0, 1), slice(1, 3))
"""Rows of the batch that each process has: 9 targets and 12, 5 labels and 8."""

CASES = {
    **{name: {"jepa_loss": name} for name in JEPA_LOSSES},
    "infonce, few negatives": {"jepa_loss": "infonce", "few": True},
    "sigreg, few rows": {"jepa_loss": "sigreg", "few": True},
    "centred": {"jepa_loss": "mse", "center_targets": True},
    "centred vicreg": {"jepa_loss": "vicreg", "center_targets": True, "objective": "jepa"},
    "whitened": {"jepa_loss": "mse", "whiten_targets": True, "whiten_epsilon": 0.5},
    **{f"{name}, one without targets": {"jepa_loss": name, "lacks": "target_mask"} for name in BATCH_LOSSES},
    "cosine, one without targets": {"jepa_loss": "cosine", "lacks": "target_mask"},
    "one without labels": {"jepa_loss": "vicreg", "lacks": "labels"},
    "infonce, compiled": {"jepa_loss": "infonce", "objective": "jepa", "compiled": True},
}

SCRIPT = (
    """
import sys, torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from tests.modeling.test_gathering import CASES, PARTS, case_batch, fresh_model
from tests.modeling.tiny import part_of

torch.set_num_threads(1)
dist.init_process_group("gloo")
rank, results = dist.get_rank(), {}
for name, options in CASES.items():
    model, batch = fresh_model(options), case_batch(options)
    counts = [model.count_tokens(batch)[i] for i in (0, 1)]
    parallel = DistributedDataParallel(torch.compile(model, backend="aot_eager") if options.get("compiled") else model)
    torch.manual_seed(7 if rank == 0 else 1000)
    output = parallel(**part_of(batch, PARTS[rank]), labels_in_update=counts[0], targets_in_update=counts[1])
    output.loss.backward()
    loss = output.loss.detach().clone()
    dist.all_reduce(loss)
    gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    results[name] = {"loss": loss / 2, "gradients": gradients, "buffers": dict(model.named_buffers())}
    if rank == 1:  # In evaluation, nobody waits for the other process.
        model.eval()(**part_of(batch, PARTS[1]))

torch.save(results, f"{sys.argv[1]}/{rank}.pt")
dist.barrier()
dist.destroy_process_group()
"""
    + AT_ONCE
)


def fresh_model(options):
    losses.MAX_CONTRASTED = 5 if options.get("few") else 2048
    fields = {name: value for name, value in options.items() if name not in ("few", "lacks", "compiled")}
    return drift(pretraining_model(**fields)).train()


def case_batch(options):
    """A batch of three rows; on request, the first one is without targets or labels."""
    batch = block_batch()
    del batch["label_indices"]
    if "lacks" in options:
        batch[options["lacks"]][0] = {"target_mask": False, "labels": -100}[options["lacks"]]
    return batch


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """What each of two processes found."""
    folder = once(tmp_path_factory, "gathering", lambda folder: in_two_processes(SCRIPT, folder))
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.fixture(autouse=True)
def usual_number_of_negatives(monkeypatch):
    monkeypatch.setattr(losses, "MAX_CONTRASTED", losses.MAX_CONTRASTED)


def difference(actual, expected):
    """Length of the difference of two lists of tensors, relative to the second."""
    actual, expected = (torch.cat([tensor.double().flatten() for tensor in part]) for part in (actual, expected))
    return ((actual - expected).norm() / expected.norm()).item()


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_two_processes_give_loss_and_gradient_of_one(both, name):
    model, batch = fresh_model(CASES[name]), case_batch(CASES[name])
    torch.manual_seed(7)
    output = model(**batch)
    output.loss.backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    for result in both:
        found = result[name]
        assert found["loss"].item() == pytest.approx(output.loss.item(), rel=1e-6)
        assert found["gradients"].keys() == gradients.keys()
        # Float32 sums in another order.
        assert difference(found["gradients"].values(), gradients.values()) < 1e-6
        torch.testing.assert_close(found["buffers"], dict(model.named_buffers()), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", BATCH_LOSSES)
def test_parts_alone_are_not_the_whole(name):
    """What is gathered matters: means of the parts' own losses are another number."""
    model, batch = fresh_model(CASES[name]), case_batch({})
    whole, parts = ([model.eval()(**part_of(batch, rows)) for rows in group] for group in ([slice(0, 3)], PARTS))
    total = sum(part.jepa_loss * part.num_targets for part in parts)
    assert abs(total / whole[0].num_targets - whole[0].jepa_loss) > 1e-3


def test_one_process_adds_nothing_up():
    rows = torch.ones(2, 3)
    assert process_count() == 1 and process_index() == 0
    assert total(rows) is rows


@pytest.mark.parametrize("num_rows", [0, 1, 3, 7, 8, 9, 40])
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_spread_rows_are_evenly_spread_over_kept_ones(num_rows, share):
    kept = torch.rand(num_rows, generator=torch.Generator().manual_seed(0)) < share
    spread, count = SpreadRows(kept, 8, over_processes=False), min(8, int(kept.sum()))
    expected = kept.nonzero()[:, 0][[i * int(kept.sum()) // max(1, count) for i in range(count)]]
    assert spread.places[spread.chosen].tolist() == expected.tolist()
    assert spread.chosen.tolist() == [i < count for i in range(min(8, num_rows))]
    assert spread.count == count
