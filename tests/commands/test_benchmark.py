"""The benchmark command, at toy size."""

import json

import pytest

from predrec.benchmark.settings import QUICK
from predrec.commands import benchmark
from predrec.commands.benchmark import main
from predrec.configuration.benchmark_arguments import BenchmarkArguments

TOY = ["--use_cpu", "--size", "tiny", "--max_seq_length", "64", "--batch_size", "2", "--rounds", "1", "--steps", "1"]
TOY += ["--warmup_steps", "1", "--num_workers", "0"]


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def test_benchmark_writes_ratios_of_arms_that_really_ran(tmp_path, capsys):
    output = tmp_path / "machine.json"
    assert main(["--output", str(output), "--arms", "mlm", "hybrid", "bert", "plain", *TOY]) == 0
    report = json.loads(output.read_text())
    expected = {"mlm_vs_bert", "hybrid_vs_plain", "hybrid_vs_mlm_cost", "mlm_peak_share", "hybrid_peak_share"}
    assert report["ratios"].keys() == expected | {"collator_share"}
    assert all(value > 0 for value in report["ratios"].values())
    for arm, row in report["arms"].items():
        assert row["tokens_per_second"] == pytest.approx(2 * 64 / row["seconds_per_update"])
        assert 0 < row["peak_share"] < 1
        assert row["peak_memory"] > 2**27
        parts = row["time_shares"]
        assert {"forward", "backward", "optimizer"} <= parts.keys(), arm
        assert sum(parts.values()) <= 1.001
    assert "ema" in report["arms"]["hybrid"]["time_shares"]
    assert "| mlm |" in capsys.readouterr().out


def test_benchmark_times_two_processes(tmp_path):
    setting = benchmark.Setting("mlm", "tiny", 64, 2, warmup=1, steps=1, num_workers=0, num_processes=2, use_cpu=True)
    found = benchmark.run(setting)
    assert found["tokens_per_second"] == pytest.approx(128 / found["seconds"])


def test_benchmark_scaling_writes_table_and_plot(tmp_path, monkeypatch, capsys):
    def timed(setting):
        return {"seconds": 1.0, "tokens_per_second": 4096.0, "flops_per_second": 1e9 * setting.length}

    monkeypatch.setattr(benchmark, "run", timed)
    monkeypatch.setattr(benchmark, "matmul_peak", lambda device: 1e12)
    output = tmp_path / "machine.json"
    assert main(["--output", str(output), "--scaling", "--use_cpu", "--rounds", "1"]) == 0
    assert len(json.loads(output.read_text())["scaling"]) == 12
    assert output.with_suffix(".png").exists()
    assert "| hybrid | paper | 2048 | 1 |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--rounds", "0"], "`rounds` is 0; it must be at least 1"),
        (["--steps", "-1"], "`steps` is -1"),
        (["--batch_size", "0"], "`batch_size` is 0"),
        (["--num_workers", "-1"], "`num_workers` is -1; it must be at least 0"),
        (["--arms", "mlm", "bort"], "`arms`: 'bort' must be one of mlm, hybrid"),
        (["--size", "huge"], "`size`: 'huge' must be one of tiny, paper, base"),
        (["--scaling", "--size", "tiny"], "`size` has no effect with `scaling`"),
        (["--scaling", "--arms", "mlm"], "`arms` has no effect with `scaling`"),
    ],
)
def test_benchmark_refuses_what_cannot_be_timed(tmp_path, capsys, options, message):
    assert main(["--output", str(tmp_path / "a.json"), *options]) == 2
    assert message in capsys.readouterr().err


def test_benchmark_refuses_a_missing_folder(tmp_path, capsys):
    assert main(["--output", str(tmp_path / "none" / "a.json")]) == 2
    assert "there is no folder" in capsys.readouterr().err


def test_quick_is_a_default_that_gives_way(tmp_path):
    output = str(tmp_path / "a.json")
    quick, fuller = BenchmarkArguments(output, quick=True), BenchmarkArguments(output, quick=True, rounds=2)
    assert (list(quick.arms), quick.rounds, quick.steps) == (list(QUICK), 1, 2)
    assert (fuller.rounds, fuller.steps) == (2, 2)


def test_benchmark_says_why_a_run_failed(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(benchmark.sys, "executable", "false")
    assert main(["--output", str(tmp_path / "a.json"), "--arms", "mlm", *TOY]) == 2
    assert "The run of Setting(arm='mlm'" in capsys.readouterr().err
