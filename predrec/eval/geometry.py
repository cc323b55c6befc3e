"""Geometry of a set of vectors: how many directions it uses, how evenly, and how classes lie in it.

Functions of a matrix, `(num_vectors, hidden_size)`, computed in float64. "Published" below is arXiv 2606.05173; where
its formula and its tables differ, an argument chooses, and the default is what the tables show.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ..trainers.geometry import effective_rank, pairwise_cosines, uniformity

Spectrum = Literal["variance", "singular"]
Power = Literal["inside", "outside"]


def singular_values(vectors: Tensor) -> Tensor:
    """Returns the singular values of the centred vectors, largest first, `(min(num_vectors, hidden_size),)`."""
    return torch.linalg.svdvals(vectors.double() - vectors.double().mean(0))


def spectral_entropy(vectors: Tensor, spectrum: Spectrum = "variance") -> Tensor:
    """Entropy of the normalised spectrum, between 0 (one direction) and 1 (all alike).

    Args:
        vectors (`torch.FloatTensor` of shape `(num_vectors, hidden_size)`): At least two rows.
        spectrum (`"variance"` or `"singular"`, defaults to `"variance"`):
            Shares of variance, the squared singular values, over the log of their number, as the published tables
            were made; or shares of singular values, over the log of `hidden_size`, as the published formula says.
    """
    values = singular_values(vectors)
    shares = values.pow(2) if spectrum == "variance" else values
    possible = len(values) if spectrum == "variance" else vectors.shape[1]
    if shares.sum() == 0 or possible < 2:
        return values.new_zeros(())
    shares = shares / shares.sum()
    return -torch.xlogy(shares, shares).sum() / torch.log(torch.tensor(float(possible), dtype=torch.float64))


def stable_rank(vectors: Tensor) -> Tensor:
    """Total variance over that of the first direction: 1 when there is one direction, 0 when all rows are equal."""
    variances = singular_values(vectors).pow(2)
    return variances.sum() / variances[0] if variances[0] > 0 else variances.new_zeros(())


def rank_for_variance(vectors: Tensor, share: float = 0.9) -> int:
    """Returns how many directions hold `share` of the variance; 0 when all rows are equal."""
    variances = singular_values(vectors).pow(2)
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


__all__ = [
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
