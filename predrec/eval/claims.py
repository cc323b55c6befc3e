"""The claims of arXiv 2606.05173, one row each, tested for any two models.

A claim is about a way of training, so what counts are pre-training seeds: the differences are between checkpoints,
paired in the order they were given, after averaging over heads and draws.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from .geometry import CENTRED_IN_PAPER
from .results import Record, Results
from .statistics import Comparison, compare, corrected, equivalence_p, verdict
from .tasks import TASKS

MARGINS = {"uniformity": 0.05}
DEFAULT_MARGIN = 0.01
"""Differences smaller than this do not matter: one point of a score, of alignment or of spectral entropy."""


@dataclass(frozen=True)
class Claim:
    """One row of the table of claims.

    Args:
        number (`int`), text (`str`): What the model does, against the baseline.
        kind (`str`): Of the records: `geometry` or `probe`.
        metrics (`tuple[str, ...]`): The first decides, the others are shown. `headline` is each task's own.
        direction (`1`, `-1` or `0`): The model has more, less, or about the same.
        poolings (`tuple[str, ...]`): Which count; all when empty.
        tasks (`tuple[str, ...]`): Which count; all when empty.
        against_zero (`bool`): Tested against 0 instead of the baseline.
    """

    number: int
    text: str
    kind: Literal["geometry", "probe"]
    metrics: tuple[str, ...]
    direction: int
    poolings: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    against_zero: bool = False


CLAIMS = (
    Claim(1, "is more uniform (lower uniformity)", "geometry", ("uniformity",), -1),
    Claim(
        2,
        "has a richer max-pooled spectrum",
        "geometry",
        ("spectral_entropy", "effective_rank", "stable_rank"),
        1,
        ("max",),
    ),
    Claim(3, "has a lower token probe", "geometry", ("token_probe",), -1),
    Claim(4, "has a better probe gap", "geometry", ("probe_gap",), 1),
    Claim(5, "has similar linear-probe scores", "probe", ("headline",), 0, ("mean",)),
    Claim(6, "has looser classes (higher alignment)", "geometry", ("alignment",), 1),
    Claim(
        7,
        "has a positive CoLA MCC (against 0)",
        "geometry",
        ("semantic_probe",),
        1,
        ("mean",),
        ("cola",),
        against_zero=True,
    ),
)

WORDS: dict[int, dict[str, str]] = {
    0: {"improves": "contradicted: better", "harms": "contradicted: worse", "equivalent": "holds"},
    1: {"improves": "holds", "harms": "contradicted", "equivalent": "no difference"},
}
"""What a verdict means for a claim of equality (0) or of a direction (1)."""


@dataclass(frozen=True)
class Cell:
    """One comparison: differences of checkpoints in one task, pooling and metric, in the claimed direction."""

    task: str
    pooling: str
    metric: str
    replicates: tuple[int, ...]
    differences: np.ndarray
    comparison: Comparison
    p: float


@dataclass(frozen=True)
class ClaimResult:
    """What the measurements say of a claim.

    Args:
        claim (`Claim`): Which.
        cells (`list[Cell]`): Every task, pooling and metric, with p corrected by Holm within the claim.
        overall (`Comparison`): Of the deciding metric's mean over tasks and poolings.
        p (`float`): Of `overall`, paired t, corrected by Holm over the claims that could be tested; the tests of
            equivalence that decide claims of similarity are in the same family; those of the others are another.
        verdict (`str`): In words.
    """

    claim: Claim
    cells: list[Cell]
    overall: Comparison
    p: float
    verdict: str


def in_paper_convention(record: Record) -> bool:
    """Is the record raw or centred as the paper has it?"""
    if record.kind != "geometry" or record.variant is None:
        return record.variant is None
    return record.variant == ("centred" if record.metric in CENTRED_IN_PAPER else "raw")


def by_replicate(
    results: Results, kind: str, model: str, task: str, metric: str, pooling: str | None = None
) -> dict[int, float]:
    """Returns the value of each checkpoint, averaged over heads' seeds and draws, by its number."""
    wanted = {"kind": kind, "model": model, "task": task, "metric": metric, "pooling": pooling}
    heads = {"head": "linear"} if kind.startswith("probe") else {}
    return results.by_checkpoint(in_paper_convention, **wanted, **heads)


def by_checkpoint(
    results: Results, kind: str, model: str, task: str, metric: str, pooling: str | None = None
) -> np.ndarray:
    """Returns the values of [`by_replicate`], `(num_checkpoints,)`."""
    return np.array(list(by_replicate(results, kind, model, task, metric, pooling).values()))


def evaluate_claims(results: Results, model: str, baseline: str, alpha: float = 0.05) -> list[ClaimResult]:
    """Tests every claim that the results have the numbers for.

    Args:
        results (`Results`): Of probes and geometry.
        model, baseline (`str`): Names of two models.
        alpha (`float`, defaults to 0.05): Level of the tests.
    """
    return evaluate_family(results, [(model, baseline)], alpha)[0]


def evaluate_family(
    results: Results, pairs: Sequence[tuple[str, str]], alpha: float = 0.05
) -> list[list[ClaimResult]]:
    """Tests the claims for several pairs of models as one family: p is corrected by Holm over all claims of all pairs.

    A claim about a model alone counts once, however many pairs the model is in.

    Args:
        results (`Results`): Of probes and geometry.
        pairs (`list[tuple[str, str]]`): Model and baseline.
        alpha (`float`, defaults to 0.05): Level of the tests.

    Returns:
        One list per pair.
    """
    flat = [(index, *one) for index, pair in enumerate(pairs) for one in _testable(results, *pair)]
    different = np.array([compare(overall).t_p for *_, overall, _ in flat])
    same = np.array([equivalence_p(overall, margin) for *_, overall, margin in flat])
    # A claim against zero is about the model alone: with another baseline it is the same test again.
    first: dict[tuple, int] = {}
    keys = [(claim.number, pairs[index][0] if claim.against_zero else index) for index, claim, *_ in flat]
    own = np.array([first.setdefault(key, place) for place, key in enumerate(keys)], dtype=int)
    tested = np.array([len(overall) > 1 for *_, overall, _ in flat], dtype=bool)  # A single pair is no test.
    tested &= own == np.arange(len(flat))
    # It decides claims of equality, in one family with the differences; what it says of the others is a second family.
    decides = tested & np.array([claim.direction == 0 for _, claim, *_ in flat], dtype=bool)
    others = tested & ~decides
    family = corrected([*different[tested], *same[decides]])
    different[tested], same[decides] = family[: tested.sum()], family[tested.sum() :]
    same[others] = corrected(same[others])
    found: list[list[ClaimResult]] = [[] for _ in pairs]
    for (index, claim, cells, overall, margin), p, p_same in zip(flat, different[own], same[own], strict=True):
        words = _in_words(claim, overall, p, p_same, margin, alpha)
        found[index].append(ClaimResult(claim, cells, compare(overall), float(p), words))
    return found


def _testable(results: Results, model: str, baseline: str) -> list[tuple[Claim, list[Cell], np.ndarray, float]]:
    """Returns the claims with numbers: their cells, mean difference of each checkpoint, and margin."""
    found = []
    for claim in CLAIMS:
        cells = _cells(results, claim, model, baseline)
        if cells:
            deciding = [cell for cell in cells if cell.metric == _deciding(claim, cell.task)]
            common = sorted(set.intersection(*(set(cell.replicates) for cell in deciding)))
            if common:
                at = [[cell.replicates.index(one) for one in common] for cell in deciding]
                overall = np.mean([cell.differences[where] for cell, where in zip(deciding, at, strict=True)], axis=0)
                found.append((claim, cells, overall, MARGINS.get(deciding[0].metric, DEFAULT_MARGIN)))
    return found


def claim_means(results: Results, claim: Claim, model: str) -> dict[int, float]:
    """Returns what decides a claim, of each checkpoint by its number: the mean over tasks and poolings.

    Checkpoints that lack a task or a pooling are left out.
    """
    found = [
        by_replicate(results, claim.kind, model, task, metric, pooling)
        for task, pooling, metric in _places(results, claim, model)
        if metric == _deciding(claim, task)
    ]
    common = sorted(set.intersection(*map(set, found))) if found else []
    return {one: float(np.mean([values[one] for values in found])) for one in common}


def _places(results: Results, claim: Claim, model: str) -> list[tuple[str, str, str]]:
    """Returns the tasks, poolings and metrics that count for a claim, as far as they were measured."""
    own = [record for record in results.select(kind=claim.kind, model=model) if record.task in TASKS]
    # At its uniform start weighted pooling is the mean: it would count twice. No encoder makes embeddings.
    poolings = [p for p in dict.fromkeys(r.pooling for r in own) if p not in (None, "weighted", "embeddings")]
    return [
        (task, pooling, TASKS[task].metric if name == "headline" else name)
        for task in dict.fromkeys(record.task for record in own)
        for pooling in poolings
        if (not claim.tasks or task in claim.tasks) and (not claim.poolings or pooling in claim.poolings)
        for name in claim.metrics
    ]


def _deciding(claim: Claim, task: str) -> str:
    return TASKS[task].metric if claim.metrics[0] == "headline" else claim.metrics[0]


def _cells(results: Results, claim: Claim, model: str, baseline: str) -> list[Cell]:
    found: list[tuple[str, str, str, tuple[int, ...], np.ndarray]] = []
    for task, pooling, metric in _places(results, claim, model):
        values = by_replicate(results, claim.kind, model, task, metric, pooling)
        other = by_replicate(results, claim.kind, baseline, task, metric, pooling)
        if claim.against_zero:
            other = dict.fromkeys(values, 0.0)
        common = tuple(one for one in values if one in other)
        if common:
            differences = np.array([values[one] - other[one] for one in common]) * (claim.direction or 1)
            found.append((task, pooling, metric, common, differences))
    ps = corrected([compare(differences).t_p for *_, differences in found])
    return [Cell(*one, compare(one[-1]), p) for one, p in zip(found, ps, strict=True)]


def _in_words(claim: Claim, differences: Sequence[float], p: float, p_same: float, margin: float, alpha: float) -> str:
    found, *small = verdict(differences, p, p_same, margin, alpha).split(", ")
    if claim.direction == 0 and small:
        # What is claimed is that a difference does not matter: one that is sure and small does not refute it.
        found, small = "equivalent", []
    return ", ".join([WORDS[abs(claim.direction)].get(found, found), *small])
