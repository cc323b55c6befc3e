"""Metrics as `evaluate` modules that load without network: `evaluate.load(metric_path("uniformity"))`."""

from functools import cache
from pathlib import Path

import evaluate

METRICS = (
    "glue",
    "uniformity",
    "alignment",
    "spectral_entropy",
    "effective_rank",
    "stable_rank",
    "rank_for_variance",
    "mean_cosine",
    "intra_inter_ratio",
)


def metric_path(name: str) -> str:
    """Returns what `evaluate.load` takes.

    Raises:
        ValueError: If there is no such metric.
    """
    if name not in METRICS:
        raise ValueError(f"There is no metric {name!r}; there are {', '.join(METRICS)}.")
    return str(Path(__file__).parent / name)


@cache
def load_metric(name: str, config_name: str | None = None) -> evaluate.Metric:
    """Loads one of the metrics of this folder."""
    return evaluate.load(metric_path(name), config_name)
