"""What makes CPUs fast: threads and kept memory."""

import platform
import subprocess
import sys

import pytest
import torch

from predrec.trainers.cpu import keep_freed_memory, own_cores, use_all_cores

FAULTS = """
import resource, sys, torch
from predrec.trainers.cpu import keep_freed_memory
torch.set_num_threads(1)
if sys.argv[1] == "keep":
    assert keep_freed_memory()
for _ in range(4):
    torch.ones(16_000_000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    torch.ones(16_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told")
def test_kept_memory_is_not_mapped_again():
    def page_faults(mode: str) -> int:
        return int(subprocess.run([sys.executable, "-c", FAULTS, mode], capture_output=True, text=True).stdout)

    assert page_faults("keep") < 1000 < page_faults("default")


def test_keep_freed_memory_leaves_other_libraries_alone(monkeypatch):
    monkeypatch.setattr(platform, "libc_ver", lambda: ("musl", "1.2"))
    assert not keep_freed_memory()


def test_use_all_cores_takes_what_it_is_told(threads):
    use_all_cores(3)
    assert torch.get_num_threads() == 3


def test_use_all_cores_shares_them_among_processes(threads, monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda process: range(8))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    use_all_cores()
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, 8),
        ({"LOCAL_WORLD_SIZE": "4"}, 2),
        ({"LOCAL_WORLD_SIZE": "16"}, 1),
        # A launcher inside one task of SLURM shares its cores; tasks that are processes have their own.
        ({"LOCAL_WORLD_SIZE": "4", "SLURM_NTASKS_PER_NODE": "1", "SLURM_CPUS_PER_TASK": "8"}, 2),
        ({"LOCAL_WORLD_SIZE": "4", "SLURM_NTASKS_PER_NODE": "4", "SLURM_CPUS_PER_TASK": "8"}, 8),
        ({"LOCAL_WORLD_SIZE": "4", "SLURM_NTASKS_PER_NODE": "4"}, 2),
        ({"LOCAL_WORLD_SIZE": "1", "SLURM_NTASKS_PER_NODE": "1", "SLURM_CPUS_PER_TASK": "3"}, 8),
    ],
)
def test_process_uses_its_own_cores(monkeypatch, variables, expected):
    for name in ("LOCAL_WORLD_SIZE", "SLURM_NTASKS_PER_NODE", "SLURM_CPUS_PER_TASK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(8)), raising=False)
    assert own_cores() == expected
