"""The figures of a report. Colours that colour-blind readers can tell apart, with hatches and markers for print.

More models than colours cannot be told apart: they have the figures with a row for each model, and no others.
"""

from collections.abc import Callable, Sequence
from io import BytesIO
from itertools import cycle
from typing import Any

import numpy as np

from .claims import by_checkpoint, by_replicate, in_paper_convention
from .document import Picture
from .results import BASELINES, Results, ways_of
from .tasks import TASKS

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
HATCHES = ("", "//", "..", "xx", "\\\\", "++")
MARKERS = ("o", "s", "^", "D", "v", "P")
LINES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (1, 1)))
DPI = 150
LABEL_OFFSETS = ((5, 6), (5, -6), (5, 0), (-20, 6), (-20, -6))
"""In points: labels of neighbouring tasks go different ways."""

MEASURES = (
    ("uniformity", "uniformity (left: more spread)"),
    ("effective_rank", "effective rank"),
    ("stable_rank", "stable rank"),
    ("spectral_entropy", "spectral entropy"),
    ("semantic_probe", "semantic probe"),
    ("probe_gap", "probe gap"),
)
"""Of the figure with a row for each model, and what stands above its panels."""


def all_figures(results: Results) -> list[Picture]:
    """Draws every figure that the results have the numbers for."""
    drawn = []
    for name, alt, draw in FIGURES:
        figure = draw(results)
        if figure is not None:
            drawn.append(picture_of(figure, name, alt))
    return drawn


def picture_of(figure: Any, name: str, alt: str) -> Picture:
    """Returns a drawn figure as the files of a report, which do not say when it was drawn."""
    files = []
    for kind in ("svg", "png"):
        buffer = BytesIO()
        figure.savefig(buffer, format=kind, dpi=DPI, bbox_inches="tight", metadata=_METADATA[kind])
        files.append(buffer.getvalue())
    return Picture(name, alt, *files)


_METADATA: dict[str, dict] = {"svg": {"Date": None}, "png": {"Software": None}}


def _subplots(rows: int, columns: int, width: float, height: float, **options: Any) -> tuple[Any, np.ndarray]:
    from matplotlib.figure import Figure  # Not pyplot: no display is touched. Imported late: it is slow to load.

    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **options)
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _legend(figure: Any, axes: Any) -> None:
    named: dict[str, Any] = {}
    for axis in np.ravel(axes):
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            named.setdefault(label, handle)
    figure.legend(
        named.values(), named.keys(), loc="outside upper center", ncols=min(max(len(named), 1), 6), frameon=False
    )


def _tasks(results: Results, kind: str) -> list[str]:
    return list(dict.fromkeys(record.task for record in results.select(kind=kind)))


def _poolings(results: Results, kind: str = "geometry") -> list[str]:
    return [p for p in dict.fromkeys(record.pooling for record in results.select(kind=kind)) if p]


def _too_many(results: Results) -> bool:
    """Are there more models than colours?"""
    return len(results.model_names) > len(COLOURS)


def _distinct(poolings: list[str]) -> list[str]:
    """Leaves out weighted pooling where it stands beside the mean, which it equals."""
    return [pooling for pooling in poolings if pooling != "weighted" or "mean" not in poolings]


def spectra(results: Results) -> Any:
    """Shares of variance by rank of the eigenvalue, mean over checkpoints; one panel per task and pooling."""
    poolings = [p for p in ("mean", "max") if any(s["pooling"] == p for s in results.spectra)]
    tasks = list(dict.fromkeys(s["task"] for s in results.spectra))
    if not poolings or not tasks or _too_many(results):
        return None
    figure, axes = _subplots(len(poolings), len(tasks), 2.4, 2.3, sharey=True, sharex=True)
    drawn = False
    for row, pooling in enumerate(poolings):
        for column, task in enumerate(tasks):
            axis = axes[row, column]
            for index, model in enumerate(results.model_names):
                shares = [
                    np.array(s["values"]) ** 2 / max(np.sum(np.array(s["values"]) ** 2), 1e-300)
                    for s in results.spectra
                    if (s["model"], s["task"], s["pooling"]) == (model, task, pooling)
                ]
                if shares:
                    mean = np.mean([share[: min(map(len, shares))] for share in shares], axis=0)
                    kept = mean > 1e-8
                    drawn = drawn or bool(kept.any())
                    axis.plot(
                        np.arange(1, len(mean) + 1)[kept], mean[kept], label=model, color=COLOURS[index],
                        linestyle=LINES[index], linewidth=1.4,
                    )  # fmt: skip
            axis.set(xscale="log", yscale="log", title=f"{task}, {pooling}")
            axis.title.set_fontsize(9)
    if not drawn:  # Every spectrum is zero: the vectors are equal.
        return None
    figure.supxlabel("eigenvalue, by size", fontsize=9)
    figure.supylabel("share of variance", fontsize=9)
    _legend(figure, axes)
    return figure


def alignment_against_uniformity(results: Results) -> Any:
    """One point per model and task, one panel per pooling."""
    poolings, tasks = _distinct(_poolings(results)), _tasks(results, "geometry")
    if _too_many(results) or not any(record.metric == "alignment" for record in results.records):
        return None
    figure, axes = _subplots(1, len(poolings), 2.9, 2.8, sharey=True)
    for column, pooling in enumerate(poolings):
        axis = axes[0, column]
        for index, model in enumerate(results.model_names):
            points = [
                (
                    by_checkpoint(results, "geometry", model, task, "uniformity", pooling),
                    by_checkpoint(results, "geometry", model, task, "alignment", pooling),
                    task,
                )
                for task in tasks
            ]
            points = [(x.mean(), y.mean(), task) for x, y, task in points if len(x) and len(y)]
            axis.scatter(
                [x for x, _, _ in points], [y for _, y, _ in points], label=model, color=COLOURS[index],
                marker=MARKERS[index], s=28,
            )  # fmt: skip
            for (x, y, task), offset in zip(points, cycle(LABEL_OFFSETS), strict=False):
                axis.annotate(task, (x, y), xytext=offset, textcoords="offset points", fontsize=6.5, va="center")
        axis.margins(0.15)
        axis.set_title(pooling, fontsize=9)
    figure.supxlabel("uniformity (left: more spread)", fontsize=9)
    figure.supylabel("alignment (down: tighter classes)", fontsize=9)
    _legend(figure, axes)
    return figure


def _bars(axis: Any, groups: Sequence[str], models: Sequence[str], values: Callable[[str, str], np.ndarray]) -> None:
    """Draws one bar per group and model, with the standard deviation where there are several values."""
    width = 0.8 / max(len(models), 1)
    for index, model in enumerate(models):
        found = [values(group, model) for group in groups]
        positions = np.arange(len(groups)) + (index - (len(models) - 1) / 2) * width
        heights = [v.mean() if len(v) else np.nan for v in found]
        errors = [v.std(ddof=1) if len(v) > 1 else np.nan for v in found]
        axis.bar(
            positions, heights, width * 0.92, yerr=errors, label=model, color=COLOURS[index],
            hatch=HATCHES[index], edgecolor="white", linewidth=0.5,
            error_kw={"elinewidth": 1, "capsize": 2},
        )  # fmt: skip
    axis.set_xticks(range(len(groups)), groups)
    axis.axhline(0, color="#555", linewidth=0.6)


def effective_rank(results: Results) -> Any:
    """Bars by task, one panel per pooling."""
    poolings, tasks = _distinct(_poolings(results)), _tasks(results, "geometry")
    if not tasks or _too_many(results):
        return None
    columns = min(len(poolings), 2)
    rows = -(-len(poolings) // columns)
    figure, axes = _subplots(rows, columns, 4.2, 2.3, sharey=True)
    for axis in axes.flat[len(poolings) :]:
        axis.set_visible(False)
    for axis, pooling in zip(axes.flat, poolings, strict=False):

        def values(task: str, model: str, pooling: str = pooling) -> np.ndarray:
            return by_checkpoint(results, "geometry", model, task, "effective_rank", pooling)

        _bars(axis, tasks, results.model_names, values)
        axis.set_title(f"{pooling} pooling", fontsize=9)
    figure.supylabel("effective rank", fontsize=9)
    _legend(figure, axes)
    return figure


def _dots(axis: Any, models: Sequence[str], values: Callable[[str], np.ndarray]) -> None:
    """Draws a row per model: its checkpoints, or seeds of the head or draws of a single one, and their mean."""
    for row, model in enumerate(models):
        found = values(model)
        if len(found):
            axis.scatter(found, np.full(len(found), row), s=16, color=COLOURS[0], alpha=0.45, linewidths=0)
            axis.plot([found.mean()], [row], marker="|", markersize=12, markeredgewidth=1.8, color=COLOURS[1])
    axis.set_yticks(range(len(models)), models)
    axis.set_ylim(len(models) - 0.5, -0.5)
    axis.grid(axis="x", alpha=0.3)
    axis.tick_params(axis="x", labelsize=8)


def probes(results: Results) -> Any:
    """Headline score of each task: a row per model and way to score it, with every checkpoint; baselines as lines."""
    for kind in ("probe", "finetune"):
        tasks = [task for task in _tasks(results, kind) if task in TASKS]
        models = [model for model in results.model_names if results.select(kind=kind, model=model)]
        if tasks and models:
            break
    else:
        return None
    ways = ways_of(results, kind)
    rows = {
        ", ".join([model, " ".join(filter(None, how))] if len(ways) > 1 else [model]): (model, *how)
        for model in models
        for how in ways
    }
    figure, axes = _subplots(1, len(tasks), 2.3, 0.24 * len(rows) + 1.1, sharey=True)
    for axis, task in zip(axes[0], tasks, strict=True):
        metric = TASKS[task].metric

        def values(row: str, task: str = task, metric: str = metric) -> np.ndarray:
            model, pooling, head, variant = rows[row]
            wanted = {"task": task, "metric": metric, "pooling": pooling, "head": head, "variant": variant}
            return results.sample(kind=kind, model=model, **wanted)

        _dots(axis, list(rows), values)
        for line, name in zip(("--", ":"), BASELINES, strict=True):
            found = results.values(kind="probe", model=name, task=task, metric=metric)
            if len(found):
                axis.axvline(found[0], color="black", linestyle=line, linewidth=1, label=BASELINES[name])
        axis.set_title(f"{task} ({metric.replace('_correlation', '')})", fontsize=9)
    if any(axis.get_legend_handles_labels()[1] for axis in axes[0]):
        _legend(figure, axes)
    return figure


def measures(results: Results) -> Any:
    """Six measures with mean pooling, means over tasks: a row per model, with every checkpoint."""
    tasks = _tasks(results, "geometry")
    models = [
        m for m in results.model_names if any(in_paper_convention(r) for r in results.select(kind="geometry", model=m))
    ]

    def over_tasks(model: str, metric: str) -> np.ndarray:
        found = [by_replicate(results, "geometry", model, task, metric, "mean") for task in tasks]
        found = [one for one in found if one]
        common = sorted(set.intersection(*map(set, found))) if found else []
        return np.array([np.mean([one[number] for one in found]) for number in common])

    known = [(metric, title) for metric, title in MEASURES if any(len(over_tasks(m, metric)) for m in models)]
    if len(models) < 2 or not known:
        return None
    columns = min(3, len(known))
    figure, axes = _subplots(-(-len(known) // columns), columns, 3.0, 0.24 * len(models) + 1.0, sharey=True)
    for axis, (metric, title) in zip(axes.flat, known, strict=False):
        _dots(axis, models, lambda model, metric=metric: over_tasks(model, metric))
        axis.set_title(title, fontsize=9)
    for axis in axes.flat[len(known) :]:
        axis.set_axis_off()
    return figure


def pooling_ablation(results: Results) -> Any:
    """Means over tasks, by pooling."""
    metrics = ("uniformity", "effective_rank", "semantic_probe", "token_probe")
    poolings, tasks = _poolings(results), _tasks(results, "geometry")
    metrics = tuple(m for m in metrics if any(record.metric == m for record in results.select(kind="geometry")))
    if len(poolings) < 2 or _too_many(results):
        return None
    figure, axes = _subplots(1, len(metrics), 2.7, 2.4)
    for axis, metric in zip(axes[0], metrics, strict=True):

        def values(pooling: str, model: str, metric: str = metric) -> np.ndarray:
            found = [by_checkpoint(results, "geometry", model, task, metric, pooling) for task in tasks]
            found = [one for one in found if len(one)]
            return np.mean([one[: min(map(len, found))] for one in found], axis=0) if found else np.array([])

        _bars(axis, poolings, results.model_names, values)
        axis.set_title(metric.replace("_", " "), fontsize=9)
        axis.tick_params(axis="x", rotation=45, labelsize=8)
    _legend(figure, axes)
    return figure


FIGURES: tuple[tuple[str, str, Callable[[Results], Any]], ...] = (
    ("probes", "Scores of each checkpoint on each task, means, and baselines", probes),
    ("measures", "Six measures of each checkpoint, and means, with mean pooling", measures),
    ("spectra", "Eigenvalue spectra: share of the variance in each direction", spectra),
    ("alignment_uniformity", "Alignment against uniformity, one point per task", alignment_against_uniformity),
    ("effective_rank", "Effective rank by task and pooling", effective_rank),
    ("pooling", "Measures by pooling, means over tasks", pooling_ablation),
)
