"""Measure the speed of pre-training: `python scripts/benchmark.py --output benchmarks/my-machine.json`."""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from ..benchmark.machine import describe_machine, matmul_peak
from ..benchmark.scaling import plot_scaling, scaling_rows, scaling_settings, scaling_table
from ..benchmark.settings import ARMS, BASELINES, QUICK, SIZES, Setting
from ..benchmark.summary import ratios, summarize, table
from ..errors import UserError


def parser() -> argparse.ArgumentParser:
    """Returns the command's parser."""
    made = argparse.ArgumentParser(prog="benchmark.py", description=__doc__.split("\n")[0], allow_abbrev=False)
    made.add_argument("--output", required=True, type=Path, help="JSON file to write")
    made.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS), help="what to time (all)")
    made.add_argument("--size", choices=SIZES, default="paper", help="size of the encoder (paper)")
    made.add_argument("--max_seq_length", type=int, default=512, help="tokens in a row (512)")
    made.add_argument("--batch_size", type=int, default=8, help="rows in a batch (8)")
    made.add_argument("--rounds", type=int, default=3, help="times that every arm is run, in turn (3)")
    made.add_argument("--steps", type=int, default=4, help="updates that are timed in a run (4)")
    made.add_argument("--warmup_steps", type=int, default=3, help="updates before the clock starts (3)")
    made.add_argument("--num_workers", type=int, default=2, help="processes that make batches (2)")
    made.add_argument("--torch_compile", action="store_true", help="compile the models, the baseline included")
    made.add_argument("--use_cpu", action="store_true", help="leave an accelerator alone")
    made.add_argument("--quick", action="store_true", help="one round of two updates of the most telling arms")
    made.add_argument("--scaling", action="store_true", help="time lengths, sizes and processes instead; adds a plot")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    arguments = parser().parse_args(argv)
    try:
        return benchmark(arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def benchmark(arguments: argparse.Namespace) -> int:
    """Times what the arguments ask for, prints tables and writes the JSON file; returns the exit code."""
    for name in ("max_seq_length", "batch_size", "rounds", "steps", "warmup_steps"):
        if getattr(arguments, name) < 1:
            raise UserError(f"`{name}` is {getattr(arguments, name)}; it must be at least 1.")
    if not arguments.output.parent.is_dir():
        raise UserError(f"`output`: there is no folder {arguments.output.parent}.")
    if arguments.quick:
        arguments.arms, arguments.rounds, arguments.steps, arguments.warmup_steps = list(QUICK), 1, 2, 2
    use_cpu = arguments.use_cpu or not torch.accelerator.is_available()
    device = torch.device("cpu") if use_cpu else torch.accelerator.current_accelerator()
    common = {
        "warmup": arguments.warmup_steps,
        "steps": arguments.steps,
        "num_workers": arguments.num_workers,
        "torch_compile": arguments.torch_compile,
        "use_cpu": use_cpu,
    }
    report = {"machine": describe_machine(device), "command": " ".join(["python", *sys.argv])}
    if arguments.scaling:
        report |= measure_scaling(arguments, common, device)
    else:
        report |= measure_arms(arguments, common, device)
    arguments.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(f"written: {arguments.output}")
    return 0


def measure_arms(arguments: argparse.Namespace, common: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """Runs every arm in every round, one after the other, each in a process of its own."""
    base = Setting("mlm", arguments.size, arguments.max_seq_length, arguments.batch_size, **common)
    rounds, peaks = [], []
    for number in range(arguments.rounds):
        before, found = matmul_peak(device), {}
        for arm in arguments.arms:
            # What keeps no memory has nothing to warm up but its code.
            warmup = 1 if arm in BASELINES else base.warmup
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


def measure_scaling(arguments: argparse.Namespace, common: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """Runs masked-LM and hybrid at every point of the scaling study, in turn, and keeps each point's best time."""
    arms = ("mlm", "hybrid")
    settings = scaling_settings(arms, arguments.batch_size * arguments.max_seq_length, **common)
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
    plot = arguments.output.with_suffix(".png")
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
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    lines = [line for line in done.stdout.splitlines() if line.startswith('{"seconds"')]
    if done.returncode or not lines:
        raise UserError(f"The run of {setting} failed:\n{(done.stdout + done.stderr)[-2000:]}")
    return json.loads(lines[-1])
