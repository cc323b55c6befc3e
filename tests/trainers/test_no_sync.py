"""On a GPU, nothing in an update waits for the device. Shown without one, on tensors that have a shape but no values.

Whatever reads a value, counts what is true, or mixes devices raises there.
"""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode

from predrec.modeling import PredRecForPreTraining, attention
from predrec.modeling.layout import Layout, Segments
from predrec.trainers.finite import FiniteGuard, not_finite_spreads
from predrec.trainers.metrics import MetricSums
from tests import training

CASES = {
    "hybrid": {},
    "mlm": {"objective": "mlm"},
    "cross predictor": {"predictor_attention": "cross"},
    "crops": training.CROPS,
    "context view": {"mlm_view": "context"},
    "infonce, whitened": {"jepa_loss": "infonce", "whiten_targets": True},
    "sigreg": {"jepa_loss": "sigreg"},
    "vicreg, online, pooled": {"jepa_loss": "vicreg", "target_network": "online", "pool_targets": True},
    "learned, centred": {"loss_weighting": "learned", "center_targets": True},
}
GPU = torch.device("cuda:0")


@contextmanager
def fake_gpu(monkeypatch) -> Iterator[None]:
    """Tensors of no values, on a GPU that is not there."""
    # Of tensors without values, transformers takes branches that wait for nothing.
    monkeypatch.setattr("transformers.masking_utils.is_tracing", lambda tensor=None: False)
    monkeypatch.setattr(torch.cuda, "_lazy_init", lambda: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *args, **kwargs: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (9, 0))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(major=9, minor=0))
    torch._C._ensureCUDADeviceGuardSet()
    with FakeTensorMode(allow_non_fake_inputs=False):
        yield


def moved(value):
    """The same tensor, layout or anything on the GPU; of a tensor, only its shape and type."""
    if isinstance(value, torch.Tensor):
        return torch.empty(value.shape, dtype=value.dtype, device=GPU)
    if isinstance(value, Layout):
        return Layout(**{field.name: moved(getattr(value, field.name)) for field in dataclasses.fields(value)})
    if isinstance(value, Segments):
        return Segments(value.lengths, moved(value.boundaries), value.limit)
    return value


def move(model: PredRecForPreTraining) -> None:
    """Puts all weights and buffers there; tied weights stay tied."""
    known: dict[int, torch.nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                there = torch.nn.Parameter(moved(parameter), requires_grad=parameter.requires_grad)
                module._parameters[name] = known.setdefault(id(parameter), there)
        for name, buffer in module._buffers.items():
            module._buffers[name] = moved(buffer)


@pytest.mark.parametrize("kind", ["packed", "documents"])
@pytest.mark.parametrize("name", CASES)
def test_update_does_not_wait_for_the_gpu(monkeypatch, name, kind):
    """Forward pass, what is logged, the look for NaN, clipping and the moving average."""
    options = {"objective": "hybrid"} | CASES[name]
    crops = {"crop_length": (3, 7), "num_mask_sets": 3} if options.get("jepa_view") == "crops" else {}
    collator = training.collator(options["objective"], label_view=options.get("mlm_view", "full"), unpad=True, **crops)
    rows, model = training.train_rows(kind), training.model(**options).train()
    batch = collator([rows[number] | {"epoch": 0} for number in range(8)])
    sums, guard = MetricSums(torch.device("cpu"), {"mlm_loss": "num_labels", "jepa_loss": "num_targets"}), None
    guard = FiniteGuard(8, torch.device("cpu"))
    calls = []
    flash = attention._flash_attention
    monkeypatch.setattr(attention, "_flash_attention", lambda *args: (calls.append(1), flash(*args))[1])
    with fake_gpu(monkeypatch):
        move(model)
        sums.values = moved(sums.values)
        for tensor in ("bad", "counts", "examples"):
            setattr(guard, tensor, moved(getattr(guard, tensor)))
        inputs = {key: moved(value) for key, value in batch.items()}
        with torch.autocast("cuda", torch.bfloat16):
            output = model(**inputs)
        finite = output.loss.detach().isfinite()
        guard.watch_loss(output.loss, 3, inputs["example_ids"])
        sums.add(output, 100, steps=1.0, only_if=finite)
        assert not_finite_spreads(output.loss).device == GPU
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        for parameter in trained:
            parameter.grad = torch.empty_like(parameter)
        guard.watch_gradients(trained, 3)
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        if model.target_encoder is not None:
            model.update_target_encoder(0.996)
            model.update_target_encoder(0.996, guard.bad)
    assert output.loss.device == GPU and sums.values.device == GPU
    assert bool(calls) == (options["objective"] == "hybrid" or kind == "documents"), "flash attention"


@pytest.mark.parametrize(
    "waits",
    [lambda tensor: tensor.item(), lambda tensor: tensor.nonzero(), lambda tensor: bool(tensor.all())],
    ids=["item", "nonzero", "bool"],
)
def test_waiting_would_be_seen(monkeypatch, waits):
    with fake_gpu(monkeypatch), pytest.raises((DataDependentOutputException, DynamicOutputShapeException)):
        waits(torch.empty(3, device=GPU)[:1])
