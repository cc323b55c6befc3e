"""What evaluations draw does not change what training draws."""

from contextlib import AbstractContextManager

import torch


def kept_random_state(device: torch.device) -> AbstractContextManager:
    """Returns a context after which the generators of the CPU and of this device are as they were before."""
    return torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])
