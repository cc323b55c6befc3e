"""The section of a report about the declared comparison, what stands beside it, and what its pairs could show."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..eval.document import Block, Heading, Paragraph, Table
from ..eval.power import MAX_PAIRS, POWER, detectable_difference, pairs_needed
from ..eval.report_cells import interval_cell
from ..eval.results import Results
from ..eval.statistics import Comparison
from .definition import Experiment, Primary
from .floors import FloorResult, compare_floors
from .primary import MARGIN, MIN_PAIRS, PrimaryResult, compare_arms, compare_primary
from .times import unequal_times
from .timing import Timing

NEEDED = (MARGIN, 0.02)
"""Differences whose number of seeds is shown: one that matters in practice, and twice that."""


def primary_blocks(
    experiment: Experiment,
    by_arm: Mapping[str, Sequence[dict[str, Any]]],
    results: Results,
    folder: Path,
    timing: Timing | None,
) -> list[Block]:
    """Returns the section; nothing where no comparison was declared."""
    primary = experiment.primary
    if primary is None:
        return []
    found = compare_primary(results, primary)
    blocks = [*declared_blocks(primary, found), *unequal_times(experiment, by_arm, timing)]
    if found.comparison is not None:
        blocks += floor_blocks(primary, found, results, folder)
    return [*blocks, *pair_blocks([*experiment.pairs, *experiment.contrasts], primary, found, results)]


def declared_blocks(primary: Primary, found: PrimaryResult) -> list[Block]:
    """Shows what was declared and came out: seeds, effect, interval, p, verdict."""
    scores = ", ".join(f"{task} ({metric})" for task, metric in primary.scores.items())
    level = "" if primary.level == Primary.level else f" at a level of {primary.level:g}"
    blocks: list[Block] = [
        Heading("The declared comparison"),
        Paragraph(
            f"{primary.question} Declared before the runs: {primary.model} against {primary.baseline}, mean over "
            f"{scores} of linear probes on mean-pooled vectors, paired by seed, {primary.seeds} seeds, two-sided "
            f"paired t-test{level}. Below {MIN_PAIRS} pairs there is no verdict; every other test on this page is "
            "secondary. Every interval is over pre-training seeds, which all are scored on the same examples: what "
            "other examples would give, it does not cover."
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
    words = f"**{name}**, the better of the two, is significantly above all of them."
    if not_beaten:
        words = (
            f"**{name}, the better of the two, is not significantly above: {'; '.join(not_beaten)}.** The verdict is "
            "one between encoders that training has not made better than that."
        )
    header = ["what", "seeds", "the declared score", f"{name} minus it", "95 % interval", "seeds in common"]
    return [
        Heading("Beside reference baselines", 3),
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


def pair_blocks(
    pairs: Sequence[tuple[str, str]], primary: Primary, found: PrimaryResult, results: Results
) -> list[Block]:
    """Shows the declared score of every pair of arms, and how small a difference so many seeds could show."""
    declared = primary.model, primary.baseline
    rows = []
    for model, baseline in dict.fromkeys([declared, *pairs]):
        comparison = found.comparison
        if (model, baseline) != declared:
            comparison = compare_arms(results, model, baseline, primary)
        if comparison is None:
            continue
        several = comparison.num_seeds > 1
        least = detectable_difference(comparison.sd, comparison.num_seeds, primary.level) if several else None
        rows.append(
            [
                f"{model} against {baseline}",
                str(comparison.num_seeds),
                f"{comparison.effect:+.4f}",
                interval_cell(comparison, 4),
                f"{comparison.sd:.4f}" if several else "-",
                f"{least:.4f}" if several else "-",
                *(_needed(comparison, difference, primary.level) for difference in NEEDED),
            ]
        )
    if not rows:
        return []
    header = ["pair", "seeds", "mean difference", f"{100 - 100 * primary.level:g} % interval"]
    header += ["standard deviation", "detectable", *(f"seeds for {difference:g}" for difference in NEEDED)]
    text = (
        "The declared score of every pair of arms; not tested beyond the declared comparison, and intervals not "
        f"corrected. Detectable is the true difference that as many seeds would show in {POWER:.0%} of such "
        f"experiments (two-sided paired t-test at {primary.level:g}), given the standard deviation of these "
        "differences; the last columns say how many seeds would show so small a difference. From few seeds the "
        "standard deviation, and so all of this, is known roughly. Where a difference is not sure, one below what is "
        "detectable may well be there."
    )
    return [Heading("What so many seeds can show", 3), Paragraph(text), Table(header, rows)]


def _needed(comparison: Comparison, difference: float, level: float) -> str:
    """Shows how many seeds it takes to find a difference, a dash where the spread is not known."""
    if comparison.num_seeds < 2:
        return "-"
    count = pairs_needed(comparison.sd, difference, level)
    return f"over {MAX_PAIRS:,}" if count is None else str(count)


def _p(value: float) -> str:
    return f"{value:.4f}" if value >= 1e-4 else f"{value:.0e}"
