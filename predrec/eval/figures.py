"""The figures of a report. Colours that colour-blind readers can tell apart, with hatches and markers for print.

From the seventh model on, colours come again with other hatches, markers and lines.
"""

from collections.abc import Callable, Sequence
from io import BytesIO
from itertools import cycle
from typing import Any

import numpy as np

from .claims import by_checkpoint, in_paper_convention
from .document import Picture
from .results import BASELINES, Results
from .tasks import TASKS

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
HATCHES = ("", "//", "..", "xx", "\\\\", "++")
MARKERS = ("o", "s", "^", "D", "v", "P")
LINES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (1, 1)))
DPI = 150
LABEL_OFFSETS = ((5, 6), (5, -6), (5, 0), (-20, 6), (-20, -6))
"""In points: labels of neighbouring tasks go different ways."""

RADAR = (
    ("uniformity", "uniformity", -1),
    ("effective_rank", "effective rank", 1),
    ("stable_rank", "stable rank", 1),
    ("spectral_entropy", "spectral entropy", 1),
    ("semantic_probe", "semantic probe", 1),
    ("probe_gap", "probe gap", 1),
)


def all_figures(results: Results) -> list[Picture]:
    """Draws every figure that the results have the numbers for."""
    drawn = []
    for name, alt, draw in FIGURES:
        figure = draw(results)
        if figure is not None:
            files = []
            for kind in ("svg", "png"):
                buffer = BytesIO()
                figure.savefig(buffer, format=kind, dpi=DPI, bbox_inches="tight", metadata=_METADATA[kind])
                files.append(buffer.getvalue())
            drawn.append(Picture(name, alt, *files))
    return drawn


_METADATA: dict[str, dict] = {"svg": {"Date": None}, "png": {"Software": None}}


def _subplots(rows: int, columns: int, width: float, height: float, **options: Any) -> tuple[Any, np.ndarray]:
    from matplotlib.figure import Figure  # Not pyplot: no display is touched. Imported late: it is slow to load.

    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **options)
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False) if "polar" not in axis.spines else None
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


def _distinct(poolings: list[str]) -> list[str]:
    """Leaves out weighted pooling where it stands beside the mean, which it equals."""
    return [pooling for pooling in poolings if pooling != "weighted" or "mean" not in poolings]


def spectra(results: Results) -> Any:
    """Shares of variance by rank of the eigenvalue, mean over checkpoints; one panel per task and pooling."""
    poolings = [p for p in ("mean", "max") if any(s["pooling"] == p for s in results.spectra)]
    tasks = list(dict.fromkeys(s["task"] for s in results.spectra))
    if not poolings or not tasks:
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
                        np.arange(1, len(mean) + 1)[kept], mean[kept], label=model, color=COLOURS[index % 6],
                        linestyle=LINES[(index + index // 6) % 6], linewidth=1.4,
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
    if not any(record.metric == "alignment" for record in results.records):
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
                [x for x, _, _ in points], [y for _, y, _ in points], label=model, color=COLOURS[index % 6],
                marker=MARKERS[(index + index // 6) % 6], s=28,
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
            positions, heights, width * 0.92, yerr=errors, label=model, color=COLOURS[index % 6],
            hatch=HATCHES[(index + index // 6) % 6], edgecolor="white", linewidth=0.5,
            error_kw={"elinewidth": 1, "capsize": 2},
        )  # fmt: skip
    axis.set_xticks(range(len(groups)), groups)
    axis.axhline(0, color="#555", linewidth=0.6)


def effective_rank(results: Results) -> Any:
    """Bars by task, one panel per pooling."""
    poolings, tasks = _distinct(_poolings(results)), _tasks(results, "geometry")
    if not tasks:
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


def probes(results: Results) -> Any:
    """Headline score of each task: models as bars, with the spread over seeds, baselines as lines."""
    for kind in ("probe", "finetune"):
        tasks = [task for task in _tasks(results, kind) if task in TASKS]
        models = [model for model in results.model_names if results.select(kind=kind, model=model, variant=None)]
        if tasks and models:
            break
    else:
        return None
    pooling, head = next((r.pooling, r.head) for r in results.select(kind=kind, model=models[0], variant=None))
    figure, axes = _subplots(1, 1, max(1.3 * len(tasks) + 1, 4.5), 3.0)
    axis = axes[0, 0]

    def values(task: str, model: str) -> np.ndarray:
        wanted = {"model": model, "task": task, "metric": TASKS[task].metric, "pooling": pooling, "head": head}
        return results.sample(kind=kind, variant=None, **wanted)

    _bars(axis, tasks, models, values)
    for line, name in zip(("--", ":"), BASELINES, strict=True):
        for index, task in enumerate(tasks):
            found = results.values(kind="probe", model=name, task=task, metric=TASKS[task].metric)
            if len(found):
                label = BASELINES[name] if index == 0 else None
                axis.hlines(found[0], index - 0.45, index + 0.45, colors="black", linestyles=line, label=label)
    axis.set_xticks(range(len(tasks)), [f"{task}\n{TASKS[task].metric.replace('_correlation', '')}" for task in tasks])
    axis.set_ylabel("score")
    _legend(figure, axis)
    return figure


def pooling_ablation(results: Results) -> Any:
    """Means over tasks, by pooling."""
    metrics = ("uniformity", "effective_rank", "semantic_probe", "token_probe")
    poolings, tasks = _poolings(results), _tasks(results, "geometry")
    metrics = tuple(m for m in metrics if any(record.metric == m for record in results.select(kind="geometry")))
    if len(poolings) < 2:
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


def radar(results: Results) -> Any:
    """Six measures, means over tasks with mean pooling; outward is more, from the least to the most seen."""
    tasks = _tasks(results, "geometry")
    names = [
        m for m in results.model_names if any(in_paper_convention(r) for r in results.select(kind="geometry", model=m))
    ]
    table = {}
    for metric, label, sign in RADAR:
        means = []
        for model in names:
            found = [by_checkpoint(results, "geometry", model, task, metric, "mean") for task in tasks]
            found = [one.mean() for one in found if len(one)]
            means.append(sign * np.mean(found) if found else np.nan)
        if names and np.isfinite(means).all():
            table[label] = np.array(means)
    if len(names) < 2 or len(table) < 3:
        return None
    figure, axes = _subplots(1, 1, 4.4, 4.4, subplot_kw={"projection": "polar"})
    axis, angles = axes[0, 0], np.linspace(0, 2 * np.pi, len(table), endpoint=False)
    for index, model in enumerate(names):
        # Least seen at 0.25, most at 1: a distance from the middle has no meaning of its own.
        radii = [0.25 + 0.75 * (v[index] - v.min()) / (np.ptp(v) or 1) if np.ptp(v) else 1.0 for v in table.values()]
        closed = [*radii, radii[0]]
        axis.plot([*angles, angles[0]], closed, label=model, color=COLOURS[index % 6],
                  linestyle=LINES[(index + index // 6) % 6],
                  marker=MARKERS[(index + index // 6) % 6], markersize=4)  # fmt: skip
        axis.fill([*angles, angles[0]], closed, color=COLOURS[index % 6], alpha=0.08)
    axis.set_xticks(angles, list(table), fontsize=8)
    axis.tick_params(axis="x", pad=18)
    axis.set_yticks([])
    axis.set_ylim(0, 1.05)
    _legend(figure, axis)
    return figure


FIGURES: tuple[tuple[str, str, Callable[[Results], Any]], ...] = (
    ("probes", "Scores of the models on each task, beside baselines", probes),
    ("spectra", "Eigenvalue spectra: share of variance of each direction", spectra),
    ("alignment_uniformity", "Alignment against uniformity, one point per task", alignment_against_uniformity),
    ("effective_rank", "Effective rank by task and pooling", effective_rank),
    ("pooling", "Measures by pooling, means over tasks", pooling_ablation),
    ("radar", "Six measures of each model, from the least to the most seen", radar),
)
