"""`torch_compile` in a whole run: no graph break, few compilations, the same numbers."""

import shutil

import pytest
import torch

from .. import training


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield
    torch._dynamo.reset()


def compiled_run(folder, objective: str, packing: bool = True, **options) -> list[float]:
    """Returns the logged losses of a compiled run."""
    trainer = training.trainer(folder, objective, packing, torch_compile=True, **options)
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def losses(folder, objective: str, packing: bool = True, **options) -> list[float]:
    trainer = training.trainer(folder, objective, packing, **options)
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


@pytest.mark.parametrize("packing", [True, False], ids=["packed", "padded"])
@pytest.mark.parametrize(
    ("objective", "options"),
    [("mlm", {}), ("hybrid", {}), ("hybrid", {"mlm_view": "context"}), ("hybrid", training.CROPS)],
)
def test_compiled_run_has_no_graph_break_and_few_compilations(tmp_path, objective, options, packing):
    # More than an epoch of 100 documents, so that the last, smaller batch is among them.
    found = compiled_run(
        tmp_path / "a", objective, packing, torch_compile_backend="aot_eager", max_steps=16, **options
    )
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] <= 3
    assert not torch._dynamo.utils.counters["graph_break"]
    assert found == pytest.approx(losses(tmp_path / "b", objective, packing, max_steps=16, **options), rel=1e-4)


@pytest.mark.skipif(shutil.which("g++") is None, reason="the compiler's own code needs a C++ compiler")
def test_compiled_code_trains(tmp_path):
    """Once, the default compiler made the loss of `objective=mlm` and its logged copy one tensor, without gradient."""
    found = compiled_run(tmp_path / "a", "mlm", max_steps=3)
    assert found == pytest.approx(losses(tmp_path / "b", "mlm", max_steps=3), rel=1e-4)


def test_a_run_of_many_shapes_stays_compiled(tmp_path):
    with torch._dynamo.config.patch(recompile_limit=8):
        training.trainer(tmp_path / "plain", "mlm")
        assert torch._dynamo.config.recompile_limit == 8
        training.trainer(tmp_path / "compiled", "mlm", torch_compile=True, torch_compile_backend="eager")
        assert torch._dynamo.config.recompile_limit == 32
