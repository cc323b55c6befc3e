"""Geometry of a set of vectors: how many directions it uses, how evenly, and how classes lie in it.

Functions of a matrix, `(num_vectors, hidden_size)`, computed in float64. "Published" below is arXiv 2606.05173; where
its formula and its tables differ, an argument chooses, and the default is what the tables show.
"""

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ..trainers.geometry import (
    effective_rank,
    effective_rank_of,
    pairwise_cosines,
    singular_values,
    uniformity,
)

Spectrum = Literal["variance", "singular"]
Power = Literal["inside", "outside"]


def spectral_entropy(vectors: Tensor, spectrum: Spectrum = "variance", center: bool = True) -> Tensor:
    """Entropy of the normalised spectrum, between 0 (one direction) and 1 (all alike).

    Args:
        vectors (`torch.FloatTensor` of shape `(num_vectors, hidden_size)`): At least two rows.
        spectrum (`"variance"` or `"singular"`, defaults to `"variance"`):
            Shares of variance, the squared singular values, over the log of their number, as the published tables
            were made; or shares of singular values, over the log of `hidden_size`, as the published formula says.
        center (`bool`, defaults to `True`): Subtract the mean first.
    """
    return spectral_entropy_of(singular_values(vectors, center), vectors.shape[1], spectrum)


def spectral_entropy_of(values: Tensor, hidden_size: int, spectrum: Spectrum = "variance") -> Tensor:
    """Returns the [`spectral_entropy`] of singular values."""
    shares = values.pow(2) if spectrum == "variance" else values
    possible = len(values) if spectrum == "variance" else hidden_size
    if shares.sum() == 0 or possible < 2:
        return values.new_zeros(())
    shares = shares / shares.sum()
    return -torch.xlogy(shares, shares).sum() / torch.log(torch.tensor(float(possible), dtype=torch.float64))


def stable_rank(vectors: Tensor, center: bool = True) -> Tensor:
    """Total variance over that of the first direction: 1 when there is one direction, 0 when all rows are equal."""
    return stable_rank_of(singular_values(vectors, center))


def stable_rank_of(values: Tensor) -> Tensor:
    """Returns the [`stable_rank`] of singular values."""
    variances = values.pow(2)
    return variances.sum() / variances[0] if variances[0] > 0 else variances.new_zeros(())


def rank_for_variance(vectors: Tensor, share: float = 0.9, center: bool = True) -> int:
    """Returns how many directions hold `share` of the variance; 0 when all rows are equal."""
    return rank_for_variance_of(singular_values(vectors, center), share)


def rank_for_variance_of(values: Tensor, share: float = 0.9) -> int:
    """Returns the [`rank_for_variance`] of singular values."""
    variances = values.pow(2)
    if variances.sum() == 0:
        return 0
    reached = variances.cumsum(0) / variances.sum() >= share - 1e-12
    return int(reached.int().argmax()) + 1


def mean_cosine(vectors: Tensor) -> Tensor:
    """Mean cosine over all pairs of different rows: near 1 when every vector points the same way (anisotropy)."""
    return pairwise_cosines(vectors).mean()


def _classes_with_pairs(labels: Tensor) -> list[Tensor]:
    """Returns the rows of every class that has at least two."""
    rows = [torch.nonzero(labels == label)[:, 0] for label in labels.unique()]
    return [members for members in rows if len(members) > 1]


def alignment(vectors: Tensor, labels: Tensor, alpha: float = 2.0, power: Power = "inside") -> Tensor:
    """Mean over classes of how far two vectors of the class lie apart on the unit sphere: lower is tighter.

    Args:
        vectors (`torch.FloatTensor` of shape `(num_vectors, hidden_size)`): Any non-zero rows.
        labels (`torch.LongTensor` of shape `(num_vectors,)`): Class of each row.
        alpha (`float`, defaults to 2.0): Power of the squared distance.
        power (`"inside"` or `"outside"`, defaults to `"inside"`):
            Mean of the powers, as in the published tables, or power of the mean, as in the published formula.

    Raises:
        ValueError: If no class has two members.

    Reference:
        Wang and Isola, 2020, https://arxiv.org/abs/2005.10242
    """
    classes = _classes_with_pairs(labels)
    if not classes:
        raise ValueError("`labels`: no class has two members, so there is no pair to measure.")
    squared = [2 - 2 * pairwise_cosines(vectors[members]) for members in classes]
    if power == "inside":
        return torch.stack([distances.clamp(min=0).pow(alpha).mean() for distances in squared]).mean()
    return torch.stack([distances.mean().clamp(min=0).pow(alpha) for distances in squared]).mean()


def intra_inter_ratio(vectors: Tensor, labels: Tensor) -> Tensor:
    """Mean distance of two unit vectors of one class over that of two classes: below 1 when classes are tight.

    Raises:
        ValueError: If there is only one class, or no class has two members.
    """
    unit = F.normalize(vectors.double(), dim=-1)
    distances = (2 - 2 * unit @ unit.T).clamp(min=0).sqrt()
    same = labels[:, None] == labels[None, :]
    pairs = ~torch.eye(len(labels), dtype=torch.bool)
    if not (same & pairs).any() or same.all():
        raise ValueError("`labels`: the ratio needs two classes, and one of them with two members.")
    inter = distances[~same].mean()
    return distances[same & pairs].mean() / inter.clamp(min=1e-300)


SPECTRAL: dict[str, Callable[[Tensor, int], Tensor | int]] = {
    "spectral_entropy": spectral_entropy_of,
    "spectral_entropy_singular": lambda values, size: spectral_entropy_of(values, size, "singular"),
    "effective_rank": lambda values, size: effective_rank_of(values),
    "stable_rank": lambda values, size: stable_rank_of(values),
    "rank_90": lambda values, size: rank_for_variance_of(values),
}
"""Measures of singular values and hidden size."""

PAIRWISE: dict[str, Callable[[Tensor], Tensor]] = {"uniformity": uniformity, "mean_cosine": mean_cosine}
"""Measures of vectors."""

BY_CLASS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "alignment": alignment,
    "alignment_outside": lambda vectors, labels: alignment(vectors, labels, power="outside"),
    "intra_inter_ratio": intra_inter_ratio,
}
"""Measures of vectors and classes."""

CENTRED_IN_PAPER = frozenset(SPECTRAL)
"""Measures that the paper takes after centring; it takes the others before."""


def measure_geometry(vectors: Tensor, labels: Tensor, center: bool) -> tuple[dict[str, float], Tensor]:
    """Takes every measure of this module.

    Args:
        vectors (`torch.FloatTensor` of shape `(num_vectors, hidden_size)`): At least two rows, finite.
        labels (`torch.LongTensor` of shape `(num_vectors,)`): Class of each row.
        center (`bool`): Subtract the mean first.

    Returns:
        The measures, without those by class where the classes do not allow them (fewer than two classes, or no class
        with two members), and the singular values.

    Raises:
        ValueError: If there are fewer than two rows, or values are not finite.
    """
    if len(vectors) < 2:
        raise ValueError(f"Geometry needs two vectors; there is {len(vectors)}.")
    if not torch.isfinite(vectors).all():
        raise ValueError("The vectors are not finite, so they have no geometry.")
    vectors = vectors.double()
    values = singular_values(vectors, center)
    measured = {name: float(measure(values, vectors.shape[1])) for name, measure in SPECTRAL.items()}
    if center:
        vectors = vectors - vectors.mean(0)
    measured |= {name: float(measure(vectors)) for name, measure in PAIRWISE.items()}
    counts = labels.unique(return_counts=True)[1]
    if len(counts) > 1 and int(counts.max()) > 1:
        measured |= {name: float(measure(vectors, labels)) for name, measure in BY_CLASS.items()}
    return measured, values


__all__ = [
    "measure_geometry",
    "alignment",
    "effective_rank",
    "intra_inter_ratio",
    "mean_cosine",
    "pairwise_cosines",
    "rank_for_variance",
    "singular_values",
    "spectral_entropy",
    "stable_rank",
    "uniformity",
]
