"""The clock of the benchmark, by a time that is made up."""

from types import SimpleNamespace

import pytest
import torch

from predrec.benchmark import worker
from predrec.benchmark.settings import Setting

SECONDS = {"data": 0.5, "forward": 2.0, "backward": 5.0}


@pytest.fixture
def time(monkeypatch):
    """A time that passes when it is told to; waiting for the device takes a second."""
    now = SimpleNamespace(seconds=0.0)
    monkeypatch.setattr(worker.time, "perf_counter", lambda: now.seconds)
    return now


@pytest.mark.parametrize(("device", "waits"), [("cpu", False), ("cuda", True)])
def test_shares_are_of_the_updates_that_they_were_timed_in(monkeypatch, time, device, waits):
    """Waiting for the device makes updates longer: those that are timed in parts are others than those that count."""
    calls = []
    monkeypatch.setattr(worker, "synchronize", lambda device: calls.append(time.seconds))
    clock = worker.Clock(Setting("mlm", warmup=1, steps=2), torch.device(device))
    for step in range(clock.num_steps):
        slower = 2 if step >= 3 else 1
        for name, seconds in SECONDS.items():
            with clock.part(name):
                time.seconds += seconds * (1 if name == "data" else slower)
        time.seconds += 2.5 * slower
        clock.tick()
    found = clock.report()
    assert clock.num_steps == (3 + worker.PROFILED_STEPS if waits else 3)
    assert found["seconds"] == 10
    assert found["shares"]["data"] == 0.05
    whole = 0.5 + 2 * 9.5 if waits else 10
    assert found["shares"]["forward"] == pytest.approx((4 if waits else 2) / whole)
    assert sum(found["shares"].values()) < 1
