"""The section of a report about a two-level design: what each factor changes, and each two together."""

from collections.abc import Mapping, Sequence
from typing import Any

from ..eval.document import Block, Heading, Paragraph, Table
from ..eval.report_cells import interval_cell, p_cell
from ..eval.results import Results
from ..eval.tasks import TASKS, mean_metric
from .definition import Experiment
from .effects import CLAIMED, MEASURES, Effect, claimed, effects, factors_of, held_out
from .figures import effects_figure
from .primary import mean_scores


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
