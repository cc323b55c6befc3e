"""Measure the speed of pre-training: `python scripts/benchmark.py --output machine.json`."""

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from ..benchmark.machine import describe_machine, matmul_peak
from ..benchmark.scaling import PROCESSES, plot_scaling, scaling_rows, scaling_settings, scaling_table
from ..benchmark.settings import BASELINES, Setting
from ..benchmark.summary import ratios, summarize, table
from ..configuration import parse_recipe
from ..configuration.benchmark_arguments import BenchmarkArguments
from ..errors import UserError
from .entry import command


@command
def main(argv: list[str]) -> int:
    """Runs the command; returns its exit code: 0, or 2 for what the user can mend."""
    (arguments,), _ = parse_recipe(argv, (BenchmarkArguments,), "benchmark")
    return benchmark(arguments, argv)


def benchmark(arguments: BenchmarkArguments, argv: Sequence[str]) -> int:
    """Times what the arguments ask for, prints tables and writes the JSON file; returns the exit code."""
    use_cpu = arguments.use_cpu or not torch.accelerator.is_available()
    device = torch.device("cpu") if use_cpu else torch.accelerator.current_accelerator()
    common = {
        "warmup": arguments.warmup_steps,
        "steps": arguments.steps,
        "num_workers": arguments.num_workers,
        "torch_compile": arguments.torch_compile,
        "use_cpu": use_cpu,
    }
    report = {"machine": describe_machine(device), "command": shlex.join(["python", "scripts/benchmark.py", *argv])}
    if arguments.scaling:
        report |= measure_scaling(arguments, common, device)
    else:
        report |= measure_arms(arguments, common, device)
    Path(arguments.output).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(f"written: {arguments.output}")
    return 0


def measure_arms(arguments: BenchmarkArguments, common: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """Runs every arm in every round, one after the other, each in a process of its own."""
    base = Setting("mlm", arguments.size, arguments.max_seq_length, arguments.batch_size, **common)
    rounds, peaks = [], []
    for number in range(arguments.rounds):
        before, found = matmul_peak(device), {}
        for arm in arguments.arms:
            # The slow ones cost most of a quick run, and keep no memory that would have to grow first.
            warmup = 1 if arguments.quick and arm in BASELINES else base.warmup
            found[arm] = run(replace(base, arm=arm, warmup=warmup))
            print(f"round {number + 1}, {arm}: {found[arm]['tokens_per_second']:,.0f} tokens/s", flush=True)
        rounds.append(found)
        peaks.append(max(before, matmul_peak(device)))
    summary = summarize(rounds, peaks)
    answer = ratios(rounds, peaks)
    print(f"\n{table(summary)}\n\nmatrix products: {max(peaks) / 1e9:,.0f} GFLOP/s (bfloat16)\n")
    print("\n".join(f"{name}: {value}" for name, value in answer.items()))
    setting = {name: value for name, value in asdict(base).items() if name != "arm"}
    return {"setting": setting, "ratios": answer, "arms": summary, "matmul_peak": peaks, "rounds": rounds}


def measure_scaling(arguments: BenchmarkArguments, common: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """Runs masked-LM and hybrid at every point of the scaling study, in turn, and keeps each point's best time."""
    arms = ("mlm", "hybrid")
    most = max(PROCESSES) if device.type == "cpu" else torch.accelerator.device_count()
    settings = scaling_settings(arms, arguments.batch_size * arguments.max_seq_length, most, **common)
    best: dict[Setting, dict[str, Any]] = {}
    for number in range(arguments.rounds):
        for setting in settings:
            found = run(setting)
            print(
                f"round {number + 1}, {setting.arm}, {setting.size}, {setting.length} tokens, "
                f"{setting.num_processes} processes: {found['tokens_per_second']:,.0f} tokens/s",
                flush=True,
            )
            if setting not in best or found["seconds"] < best[setting]["seconds"]:
                best[setting] = found
    rows = scaling_rows(list(best.items()))
    print(f"\n{scaling_table(rows)}")
    plot = Path(arguments.output).with_suffix(".png")
    plot_scaling(rows, plot)
    print(f"written: {plot}")
    return {"scaling": rows, "matmul_peak": [matmul_peak(device)]}


def run(setting: Setting) -> dict[str, Any]:
    """Times one setting in a process of its own.

    Raises:
        UserError: If it fails, with the end of what it printed.
    """
    command = [sys.executable]
    if setting.num_processes > 1:
        command += ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={setting.num_processes}"]
    command += ["-m", "predrec.benchmark.worker", json.dumps(asdict(setting))]
    root = str(Path(__file__).resolve().parents[2])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "TOKENIZERS_PARALLELISM": "false"}
    if not setting.use_cpu and torch.cuda.is_available():
        # A process that sees several GPUs would train a copy on each.
        seen = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(torch.cuda.device_count())))
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(seen.split(",")[: setting.num_processes])
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    lines = [line for line in done.stdout.splitlines() if line.startswith('{"seconds"')]
    if done.returncode or not lines:
        raise UserError(f"The run of {setting} failed:", (done.stdout + done.stderr)[-2000:].splitlines())
    return json.loads(lines[-1])
