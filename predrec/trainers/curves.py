"""Training curves as a picture."""

from pathlib import Path
from typing import Any

JEPA_CURVES = (
    *("jepa_loss", "eval_jepa_loss"),
    *("eval_trivial_loss_mean", "eval_trivial_loss_text", "eval_trivial_loss_position"),
)
PANELS = (
    ("masked-LM loss (nats)", ("mlm_loss", "eval_mlm_loss")),
    ("next-token loss (nats)", ("ntp_loss", "eval_ntp_loss")),
    ("JEPA loss", JEPA_CURVES),
    ("weight of the JEPA loss", ("loss_lambda",)),
    ("uniformity (lower: more spread)", ("eval_uniformity",)),
    ("effective rank", ("eval_effective_rank",)),
    ("cosine with the own target, with others", ("eval_matched_cosine", "eval_mismatched_cosine")),
    ("spread", ("eval_text_spread", "eval_token_spread", "eval_target_spread", "eval_target_token_spread")),
)
STYLES = (("#0072B2", "-"), ("#D55E00", "o-"), ("#009E73", "--"), ("#CC79A7", ":"), ("#56B4E9", "-."))
"""Colours that colour-blind readers can tell apart, with line styles that survive black and white."""


def curve(history: list[dict[str, Any]], name: str) -> tuple[list[int], list[float]]:
    """Returns the steps and the values at which a metric was logged."""
    points = [(entry["step"], entry[name]) for entry in history if name in entry]
    return [step for step, _ in points], [value for _, value in points]


def plot_training_curves(history: list[dict[str, Any]], path: str | Path) -> None:
    """Draws losses and monitor over steps from a Trainer's log history; panels without data are left out."""
    from matplotlib.figure import Figure  # Not pyplot: no display is touched. Imported late: it is slow to load.

    panels = [(title, [name for name in names if curve(history, name)[0]]) for title, names in PANELS]
    panels = [(title, names) for title, names in panels if names] or [("no data", [])]
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(4.2 * columns, 3.3 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis, (title, names) in zip(axes, panels, strict=False):
        for name, (colour, line) in zip(names, STYLES, strict=False):
            axis.plot(*curve(history, name), line, color=colour, label=name, linewidth=1.5, markersize=3)
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("step", fontsize=9)
        axis.grid(alpha=0.3)
        if len(names) > 1:
            # Below, where it hides no curve.
            axis.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2, frameon=False)
        if names == ["loss_lambda"]:
            axis.set_ylim(0, 1)
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    figure.savefig(path, dpi=120)
