"""From results to a report: tables with uncertainty, claims with verdicts, figures."""

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError
from .claims import ClaimResult, evaluate_claims, evaluate_family, in_paper_convention
from .document import Block, Heading, Paragraph, Table
from .figures import all_figures
from .language_report import about_language_models, language_blocks
from .report_cells import bold, interval_cell, p_cell, spread, with_interval
from .results import BASELINES, BEST_ON_EVAL, DEVELOPMENT, Results
from .statistics import bootstrap_interval, compare, corrected, equivalence_p, mcnemar_p, verdict
from .tasks import TASKS, mean_metric

SCORE_MARGIN = 0.01
"""Scores closer than this, one point, are equivalent in practice."""

GEOMETRY = (
    ("uniformity", -1),
    ("alignment", 0),
    ("spectral_entropy", 1),
    ("effective_rank", 1),
    ("stable_rank", 1),
    ("rank_90", 1),
    ("intra_inter_ratio", -1),
    ("semantic_probe", 1),
    ("token_probe", 0),
    ("probe_gap", 1),
)
"""Measures, and which way is better; 0 where neither is."""

CENTRED = (("uniformity", -1), ("mean_cosine", 0), ("alignment", 0), ("intra_inter_ratio", -1))
UNCENTRED = (("mean_cosine", 0), ("effective_rank", 1), ("spectral_entropy", 1), ("stable_rank", 1))

SCORES = (
    ("probe", "Probes of the frozen encoder"),
    ("finetune", "Fine-tuning"),
    ("probe" + DEVELOPMENT, "Probes on held-out training rows"),
    ("finetune" + DEVELOPMENT, "Fine-tuning on held-out training rows"),
)
"""Kinds of scores and their headings."""

PUBLISHED = ("hybrid", "mlm")
"""Order of every published pair."""


@cache
def published() -> dict[str, Any]:
    """Returns the paper's numbers."""
    return json.loads(Path(__file__).with_name("published.json").read_text(encoding="utf-8"))


def build_report(
    results: Results,
    baseline: str | None = None,
    with_published: bool = False,
    pairs: Sequence[tuple[str, str]] | None = None,
) -> list[Block]:
    """Puts the report together.

    Args:
        results (`Results`): Merged, of any commands.
        baseline (`str`, *optional*): Model that the others are compared with; the last one when absent.
        with_published (`bool`, defaults to `False`): Put the paper's numbers beside ours.
        pairs (`list[tuple[str, str]]`, *optional*): Model and baseline of every comparison, in place of `baseline`;
            their claims are one family of tests.

    Raises:
        UserError: If the baseline is not among the models.
    """
    names = results.model_names
    if baseline is not None and baseline not in names:
        raise UserError(f"`baseline` {baseline!r} is not among the models: {', '.join(names)}.")
    baseline = baseline or (names[-1] if len(names) > 1 else None)
    if pairs is None:
        pairs = [(name, baseline) for name in names if name != baseline] if baseline else []
        claims = [evaluate_claims(results, *pair) for pair in pairs]
    else:
        baseline, claims = None, evaluate_family(results, pairs)
    figures = {picture.name: picture for picture in all_figures(results)}
    blocks: list[Block] = [Heading(f"Evaluation of {_listed(names)}", 1), *_about(results, baseline)]
    for (model, other), found in zip(pairs, claims, strict=True):
        blocks += _claims(found, model, other, len(pairs) if baseline is None else 1)
    for kind, title in SCORES:
        blocks += score_blocks(results, kind, title, with_published)
        if results.select(kind=kind):
            for model, other in pairs:
                blocks += _comparison(results, kind, model, other)
            blocks += [figures.pop("probes")] if "probes" in figures else []
    blocks += _geometry(results, with_published)
    blocks += list(figures.values())
    blocks += _similarity(results)
    blocks += language_blocks(results, pairs)
    return blocks + _provenance(results)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:-1]) + f" and {names[-1]}" if len(names) > 1 else "".join(names)


def _about(results: Results, baseline: str | None) -> list[Block]:
    rows = [
        [
            model["name"], str(model["replicate"]), model["folder"], model["model_type"],
            f"{model['num_hidden_layers']} x {model['hidden_size']}", f"{model['num_parameters'] / 1e6:.1f} M",
            model["dtype"], f"`{model['weights']}`",
        ]
        for model in results.models if "folder" in model
    ]  # fmt: skip
    header = ["model", "checkpoint", "folder", "type", "layers x width", "parameters", "computed in", "weights"]
    counts = {name: sum(model["name"] == name for model in results.models) for name in results.model_names}
    few = [name for name, count in counts.items() if count < 6]
    text = f"The others are compared with **{baseline}**. " if baseline else ""
    if few and baseline:
        text += (
            f"{_listed([f'{name}: {counts[name]}' for name in counts])} checkpoints. A claim about a way of training "
            "needs several pre-training seeds: with fewer than 6, a sign-flip test cannot reach p < 0.05 "
            '(its smallest p is 2 / 2^n), and the verdict is "too few seeds" whatever the numbers.'
        )
    blocks: list[Block] = [Table(header, rows)] if rows else []
    blocks += about_language_models(results)
    return [*blocks, Paragraph(text)] if text else blocks


def _claims(found: list[ClaimResult], model: str, baseline: str, num_pairs: int = 1) -> list[Block]:
    if not found:
        return []
    rows = []
    for one in found:
        agree = sum(cell.comparison.effect > 0 for cell in one.cells)
        rows.append(
            [
                f"{one.claim.number}. {model} {one.claim.text}",
                _direction(one),
                f"{one.overall.effect:+.3f}",
                interval_cell(one.overall),
                p_cell(one.p, one.overall),
                f"{agree} of {len(one.cells)}" if one.claim.direction else "-",
                f"**{one.verdict}**",
            ]
        )
    family = f" of all {num_pairs} comparisons" if num_pairs > 1 else ""
    header = ["claim", "observed", "effect", "95 % interval", "corrected p", "cells that agree", "verdict"]
    return [
        Heading(f"The paper's claims: {model} against {baseline}"),
        Paragraph(
            "Differences are between checkpoints, paired in the order given, averaged over tasks, poolings, heads and "
            "draws, and counted in the claimed direction: above 0 agrees with the claim (of claim 5, above 0 is "
            f"better). Paired t, corrected by Holm over the claims{family} that have two pairs at least: with further "
            "comparisons the corrected p grow. Cells are tasks, poolings and measures. A claim of similar scores "
            "holds if a test of equivalence in the same family says so. The tests of equivalence behind "
            '"no difference" and "by less than" are corrected by Holm among themselves.'
        ),
        Table(header, rows),
    ]


def _direction(one: ClaimResult) -> str:
    if one.claim.direction == 0:
        return "-"
    return "yes" if one.overall.effect > 0 else "no"


def _scores(results: Results, kind: str, model: str, task: str, metric: str, how: tuple) -> np.ndarray:
    pooling, head, variant = how
    wanted = {"kind": kind, "model": model, "task": task, "metric": metric}
    return results.sample(**wanted, pooling=pooling, head=head, variant=variant)


def _ways(results: Results, kind: str) -> list[tuple[str | None, str | None, str | None]]:
    """Returns the poolings, heads and kinds of vectors that were scored; `None` for vectors as they are."""
    own = [record for record in results.select(kind=kind) if record.model not in BASELINES]
    return list(dict.fromkeys((r.pooling, r.head, r.variant) for r in own if r.variant != BEST_ON_EVAL))


def _several(results: Results, names: Sequence[str]) -> list[bool]:
    """Returns of each model whether it has more than one checkpoint."""
    return [sum(model["name"] == name for model in results.models) > 1 for name in names]


def _unit(results: Results) -> str:
    several = _several(results, results.model_names)
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
    several = _several(results, results.model_names)
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
    for how in _ways(results, kind):
        for name, label in zip(results.model_names, labels, strict=True):
            found = [_scores(results, kind, name, task, TASKS[task].metric, how) for task in tasks]
            if any(len(values) for values in found):
                rows.append([label, " ".join(map(str, filter(None, how))) or "-", *map(with_interval, found)])
                whole = [_scores(results, kind, name, task, mean_metric(task), how) for task in tasks]
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
        f"Mean ± standard deviation over {_unit(results)} [95 % interval]; best in bold. "
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
    for how in _ways(results, kind):
        for task in tasks:
            metrics = dict.fromkeys(record.metric for record in results.select(kind=kind, task=task, variant=None))
            for metric in metrics:
                found = [
                    _scores(results, kind, name, task, metric, (None, None, None) if name in BASELINES else how)
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


def _comparison(results: Results, kind: str, model: str, baseline: str) -> list[Block]:
    found = []
    for how in _ways(results, kind):
        for task in dict.fromkeys(record.task for record in results.select(kind=kind, model=model)):
            differences = _differences(results, kind, model, baseline, task, how)
            if len(differences):
                found.append((how, task, differences))
    if not found:
        return []
    # A head without randomness, as STS-B's, has no seeds to test over.
    tested = [index for index, (*_, differences) in enumerate(found) if compare(differences).sd > 0]
    different = corrected([compare(found[index][-1]).t_p for index in tested])
    same = corrected([equivalence_p(found[index][-1], SCORE_MARGIN) for index in tested])
    ps = dict(zip(tested, zip(different, same, strict=True), strict=True))
    single = not any(_several(results, (model, baseline)))
    rows = []
    for index, (how, task, differences) in enumerate(found):
        comparison = compare(differences)
        seeds = ["-", "-", "-", "-", "does not vary by seed"]
        if len(differences) < 2:
            seeds = ["-", "-", "-", "-", "too few seeds"]
        elif index in ps:
            seeds = [
                interval_cell(comparison),
                p_cell(ps[index][0], comparison),
                p_cell(comparison.sign_flip_p, comparison),
                p_cell(ps[index][1], comparison),
                verdict(differences, *ps[index], SCORE_MARGIN),
            ]
        if _at_the_floor(results, kind, (model, baseline), task, how):
            seeds[-1] = "both at the majority class"
        own = how if kind.startswith("probe") else ("finetune", "-", None)
        items = _items(results, kind, model, baseline, task, own) if single else ()
        way = " ".join(map(str, filter(None, how))) or "-"
        rows.append([task, way, f"{comparison.effect:+.3f}", *seeds[:-1], *items, seeds[-1]])
    text = (
        f"Paired differences over {'seeds of the head' if single else 'checkpoints'}: paired t, corrected by Holm "
        "over this table; the sign-flip test beside it is not corrected. Differences are called equivalent, or of "
        "less than one point, when two one-sided tests say so (p of equivalence, corrected by Holm likewise)."
    )
    if single:
        text += (
            " Only the heads vary, of one checkpoint each: this says how certain the scores of these checkpoints "
            "are, not whether one way of training is better. Over items: difference in accuracy of the votes of all "
            "heads, with a bootstrap interval and the exact McNemar test."
        )
    header = [
        *("task", "how", "difference", "95 % interval", "corrected p", "sign-flip p", "p of equivalence"),
        *(("items: accuracy", "McNemar p") if single else ()),
        "verdict",
    ]
    return [Heading(f"{model} against {baseline}", 3), Paragraph(text), Table(header, rows)]


def _at_the_floor(results: Results, kind: str, models: Sequence[str], task: str, how: tuple) -> bool:
    """Is every checkpoint of the models within the margin of always answering the more frequent class?"""
    metric = TASKS[task].metric
    floor = results.values(kind=kind, model="majority", task=task, metric=metric)
    scores = [value for model in models for value in _scores(results, kind, model, task, metric, how)]
    return len(floor) > 0 and all(abs(score - floor[0]) < SCORE_MARGIN for score in scores)


def _differences(results: Results, kind: str, model: str, baseline: str, task: str, how: tuple) -> np.ndarray:
    """Pairs checkpoints where either model has several, else seeds of the head."""
    wanted = {"kind": kind, "task": task, "metric": TASKS[task].metric, "pooling": how[0], "head": how[1]}
    pair = [results.select(model=name, variant=how[2], **wanted) for name in (model, baseline)]
    unit = "replicate" if any(len({r.replicate for r in records}) > 1 for records in pair) else "seed"
    values = []
    for records in pair:
        found: dict[int | None, list[float]] = {}
        for record in records:
            found.setdefault(getattr(record, unit), []).append(record.value)
        values.append({key: np.mean(numbers) for key, numbers in found.items()})
    return np.array([values[0][key] - values[1][key] for key in values[0] if key in values[1]])


def _items(results: Results, kind: str, model: str, baseline: str, task: str, how: tuple) -> tuple[str, str]:
    """Compares two models item by item, each by the vote of its heads."""
    labels = results.predictions.get(f"{kind}|labels|{task}")
    if labels is None or TASKS[task].is_regression:
        return "-", "-"
    right = []
    for name in (model, baseline):
        place = [task, str(how[0]), str(how[1]), *([how[2]] if how[2] else [])]
        parts = {key: key.split("|") for key in results.predictions}
        keys = [key for key, part in parts.items() if part[:2] == [kind, name] and part[3:] == place]
        if not keys or any(results.predictions[key].shape[1] != len(labels) for key in keys):
            return "-", "-"
        votes = np.concatenate([results.predictions[key] for key in keys])
        counts = np.stack([(votes == label).sum(0) for label in range(TASKS[task].num_labels)])
        right.append(counts.argmax(0) == labels)
    differences = right[0].astype(float) - right[1].astype(float)
    low, high = bootstrap_interval(differences, num_draws=2000)
    p = mcnemar_p(*right)
    return f"{differences.mean():+.3f} [{low:+.3f}, {high:+.3f}]", "< 0.001" if p < 0.001 else f"{p:.3f}"


def _geometry(results: Results, with_published: bool) -> list[Block]:
    tasks = list(dict.fromkeys(record.task for record in results.select(kind="geometry")))
    if not tasks:
        return []
    poolings = [p for p in dict.fromkeys(record.pooling for record in results.select(kind="geometry")) if p]
    count = max((record.num_eval or 0) for record in results.select(kind="geometry"))
    blocks: list[Block] = [
        Heading("Geometry of the vectors"),
        Paragraph(
            f"Up to {count:,} evaluation examples of each task; pairs are one text. As in the paper, spectral "
            "measures are of centred vectors, the others of raw ones. Lower uniformity means more spread, lower "
            "alignment tighter classes; best in bold where one direction is better. ± is the standard deviation over "
            "checkpoints or, with a single one, over the draws of untrained attention."
        ),
    ]
    for pooling in poolings:
        rows = []
        for task in tasks:
            rows += measure_rows(results, task, pooling, GEOMETRY, with_published)
        header = ["task", "model", *(name.replace("_", " ") for name, _ in GEOMETRY)]
        blocks += [Heading(f"{pooling} pooling", 3), Table(header, rows)]
    if "weighted" in poolings and "mean" in poolings:
        blocks.append(
            Paragraph("Weighted pooling starts as mean pooling: equal rows are to be expected, and not a finding.")
        )
    first = poolings[0]
    for variant, measures in (("centred", CENTRED), ("raw", UNCENTRED)):
        rows = [row for task in tasks for row in measure_rows(results, task, first, measures, False, variant)]
        header = ["task", "model", *(name.replace("_", " ") for name, _ in measures)]
        blocks += [Heading(f"{first} pooling, {variant} vectors", 3), Table(header, rows)]
    return blocks


def measure_rows(
    results: Results,
    task: str,
    pooling: str,
    measures: Sequence[tuple[str, int]],
    with_published: bool,
    variant: str | None = None,
) -> list[list[str]]:
    """Returns a row per model, with the best of each measure marked, and the paper's rows below."""
    names = results.model_names
    wanted = {"kind": "geometry", "task": task, "pooling": pooling}
    chosen = in_paper_convention if variant is None else lambda record: record.variant == variant
    columns = []
    for metric, sign in measures:
        found = [results.sample(chosen, model=name, metric=metric, **wanted) for name in names]
        cells = [spread(values, 1 if metric.endswith(("rank", "90")) else 3) for values in found]
        columns.append(bold(cells, [values.mean() if len(values) else None for values in found], sign))
    rows = [[task, name, *(column[index] for column in columns)] for index, name in enumerate(names)]
    numbers = published()["geometry"].get(task, {}).get(pooling) if with_published else None
    if numbers:
        for index, name in enumerate(PUBLISHED):
            cells = [f"{numbers[metric][index]:g}" if metric in numbers else "-" for metric, _ in measures]
            rows.append([task, f"paper: {name}", *cells])
    return rows


def _similarity(results: Results) -> list[Block]:
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


def _provenance(results: Results) -> list[Block]:
    versions = ", ".join(f"{name} {number}" for name, number in results.versions.items())
    commands = [Paragraph(f"`{command}`") for command in results.commands]
    return [Heading("How it was measured"), *commands, Paragraph(versions)]
