"""The benchmark on machines with GPUs, which are not there."""

import json
import os
import subprocess
from types import SimpleNamespace

import pytest
import torch

from predrec.benchmark.settings import Setting
from predrec.commands import benchmark
from predrec.configuration.benchmark_arguments import BenchmarkArguments


@pytest.fixture
def seen(monkeypatch):
    """The GPUs that a worker sees: `seen(setting)`; the machine has eight."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)

    def call(setting: Setting) -> str | None:
        environments = []

        def run(command, env, **kwargs):
            environments.append(env)
            return SimpleNamespace(returncode=0, stdout=json.dumps({"seconds": 1.0}), stderr="")

        monkeypatch.setattr(subprocess, "run", run)
        benchmark.run(setting)
        return environments[0].get("CUDA_VISIBLE_DEVICES")

    return call


@pytest.mark.parametrize(
    ("before", "num_processes", "expected"), [(None, 1, "0"), (None, 2, "0,1"), ("5,3,1", 2, "5,3"), ("", 1, "0")]
)
def test_worker_sees_a_gpu_for_each_process(monkeypatch, seen, before, num_processes, expected):
    """More would get copies of the model in one process."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if before is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", before)
    assert seen(Setting("mlm", num_processes=num_processes)) == expected


def test_worker_on_the_cpu_is_told_nothing_of_gpus(monkeypatch, seen):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert seen(Setting("mlm", use_cpu=True)) == os.environ.get("CUDA_VISIBLE_DEVICES")


@pytest.mark.parametrize("quick", [True, False])
def test_accelerators_are_given_enough_to_do(monkeypatch, tmp_path, quick):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    output = str(tmp_path / "found.json")
    found = BenchmarkArguments(output, quick=quick)
    assert (found.batch_size, found.steps, found.warmup_steps) == (64, 30, 10)
    assert BenchmarkArguments(output, quick=quick, steps=5).steps == 5
    on_cpu = BenchmarkArguments(output, quick=quick, use_cpu=True)
    assert (on_cpu.batch_size, on_cpu.steps, on_cpu.warmup_steps) == ((8, 2, 2) if quick else (8, 4, 3))
