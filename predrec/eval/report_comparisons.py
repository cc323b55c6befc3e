"""Sections of a report that compare two models: the paper's claims, and scores with verdicts."""

from collections.abc import Sequence

import numpy as np

from .claims import ClaimResult
from .document import Block, Heading, Paragraph, Table
from .report_cells import interval_cell, p_cell
from .report_scores import have_several, scores_of
from .results import Results, ways_of
from .statistics import bootstrap_interval, compare, corrected, equivalence_p, mcnemar_p, verdict
from .tasks import TASKS

SCORE_MARGIN = 0.01
"""Scores closer than this, one point, are equivalent in practice."""


def claim_blocks(found: list[ClaimResult], model: str, baseline: str, num_pairs: int = 1) -> list[Block]:
    """Returns the section about the paper's claims; nothing where none could be tested."""
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
            "draws, and counted in the claimed direction: above 0 agrees with the claim. Claim 5 is about each task's "
            "own metric (MRPC: F1), and above 0 is better there. Paired t, corrected by Holm over the claims"
            f"{family} that have two pairs at least: with further comparisons the corrected p grow. Cells are tasks, "
            "poolings and measures. A claim of similar scores holds if a test of equivalence in the same family says "
            'so. The tests of equivalence behind "no difference" and "by less than" are corrected by Holm among '
            "themselves."
        ),
        Table(header, rows),
    ]


def _direction(one: ClaimResult) -> str:
    if one.claim.direction == 0:
        return "-"
    return "yes" if one.overall.effect > 0 else "no"


def comparison_blocks(results: Results, kind: str, model: str, baseline: str) -> list[Block]:
    """Returns the table of paired differences in one kind of scores; nothing without pairs."""
    found = []
    for how in ways_of(results, kind):
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
    single = not any(have_several(results, (model, baseline)))
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
    scores = [value for model in models for value in scores_of(results, kind, model, task, metric, how)]
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
