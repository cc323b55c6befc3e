"""Measures of how a set of vectors fills its space, as pure functions on tensors."""

import torch
import torch.nn.functional as F
from torch import Tensor


def uniformity(vectors: Tensor, t: float = 2.0) -> Tensor:
    """Log of the mean of `exp(-t ||u - v||^2)` over all pairs of different rows, on the unit sphere.

    0 when all vectors point the same way; about `-2 t` (here -4) when they are spread evenly in many dimensions.

    Args:
        vectors (`torch.FloatTensor` of shape `(num_vectors, hidden_size)`): Any non-zero rows.
        t (`float`, defaults to 2.0): Sharpness.

    Reference:
        Wang and Isola, 2020, https://arxiv.org/abs/2005.10242
    """
    cosines = pairwise_cosines(vectors)
    return torch.logsumexp(-2 * t * (1 - cosines), dim=0) - cosines.new_tensor(len(cosines)).log()


def pairwise_cosines(vectors: Tensor) -> Tensor:
    """Returns the cosine of every pair of different rows, `(num_vectors * (num_vectors - 1) / 2,)`, in float64."""
    unit = F.normalize(vectors.double(), dim=-1)
    rows, columns = torch.triu_indices(len(unit), len(unit), offset=1, device=unit.device)
    return (unit @ unit.T)[rows, columns]


def effective_rank(vectors: Tensor, center: bool = True) -> Tensor:
    """Exponential of the entropy of the normalised singular values of the vectors.

    Between 1 and `min(num_vectors - 1, hidden_size)` when centred; 0 when nothing is left.

    Args:
        vectors (`torch.FloatTensor` of shape `(num_vectors, hidden_size)`): At least two rows.
        center (`bool`, defaults to `True`): Subtract the mean first.

    Reference:
        Roy and Vetterli, 2007, "The effective rank: a measure of effective dimensionality".
    """
    return effective_rank_of(singular_values(vectors, center))


def effective_rank_of(values: Tensor) -> Tensor:
    """Returns the [`effective_rank`] of singular values."""
    total = values.sum()
    if total == 0:
        return total.new_zeros(())
    shares = values / total
    return torch.exp(-torch.xlogy(shares, shares).sum())


def singular_values(vectors: Tensor, center: bool = True) -> Tensor:
    """Returns the singular values, largest first, `(min(num_vectors, hidden_size),)`, in float64.

    All are 0 when centring leaves nothing but rounding.
    """
    vectors = vectors.double()
    values = torch.linalg.svdvals(vectors - vectors.mean(0) if center else vectors)
    return values if values.sum() > 1e-9 * vectors.norm() else torch.zeros_like(values)
