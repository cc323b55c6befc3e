"""Sections of a report about what settings change: factors of a two-level design, and differences between arms."""

from collections.abc import Mapping, Sequence
from typing import Any

from ..eval.document import Block, Heading, Paragraph, Table
from ..eval.report_cells import interval_cell, p_cell
from ..eval.results import Results
from .definition import Arm, Experiment
from .effects import Effect, differences, effects, measured, simple_effects
from .figures import effects_figure

TESTED = (
    "Over seeds: paired t, corrected by Holm over {family} one measure, not over all measures; the sign-flip test "
    "beside it is not corrected. Fewer than 6 seeds are too few for a verdict.{missing} Geometry of held-out rows is "
    "that of the few rows that training looks at; that of task vectors is what the paper's claims are about, mean "
    "over tasks and poolings."
)


def effect_blocks(
    experiment: Experiment, by_arm: Mapping[str, Sequence[dict[str, Any]]], results: Results
) -> list[Block]:
    """Shows what each factor changes, and each two together, and how arms differ; nothing where nothing is asked."""
    values = measured(by_arm, results, experiment.probe.get("tasks", []))
    arms = {name: arm for name, arm in experiment.arms.items() if arm.levels}
    blocks: list[Block] = []
    if arms:
        found = [one for measure, by_seed in values.items() for one in effects(arms, by_seed, measure)]
        about = (
            "What a factor changes from its first level to its second, averaged over the arms that differ in nothing "
            "else; of two factors, by how much one changes more at the other's second level, halved. "
        )
        about += TESTED.format(family="the effects on", missing=_missing(arms, by_arm))
        blocks += [Heading("Effects of the factors"), Paragraph(about), _table("factor", found, with_arms=True)]
        figure = effects_figure("effects", "Effects of the factors", found)
        blocks += [figure] if figure is not None else []
        blocks += _simple_blocks(arms, values)
    if experiment.contrasts:
        pairs = experiment.contrasts
        found = [one for measure, by_seed in values.items() for one in differences(pairs, by_seed, measure)]
        about = "The first arm minus the second, within each seed. "
        planned = dict.fromkeys(name for pair in pairs for name in pair)
        about += TESTED.format(family="the differences in", missing=_missing(planned, by_arm))
        blocks += [Heading("Differences between arms"), Paragraph(about), _table("arms", found)]
        figure = effects_figure("differences", "Differences between arms", found)
        blocks += [figure] if figure is not None else []
    return blocks


def _simple_blocks(arms: Mapping[str, Arm], values: Mapping[str, Mapping[str, Mapping[int, float]]]) -> list[Block]:
    """Shows what factors change at each level of another that they depend on."""
    rows = [
        [measure, name, f"{comparison.effect:+.3f}", interval_cell(comparison), str(comparison.num_seeds)]
        for measure, by_seed in values.items()
        for name, comparison in simple_effects(arms, by_seed, measure)
    ]
    if not rows:
        return []
    about = (
        "An effect that depends on another factor is not that of the table above, which averages over both levels. "
        "Here are those of two factors whose interaction there has an interval without zero. Neither these intervals "
        "nor that choice are corrected: they tell how to read the table, and are no tests of their own."
    )
    header = ["measure", "factor", "effect", "95 % interval", "seeds"]
    return [Heading("Where one factor depends on another", level=3), Paragraph(about), Table(header, rows)]


def _missing(planned: Mapping[str, Any], by_arm: Mapping[str, Any]) -> str:
    """Names the arms that have no runs yet."""
    missing = ", ".join(name for name in planned if name not in by_arm)
    return (
        f" Without runs so far, and so left out with what they would be compared with: {missing}." if missing else ""
    )


def _table(what: str, found: Sequence[Effect], with_arms: bool = False) -> Table:
    """Shows effects; with their number of arms, where that is not always two."""
    rows = [
        [
            effect.measure,
            effect.name,
            f"{effect.comparison.effect:+.3f}",
            interval_cell(effect.comparison),
            p_cell(effect.p, effect.comparison),
            p_cell(effect.comparison.sign_flip_p, effect.comparison),
            str(effect.comparison.num_seeds),
            *([str(len(effect.arms))] if with_arms else []),
            effect.verdict,
        ]
        for effect in found
    ]
    header = ["measure", what, "effect", "95 % interval", "corrected p", "sign-flip p", "seeds"]
    return Table([*header, *(["arms"] if with_arms else []), "verdict"], rows)
