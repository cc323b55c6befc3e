"""Sections of a report about scores: probes, fine-tuning, sentence similarity."""

from collections.abc import Sequence

import numpy as np

from .document import Block, Heading, Paragraph, Table
from .published import PUBLISHED, published
from .report_cells import bold, spread, with_interval
from .results import BASELINES, BEST_ON_EVAL, DEVELOPMENT, Results, ways_of
from .tasks import TASKS, mean_metric

SCORES = (
    ("probe", "Probes of the frozen encoder"),
    ("finetune", "Fine-tuning"),
    ("probe" + DEVELOPMENT, "Probes on held-out training rows"),
    ("finetune" + DEVELOPMENT, "Fine-tuning on held-out training rows"),
)
"""Kinds of scores and their headings."""


def scores_of(results: Results, kind: str, model: str, task: str, metric: str, how: tuple) -> np.ndarray:
    """Returns a metric of each checkpoint, or of each head of a single one, `(num,)`; `how` is as of [`ways_of`]."""
    pooling, head, variant = how
    wanted = {"kind": kind, "model": model, "task": task, "metric": metric}
    return results.sample(**wanted, pooling=pooling, head=head, variant=variant)


def have_several(results: Results, names: Sequence[str]) -> list[bool]:
    """Returns of each model whether it has more than one checkpoint."""
    return [sum(model["name"] == name for model in results.models) > 1 for name in names]


def unit_of(results: Results) -> str:
    """Says what the standard deviations of a table are over."""
    several = have_several(results, results.model_names)
    if all(several):
        return "checkpoints"
    return "checkpoints, or over seeds of the head for a single one," if any(several) else "seeds of the head"


FOR_CHOICES = (
    "Scored on rows held out of the training splits: for choices between models. Rows of one source may lie on both "
    "sides, so these scores compare with no others."
)


def score_blocks(results: Results, kind: str, title: str, with_published: bool) -> list[Block]:
    """Returns the section of one of the kinds of [`SCORES`]; nothing where there are none.

    Each row has the mean over its tasks, by the metrics of [`mean_metric`].
    """
    tasks = [task for task in dict.fromkeys(record.task for record in results.select(kind=kind)) if task in TASKS]
    if not tasks:
        return []
    probes, development = kind.startswith("probe"), kind.endswith(DEVELOPMENT)
    several = have_several(results, results.model_names)
    labels = [
        f"{name} (one checkpoint)" if any(several) and not own else name
        for name, own in zip(results.model_names, several, strict=True)
    ]
    rows, means = [], []
    for name in BASELINES:
        if probes and results.select(kind=kind, model=name):
            found = [results.values(kind=kind, model=name, task=task, metric=TASKS[task].metric) for task in tasks]
            rows.append([BASELINES[name], "-", *(spread(values) for values in found)])
            whole = [results.values(kind=kind, model=name, task=task, metric=mean_metric(task)) for task in tasks]
            means.append([*map(_mean, found), _mean_of_all(whole)])
    for how in ways_of(results, kind):
        for name, label in zip(results.model_names, labels, strict=True):
            found = [scores_of(results, kind, name, task, TASKS[task].metric, how) for task in tasks]
            if any(len(values) for values in found):
                rows.append([label, " ".join(map(str, filter(None, how))) or "-", *map(with_interval, found)])
                whole = [scores_of(results, kind, name, task, mean_metric(task), how) for task in tasks]
                means.append([*map(_mean, found), _mean_of_all(whole)])
    header = ["model", "how", *(f"{task} ({TASKS[task].metric})" for task in tasks)]
    if len(tasks) > 1:
        others = [f"{task} by {mean_metric(task)}" for task in tasks if mean_metric(task) != TASKS[task].metric]
        header.append(f"mean ({', '.join(others)})" if others else "mean")
        for row, mean in zip(rows, means, strict=True):
            row.append("-" if mean[-1] is None else f"{mean[-1]:.4f}")
    for column in range(len(header) - 2):
        cells = bold([row[2 + column] for row in rows], [mean[column] for mean in means], 1)
        for row, cell in zip(rows, cells, strict=True):
            row[2 + column] = cell
    text = (
        f"Mean ± standard deviation over {unit_of(results)} [95 % interval]; best in bold. "
        + ("Heads are trained on frozen vectors and scored after the last epoch. " if probes else "")
        + (FOR_CHOICES if development else "Scored on the evaluation splits; no epoch is chosen on them.")
    )
    blocks: list[Block] = [Heading(title), Paragraph(text), Table(header, rows)]
    notes = [f"**{task}**: {results.notes[f'{kind}|{task}']}." for task in tasks if f"{kind}|{task}" in results.notes]
    if notes:
        blocks.append(Paragraph(" ".join(notes)))
    blocks += _all_metrics(results, kind, tasks)
    if kind == "probe" and with_published:
        blocks += _published_scores(results, tasks)
    return blocks


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None


def _mean_of_all(values: Sequence[np.ndarray]) -> float | None:
    """Returns the mean over tasks, if they are all there."""
    found = [mean for mean in map(_mean, values) if mean is not None]
    return float(np.mean(found)) if len(found) == len(values) else None


def _all_metrics(results: Results, kind: str, tasks: Sequence[str]) -> list[Block]:
    """Shows every metric of the tasks that have more than one."""
    names = [name for name in BASELINES if results.select(kind=kind, model=name)] + results.model_names
    rows = []
    for how in ways_of(results, kind):
        for task in tasks:
            metrics = dict.fromkeys(record.metric for record in results.select(kind=kind, task=task, variant=None))
            for metric in metrics:
                found = [
                    scores_of(results, kind, name, task, metric, (None, None, None) if name in BASELINES else how)
                    for name in names
                ]
                rows.append([task, " ".join(map(str, filter(None, how))) or "-", metric, *map(spread, found)])
    header = ["task", "how", "metric", *(BASELINES.get(name, name) for name in names)]
    return [Heading("All metrics", 3), Table(header, rows)]


def _published_scores(results: Results, tasks: Sequence[str]) -> list[Block]:
    rows = []
    for task in tasks:
        entry = published()["linear_probe"].get(task)
        if entry is None:
            continue
        scale = 100 if task != "stsb" else 1
        # What the paper calls F1 of MRPC behaves like the macro F1: predicting the majority has a binary F1 of 0.81.
        names = {"accuracy_matched": "accuracy", "spearman": "spearmanr", "f1": "macro_f1"}
        metric = names.get(entry["metric"], entry["metric"])
        for name in results.model_names:
            shared = {"kind": "probe", "model": name, "task": task, "pooling": "mean", "head": "linear"}
            last = results.sample(metric=metric, variant=None, **shared)
            best = results.sample(metric=metric, variant=BEST_ON_EVAL, **shared)  # Of the headline metric alone.
            rows.append([task, metric, name, spread(last), spread(best)])
        rows += [
            [task, metric, f"paper: {name}", "-", f"{value / scale:.3f}"]
            for name, value in zip(PUBLISHED, entry["value"], strict=True)
        ]
    if not rows:
        return []
    return [
        Heading("Beside the published scores", 3),
        Paragraph(
            "The paper reports the best epoch on the evaluation split, which is selection on the test set; ours is "
            "shown that way here and nowhere else. With other data, steps or sizes than the paper's it is no "
            "replication."
        ),
        Table(["task", "metric", "model", "last epoch", "best epoch on the evaluation split"], rows),
    ]


def similarity_blocks(results: Results) -> list[Block]:
    """Returns the section about sentence similarity; nothing where it was not measured."""
    tasks = list(dict.fromkeys(record.task for record in results.select(kind="sts")))
    if not tasks:
        return []
    ways = list(dict.fromkeys((record.pooling, record.variant) for record in results.select(kind="sts")))
    rows, means = [], []
    for pooling, variant in ways:
        for name in results.model_names:
            found = [
                results.values(kind="sts", model=name, task=task, metric="spearmanr", pooling=pooling, variant=variant)
                for task in tasks
            ]
            rows.append([name, str(pooling), str(variant), *map(spread, found)])
            means.append([values.mean() if len(values) else None for values in found])
    for column in range(len(tasks)):
        cells = bold([row[3 + column] for row in rows], [mean[column] for mean in means], 1)
        for row, cell in zip(rows, cells, strict=True):
            row[3 + column] = cell
    return [
        Heading("Sentence similarity"),
        Paragraph(
            "Spearman's correlation of cosines with human scores, over all pairs at once (SentEval's \"all\"); "
            "nothing is trained. Centring and whitening use the sentences of the same data set, without labels."
        ),
        Table(["model", "pooling", "vectors", *tasks], rows),
    ]
