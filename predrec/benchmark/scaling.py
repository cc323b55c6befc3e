"""How the cost of a token grows with the row's length, with the encoder's size and with the number of processes."""

from pathlib import Path
from typing import Any

from .settings import SIZES, Setting

LENGTHS = (128, 512, 2048)
PROCESSES = (1, 2)
NORMAL = {"size": "paper", "length": 512, "num_processes": 1}


def scaling_settings(arms: tuple[str, ...], tokens: int, most: int = max(PROCESSES), **options: Any) -> list[Setting]:
    """Returns a setting per arm and point, each unlike the normal one in one thing, all with as many tokens a batch.

    Args:
        arms (`tuple` of `str`): Of `ARMS`.
        tokens (`int`): Tokens in a batch.
        most (`int`, defaults to 2): Most processes that there is a device for.
        options: Fields of every [`Setting`].
    """
    points = [{"length": length} for length in LENGTHS]
    points += [{"size": size} for size in SIZES if size != NORMAL["size"]]
    points += [{"num_processes": number} for number in PROCESSES if NORMAL["num_processes"] < number <= most]
    settings = []
    for arm in arms:
        for point in points:
            fields = NORMAL | point
            batch_size = max(fields["num_processes"], tokens // fields["length"])
            settings.append(Setting(arm, batch_size=batch_size, **(options | fields)))
    return settings


def scaling_rows(measured: list[tuple[Setting, dict[str, Any]]]) -> list[dict[str, Any]]:
    """Returns, for each point, microseconds per token as measured and as the arithmetic alone would have them.

    The theoretical line is the arithmetic per token, at the rate that the normal point of the same arm reached.
    """
    rates = {
        setting.arm: found["flops_per_second"]
        for setting, found in measured
        if all(getattr(setting, name) == value for name, value in NORMAL.items())
    }
    rows = []
    for setting, found in measured:
        flops_per_token = found["flops_per_second"] / found["tokens_per_second"]
        rows.append(
            {
                "arm": setting.arm,
                **{name: getattr(setting, name) for name in NORMAL},
                "microseconds_per_token": 1e6 / found["tokens_per_second"],
                "theoretical": 1e6 * flops_per_token / rates[setting.arm],
                "megaflops_per_token": flops_per_token / 1e6,
            }
        )
    return rows


def scaling_table(rows: list[dict[str, Any]]) -> str:
    """Returns the points as a Markdown table."""
    lines = [
        "| arm | size | length | processes | MFLOP per token | microseconds per token | by arithmetic | ratio |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        lines.append(
            f"| {row['arm']} | {row['size']} | {row['length']} | {row['num_processes']} | "
            f"{row['megaflops_per_token']:.0f} | {row['microseconds_per_token']:.0f} | {row['theoretical']:.0f} | "
            f"{row['microseconds_per_token'] / row['theoretical']:.2f} |"
        )
    return "\n".join(lines)


def plot_scaling(rows: list[dict[str, Any]], path: str | Path) -> None:
    """Draws measured points and theoretical lines, one panel for each thing that varies."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    panels = (("length", "tokens in a row"), ("size", "size of the encoder"), ("num_processes", "processes"))
    figure, axes = plt.subplots(1, len(panels), figsize=(12, 4), layout="constrained", sharey=True)
    order = {name: number for number, name in enumerate(SIZES)}
    arms = list(dict.fromkeys(row["arm"] for row in rows))
    for axis, (varied, label) in zip(axes, panels, strict=True):
        for number, arm in enumerate(arms):
            others = [name for name in NORMAL if name != varied]
            points = [row for row in rows if row["arm"] == arm and all(row[name] == NORMAL[name] for name in others)]
            points.sort(key=lambda row: order.get(row[varied], row[varied]))
            places = [str(row[varied]) for row in points]
            color, marker = f"C{number}", "os^D"[number % 4]
            axis.plot(places, [row["microseconds_per_token"] for row in points], marker, color=color, label=arm)
            axis.plot(
                places, [row["theoretical"] for row in points], "--", color=color, label=f"{arm}, by its arithmetic"
            )
        axis.set_xlabel(label)
        axis.set_yscale("log")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("microseconds per token")
    axes[-1].legend(fontsize="small")
    figure.savefig(path, dpi=120)
    plt.close(figure)
