"""From single timings to what a benchmark says: medians over rounds, ratios within a round, tables."""

from statistics import median
from typing import Any

Round = dict[str, dict[str, Any]]
"""What was measured of each arm, in one round."""


def summarize(rounds: list[Round], peaks: list[float]) -> dict[str, dict[str, Any]]:
    """Returns, for each arm, medians over rounds.

    Args:
        rounds (`list`): Each with every arm once.
        peaks (`list` of `float`): The rate of matrix products around each round, in operations per second.
    """
    summary = {}
    for arm in rounds[0]:
        found = [one[arm] for one in rounds]
        names = sorted({name for one in found for name in one["shares"]})
        timed = {name: median(one["shares"].get(name, 0.0) for one in found) for name in names}
        summary[arm] = {
            "seconds_per_update": median(one["seconds"] for one in found),
            "tokens_per_second": median(one["tokens_per_second"] for one in found),
            "flops_per_second": median(one["flops_per_second"] for one in found),
            "peak_share": median(one["flops_per_second"] / peak for one, peak in zip(found, peaks, strict=True)),
            "peak_memory": max(one["peak_memory"] for one in found),
            "time_shares": timed,
        }
        if "collator_seconds" in found[0]:
            summary[arm]["collator_tokens_per_second"] = median(
                one["tokens_per_second"] * one["seconds"] / one["collator_seconds"] for one in found
            )
    return summary


def ratios(rounds: list[Round], peaks: list[float]) -> dict[str, float]:
    """Returns the medians of ratios taken within each round; those whose arms were not measured are left out.

    `mlm_vs_bert` and `hybrid_vs_plain` are speeds, `hybrid_vs_mlm_cost` and `cheapest_vs_mlm_cost` times per token,
    the shares are of the measured rate of matrix products; `collator_share` is the part of a masked-LM update, the
    shortest of all, that waits for data.
    """
    rates = {
        "mlm_vs_bert": ("mlm", "bert"),
        "mlm_vs_plain": ("mlm", "plain_mlm"),
        "hybrid_vs_plain": ("hybrid", "plain"),
        "hybrid_vs_mlm_cost": ("mlm", "hybrid"),
        "cheapest_vs_mlm_cost": ("mlm", "cheapest"),
    }
    found = {}
    for name, (left, right) in rates.items():
        if left in rounds[0] and right in rounds[0]:
            found[name] = median(one[left]["tokens_per_second"] / one[right]["tokens_per_second"] for one in rounds)
    for arm in ("mlm", "hybrid"):
        if arm in rounds[0]:
            shares = [one[arm]["flops_per_second"] / peak for one, peak in zip(rounds, peaks, strict=True)]
            found[f"{arm}_peak_share"] = median(shares)
    if "mlm" in rounds[0]:
        found["collator_share"] = median(one["mlm"]["shares"]["data"] for one in rounds)
    return {name: round(value, 4) for name, value in found.items()}


def table(summary: dict[str, dict[str, Any]]) -> str:
    """Returns the summary as a Markdown table."""
    parts = ("data", "forward", "backward", "optimizer", "ema")
    lines = [
        "| arm | tokens/s | GFLOP/s | of peak | memory | " + " | ".join(parts) + " |",
        "|" + "---|" * (5 + len(parts)),
    ]
    for arm, row in summary.items():
        shares = " | ".join(f"{row['time_shares'].get(part, 0):.1%}" for part in parts)
        lines.append(
            f"| {arm} | {row['tokens_per_second']:,.0f} | {row['flops_per_second'] / 1e9:,.0f} | "
            f"{row['peak_share']:.0%} | {row['peak_memory'] / 2**30:.1f} GiB | {shares} |"
        )
    return "\n".join(lines)
