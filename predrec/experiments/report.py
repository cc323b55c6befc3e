"""The report of an experiment: the declared comparison, time, training, then what `report` shows of any results."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..eval.document import Block, Heading, Paragraph, Table, write_document
from ..eval.report import build_report
from ..eval.report_cells import interval_cell, p_cell, spread
from ..eval.results import Results, write_results
from ..eval.tasks import TASKS, mean_metric
from .definition import Experiment, Primary, Run
from .effects import CLAIMED, MEASURES, Effect, claimed, effects, factors_of, held_out
from .figures import effects_figure, training_figure
from .floors import FloorResult, compare_floors
from .primary import MIN_PAIRS, PrimaryResult, compare_primary, mean_scores
from .run_files import merge_runs
from .times import time_blocks, unequal_times

LOSSES = (
    ("masked-LM loss", "eval_mlm_loss"),
    ("JEPA loss", "eval_jepa_loss"),
    ("mean target", "eval_trivial_loss_mean"),
    ("another position", "eval_trivial_loss_position"),
    ("another text", "eval_trivial_loss_text"),
    ("margin", "eval_jepa_margin"),
    ("lambda", "eval_loss_lambda"),
    ("uniformity, held-out rows", "eval_uniformity"),
    ("effective rank, held-out rows", "eval_effective_rank"),
)
"""What training ended with; the three in the middle are the JEPA losses of predictors that know nothing."""


def write_report(path: Path, experiment: Experiment, finished: Mapping[Run, dict[str, Any]]) -> list[Path]:
    """Writes `report.md`, `report.html`, `results.json` and `figures/` beside the experiment; returns their paths.

    Args:
        path (`Path`): Of the experiment's file.
        experiment (`Experiment`): What it says.
        finished (`dict`): Contents of the files of finished runs.
    """
    by_arm = {
        arm: [content for run, content in sorted(finished.items(), key=lambda item: item[0].seed) if run.arm == arm]
        for arm in experiment.arms
    }
    by_arm = {arm: contents for arm, contents in by_arm.items() if contents}
    results = merge_runs([content for contents in by_arm.values() for content in contents])
    results.commands = [f"predrec reproduce {'/'.join(path.parts[-3:])} --data DATA --glue GLUE"]
    blocks = build_blocks(experiment, by_arm, results, path.parent)
    markdown, page = write_document(path.parent, experiment.title, blocks)
    return [markdown, page, write_results(path.parent, results)]


def build_blocks(
    experiment: Experiment, by_arm: Mapping[str, Sequence[dict[str, Any]]], results: Results, folder: Path
) -> list[Block]:
    """Puts the report together; results that the experiment names are looked for from `folder`."""
    blocks: list[Block] = [Heading(experiment.title, 1), *arms_table(experiment, by_arm)]
    if experiment.primary is not None:
        found = compare_primary(results, experiment.primary)
        blocks += primary_blocks(experiment.primary, found)
        blocks += unequal_times(experiment, by_arm)
        if found.comparison is not None:
            blocks += floor_blocks(experiment.primary, found, results, folder)
    if any(arm.levels for arm in experiment.arms.values()):
        blocks += effect_blocks(experiment, by_arm, results)
    blocks += time_blocks(experiment.arms, by_arm)
    blocks += training_blocks(by_arm)
    if results.records:
        pairs = [pair for pair in experiment.pairs if set(pair) <= set(by_arm)]
        blocks += [Heading("Encoders"), *build_report(results, with_published=True, pairs=pairs)[1:]]
    return blocks


def arms_table(experiment: Experiment, by_arm: Mapping[str, Sequence[dict[str, Any]]]) -> list[Block]:
    """Says what was run, and how much of it is there."""
    planned = {arm: sum(run.arm == arm for run in experiment.order) for arm in experiment.arms}
    rows = [
        [arm.name, f"{len(by_arm.get(arm.name, []))} of {planned[arm.name]}", arm.why]
        for arm in experiment.arms.values()
        if planned[arm.name]
    ]
    return [Table(["arm", "seeds", "what it is"], rows)]


def primary_blocks(primary: Primary, found: PrimaryResult) -> list[Block]:
    """Shows the declared comparison: seeds, effect, interval, p, verdict."""
    scores = ", ".join(f"{task} ({metric})" for task, metric in primary.scores.items())
    level = "" if primary.level == Primary.level else f" at a level of {primary.level:g}"
    blocks: list[Block] = [
        Heading("The declared comparison"),
        Paragraph(
            f"{primary.question} Declared before the runs: {primary.model} against {primary.baseline}, mean over "
            f"{scores} of linear probes on mean-pooled vectors, paired by seed, {primary.seeds} seeds, two-sided "
            f"paired t-test{level}. Below {MIN_PAIRS} pairs there is no verdict; every other test on this page is "
            "secondary."
        ),
    ]
    seeds = sorted(set(found.model) & set(found.baseline))
    if seeds:
        rows = [
            [str(seed), *(f"{one:.4f}" for one in (found.model[seed], found.baseline[seed])),
             f"{found.model[seed] - found.baseline[seed]:+.4f}", "" if primary.counts(seed) else "not counted"]
            for seed in seeds
        ]  # fmt: skip
        blocks.append(Table(["seed", primary.model, primary.baseline, "difference", ""], rows))
    comparison = found.comparison
    row = ["0", "-", "-", "-", "-", f"**{found.verdict}**"]
    if comparison is not None:
        row = [
            str(comparison.num_seeds),
            f"{comparison.effect:+.4f}",
            interval_cell(comparison, 4),
            *(_p(p) if comparison.num_seeds > 1 else "-" for p in (comparison.t_p, comparison.sign_flip_p)),
            f"**{found.verdict}**",
        ]
    header = [
        "pairs",
        "mean difference",
        f"{100 - 100 * primary.level:g} % interval",
        "p (paired t)",
        "p (sign flips)",
        "verdict",
    ]
    return [*blocks, Table(header, [row]), *_parts_table(primary, found)]


def _parts_table(primary: Primary, found: PrimaryResult) -> list[Block]:
    """Shows what each task has to do with the mean."""
    rows = [
        [
            task,
            f"{part.model:.4f}",
            f"{part.baseline:.4f}",
            f"{part.comparison.effect:+.4f}",
            interval_cell(part.comparison, 4),
            "-" if part.without is None else f"{part.without:+.4f}",
        ]
        for task, part in found.parts.items()
    ]
    interval = f"{100 - 100 * primary.level:g} % interval"
    header = ["score", primary.model, primary.baseline, "difference", interval, "mean difference without this task"]
    if not rows:
        return []
    return [Heading("Contribution of each task", 3), Paragraph("Not tested."), Table(header, rows)]


def floor_blocks(primary: Primary, found: PrimaryResult, results: Results, folder: Path) -> list[Block]:
    """Shows what the better of the two arms has to be above, and says what it is not above."""
    pairs = [seed for seed in found.model if seed in found.baseline and primary.counts(seed)]
    ahead = found.comparison is not None and found.comparison.effect > 0
    winner, name = (found.model, primary.model) if ahead else (found.baseline, primary.baseline)
    floors = compare_floors(results, primary, {seed: winner[seed] for seed in pairs}, folder)
    if not floors:
        return []
    not_beaten = [floor.name for floor in floors if not floor.comparison.low > 0]
    words = f"**{name}**, the better of the two, is ahead of all of them."
    if not_beaten:
        words = (
            f"**{name}, the better of the two, is not surely ahead of: {'; '.join(not_beaten)}.** The verdict is one "
            "between encoders that training has not made better than that."
        )
    header = ["what", "seeds", "the declared score", f"{name} minus it", "95 % interval", "seeds in common"]
    return [
        Heading("Beside what knows nothing, or only words", 3),
        Paragraph(f"The same mean of the same probes; not tested, and intervals not corrected. {words}"),
        Table(header, [_floor_row(floor) for floor in floors]),
    ]


def _floor_row(floor: FloorResult) -> list[str]:
    comparison = floor.comparison
    seeds = str(floor.num_seeds) if floor.num_seeds else "-"
    return [
        *(floor.name, seeds, f"{floor.score:.4f}", f"{comparison.effect:+.4f}"),
        *(interval_cell(comparison, 4), str(comparison.num_seeds)),
    ]


def effect_blocks(
    experiment: Experiment, by_arm: Mapping[str, Sequence[dict[str, Any]]], results: Results
) -> list[Block]:
    """Shows what each factor of a two-level design changes, and each two together."""
    found: list[Effect] = []
    for measure, name in MEASURES:
        found += effects(experiment.arms, held_out(by_arm, name), measure)
    for measure, number in CLAIMED:
        found += effects(experiment.arms, claimed(results, by_arm, number), measure)
    wanted = {task: mean_metric(task) for task in experiment.probe.get("tasks", []) if task in TASKS}
    if wanted:
        scores = {arm: mean_scores(results, arm, wanted) for arm in by_arm}
        found += effects(experiment.arms, scores, f"mean probe score ({', '.join(wanted)})")
    levels = {factor: " to ".join(both) for factor, both in factors_of(experiment.arms).items()}
    rows = [
        [
            effect.measure,
            " x ".join(effect.factors)
            if len(effect.factors) > 1
            else f"{effect.factors[0]}: {levels[effect.factors[0]]}",
            f"{effect.comparison.effect:+.3f}",
            interval_cell(effect.comparison),
            p_cell(effect.p, effect.comparison),
            p_cell(effect.comparison.sign_flip_p, effect.comparison),
            str(effect.comparison.num_seeds),
            str(len(effect.arms)),
            effect.verdict,
        ]
        for effect in found
    ]
    figure = effects_figure(found)
    planned = [name for name, arm in experiment.arms.items() if arm.levels]
    missing = [name for name in planned if name not in by_arm]
    still = f" Without runs so far, and so left out with what they would be compared with: {', '.join(missing)}."
    return [
        Heading("Effects of the factors"),
        Paragraph(
            "What a factor changes from its first level to its second, averaged over the arms that differ in nothing "
            "else; of two factors, by how much one changes more at the other's second level, halved. Over seeds: "
            "paired t, corrected by Holm over the effects on one measure, not over all measures; the sign-flip test "
            f"beside it is not corrected. Fewer than 6 seeds are too few for a verdict.{still if missing else ''} "
            "Geometry of held-out rows is that of the few rows that training looks at; that of task vectors is what "
            "the paper's claims are about, mean over tasks and poolings."
        ),
        Table(
            [
                *("measure", "factor", "effect", "95 % interval", "corrected p", "sign-flip p"),
                *("seeds", "arms", "verdict"),
            ],
            rows,
        ),
        *([figure] if figure is not None else []),
    ]


def training_blocks(by_arm: Mapping[str, Sequence[dict[str, Any]]]) -> list[Block]:
    """Shows curves, and losses at the end of training beside those of predictors that know nothing."""
    shown = [(title, name) for title, name in LOSSES if any(name in c["last"] for cs in by_arm.values() for c in cs)]
    rows = [
        [arm, *(spread(np.array([c["last"][name] for c in contents if name in c["last"]])) for _, name in shown)]
        for arm, contents in by_arm.items()
    ]
    figure = training_figure(by_arm)
    return [
        Heading("Training"),
        Paragraph(
            "On held-out text, after the last update: mean ± standard deviation over seeds. A JEPA loss says "
            "something only beside those of three predictors that know nothing (the mean target, the target at "
            "another position of the text, the target of another text); the margin is by how much it beats the best "
            "of them. JEPA losses are over all held-out rows, the trivial ones and the margin over the monitor's "
            "rows. Between arms with other targets, JEPA losses do not compare. Uniformity and rank are of the "
            "monitor's few rows, whose number bounds the rank: they do not compare with those of the tasks' vectors "
            "below."
        ),
        Table(["arm", *(title for title, _ in shown)], rows),
        *([figure] if figure is not None else []),
    ]


def _p(value: float) -> str:
    return f"{value:.4f}" if value >= 1e-4 else f"{value:.0e}"
