"""Vectors with the same variance in every direction, by a map that is fitted on other texts, without labels."""

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

EPSILON = 0.01
"""What is added to the variance of every direction, as a share of the mean: quiet directions stay quiet."""

MOST_SENTENCES = 6000
WORDS = range(6, 21)
"""How many words a sentence may have to be one that a map is fitted on, about as in the tasks."""

END = re.compile(r"(?<=[.!?])\s+")


@dataclass(frozen=True)
class Whitening:
    """A symmetric map: it turns no direction into another, as far as it can.

    Args:
        mean (`torch.DoubleTensor` of shape `(hidden_size,)`): What becomes zero.
        matrix (`torch.DoubleTensor` of shape `(hidden_size, hidden_size)`): Inverse root of the covariance.
    """

    mean: Tensor
    matrix: Tensor

    def __call__(self, vectors: Tensor) -> Tensor:
        """Maps vectors, `(..., hidden_size)`; they keep their type."""
        return ((vectors.double() - self.mean) @ self.matrix).to(vectors.dtype)


@dataclass(frozen=True)
class Fit:
    """What a map is fitted on, and how.

    Args:
        texts (`Sequence[str]`): Texts, whose vectors become white.
        epsilon (`float`): See [`EPSILON`].
    """

    texts: Sequence[str]
    epsilon: float = EPSILON

    @property
    def name(self) -> str:
        """A name for the texts and the setting."""
        return hashlib.sha256(repr((list(self.texts), self.epsilon)).encode()).hexdigest()


def fit_whitening(vectors: Tensor, epsilon: float = EPSILON) -> Whitening:
    """Fits the map that gives vectors mean zero and, but for `epsilon`, covariance one.

    Vectors that are all the same become zeros.

    Args:
        vectors (`torch.FloatTensor` of shape `(num_vectors, hidden_size)`): What it is fitted on.
        epsilon (`float`): See [`EPSILON`].

    Reference:
        Su et al., 2021, https://arxiv.org/abs/2103.15316; the symmetric root: Kessy et al., 2018,
        https://arxiv.org/abs/1512.00809
    """
    mean = vectors.double().mean(0)
    deviations = vectors.double() - mean
    variances, directions = torch.linalg.eigh(deviations.T @ deviations / len(vectors))
    raised = variances.clamp(min=0) + epsilon * variances.clamp(min=0).mean()
    scale = torch.where(raised > 0, raised, torch.inf).rsqrt()
    return Whitening(mean, directions * scale @ directions.T)


def sentences(documents: Iterable[str], most: int = MOST_SENTENCES) -> list[str]:
    """Returns the first sentences of documents that are as long as those of the tasks, see [`WORDS`].

    A sentence ends after a full stop, exclamation or question mark with a space behind it.
    """
    found = (part for text in documents for part in END.split(text) if len(part.split()) in WORDS)
    return list(islice(found, most))
