"""What a run runs on, by name."""

import os
import platform

import torch


def device_name(device: torch.device) -> str:
    """Returns the name of an accelerator or of the processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    name = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            name = next((line.split(":")[1].strip() for line in file if line.startswith("model name")), name)
    return name
