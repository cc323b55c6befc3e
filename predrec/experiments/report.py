"""The report of an experiment: the declared comparison, time, training, then what `report` shows of any results."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..eval.document import Block, Heading, Paragraph, Table, write_document
from ..eval.report import build_report
from ..eval.report_cells import interval_cell, p_cell, spread
from ..eval.results import Results, write_results
from ..eval.tasks import TASKS
from .definition import Arm, Experiment, Primary, Run
from .effects import MEASURES, Effect, effects, factors_of, held_out
from .figures import training_figure
from .history import tokens_of
from .primary import MIN_PAIRS, PrimaryResult, compare_primary, mean_scores
from .run_files import merge_runs
from .schedule import seconds_of

SAME_TIME = 0.05
"""Arms that are meant to take the same time may differ by this share."""

LOSSES = (
    ("masked-LM loss", "eval_mlm_loss"),
    ("JEPA loss", "eval_jepa_loss"),
    ("mean target", "eval_trivial_loss_mean"),
    ("another position", "eval_trivial_loss_position"),
    ("another text", "eval_trivial_loss_text"),
    ("margin", "eval_jepa_margin"),
    ("lambda", "eval_loss_lambda"),
    ("uniformity", "eval_uniformity"),
    ("effective rank", "eval_effective_rank"),
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
    blocks = build_blocks(experiment, by_arm, results)
    markdown, page = write_document(path.parent, experiment.title, blocks)
    return [markdown, page, write_results(path.parent, results)]


def build_blocks(
    experiment: Experiment, by_arm: Mapping[str, Sequence[dict[str, Any]]], results: Results
) -> list[Block]:
    """Puts the report together."""
    blocks: list[Block] = [Heading(experiment.title, 1), *arms_table(experiment, by_arm)]
    if experiment.primary is not None:
        blocks += primary_blocks(experiment.primary, compare_primary(results, experiment.primary))
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
    header = ["score", primary.model, primary.baseline, "difference", interval, "mean difference without it"]
    if not rows:
        return []
    return [Heading("What each task has to do with it", 3), Paragraph("Not tested."), Table(header, rows)]


def effect_blocks(
    experiment: Experiment, by_arm: Mapping[str, Sequence[dict[str, Any]]], results: Results
) -> list[Block]:
    """Shows what each factor of a two-level design changes, and each two together."""
    found: list[Effect] = []
    for measure, name in MEASURES:
        found += effects(experiment.arms, held_out(by_arm, name), measure)
    wanted = {task: TASKS[task].metric for task in experiment.probe.get("tasks", [])}
    if wanted:
        scores = {arm: mean_scores(results, arm, wanted) for arm in by_arm}
        found += effects(experiment.arms, scores, "mean probe score")
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
            str(effect.comparison.num_seeds),
        ]
        for effect in found
    ]
    return [
        Heading("Effects of the factors"),
        Paragraph(
            "What a factor changes from its first level to its second, averaged over the arms that differ in nothing "
            "else; of two factors, by how much one changes more at the other's second level, halved. Over seeds: "
            "paired t, corrected by Holm over the effects on one measure."
        ),
        Table(["measure", "factor", "effect", "95 % interval", "corrected p", "seeds"], rows),
    ]


def time_blocks(arms: Mapping[str, Arm], by_arm: Mapping[str, Sequence[dict[str, Any]]]) -> list[Block]:
    """Shows how long each arm took, and whether arms that were to take the same time did."""
    known = {arm: [one for one in contents if tokens_of(one) is not None] for arm, contents in by_arm.items()}
    typical = {
        arm: {content["seed"]: content["seconds_at_median_speed"] for content in contents}
        for arm, contents in known.items()
    }
    rows, notes = [], []
    for arm, contents in by_arm.items():
        training = [content["seconds"]["training"] for content in known[arm]]
        total = [seconds_of(content) for content in known[arm]]
        tokens = [tokens_of(content) / 1e6 for content in known[arm]]
        other = arms[arm].same_time_as
        match = "-"
        # Within a seed: the machine may have been another, or a slower one, when others were made.
        pairs = [(typical[arm][seed], took) for seed, took in typical.get(other, {}).items() if seed in typical[arm]]
        if pairs and all(took > 0 for _, took in pairs):
            ratios = [took / of_other for took, of_other in pairs]
            match = f"{np.median(ratios):.3f} of {other}"
            if len(ratios) > 1:
                match += f" ({min(ratios):.3f} to {max(ratios):.3f})"
            off = sum(abs(ratio - 1) > SAME_TIME for ratio in ratios)
            if off:
                notes.append(
                    f"**{arm} and {other} did not take the same time** in {off} of {len(ratios)} pairs: read their "
                    "comparison so."
                )
        rows.append(
            [
                arm,
                f"{contents[0]['steps']:,}",
                f"{np.mean(tokens):.2f} M" if tokens else "-",
                _minutes(training),
                _minutes(list(typical[arm].values())),
                match,
                _minutes(total),
                ", ".join(dict.fromkeys(content["machine"] for content in contents)),
            ]
        )
    header = ["arm", "updates", "tokens", "training", "at median speed", "time matched", "with evaluation", "machine"]
    text = (
        "Means over seeds. Training is the updates alone; at median speed it is what they would have taken without "
        "what else the machine did. Times are matched within seeds, since machines differ over time: median (least to "
        f"most); within {SAME_TIME:.0%} they count as the same."
    )
    if any(len(known[arm]) < len(contents) for arm, contents in by_arm.items()):
        notes.append("Runs with padded rows whose files do not count their tokens, nor so their time, are left out.")
    return [Heading("Time"), Paragraph(" ".join([text, *notes])), Table(header, rows)]


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
            "rows. Between arms with other targets, JEPA losses do not compare."
        ),
        Table(["arm", *(title for title, _ in shown)], rows),
        *([figure] if figure is not None else []),
    ]


def _p(value: float) -> str:
    return f"{value:.4f}" if value >= 1e-4 else f"{value:.0e}"


def _minutes(seconds: Sequence[float]) -> str:
    return f"{np.mean(seconds) / 60:.1f} min" if seconds else "-"
