"""How the two views of many records lie to each other, while a language model trains."""

import torch.nn.functional as F
from torch import Tensor

from .geometry import effective_rank

MOST = 1024
"""Records that are compared with one another."""

COLLAPSED = 0.95
"""Mean cosine of different records' views above which they count as one: predicting them is trivial."""


def view_measures(source: Tensor, target: Tensor, numbers: Tensor) -> dict[str, float]:
    """Measures predictions against what they predict; alignment alone could be collapse.

    Args:
        source, target (`torch.FloatTensor` of shape `(num_pairs, hidden_size)`): See [`encode_views`].
        numbers (`torch.LongTensor` of shape `(num_pairs,)`): Equal where targets are equal.

    Returns:
        `dict` with `matched_cosine`, mean cosine of a prediction and its own target; `mismatched_cosine`, of a
        prediction and targets that are not its own; `effective_rank` of the targets; `retrieval`, the share of
        predictions whose nearest target is their own, or equal to it; `collapsed`, 1 where `mismatched_cosine` is
        above [`COLLAPSED`]. What a single record cannot show is left out.
    """
    source, target, numbers = source[:MOST], target[:MOST], numbers[:MOST]
    cosines = F.normalize(source.double(), dim=-1) @ F.normalize(target.double(), dim=-1).T
    measures = {"matched_cosine": cosines.diagonal().mean().item()}
    others = numbers[:, None] != numbers[None, :]
    if others.any():
        nearest = cosines.argmax(dim=1)
        measures["mismatched_cosine"] = cosines[others].mean().item()
        measures["collapsed"] = float(measures["mismatched_cosine"] > COLLAPSED)
        measures["effective_rank"] = effective_rank(target).item()
        measures["retrieval"] = (numbers[nearest] == numbers).double().mean().item()
    return measures
