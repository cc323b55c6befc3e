"""What the machine can do: its rate of matrix products, its name, its memory."""

import platform
import resource
import time
from collections.abc import Callable

import torch

from ..trainers.cpu import usable_cores
from ..trainers.hardware import device_name

SHAPES = {"cpu": ((4096, 512, 2048), (2048, 2048, 2048), (4096, 4096, 4096)), "cuda": ((8192, 8192, 8192),) * 2}
"""Rows, inner and outer size of the products whose best rate is the peak."""


def synchronize(device: torch.device) -> None:
    """Waits until the device has done what it was told."""
    if device.type != "cpu":
        torch.accelerator.synchronize()


def seconds(function: Callable[[], object], device: torch.device, repeats: int = 10) -> float:
    """Returns the time of the fastest of several calls, after one that does not count."""
    best = float("inf")
    for repeat in range(repeats + 1):
        synchronize(device)
        start = time.perf_counter()
        function()
        synchronize(device)
        best = best if repeat == 0 else min(best, time.perf_counter() - start)
    return best


def matmul_peak(device: torch.device, dtype: torch.dtype = torch.bfloat16) -> float:
    """Returns the best rate of matrix products in operations per second: what nothing that trains can exceed."""
    rates = []
    for rows, inner, outer in SHAPES.get(device.type, SHAPES["cpu"]):
        left = torch.randn(rows, inner, device=device).to(dtype)
        right = torch.randn(outer, inner, device=device).to(dtype)
        rates.append(2 * rows * inner * outer / seconds(lambda: left @ right.T, device))  # noqa: B023 - called at once
    return max(rates)


def peak_memory(device: torch.device) -> int:
    """Returns the most bytes that this process has held, on the accelerator or, on a CPU, in main memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    scale = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale


def describe_machine(device: torch.device) -> dict[str, str | int]:
    """Returns what timings depend on."""
    return {
        "device": device_name(device),
        "cores": usable_cores(),
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
