"""Training as a figure: losses, lambda and geometry of every arm; mean over seeds, single seeds as thin lines."""

from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

import numpy as np

from ..eval.document import Picture
from ..eval.figures import COLOURS, DPI, LINES
from .history import tokens_of

PANELS = (
    ("held-out masked-LM loss (nats)", "eval_mlm_loss"),
    ("held-out JEPA loss", "eval_jepa_loss"),
    ("weight of the JEPA loss", "loss_lambda"),
    ("margin over the best trivial predictor", "eval_jepa_margin"),
    ("uniformity (lower: more spread)", "eval_uniformity"),
    ("effective rank", "eval_effective_rank"),
)
"""Title and metric of each panel; tokens are the horizontal axis."""


def training_figure(runs: Mapping[str, Sequence[dict[str, Any]]]) -> Picture | None:
    """Draws the curves of every arm over training tokens; `None` where no run has any.

    Args:
        runs (`dict[str, list]`): Contents of the files of finished runs, by arm.
    """
    from matplotlib.figure import Figure  # Not pyplot: no display is touched. Imported late: it is slow to load.

    known = {name for contents in runs.values() for content in contents for name in content["curves"]}
    shown = [(title, name) for title, name in PANELS if name in known]
    if not shown:
        return None
    columns = min(3, len(shown))
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(4.0 * columns, 2.9 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    handles: dict[str, Any] = {}
    for axis, (title, name) in zip(axes, shown, strict=False):
        for index, (arm, contents) in enumerate(runs.items()):
            lines = [curve_over_tokens(content, name) for content in contents if name in content["curves"]]
            look: dict[str, Any] = {"color": COLOURS[index % 6], "linestyle": LINES[(index + index // 6) % 6]}
            for tokens, values in lines if len(lines) > 1 else []:
                axis.plot(tokens, values, linewidth=0.5, alpha=0.4, **look)
            if lines:
                length = min(len(values) for _, values in lines)
                mean = np.mean([values[:length] for _, values in lines], axis=0)
                (handles[arm],) = axis.plot(lines[0][0][:length], mean, linewidth=1.6, **look)
        axis.set_title(title, fontsize=9)
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    for axis in axes[len(shown) :]:
        axis.set_axis_off()
    every = [content for contents in runs.values() for content in contents]
    padded = any((tokens_of(content) or 0) < 0.99 * content["tokens"] for content in every)
    padding = ", padding included" if padded else ""
    figure.supxlabel(f"training tokens (millions{padding})", fontsize=9)
    figure.legend(
        handles.values(), handles.keys(), loc="outside upper center", ncols=min(len(handles), 6), frameon=False
    )
    files = []
    for kind, metadata in (("svg", {"Date": None}), ("png", {"Software": None})):
        buffer = BytesIO()
        figure.savefig(buffer, format=kind, dpi=DPI, bbox_inches="tight", metadata=metadata)
        files.append(buffer.getvalue())
    return Picture("training", "Losses, lambda and geometry of every arm during training", *files)


def curve_over_tokens(content: Mapping[str, Any], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns millions of training tokens, and the values of a metric there."""
    points = np.array(content["curves"][name], dtype=float)
    return points[:, 0] * content["tokens"] / content["steps"] / 1e6, points[:, 1]
