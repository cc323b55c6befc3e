"""How a run spreads over processes: what cannot work is refused with the reason, and what sharding needs is set up."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, send_to_device
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy, register_fsdp_forward_method
from torch.utils.data import DataLoader
from transformers import TrainingArguments

REFUSED = {
    "copies in one process": """
        One process sees several GPUs, and torch.nn.DataParallel would use them: it copies the model at every step, and
        what the copies learn about their targets is lost. Start a process for each (`accelerate launch --multi_gpu`),
        or show one only (`CUDA_VISIBLE_DEVICES=0`).""",
    "fsdp without GPUs": """
        `fsdp` needs GPUs, and a process for each: otherwise accelerate trains copies and shards nothing, without a
        word. Leave it out.""",
    "deepspeed without GPUs": """
        `deepspeed` needs GPUs: on CPUs accelerate leaves it out, without a word.""",
    "fsdp 1": """
        FSDP1 glues weights together, so that those of encoder and target encoder no longer correspond. Use FSDP2:
        `fsdp_version: 2` in the accelerate config, or `--fsdp_config '{"version": 2}'`.""",
    "fsdp that loads on one process": """
        `fsdp_cpu_ram_efficient_loading` must be false: every process makes the model from the seed, and accelerate
        cannot send the running mean of the targets, which is not sharded.""",
    "fsdp that offloads": """
        `fsdp_offload_params` must be false: gradients on the CPU cannot be watched together with losses on the GPU.
        Use more processes, or `--activation_checkpointing`.""",
    "fsdp that compiles": """
        `torch_compile` does not go with `fsdp`: the parts of a compiled model, which are saved and measured one by
        one, are hidden.""",
    "zero 3": """
        DeepSpeed ZeRO-3 takes weights apart between uses, and the target encoder would have to fetch them all at every
        update. Use ZeRO-2, or FSDP2, whose shards correspond: recipes/accelerate/fsdp2.yaml.""",
    "deepspeed in half precision": """
        DeepSpeed's `bf16` and `fp16` cast the target encoder, too, whose small steps are then lost to rounding. Set
        their `enabled` to false and use `torch_autocast`, as in recipes/accelerate/zero2.json.""",
    "deepspeed and half precision": """
        With DeepSpeed, `bf16` and `fp16` must be false: its own config says how to compute (`torch_autocast` in
        recipes/accelerate/zero2.json).""",
    "deepspeed that skips": """
        `non_finite=skip` is not for DeepSpeed, which shows its gradients to nobody. Use stop.""",
    "megatron": """
        Megatron-LM has models of its own and cannot train this one. Use copies (DDP) or shards (FSDP2).""",
    "parts of a layer": """
        Tensor, context and sequence parallelism (`tp_size`, `cp_size`, `sp_size` above 1) need a plan for each
        architecture, and the encoders here have none. They fit a GPU whole: use copies (DDP) or shards (FSDP2).""",
    "a model in pieces": """
        The model lies on several devices (`device_map`), and the target encoder with it. Load it whole.""",
}
"""What is refused, and why."""


def check_strategy(args: TrainingArguments, accelerator: Accelerator, model: nn.Module | None = None) -> None:
    """Refuses what would fail later, or train something else without a word.

    Args:
        args (`TrainingArguments`): Of the run.
        accelerator (`Accelerator`): Made from them and from the launcher's variables.
        model (`torch.nn.Module`, *optional*): What is to be trained.

    Raises:
        ValueError: With the reason from [`REFUSED`], and what to do instead.
    """
    for name in _refused(args, accelerator, model):
        raise ValueError(" ".join(REFUSED[name].split()))


def _refused(args: TrainingArguments, accelerator: Accelerator, model: nn.Module | None) -> Iterator[str]:
    kind, parallelism = accelerator.distributed_type, accelerator.parallelism_config
    is_fsdp, is_deepspeed = kind == DistributedType.FSDP, kind == DistributedType.DEEPSPEED
    devices = set((getattr(model, "hf_device_map", None) or {}).values())
    conditions = {
        "copies in one process": args.n_gpu > 1,
        "fsdp without GPUs": _wants(args.fsdp, "ACCELERATE_USE_FSDP") and not is_fsdp,
        "deepspeed without GPUs": _wants(args.deepspeed, "ACCELERATE_USE_DEEPSPEED") and not is_deepspeed,
        "megatron": kind == DistributedType.MEGATRON_LM,
        "a model in pieces": len(devices) > 1,
        "parts of a layer": any(getattr(parallelism, size, 1) > 1 for size in ("tp_size", "cp_size", "sp_size")),
    }
    if is_fsdp:
        plugin = accelerator.state.fsdp_plugin
        conditions |= {
            "fsdp 1": plugin.fsdp_version != 2,
            "fsdp that loads on one process": plugin.cpu_ram_efficient_loading,
            "fsdp that offloads": isinstance(plugin.cpu_offload, CPUOffloadPolicy),
            "fsdp that compiles": args.torch_compile,
        }
    if is_deepspeed:
        plugin = accelerator.state.deepspeed_plugin
        enabled = [plugin.deepspeed_config.get(name, {}).get("enabled") for name in ("bf16", "fp16")]
        conditions |= {
            "zero 3": plugin.zero_stage == 3,
            "deepspeed in half precision": any(value not in (None, False) for value in enabled),
            "deepspeed and half precision": args.bf16 or args.fp16,
            "deepspeed that skips": args.non_finite == "skip",
        }
    return (name for name, holds in conditions.items() if holds)


def _wants(argument: Any, variable: str) -> bool:
    return bool(argument) or os.environ.get(variable, "false").lower() == "true"


def is_sharded(accelerator: Accelerator) -> bool:
    """Says whether processes hold shards of the weights."""
    return accelerator.distributed_type == DistributedType.FSDP


def compute_as_copies_do(accelerator: Accelerator) -> None:
    """Leaves half precision to autocast, as for processes that hold copies: the same numbers come out.

    accelerate's policy for shards would fetch weights in half precision, which halves that part of the communication,
    but also sum gradients in it, and cast token counts that go into the model and losses that come out.
    """
    if is_sharded(accelerator):
        accelerator.state.fsdp_plugin.mixed_precision_policy = MixedPrecisionPolicy()


def autocast(accelerator: Accelerator) -> AbstractContextManager:
    """Returns the autocast of a forward pass that goes past accelerate's wrapping, as evaluation does."""
    if accelerator.distributed_type != DistributedType.DEEPSPEED:
        return accelerator.autocast()
    settings = accelerator.state.deepspeed_plugin.deepspeed_config.get("torch_autocast", {})
    dtype = getattr(torch, settings.get("dtype", "bfloat16"))
    return torch.autocast(accelerator.device.type, dtype, enabled=bool(settings.get("enabled")))


def precision(accelerator: Accelerator, model: nn.Module) -> str:
    """Names what forward passes compute in, whoever decided it: arguments, the launcher or DeepSpeed's file."""
    kind = accelerator.device.type
    with autocast(accelerator):
        if torch.is_autocast_enabled(kind):
            dtype = torch.get_autocast_dtype(kind)
            return {torch.bfloat16: "bf16", torch.float16: "fp16"}.get(dtype, str(dtype)) + " autocast"
    return str(next(model.parameters()).dtype).removeprefix("torch.")


def fetch_weights_for(model: nn.Module, methods: tuple[str, ...]) -> None:
    """Makes a sharded model fetch its weights for these methods, as it does for `forward`; once per model."""
    for name in methods:
        if name not in vars(model):
            register_fsdp_forward_method(model, name)


def whole_weights(model: nn.Module, accelerator: Accelerator) -> dict[str, Tensor] | None:
    """Puts a sharded model's weights together; all processes must call it.

    Returns:
        All weights on the CPU of process 0, nothing on the others; `None` if the model is not sharded.
    """
    if not is_sharded(accelerator):
        return None
    return get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))


def in_step(loader: DataLoader, accelerator: Accelerator) -> Iterator[tuple[Any, bool]]:
    """Yields this process's batches with `True`; for a sharded model, then more with `False` until all are done.

    In every forward pass of a sharded model all processes meet, also those that have fewer batches.
    """
    spare, batch = 0, None
    if is_sharded(accelerator):
        own = torch.tensor([len(loader)], device=accelerator.device)
        spare = int(accelerator.gather(own).max()) - len(loader)
    for batch in loader:
        yield batch, True
    for _ in range(spare):
        batch = loader.collate_fn([loader.dataset[0]]) if batch is None else batch
        yield send_to_device(batch, accelerator.device), False
