"""What a checkpoint holds, looked at before a run goes on from it. Nothing in it is ever run.

Weights are read from safetensors alone; the states of optimizer, schedule and random numbers by torch's restricted
unpickler. `training_args.bin`, which the Trainer writes, is never read.
"""

import json
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from transformers.trainer_callback import TrainerState
from transformers.trainer_pt_utils import safe_globals

from ..modeling.reference_file import NOT_WEIGHTS

PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt", "*.h5", "*.msgpack")
"""Files in which other programs keep weights, and which could run code when they are read."""


def unusable(checkpoint: Path) -> str | None:
    """Says what keeps a run from going on from a checkpoint, though its files are as they were written, or `None`."""
    weights = [*checkpoint.glob("*.safetensors"), *checkpoint.glob("pytorch_model_fsdp*")]
    if not weights:
        return f"there is no model.safetensors{pickles_instead(checkpoint)}"
    # DeepSpeed keeps optimizer and schedule in a folder of its own.
    if not (checkpoint / "scheduler.pt").is_file() and not any(checkpoint.glob("global_step*")):
        return "it holds weights alone, without the state of the optimizer (`save_only_model`)"
    for pattern, check in CHECKS:
        for path in sorted(checkpoint.glob(pattern)):
            try:
                check(path)
            # A file made to do harm decides what is raised here.
            except Exception as error:
                return f"{path.name} cannot be used: {_reason(error)}"
    return None


def pickles_instead(folder: Path) -> str:
    """Says, as the end of a message about missing weights, which file might hold them but is not read."""
    found = sorted(
        path.name
        for pattern in PICKLES
        for path in folder.glob(pattern)
        if path.name not in ("training_args.bin", "optimizer.pt", "scheduler.pt", "scaler.pt")
        and not path.name.startswith("rng_state")
    )
    if not found:
        return ""
    return f" ({found[0]} is not read, since such a file can run code: save the weights as safetensors)"


def _check_safetensors(path: Path) -> None:
    with safe_open(path, framework="pt") as file:
        file.keys()


def _check_restricted(path: Path) -> None:
    with safe_globals():
        torch.load(path, map_location="cpu", weights_only=True, mmap=True)


def _check_mapping(path: Path) -> None:
    if not isinstance(json.loads(path.read_text(encoding="utf-8")), dict):
        raise ValueError("it is not a mapping")


def _check_state(path: Path) -> None:
    state = TrainerState.load_from_json(str(path))
    step = state.global_step
    if not isinstance(step, int) or step < 0:
        raise ValueError(f"`global_step` is {step!r}, which is no number of updates")
    if not isinstance(state.log_history, list):
        raise ValueError("`log_history` is no list")


def _check_random_state(path: Path) -> None:
    """Sets the states on generators of its own, which refuse what is none."""
    with safe_globals():
        states = torch.load(path, map_location="cpu", weights_only=True)
    random.Random().setstate(states["python"])
    np.random.RandomState().set_state(states["numpy"])
    torch.Generator().set_state(states["cpu"])


def _reason(error: Exception) -> str:
    found = NOT_WEIGHTS.search(str(error))
    if found:
        what = next(group for group in found.groups() if group)
        return f"it holds more than weights and plain values ({what}), which could run code"
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


CHECKS: tuple[tuple[str, Callable[[Path], None]], ...] = (
    ("*.safetensors", _check_safetensors),
    ("*.pt", _check_restricted),
    ("*.json", _check_mapping),
    ("trainer_state.json", _check_state),
    ("rng_state*.pth", _check_random_state),
)
"""What is looked at, and how."""
