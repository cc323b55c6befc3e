"""Semantic textual similarity: does the cosine of two sentences' vectors rank pairs as people do?"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .classical import rank_correlation

RANK_TOLERANCE = 1e-6
"""Directions with less than this share of the largest standard deviation are noise and not whitened."""


def centred(vectors: Tensor) -> Tensor:
    """Subtracts the mean of the rows, `(num_vectors, hidden_size)`."""
    return vectors - vectors.mean(0)


def whitened(vectors: Tensor) -> Tensor:
    """Rotates and scales rows so that every direction they vary in has variance 1.

    Directions without variance are dropped; constant rows become zeros. Rows that vary in as many directions as they
    can, one fewer than there are, become equally far apart: it takes two more different rows than features.

    Args:
        vectors (`torch.FloatTensor` of shape `(num_vectors, hidden_size)`): Any.

    Returns:
        `torch.FloatTensor` of shape `(num_vectors, rank)`, float64.

    Reference:
        Su et al., 2021, https://arxiv.org/abs/2103.15316
    """
    left, values, _ = torch.linalg.svd(centred(vectors.double()), full_matrices=False)
    kept = values > RANK_TOLERANCE * values[0].clamp(min=1e-300)
    if float(values[0]) <= 1e-9 * float(vectors.double().norm()):
        kept = torch.zeros_like(kept)
    return left[:, kept] * len(vectors) ** 0.5


VARIANTS: dict[str, Callable[[Tensor], Tensor]] = {
    "raw": lambda vectors: vectors,
    "centred": centred,
    "whitened": whitened,
}
"""What is done to the vectors of all sentences of a data set, without labels, before the cosine."""


def similarity_scores(
    first: Tensor, second: Tensor, labels: np.ndarray, groups: Sequence[str] = (), variant: str = "raw"
) -> dict[str, float]:
    """Correlates cosines with human scores.

    Args:
        first, second (`torch.FloatTensor` of shape `(num_pairs, hidden_size)`): The sentences of each pair.
        labels (`np.ndarray` of shape `(num_pairs,)`): Human scores.
        groups (`Sequence[str]`, *optional*): Part of the data set that each pair comes from.
        variant (`"raw"`, `"centred"` or `"whitened"`, defaults to `"raw"`): Over the sentences of all pairs.

    Returns:
        `dict` with `spearmanr` over all pairs at once (SentEval's "all") and, given several groups,
        `spearmanr_mean_of_groups`. A constant side correlates 0. Empty for whitened vectors that are equally far
        apart, see [`whitened`].
    """
    sentences = torch.cat([first, second]).double()
    changed = VARIANTS[variant](sentences)
    if variant == "whitened" and 0 < changed.shape[1] >= len(sentences.unique(dim=0)) - 1:
        return {}
    cosines = F.cosine_similarity(*changed.chunk(2), dim=-1).numpy() if changed.shape[1] else np.zeros(len(labels))
    scores = {"spearmanr": rank_correlation(cosines, labels)}
    names = np.asarray(groups)
    if len(set(groups)) > 1:
        parts = [rank_correlation(cosines[names == name], labels[names == name]) for name in sorted(set(groups))]
        scores["spearmanr_mean_of_groups"] = float(np.mean(parts))
    return scores
