"""Running mean and covariance of the targets, and targets without them: the same variance in every direction."""

import torch
from torch import Tensor

from .gathering import process_count, total

SMALLEST = 1e-12
"""Keeps divisors above 0 where moments are of nothing, or of a single vector."""


@torch.no_grad()
def update_moments(
    center: Tensor,
    covariance: Tensor | None,
    count: Tensor,
    latents: Tensor,
    mask: Tensor,
    decay: float,
    share: Tensor | None = None,
) -> None:
    """Moves running moments towards those of a batch, over all processes; in place, without waiting for the device.

    They are plain averages at first, so that what they start from is forgotten at once. A batch without latents, or
    with latents that are no numbers, says nothing, and changes nothing.

    Args:
        center (`torch.FloatTensor` of shape `(hidden_size,)`): Running mean.
        covariance (`torch.FloatTensor` of shape `(hidden_size, hidden_size)`, *optional*):
            Running mean product of deviations from the running mean.
        count (`torch.FloatTensor` of shape `()`): Updates that the moments are of.
        latents (`torch.FloatTensor` of shape `(..., hidden_size)`): Of this process.
        mask (`torch.BoolTensor` of shape `(...)`): Which of them count.
        decay (`float`): Weight of what was there before the update, once that is long enough.
        share (`torch.FloatTensor` of shape `()`, *optional*):
            Which part of the update's latents, over all processes, these are; all of them when absent.
    """
    latents, weights = latents.flatten(0, -2).float(), mask.flatten()[:, None].float()
    own = weights.new_ones(1) / process_count() if share is None else share.float()[None]
    sums = total(torch.cat([(latents * weights).sum(0), weights.sum(0), own]))
    usable = sums.isfinite().all() & (sums[-2] > 0)
    number, share = sums[-2].clamp(min=1), sums[-1]
    count += torch.where(usable, share, 0)
    # Where nothing has counted yet, 0 / 0 would be written over moments that are to stay.
    weight = torch.clamp(share / count.clamp(min=SMALLEST), min=1 - decay**share, max=torch.ones_like(share))
    center.lerp_(torch.where(usable, sums[:-2] / number, center), weight)
    if covariance is not None:
        deviations = (latents - center) * weights
        products = total(deviations.T @ deviations) / number
        covariance.lerp_(torch.where(usable & products.isfinite().all(), products, covariance), weight)


def whiten(deviations: Tensor, covariance: Tensor, epsilon: float) -> Tensor:
    """Gives vectors the same variance in every direction: `L^-1 x`, where `L L^T` is their covariance.

    Of all the ways to whiten, this one is quick on a CPU and does not wait for any other device.

    Args:
        deviations (`torch.FloatTensor` of shape `(..., hidden_size)`): Vectors, less their mean.
        covariance (`torch.FloatTensor` of shape `(hidden_size, hidden_size)`): Theirs.
        epsilon (`float`): What is added to the variance of every direction, as a share of the mean.

    Reference:
        Ermolov et al., 2021, https://arxiv.org/abs/2007.06346
    """
    raised = (covariance.diagonal().mean() * epsilon).clamp(min=SMALLEST) * torch.eye(
        len(covariance), device=covariance.device
    )
    factor = torch.linalg.cholesky_ex(covariance + raised)[0]
    flat = torch.linalg.solve_triangular(factor, deviations.flatten(0, -2).T, upper=False).T
    return flat.view(deviations.shape)
