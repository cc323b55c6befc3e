"""What cannot work on several devices is refused with the reason, before anything is trained."""

import re
from types import SimpleNamespace

import pytest
import torch
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from torch import nn

from predrec.commands.pretrain import main
from predrec.trainers.strategies import REFUSED, check_strategy, in_step, is_sharded, precision
from tests import training

from ..commands.test_pretrain import TINY

FSDP, DEEPSPEED, MANY = DistributedType.FSDP, DistributedType.DEEPSPEED, DistributedType.MULTI_GPU


def arguments(**fields):
    defaults = {"n_gpu": 1, "fsdp": None, "deepspeed": None, "torch_compile": False, "non_finite": "stop"}
    defaults |= {"bf16": False, "fp16": False}
    return SimpleNamespace(**(defaults | fields))


def accelerator(kind=MANY, plugin=None, **sizes):
    """What a check looks at of an accelerator."""
    state = SimpleNamespace(fsdp_plugin=plugin, deepspeed_plugin=plugin)
    parallelism = SimpleNamespace(**({"tp_size": 1, "cp_size": 1, "sp_size": 1} | sizes)) if sizes else None
    return SimpleNamespace(distributed_type=kind, state=state, parallelism_config=parallelism)


def fsdp(**fields):
    return accelerator(FSDP, FullyShardedDataParallelPlugin(**({"fsdp_version": 2} | fields)))


def deepspeed(stage=2, **config):
    return accelerator(DEEPSPEED, SimpleNamespace(zero_stage=stage, deepspeed_config=config))


def pieces():
    model = nn.Linear(2, 2)
    model.hf_device_map = {"a": 0, "b": 1}
    return model


REFUSALS = {
    "copies in one process": lambda: (arguments(n_gpu=2), accelerator(DistributedType.NO)),
    "fsdp without GPUs": lambda: (arguments(fsdp=True), accelerator(DistributedType.MULTI_CPU)),
    "deepspeed without GPUs": lambda: (arguments(deepspeed="zero.json"), accelerator(DistributedType.MULTI_CPU)),
    "fsdp 1": lambda: (arguments(fsdp=True), fsdp(fsdp_version=1)),
    "fsdp that loads on one process": lambda: (arguments(fsdp=True), fsdp(cpu_ram_efficient_loading=True)),
    "fsdp that offloads": lambda: (arguments(fsdp=True), fsdp(cpu_offload=True)),
    "fsdp that compiles": lambda: (arguments(fsdp=True, torch_compile=True), fsdp()),
    "zero 3": lambda: (arguments(deepspeed="zero.json"), deepspeed(stage=3)),
    "deepspeed in half precision": lambda: (arguments(deepspeed="zero.json"), deepspeed(bf16={"enabled": True})),
    "deepspeed and half precision": lambda: (arguments(deepspeed="zero.json", bf16=True), deepspeed()),
    "deepspeed that skips": lambda: (arguments(deepspeed="zero.json", non_finite="skip"), deepspeed()),
    "megatron": lambda: (arguments(), accelerator(DistributedType.MEGATRON_LM)),
    "parts of a layer": lambda: (arguments(), accelerator(cp_size=2)),
    "a model in pieces": lambda: (arguments(), accelerator(), pieces()),
}
ACCEPTED = {
    "one process": lambda: (arguments(), accelerator(DistributedType.NO)),
    "copies on GPUs": lambda: (arguments(non_finite="skip"), accelerator()),
    "copies on CPUs": lambda: (arguments(), accelerator(DistributedType.MULTI_CPU)),
    "compiled copies": lambda: (arguments(torch_compile=True), accelerator(tp_size=1)),
    "shards": lambda: (arguments(fsdp=True, non_finite="skip"), fsdp()),
    "zero 2": lambda: (arguments(deepspeed="zero.json"), deepspeed(bf16={"enabled": False}, fp16={"enabled": False})),
    "zero 1": lambda: (arguments(deepspeed="zero.json"), deepspeed(stage=1)),
}


@pytest.fixture(autouse=True)
def usual_environment(monkeypatch):
    """The plugins of accelerate read variables, and leave some behind."""
    for name in ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED", "FSDP_CPU_RAM_EFFICIENT_LOADING"):
        monkeypatch.setenv(name, "false")


def test_every_reason_is_tried():
    assert REFUSALS.keys() == REFUSED.keys()


@pytest.mark.parametrize("name", REFUSALS)
def test_strategy_is_refused_with_its_reason(name):
    with pytest.raises(ValueError) as error:
        check_strategy(*REFUSALS[name]())
    assert str(error.value) == " ".join(REFUSED[name].split())


@pytest.mark.parametrize("name", ACCEPTED)
def test_strategy_is_accepted(name):
    check_strategy(*ACCEPTED[name]())


@pytest.mark.parametrize(
    ("variable", "message"),
    [("ACCELERATE_USE_FSDP", "`fsdp` needs GPUs"), ("ACCELERATE_USE_DEEPSPEED", "(?i)deepspeed")],
)
def test_launcher_that_asks_for_it_on_a_cpu_is_refused(tmp_path, monkeypatch, capsys, variable, message):
    """accelerate would leave it out without a word. Nothing is trained."""
    (tmp_path / "text.txt").write_text("\n".join(training.corpus()), encoding="utf-8")
    monkeypatch.setenv(variable, "true")
    code = main(["--train_file", str(tmp_path / "text.txt"), "--output_dir", str(tmp_path / "run"), *TINY])
    assert code == 2 and not list(tmp_path.glob("run/checkpoint-*"))
    error = capsys.readouterr().err
    assert error.startswith("error: ") and re.search(message, error)


@pytest.mark.parametrize("wish", [True, "true", "True"])
def test_sharding_on_cpus_is_refused_by_the_arguments(tmp_path, wish):
    """The command line says it as text."""
    with pytest.raises(ValueError, match="`fsdp` needs GPUs"):
        training.training_arguments(tmp_path, use_cpu=True, fsdp=wish)


def test_no_sharding_can_be_said_as_text(tmp_path):
    assert not training.training_arguments(tmp_path, fsdp="false").fsdp


class Loader(list):
    """Batches of a process, and the rows they are made of."""

    dataset = ("first",)
    collate_fn = staticmethod(tuple)


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        (["a", "b", "c"], [("a", True), ("b", True), ("c", True)]),
        (["a"], [("a", True), ("a", False), ("a", False)]),
        ([], [(("first",), False)] * 3),
    ],
)
def test_processes_of_a_sharded_model_make_equally_many_passes(own, expected):
    """The busiest has three batches; who has fewer repeats one, which does not count."""
    sharded = SimpleNamespace(distributed_type=FSDP, device="cpu", gather=lambda own: torch.tensor([3, int(own)]))
    assert is_sharded(sharded) and list(in_step(Loader(own), sharded)) == expected


def test_processes_with_copies_make_their_own_passes():
    assert list(in_step(Loader(["a"]), accelerator())) == [("a", True)]


@pytest.mark.parametrize(("kind", "expected"), [("no", "float64"), ("bf16", "bf16 autocast")])
def test_precision_is_what_forward_passes_compute_in(kind, expected):
    """Whoever decided it: here, as a launcher does, nobody's arguments."""
    accelerator = SimpleNamespace(
        device=torch.device("cpu"),
        distributed_type=DistributedType.NO,
        autocast=lambda: torch.autocast("cpu", torch.bfloat16, enabled=kind == "bf16"),
    )
    assert precision(accelerator, torch.nn.Linear(1, 1, dtype=torch.float64)) == expected


def test_precision_of_deepspeed_is_that_of_its_own_file():
    settings = {"torch_autocast": {"enabled": True, "dtype": "bfloat16"}}
    accelerator = SimpleNamespace(
        device=torch.device("cpu"),
        distributed_type=DistributedType.DEEPSPEED,
        state=SimpleNamespace(deepspeed_plugin=SimpleNamespace(deepspeed_config=settings)),
    )
    assert precision(accelerator, torch.nn.Linear(1, 1)) == "bf16 autocast"
