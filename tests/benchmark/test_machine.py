"""What the benchmark says of the machine."""

import torch

from predrec.benchmark.machine import describe_machine, matmul_peak, peak_memory, seconds

CPU = torch.device("cpu")


def test_seconds_is_the_fastest_call_after_the_first():
    calls = []

    def work():
        calls.append(1)
        return sum(range(200_000 if len(calls) == 1 else 2_000))

    assert 0 < seconds(work, CPU, repeats=5) < 0.01
    assert len(calls) == 6


def test_matmul_peak_counts_two_operations_per_multiply_add(monkeypatch):
    monkeypatch.setattr("predrec.benchmark.machine.SHAPES", {"cpu": ((100, 50, 20), (1, 1, 1))})
    monkeypatch.setattr("predrec.benchmark.machine.seconds", lambda function, device: 0.5)
    assert matmul_peak(CPU, torch.float32) == 2 * 100 * 50 * 20 / 0.5


def test_peak_memory_is_in_bytes():
    assert 2**26 < peak_memory(CPU) < 2**40


def test_describe_machine_names_what_timings_depend_on():
    found = describe_machine(CPU)
    assert found["device"]
    assert found["cores"] >= 1
    assert found["torch"] == torch.__version__
