"""The figures of an experiment: training of every arm, effects of factors, differences between arms."""

from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import Any

import numpy as np

from ..eval.document import Picture
from ..eval.figures import COLOURS, LINES, picture_of
from .effects import Effect
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

OF_ONE_LOSS = ("eval_jepa_loss", "eval_jepa_margin")
"""Shown only where all arms have the same JEPA loss: others have another scale."""


def training_figure(runs: Mapping[str, Sequence[dict[str, Any]]]) -> Picture | None:
    """Draws the curves of every arm over training tokens, mean over seeds, single seeds as thin lines.

    Arms whose runs have a single point, as those that were hardly trained, have no curve. `None` where no arm has any.

    Args:
        runs (`dict[str, list]`): Contents of the files of finished runs, by arm.
    """
    from matplotlib.figure import Figure  # Not pyplot: no display is touched. Imported late: it is slow to load.

    curves = [(name, points) for contents in runs.values() for c in contents for name, points in c["curves"].items()]
    known = {name for name, points in curves if len(points) > 1}
    losses = {c["arguments"].get("jepa_loss", "cosine") for cs in runs.values() for c in cs if _has_jepa_loss(c)}
    left_out = OF_ONE_LOSS if len(losses) > 1 else ()
    shown = [(title, name) for title, name in PANELS if name in known and name not in left_out]
    if not shown:
        return None
    columns = min(3, len(shown))
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(4.0 * columns, 2.9 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    handles: dict[str, Any] = {}
    for axis, (title, name) in zip(axes, shown, strict=False):
        for index, (arm, contents) in enumerate(runs.items()):
            lines = [
                curve_over_tokens(content, name) for content in contents if len(content["curves"].get(name, [])) > 1
            ]
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
    return picture_of(figure, "training", "Losses, lambda and geometry of every arm during training")


def _has_jepa_loss(content: Mapping[str, Any]) -> bool:
    return "eval_jepa_loss" in content["curves"]


def effects_figure(file: str, title: str, found: Sequence[Effect]) -> Picture | None:
    """Draws every effect with its interval, a panel for each measure; `None` without effects of several seeds.

    Args:
        file, title (`str`): Name of the picture's file, and what it shows.
        found (`list[Effect]`): Of all measures.
    """
    from matplotlib.figure import Figure

    known = [effect for effect in found if np.isfinite(effect.comparison.low)]
    names = list(dict.fromkeys(effect.name for effect in known))
    measures = list(dict.fromkeys(effect.measure for effect in known))
    if not known:
        return None
    columns = min(3, len(measures))
    rows = -(-len(measures) // columns)
    figure = Figure(figsize=(3.4 * columns, (0.24 * len(names) + 0.9) * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
    for axis, measure in zip(axes, measures, strict=False):
        for effect in known:
            if effect.measure == measure:
                row, one = names.index(effect.name), effect.comparison
                axis.plot([one.low, one.high], [row, row], color=COLOURS[0], linewidth=1.4)
                axis.plot([one.effect], [row], marker="o", markersize=4, color=COLOURS[0])
        axis.axvline(0, color="#555", linewidth=0.8)
        axis.set_title(fill(measure, 44), fontsize=8)
        axis.set_yticks(range(len(names)), names, fontsize=8)
        axis.set_ylim(len(names) - 0.5, -0.5)
        axis.tick_params(axis="x", labelsize=8)
        axis.locator_params(axis="x", nbins=5)
        axis.grid(axis="x", alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    for axis in axes[len(measures) :]:
        axis.set_axis_off()
    return picture_of(figure, file, f"{title} in every measure, with 95 % intervals over seeds")


def curve_over_tokens(content: Mapping[str, Any], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns millions of training tokens, and the values of a metric there."""
    points = np.array(content["curves"][name], dtype=float)
    return points[:, 0] * content["tokens"] / content["steps"] / 1e6, points[:, 1]
