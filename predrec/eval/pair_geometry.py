"""How two views of many things lie to each other: the analyses of LLM-JEPA, and what tells alignment from collapse.

Functions of two matrices, `source` (what predicts, Text with its predictor tokens) and `target` (what is predicted,
Code), each `(num_pairs, hidden_size)`, row by row a pair, on the host, computed in float64. `numbers`, from
[`pair_numbers`], say which targets are the same; all differ without. "Published" below is arXiv 2509.14252.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import UserError
from ..trainers.geometry import effective_rank, singular_values

RIDGES = tuple(10.0**power for power in range(-8, 3))
"""Strengths that [`linear_map`] tries, as shares of the mean variance of a source feature."""

FEWEST_TARGETS = 8
"""Different targets that [`linear_map`] needs."""

CHUNK = 512
"""Rows that are compared with all targets at a time."""


def pair_numbers(codes: Sequence[str]) -> Tensor:
    """Returns a number per code, equal where the codes are, `(num_pairs,)`."""
    numbers: dict[str, int] = {}
    return torch.tensor([numbers.setdefault(code, len(numbers)) for code in codes], dtype=torch.long)


def difference_spectrum(source: Tensor, target: Tensor, most: int = 100) -> Tensor:
    """Returns the largest singular values of `source - target`, not centred, `(min(most, num_pairs, hidden_size),)`.

    They grow with the length of the vectors and with the square root of the number of pairs; the published figure is
    the mean of 100 of them.
    """
    _check(source, target)
    return singular_values(source.double() - target.double(), center=False)[:most]


@dataclass(frozen=True)
class LinearMap:
    """How well a linear map from source to target does on pairs that it was not fitted to.

    Args:
        relative_error (`float`):
            `|S X - T| / |T - mean(T)|` (Frobenius): 0 is exact, 1 no better than the mean target; it may be more.
        r2 (`float`): `1 - relative_error²`, the share of variance explained.
        absolute_error (`float`): `|S X - T|`, the published figure; small as well when all targets are alike.
        ridge (`float`): Strength chosen, as a share of the mean variance of a source feature; 0 is least squares.
        fitted, held_out (`int`): Number of pairs.
    """

    relative_error: float
    r2: float
    absolute_error: float
    ridge: float
    fitted: int
    held_out: int


def linear_map(
    source: Tensor, target: Tensor, numbers: Tensor | None = None, held_out: float = 0.25, seed: int = 0
) -> LinearMap | None:
    """Fits `S X + b` to some pairs and measures it on the others.

    With fewer pairs than features, a fit is exact on its own pairs whatever they are, so that its error there says
    nothing. With at least four pairs per feature to fit, it is least squares; with fewer, ridge regression, whose
    strength is chosen on a part of the fitted pairs. Pairs with equal targets stay on one side.

    Args:
        source, target (`torch.FloatTensor` of shape `(num_pairs, hidden_size)`): At least 8 different targets.
        numbers (`torch.LongTensor` of shape `(num_pairs,)`, *optional*): Equal where targets are.
        held_out (`float`, defaults to 0.25): Share of the different targets.
        seed (`int`, defaults to 0): Chooses them.

    Returns:
        `None` if the held-out targets are all alike, so that nothing is left to explain.

    Raises:
        UserError: If there are fewer than 8 different targets.
    """
    numbers = _check(source, target, numbers)
    if len(numbers.unique()) < FEWEST_TARGETS:
        raise UserError(f"A linear map needs {FEWEST_TARGETS} different targets; there are {len(numbers.unique())}.")
    fit, rest = _split(numbers, held_out, seed)
    centred = target[rest].double() - target[rest].double().mean(0)
    if centred.norm() <= 1e-9 * target[rest].double().norm():
        return None
    ridge = 0.0
    if len(fit) < 4 * source.shape[1]:
        inner, outer = _split(numbers[fit], 0.25, seed)
        tried = _errors(source[fit[inner]], target[fit[inner]], source[fit[outer]], target[fit[outer]], RIDGES)
        ridge = RIDGES[int(tried.argmin())]
    error = float(_errors(source[fit], target[fit], source[rest], target[rest], (ridge,))[0])
    relative = error / float(centred.norm())
    return LinearMap(relative, 1 - relative**2, error, ridge, len(fit), len(rest))


def _split(numbers: Tensor, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Returns the rows to fit and those held out; rows of one number stay together."""
    groups = numbers.unique()
    order = groups[torch.randperm(len(groups), generator=torch.Generator().manual_seed(seed))]
    chosen = torch.isin(numbers, order[: max(1, round(share * len(groups)))])
    return torch.nonzero(~chosen)[:, 0], torch.nonzero(chosen)[:, 0]


def _errors(source: Tensor, target: Tensor, new: Tensor, wanted: Tensor, ridges: Sequence[float]) -> Tensor:
    """Fits to one set of pairs, returns the Frobenius norm of the error on another, one per strength."""
    source, target, new, wanted = (values.double() for values in (source, target, new, wanted))
    mean, goal = source.mean(0), target.mean(0)
    left, values, right = torch.linalg.svd(source - mean, full_matrices=False)
    shown, answer = (new - mean) @ right.T, left.T @ (target - goal)
    variance = values.pow(2).sum() / source.shape[1]
    kept = values > values.max() * max(source.shape) * torch.finfo(values.dtype).eps
    weights = [torch.where(kept, values / (values.pow(2) + ridge * variance), 0) for ridge in ridges]
    return torch.stack([(shown * weight @ answer + goal - wanted).norm() for weight in weights])


def retrieval(source: Tensor, target: Tensor, numbers: Tensor | None = None) -> dict[str, float]:
    """Looks for every pair's target by the cosine to its source.

    Equal targets are one, so that a description may find the code of another that has the same. Where several targets
    are equally near, their order counts as drawn by lot: when all are alike, R@1 is one over their number.

    Args:
        source, target (`torch.FloatTensor` of shape `(num_pairs, hidden_size)`): Any non-zero rows.
        numbers (`torch.LongTensor` of shape `(num_pairs,)`, *optional*): Equal where targets are.

    Returns:
        `recall_at_1`, the share of sources whose own target is nearest, and `mrr`, the mean of one over its rank.
    """
    numbers = _check(source, target, numbers)
    groups, own = numbers.unique(return_inverse=True)
    first = torch.full((len(groups),), len(numbers)).scatter_reduce(0, own, torch.arange(len(own)), "amin")
    source, candidates = F.normalize(source.double(), dim=-1), F.normalize(target.double(), dim=-1)[first]
    recall, reciprocal = 0.0, 0.0
    for start in range(0, len(source), CHUNK):
        cosines = source[start : start + CHUNK] @ candidates.T
        mine = cosines.gather(1, own[start : start + CHUNK, None])
        better = (cosines > mine + 1e-12).sum(1)
        ties = ((cosines - mine).abs() <= 1e-12).sum(1) - 1
        recall += ((better == 0) / (1 + ties)).sum().item()
        reciprocal += (1 / (1 + better + ties / 2)).sum().item()
    return {"recall_at_1": recall / len(source), "mrr": reciprocal / len(source)}


def mismatched_cosine(source: Tensor, target: Tensor, numbers: Tensor | None = None) -> float | None:
    """Returns the mean cosine of a source and targets that are not its own; `None` if all targets are equal."""
    numbers = _check(source, target, numbers)
    source, target = F.normalize(source.double(), dim=-1), F.normalize(target.double(), dim=-1)
    total, count = 0.0, 0
    for start in range(0, len(source), CHUNK):
        others = numbers[start : start + CHUNK, None] != numbers[None, :]
        total += (source[start : start + CHUNK] @ target.T)[others].sum().item()
        count += int(others.sum())
    return total / count if count else None


def measure_pairs(
    source: Tensor, target: Tensor, numbers: Tensor | None = None, seed: int = 0
) -> tuple[dict[str, float], Tensor]:
    """Takes every measure of this module.

    Args:
        source, target (`torch.FloatTensor` of shape `(num_pairs, hidden_size)`): At least two rows, finite.
        numbers (`torch.LongTensor` of shape `(num_pairs,)`, *optional*): From [`pair_numbers`].
        seed (`int`, defaults to 0): Of the split of [`linear_map`].

    Returns:
        The measures, and the [`difference_spectrum`]. `source_variance` and `target_variance` are the variance per
        dimension, averaged; ranks are centred. What the pairs do not allow is left out: a linear map with fewer than
        8 different targets or none left to explain, a mismatched cosine when all targets are equal.

    Raises:
        ValueError: If there are fewer than two rows, shapes differ, or values are not finite.
    """
    numbers = _check(source, target, numbers)
    if len(source) < 2 or not (torch.isfinite(source).all() and torch.isfinite(target).all()):
        raise ValueError(f"The geometry of pairs needs two of them ({len(source)} given), and finite numbers.")
    spectrum = difference_spectrum(source, target)
    measured = {
        "difference_singular_mean": spectrum.mean().item(),
        "matched_cosine": F.cosine_similarity(source.double(), target.double(), dim=-1).mean().item(),
        "mismatched_cosine": mismatched_cosine(source, target, numbers),
        "source_effective_rank": effective_rank(source).item(),
        "target_effective_rank": effective_rank(target).item(),
        "source_variance": source.double().var(0).mean().item(),
        "target_variance": target.double().var(0).mean().item(),
        **retrieval(source, target, numbers),
    }
    found = linear_map(source, target, numbers, seed=seed) if len(numbers.unique()) >= FEWEST_TARGETS else None
    if found:
        measured |= {
            "linear_relative_error": found.relative_error,
            "linear_r2": found.r2,
            "linear_absolute_error": found.absolute_error,
        }
    return {name: value for name, value in measured.items() if value is not None}, spectrum


def tsne_points(
    source: Tensor, target: Tensor, perplexity: float = 30.0, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Returns places in the plane for both views, laid out together, two arrays of shape `(num_pairs, 2)`.

    Needs scikit-learn (the extra `eval`). The same seed gives the same picture on the same machine.

    Raises:
        UserError: If there are not more points than the perplexity.

    Reference:
        van der Maaten and Hinton, 2008, "Visualizing data using t-SNE".
    """
    from sklearn.manifold import TSNE

    _check(source, target)
    points = torch.cat([source, target]).float().cpu().numpy()
    if len(points) <= perplexity:
        raise UserError(f"`perplexity` {perplexity} needs more points than that; there are {len(points)}.")
    spread = np.ptp(points, axis=0).max() > 0
    # The default start divides by the spread of the points.
    layout = TSNE(perplexity=perplexity, random_state=seed, init="pca" if spread else "random")
    placed = layout.fit_transform(points)
    return placed[: len(source)], placed[len(source) :]


def _check(source: Tensor, target: Tensor, numbers: Tensor | None = None) -> Tensor:
    """Checks shapes; returns the numbers."""
    if source.dim() != 2 or source.shape != target.shape:
        raise ValueError(
            f"`source` has shape {tuple(source.shape)} and `target` {tuple(target.shape)}; both must be "
            "(num_pairs, hidden_size)."
        )
    numbers = torch.arange(len(source)) if numbers is None else numbers
    if numbers.shape != source.shape[:1]:
        raise ValueError(f"`numbers` has shape {tuple(numbers.shape)}; expected ({len(source)},).")
    return numbers
