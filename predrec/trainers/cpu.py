"""What makes training on a CPU fast: all cores, and memory that is not given back between steps."""

import ctypes
import os
import platform

import torch

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Parameters of `mallopt(3)`."""


def use_all_cores(num_threads: int | None = None) -> None:
    """Sets the number of threads: the launcher alone allows one per process.

    Args:
        num_threads (`int`, *optional*): Threads of this process; its share of the cores when absent.
    """
    torch.set_num_threads(num_threads or own_cores())


def usable_cores() -> int:
    """Returns how many cores this process may use, whoever else uses them, too."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def own_cores() -> int:
    """Returns how many cores this process has to itself: its share of the machine's, or what SLURM gave its task."""
    processes, cores = os.environ.get("LOCAL_WORLD_SIZE", "1"), usable_cores()
    if processes != "1" and os.environ.get("SLURM_NTASKS_PER_NODE") == processes:
        # Each process is a task, which sees its own cores alone where SLURM binds it to them.
        return int(os.environ.get("SLURM_CPUS_PER_TASK", max(1, cores // int(processes))))
    return max(1, cores // int(processes))


def keep_freed_memory() -> bool:
    """Tells the C library to keep freed memory for the next allocation instead of giving it back to the system.

    A training step allocates the same large tensors again and again. By default each of them is mapped anew, and the
    system clears every page of it: for a large tensor that takes longer than the arithmetic on it. The process's
    memory then never shrinks, and may grow by what fragmentation costs. Other allocators (jemalloc, tcmalloc), when
    they are preloaded, do as much by themselves.

    Returns:
        Whether the C library is one that can be told (glibc).
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    library = ctypes.CDLL(None)
    return bool(library.mallopt(M_MMAP_MAX, 0)) and bool(library.mallopt(M_TRIM_THRESHOLD, -1))
