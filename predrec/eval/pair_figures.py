"""Pictures of two views: where they lie in the plane, and how their differences spread over directions."""

from pathlib import Path
from typing import Any

from torch import Tensor

from .figures import COLOURS, DPI, LINES, MARKERS
from .pair_geometry import tsne_points

MOST = 500
"""Pairs in a picture."""


def plot_views(source: Tensor, target: Tensor, title: str, path: str | Path) -> None:
    """Draws both views of up to [`MOST`] pairs in the plane, by t-SNE, and a line between the two of each pair.

    Args:
        source, target (`torch.FloatTensor` of shape `(num_pairs, hidden_size)`): More than 15 pairs.
        title (`str`): Above the picture.
        path (`str`): File to write.
    """
    first, second = tsne_points(source[:MOST], target[:MOST])
    figure, axis = _figure(5.0, 4.5)
    for start, end in zip(first, second, strict=True):
        axis.plot([start[0], end[0]], [start[1], end[1]], color="0.85", linewidth=0.5, zorder=1)
    for points, name, colour, marker in ((first, "predicting", *_style(0)), (second, "predicted", *_style(1))):
        axis.scatter(*points.T, s=12, color=colour, marker=marker, label=name, zorder=2)
    axis.set_title(f"{title} (t-SNE; distances mean little)", fontsize=10)
    axis.set_xticks([])
    axis.set_yticks([])
    axis.legend(fontsize=8)
    figure.savefig(path, dpi=DPI)


def plot_spectra(spectra: dict[str, Tensor], path: str | Path) -> None:
    """Draws the largest singular values of the difference of the views, one line per model.

    Args:
        spectra (`dict[str, torch.FloatTensor]`): Singular values by name, largest first.
        path (`str`): File to write.
    """
    figure, axis = _figure(5.5, 3.8)
    for number, (name, values) in enumerate(spectra.items()):
        colour, line = COLOURS[number % len(COLOURS)], LINES[number % len(LINES)]
        axis.plot(range(1, len(values) + 1), values.tolist(), color=colour, linestyle=line, label=name)
    if any((values > 0).any() for values in spectra.values()):
        axis.set_yscale("log")
    axis.set_xlabel("direction")
    axis.set_ylabel("singular value of the difference")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    figure.savefig(path, dpi=DPI)


def _style(number: int) -> tuple[str, str]:
    return COLOURS[number], MARKERS[number]


def _figure(width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure  # Not pyplot: no display is touched. Imported late: it is slow to load.

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()
