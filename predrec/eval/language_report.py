"""The parts of a report that are about language models: what they answered, and the two views of a record."""

from collections.abc import Sequence

import numpy as np

from .document import Block, Heading, Paragraph, Table
from .report_cells import interval_cell, p_cell, spread
from .results import Results
from .statistics import compare, corrected, equivalence_p, verdict

MARGIN = 0.01
"""Answers that differ by less, one point, do not differ in practice."""

ABOUT = (
    ("checkpoint", "replicate", "{}"),
    ("seed", "seed", "{}"),
    ("updates", "steps", "{:,}"),
    ("training operations", "flops", "{:.3g}"),
    ("training seconds", "train_seconds", "{:,.0f}"),
    ("weights", "weights", "`{}`"),
)
"""Columns of the table of language models: heading, entry, format."""


def about_language_models(results: Results) -> list[Block]:
    """Lists the language models; nothing where there are none."""
    models = [model for model in results.models if "folder" not in model]
    if not models:
        return []
    shown = [column for column in ABOUT if any(column[1] in model for model in models)]
    rows = [
        [model["name"], *(form.format(model[key]) if key in model else "-" for _, key, form in shown)]
        for model in models
    ]
    return [Table(["model", *(title for title, *_ in shown)], rows)]


def language_blocks(results: Results, pairs: Sequence[tuple[str, str]]) -> list[Block]:
    """Shows answers, tested in pairs over seeds, and the geometry of the views; nothing where there are none."""
    return [*_answers(results, pairs), *_views(results)]


def _measured(results: Results, kind: str) -> list[tuple[str, str]]:
    return list(dict.fromkeys((record.task, record.metric) for record in results.select(kind=kind)))


def _table(results: Results, kind: str) -> Table:
    """Lays out one row per task and metric, one column per model: mean and standard deviation over checkpoints."""
    names = [name for name in results.model_names if results.select(kind=kind, model=name)]
    rows = [
        [task, metric, *(spread(results.sample(kind=kind, model=n, task=task, metric=metric), 4) for n in names)]
        for task, metric in _measured(results, kind)
    ]
    return Table(["task", "metric", *names], rows)


def _answers(results: Results, pairs: Sequence[tuple[str, str]]) -> list[Block]:
    if not results.select(kind="answers"):
        return []
    text = "Share of test records for which each verdict holds: mean ± standard deviation over checkpoints."
    blocks: list[Block] = [Heading("Answers"), Paragraph(text), _table(results, "answers")]
    notes = {key.removeprefix("answers|"): note for key, note in results.notes.items() if key.startswith("answers|")}
    if notes:
        blocks.append(Paragraph(" ".join(f"**{task}**: {note}." for task, note in notes.items())))
    for model, baseline in pairs:
        found = []
        for task, metric in _measured(results, "answers"):
            wanted = {"kind": "answers", "task": task, "metric": metric}
            first, second = (results.by_checkpoint(model=name, **wanted) for name in (model, baseline))
            differences = [first[number] - second[number] for number in first if number in second]
            if differences:
                found.append((task, metric, np.array(differences)))
        ps = corrected([compare(differences).t_p for *_, differences in found])
        same = corrected([equivalence_p(differences, MARGIN) for *_, differences in found])
        rows = []
        for (task, metric, differences), p, p_same in zip(found, ps, same, strict=True):
            comparison = compare(differences)
            cells = [f"{comparison.effect:+.4f}", interval_cell(comparison), p_cell(p, comparison)]
            words = verdict(differences, p, p_same, MARGIN)
            rows.append([task, metric, *cells, str(comparison.num_seeds), words])
        if rows:
            header = ["task", "metric", "difference", "95 % interval", "corrected p", "pairs", "verdict"]
            text = (
                "Paired differences over checkpoints: paired t, corrected by Holm over this table; so are the tests "
                "of equivalence within one point."
            )
            blocks += [Heading(f"{model} against {baseline}", 3), Paragraph(text), Table(header, rows)]
    return blocks


def _views(results: Results) -> list[Block]:
    if not results.select(kind="views"):
        return []
    text = (
        "Two views of a record, as the loss between them sees them: the cosine of a record's own views, of those of "
        "different records, how often a view's nearest is its counterpart, and the effective rank. Where views of "
        "different records have a cosine near 1, they have collapsed. Mean ± standard deviation over checkpoints."
    )
    return [Heading("Views"), Paragraph(text), _table(results, "views")]
