"""The report of an experiment: the declared comparison, time, training, then what `report` shows of any results."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..eval.document import Block, Heading, Table, write_document
from ..eval.report import build_report
from ..eval.results import Results, write_results
from .definition import Experiment, Run
from .report_effects import effect_blocks
from .report_primary import primary_blocks
from .report_training import training_blocks
from .run_files import merge_runs
from .times import time_blocks
from .timing import read_timing


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
    """Puts the report together; other results, and times, are looked for from `folder`."""
    blocks: list[Block] = [Heading(experiment.title, 1), *arms_table(experiment, by_arm)]
    timing = read_timing(folder, experiment.arms)
    blocks += primary_blocks(experiment, by_arm, results, folder, timing)
    blocks += effect_blocks(experiment, by_arm, results)
    blocks += time_blocks(experiment.arms, by_arm, timing)
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
