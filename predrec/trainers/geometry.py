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


def effective_rank(vectors: Tensor) -> Tensor:
    """Exponential of the entropy of the normalised singular values of the centred vectors.

    Between 1 and `min(num_vectors - 1, hidden_size)`; 0 when all rows are equal.

    Args:
        vectors (`torch.FloatTensor` of shape `(num_vectors, hidden_size)`): At least two rows.

    Reference:
        Roy and Vetterli, 2007, "The effective rank: a measure of effective dimensionality".
    """
    centred = vectors.double() - vectors.double().mean(0)
    values = torch.linalg.svdvals(centred)
    total = values.sum()
    if total <= 1e-9 * vectors.double().norm():
        return total.new_zeros(())
    shares = values / total
    return torch.exp(-torch.xlogy(shares, shares).sum())
