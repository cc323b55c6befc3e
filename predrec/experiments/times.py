"""How long the arms of an experiment took, and whether arms that were to take the same time did."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..eval.document import Block, Heading, Paragraph, Table
from .definition import Arm, Experiment
from .history import tokens_of
from .schedule import seconds_of
from .timing import Timing, run_ratios, timing_table

SAME_TIME = 0.05
"""Arms that are meant to take the same time may differ by this share."""


def time_ratios(by_arm: Mapping[str, Sequence[dict[str, Any]]], arm: str, other: str) -> list[float]:
    """Returns how many times as long one arm took as another, within each seed, at median speed.

    Within a seed, since the machine may have been another, or a slower one, when others were made.
    """
    own, others = (
        {c["seed"]: c["seconds_at_median_speed"] for c in by_arm.get(name, []) if tokens_of(c) is not None}
        for name in (arm, other)
    )
    return [own[seed] / took for seed, took in others.items() if seed in own and took > 0]


def unequal_time(arm: str, other: str, ratios: Sequence[float]) -> str | None:
    """Says in how many pairs two arms that were to take the same time did not; `None` where all did."""
    off = sum(abs(ratio - 1) > SAME_TIME for ratio in ratios)
    if not off:
        return None
    return (
        f"**{arm} and {other} did not take the same time** in {off} of {len(ratios)} pairs (at median speed "
        f"{min(ratios):.3f} to {max(ratios):.3f} times as long): read their comparison so."
    )


def unequal_times(
    experiment: Experiment, by_arm: Mapping[str, Sequence[dict[str, Any]]], timing: Timing | None
) -> list[Block]:
    """Says beside the declared comparison where its two arms did not take the same time, though they were to.

    Where they were timed in turn, with nothing beside them, that is said, too.
    """
    primary = experiment.primary
    names = {primary.model, primary.baseline} if primary is not None else set()
    for name in names & by_arm.keys():
        other = experiment.arms[name].same_time_as
        note = unequal_time(name, other, time_ratios(by_arm, name, other)) if other in names and other else None
        if note:
            ratios = run_ratios(timing, experiment.arms, name, other) if timing is not None else []
            return [Paragraph(" ".join([note, *([timed_apart(name, other, ratios)] if ratios else [])]))]
    return []


def timed_apart(arm: str, other: str, ratios: Sequence[float]) -> str:
    """Says how long two arms take where nothing else is done beside them."""
    return (
        f"Timed in turn, with nothing beside them, {arm} takes {np.median(ratios):.3f} times as long as {other} "
        f"({len(ratios)} round{'s' if len(ratios) > 1 else ''}, {min(ratios):.3f} to {max(ratios):.3f})."
    )


def time_blocks(
    arms: Mapping[str, Arm], by_arm: Mapping[str, Sequence[dict[str, Any]]], timing: Timing | None
) -> list[Block]:
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
        ratios = time_ratios(by_arm, arm, other) if other else []
        if ratios:
            match = f"{np.median(ratios):.3f} of {other}"
            if len(ratios) > 1:
                match += f" ({min(ratios):.3f} to {max(ratios):.3f})"
            note = unequal_time(arm, other, ratios)
            timed = run_ratios(timing, arms, arm, other) if timing is not None else []
            notes += [note, *([timed_apart(arm, other, timed)] if timed else [])] if note else []
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
    blocks: list[Block] = [Heading("Time"), Paragraph(" ".join([text, *notes])), Table(header, rows)]
    return blocks if timing is None else [*blocks, *timing_blocks(timing, arms)]


def timing_blocks(timing: Timing, arms: Mapping[str, Arm]) -> list[Block]:
    """Shows what the arms take in turn, with nothing beside them."""
    rounds = len(next(iter(timing.seconds.values())))
    text = (
        f"{timing.updates} updates of each arm in each of {rounds} rounds, in turn, at their median speed, without "
        f"evaluation and saving, on {timing.machine}, {timing.finished} (`{timing.command}`). Medians over rounds "
        "(least to most); of all updates within rounds."
    )
    return [Heading("Timed in turn, with nothing beside them", 3), Paragraph(text), timing_table(timing, arms)]


def _minutes(seconds: Sequence[float]) -> str:
    return f"{np.mean(seconds) / 60:.1f} min" if seconds else "-"
