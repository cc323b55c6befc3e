"""The configurations that come along: accelerate reads them, and what they start trains as one process does."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils import DistributedType
from accelerate.utils.deepspeed import HfDeepSpeedConfig

from predrec.commands.pretrain import main

from .test_pretrain import TINY

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "recipes/accelerate"
EXPECTED = {
    "1gpu": (DistributedType.NO, 1, 1),
    "8gpu": (DistributedType.MULTI_GPU, 8, 1),
    "multi-node": (DistributedType.MULTI_GPU, 64, 8),
    "fsdp2": (DistributedType.FSDP, 8, 1),
    "zero1": (DistributedType.DEEPSPEED, 8, 1),
    "zero2": (DistributedType.DEEPSPEED, 8, 1),
}
SBATCH = "scripts/slurm/pretrain.sbatch"
STEPS = ["--max_steps", "3", "--logging_steps", "1", "--eval_steps", "3", "--save_steps", "3"]
SHARDED = """
import sys
from torch.distributed.tensor import DTensor
from predrec.commands import pretrain
from predrec.trainers import PredRecTrainer
from tests.trainers.test_sharded_trainer import pretend_gpus

pretend_gpus()
save = PredRecTrainer.save_model

def save_and_say(self, *args, **kwargs):
    if all(isinstance(parameter, DTensor) for parameter in self.model.parameters()):
        print(type(self.model.encoder.layers[0]).__name__)
    return save(self, *args, **kwargs)

PredRecTrainer.save_model = save_and_say
sys.exit(pretrain.main())
"""


@pytest.fixture(scope="module")
def alone(tmp_path_factory, text_file):
    """The log of one process."""
    output = tmp_path_factory.mktemp("alone") / "run"
    words = ["--train_file", text_file, "--output_dir", str(output), "--per_device_train_batch_size", "8"]
    assert main([*TINY, *STEPS, *words]) == 0
    return log_of(output)


def log_of(output):
    return json.loads((output / "checkpoint-3/trainer_state.json").read_text())["log_history"]


def arguments(text_file, output):
    """Of each of two processes; a second batch size wins over that of `TINY`."""
    return [*TINY, *STEPS, "--train_file", text_file, "--output_dir", str(output)]


def start(*words, **variables):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    return subprocess.run(
        [str(word) for word in words], cwd=ROOT, env=environment | variables, capture_output=True, text=True
    )


def assert_same_training(log, expected):
    for name in ("loss", "grad_norm", "mlm_loss", "jepa_loss", "eval_mlm_loss", "eval_jepa_loss"):
        values = [[entry[name] for entry in entries if name in entry] for entries in (log, expected)]
        assert values[0] and values[0] == pytest.approx(values[1], rel=5e-4), name


def test_every_configuration_is_expected():
    assert {path.stem for path in CONFIGS.glob("*.yaml")} == EXPECTED.keys()


@pytest.mark.parametrize("name", EXPECTED)
def test_accelerate_reads_the_configuration(name):
    """Unknown keys are errors there. What is said of the processes reaches the launcher."""
    path, (kind, processes, machines) = CONFIGS / f"{name}.yaml", EXPECTED[name]
    config = load_config_from_file(str(path))
    assert (config.distributed_type, config.num_processes, config.num_machines) == (kind, processes, machines)
    words = ["--config_file", str(path), "scripts/pretrain.py", "recipes/quickstart.yaml"]
    args, _, _ = _validate_launch_command(launch_command_parser().parse_args(words))
    assert (args.use_fsdp, args.use_deepspeed) == (kind == DistributedType.FSDP, kind == DistributedType.DEEPSPEED)
    assert not args.use_fsdp or (args.fsdp_version, args.fsdp_auto_wrap_policy) == (2, "TRANSFORMER_BASED_WRAP")
    assert not args.use_deepspeed or (ROOT / args.deepspeed_config_file).is_file()


@pytest.mark.parametrize("stage", [1, 2])
def test_deepspeed_configuration_shards_and_leaves_weights_in_float32(stage):
    config = HfDeepSpeedConfig(str(CONFIGS / f"zero{stage}.json"))
    assert config.get_value("zero_optimization.stage") == stage and not config.is_offload()
    assert config.is_false("bf16.enabled") and config.is_false("fp16.enabled")
    assert config.is_true("torch_autocast.enabled")


@pytest.mark.slow
def test_accelerate_launch_of_two_processes_trains_as_one(tmp_path, text_file, alone):
    """The configuration for eight GPUs, with two processes, where there is no GPU."""
    launcher = ["accelerate", "launch", "--config_file", CONFIGS / "8gpu.yaml", "--num_processes", "2"]
    result = start(
        *launcher, "--main_process_port", "0", "scripts/pretrain.py", *arguments(text_file, tmp_path / "run")
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert_same_training(log_of(tmp_path / "run"), alone)


@pytest.mark.slow
def test_accelerate_launch_of_shards_trains_as_one(tmp_path, text_file, alone):
    """With accelerate told that CPUs are GPUs: what the launcher says by variables reaches the Trainer."""
    (tmp_path / "sharded.py").write_text(SHARDED)
    launcher = ["accelerate", "launch", "--config_file", CONFIGS / "fsdp2.yaml", "--num_processes", "2"]
    words = arguments(text_file, tmp_path / "run")
    result = start(*launcher, "--main_process_port", "0", tmp_path / "sharded.py", *words)
    assert result.returncode == 0, result.stderr[-3000:]
    assert "FSDPPredRecLayer" in result.stdout
    assert_same_training(log_of(tmp_path / "run"), alone)


def slurm(folder, srun):
    """Commands in the place of SLURM's; returns the variables of a job of two tasks."""
    for name, text in {"srun": srun, "scontrol": 'echo "$@" >> "$CALLS"; echo localhost'}.items():
        (folder / name).write_text(f"#!/bin/bash\n{text}\n")
        (folder / name).chmod(0o755)
    job = {
        "NTASKS": "2",
        "NTASKS_PER_NODE": "2",
        "JOB_ID": str(os.getpid()),
        "JOB_NODELIST": "node",
        "CPUS_PER_TASK": "8",
    }
    paths = f"{folder}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {f"SLURM_{name}": value for name, value in job.items()} | {"PATH": paths, "CALLS": str(folder / "calls")}


@pytest.mark.parametrize(("status", "requeued"), [(0, False), (143, True), (1, False)])
def test_slurm_job_is_requeued_when_it_was_told_to_stop(tmp_path, status, requeued):
    variables = slurm(tmp_path, f'echo "$@"; exit {status}')
    result = start("bash", SBATCH, "recipes/quickstart.yaml", "--seed", "two words", **variables)
    assert result.returncode == status
    assert "pretrain recipes/quickstart.yaml --seed two words\n" in result.stdout
    assert ("requeue" in (tmp_path / "calls").read_text()) == requeued


def test_slurm_script_has_no_syntax_error():
    assert start("bash", "-n", SBATCH).returncode == 0


def test_slurm_tasks_are_what_torch_takes_for_processes(tmp_path):
    """Rank, local rank, number of processes, of those on this machine, and the address to meet at."""
    variables = slurm(tmp_path, 'shift; for i in 0 1; do SLURM_PROCID=$i SLURM_LOCALID=$i "$@"; done')
    (tmp_path / "python").write_text(
        "#!/bin/bash\n"
        'echo $RANK $LOCAL_RANK $WORLD_SIZE $LOCAL_WORLD_SIZE $MASTER_ADDR $MASTER_PORT $SRUN_CPUS_PER_TASK "$@"\n'
    )
    (tmp_path / "python").chmod(0o755)
    result = start("bash", SBATCH, "recipes/quickstart.yaml", **variables)
    port = 20000 + os.getpid() % 20000
    words = f"2 2 localhost {port} 8 scripts/pretrain.py recipes/quickstart.yaml --resume_from_checkpoint true"
    assert result.stdout.splitlines() == [f"0 0 {words}", f"1 1 {words}"]
