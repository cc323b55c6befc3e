"""From timings to ratios, on numbers worked out by hand."""

import pytest

from predrec.benchmark.scaling import plot_scaling, scaling_rows, scaling_settings, scaling_table
from predrec.benchmark.settings import Setting
from predrec.benchmark.summary import ratios, summarize, table


def found(tokens_per_second: float, flops_per_second: float = 1e9, data: float = 0.0) -> dict:
    return {
        "seconds": 1000 / tokens_per_second,
        "tokens_per_second": tokens_per_second,
        "flops_per_second": flops_per_second,
        "peak_memory": 2**30,
        "shares": {"data": data, "forward": 0.5},
        "collator_seconds": 0.001,
    }


ROUNDS = [
    {"mlm": found(200, 6e9, data=0.02), "bert": found(100), "hybrid": found(50, 4e9), "plain": found(10)},
    {"mlm": found(100, 3e9), "bert": found(25), "hybrid": found(50, 2e9), "plain": found(25)},
    {"mlm": found(300, 5e9, data=0.06), "bert": found(100), "hybrid": found(60, 3e9), "plain": found(20)},
]
PEAKS = [10e9, 10e9, 10e9]


def test_ratios_are_medians_of_ratios_within_a_round():
    assert ratios(ROUNDS, PEAKS) == {
        "mlm_vs_bert": 3.0,
        "hybrid_vs_plain": 3.0,
        "hybrid_vs_mlm_cost": 4.0,
        "mlm_peak_share": 0.5,
        "hybrid_peak_share": 0.3,
        "collator_share": pytest.approx(0.02),
    }


def test_ratios_leave_out_what_was_not_measured():
    assert ratios([{"mlm": found(10)}], [1e9]).keys() == {"mlm_peak_share", "collator_share"}
    assert ratios([{"bert": found(10)}], [1e9]) == {}


def test_summary_takes_medians_and_the_largest_memory():
    row = summarize(ROUNDS, PEAKS)["mlm"]
    assert row["tokens_per_second"] == 200
    assert row["peak_share"] == 0.5
    assert row["peak_memory"] == 2**30
    assert row["collator_tokens_per_second"] == pytest.approx(1e6)
    assert row["time_shares"]["data"] == pytest.approx(0.02)


def test_table_has_a_row_for_each_arm():
    lines = table(summarize(ROUNDS, PEAKS)).splitlines()
    assert len(lines) == 2 + 4
    assert len({line.count("|") for line in lines}) == 1
    assert lines[2].startswith("| mlm | 200 | 5 | 50% | 1.0 GiB | 2.0% |")


def scaled() -> list[tuple[Setting, dict]]:
    """Timings that follow the arithmetic exactly, but for long rows, which take twice as long."""
    measured = []
    for setting in scaling_settings(("mlm",), tokens=4096):
        flops = {128: 1e6, 512: 2e6, 2048: 4e6}[setting.length] * {"tiny": 0.1, "paper": 1, "base": 3}[setting.size]
        seconds = flops / 1e9 * (2 if setting.length == 2048 else 1)
        measured.append((setting, found(1 / seconds, flops / seconds)))
    return measured


def test_scaling_settings_differ_from_the_normal_one_in_one_thing():
    settings = scaling_settings(("mlm", "hybrid"), tokens=4096, steps=2)
    assert len(settings) == len(set(settings)) == 12
    assert all(setting.steps == 2 for setting in settings)
    assert {setting.batch_size * setting.length for setting in settings} == {4096}
    for setting in settings:
        changed = (setting.size != "paper") + (setting.length != 512) + (setting.num_processes != 1)
        assert changed <= 1


def test_scaling_rows_hold_the_theoretical_line():
    rows = scaling_rows(scaled())
    for row in rows:
        expected = 2 if row["length"] == 2048 else 1
        assert row["microseconds_per_token"] / row["theoretical"] == pytest.approx(expected)
    normal = next(row for row in rows if (row["size"], row["length"], row["num_processes"]) == ("paper", 512, 1))
    assert normal["megaflops_per_token"] == pytest.approx(2)


def test_scaling_table_and_plot(tmp_path):
    rows = scaling_rows(scaled())
    assert len(scaling_table(rows).splitlines()) == 2 + len(rows)
    plot_scaling(rows, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 10_000


@pytest.mark.parametrize(("most", "expected"), [(1, {1}), (2, {1, 2}), (8, {1, 2})])
def test_processes_have_a_device_each(most, expected):
    assert {setting.num_processes for setting in scaling_settings(("mlm",), 4096, most)} == expected
