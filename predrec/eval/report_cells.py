"""Cells of the tables of a report."""

import numpy as np

from .statistics import Comparison, compare


def interval_cell(comparison: Comparison, digits: int = 3) -> str:
    """Shows an interval, a dash where a single pair has none."""
    if not np.isfinite(comparison.low):
        return "-"
    return f"{comparison.low:+.{digits}f} to {comparison.high:+.{digits}f}"


def p_cell(p: float, comparison: Comparison) -> str:
    """Shows a p value, a dash where a single pair has none."""
    return "-" if comparison.num_seeds < 2 else "< 0.001" if p < 0.001 else f"{p:.3f}"


def spread(values: np.ndarray, digits: int = 3) -> str:
    """Shows mean and, of several values, standard deviation; a dash of none."""
    if not len(values):
        return "-"
    text = f"{values.mean():.{digits}f}"
    return f"{text} ± {values.std(ddof=1):.{digits}f}" if len(values) > 1 else text


def with_interval(values: np.ndarray) -> str:
    """Shows mean, standard deviation and the 95 % interval of the mean."""
    text = spread(values)
    if len(values) > 1:
        found = compare(values)
        text += f" [{found.low:.3f}, {found.high:.3f}]"
    return text


def bold(cells: list[str], means: list[float | None], sign: int) -> list[str]:
    """Marks the best of the cells."""
    known = [mean * sign for mean in means if mean is not None]
    if sign == 0 or len(known) < 2:
        return cells
    return [
        f"**{cell}**" if mean is not None and mean * sign == max(known) else cell
        for cell, mean in zip(cells, means, strict=True)
    ]
