"""Loss terms as pure functions.

Every JEPA loss takes `predicted` and `target` of shape `(num_targets, hidden_size)` and `mask` of shape
`(num_targets,)`: rows where the mask is `False` are padding and change nothing. Shapes stay static, so the losses
compile and never wait for the device.

Means over rows are those of this process: processes with different numbers of rows weigh them. A loss of
[`BATCH_LOSSES`] compares rows with one another; with `over_processes` it does so for those of all processes, and then
all of them must call it.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from .gathering import SpreadRows, process_count, process_index, total

MAX_CONTRASTED = 2048
"""Most rows, over all processes, that `infonce_loss` contrasts with and `sigreg_statistic` looks at."""


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Returns the mean of `values` where `mask` is `True`, and 0 if it is `True` nowhere. Both `(num_targets,)`."""
    return (values * mask).sum() / mask.sum().clamp(min=1)


def masked_lm_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy in nats over labelled tokens; 0 when no token is labelled.

    Args:
        logits (`torch.FloatTensor` of shape `(num_tokens, vocab_size)`): Unnormalised scores.
        labels (`torch.LongTensor` of shape `(num_tokens,)`): Token ids, -100 at tokens that are not scored.

    Reference:
        Devlin et al., 2019, https://arxiv.org/abs/1810.04805
    """
    return cross_entropy_sum(logits, labels) / labels.ne(-100).sum().clamp(min=1)


def cross_entropy_sum(logits: Tensor, labels: Tensor) -> Tensor:
    """Sum of what [`masked_lm_loss`] is the mean of, in float32 and without a float32 copy of the logits."""
    if torch.compiler.is_compiling():  # The compiler fuses this by itself.
        return F.cross_entropy(logits.float(), labels, ignore_index=-100, reduction="sum")
    return _CrossEntropySum.apply(logits, labels)


class _CrossEntropySum(torch.autograd.Function):
    """Sum of cross-entropies over labelled tokens, in float32, some rows at a time.

    The vocabulary is large: a float32 copy of all logits, their log-softmax and its gradient would be most of a
    step's memory, and writing them a good part of its time. Here only the gradient, in the logits' own precision, is
    ever whole.
    """

    MAX_VALUES = {"cpu": 2**20, "cuda": 2**27}

    @staticmethod
    def chunks(logits: Tensor) -> range:
        most = _CrossEntropySum.MAX_VALUES.get(logits.device.type, 2**24)
        return range(0, len(logits), max(1, most // max(1, logits.shape[1])))

    @staticmethod
    def forward(ctx, logits: Tensor, labels: Tensor) -> Tensor:
        chunks = _CrossEntropySum.chunks(logits)
        answers, labelled = labels.clamp(min=0), labels.ne(-100)
        normalisers = [_wide(logits[row : row + chunks.step]).logsumexp(-1) for row in chunks]
        normalisers = torch.cat(normalisers) if normalisers else _wide(logits[:, 0])
        scores = _wide(logits.gather(1, answers[:, None])[:, 0])
        ctx.save_for_backward(logits, answers, labelled, normalisers)
        return torch.where(labelled, normalisers - scores, 0).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_output: Tensor):
        logits, answers, labelled, normalisers = ctx.saved_tensors
        grad = torch.empty_like(logits)
        grad_output = grad_output.to(normalisers.dtype)
        chunks = _CrossEntropySum.chunks(logits)
        for row in chunks:
            rows = slice(row, row + chunks.step)
            chunk = (_wide(logits[rows]) - normalisers[rows, None]).exp_()
            chunk.scatter_add_(1, answers[rows, None], -torch.ones_like(chunk[:, :1]))
            grad[rows] = chunk.mul_(grad_output).masked_fill_(~labelled[rows, None], 0)
        return grad, None


def _wide(values: Tensor) -> Tensor:
    """Returns half-precision values in float32, others as they are."""
    return values.float() if values.dtype.itemsize < 4 else values


def cosine_loss(predicted: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """`1 - cos(predicted, target)`, between 0 and 2, averaged over targets (Boukhari, 2026, arXiv 2606.05173)."""
    return masked_mean(1 - F.cosine_similarity(predicted, target, dim=-1), mask)


def mse_loss(predicted: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Squared error averaged over features and targets (data2vec 2.0: Baevski et al., 2022, arXiv 2212.07525)."""
    return masked_mean((predicted - target).pow(2).mean(-1), mask)


def smooth_l1_loss(predicted: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Huber-like error with its knee at 1, averaged over features and targets (I-JEPA, data2vec)."""
    return masked_mean(F.smooth_l1_loss(predicted, target, reduction="none").mean(-1), mask)


def _moments(
    left: Tensor, right: Tensor, mask: Tensor, over_processes: bool, eps: float = 1e-5
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the variances of the features of both, each `(hidden_size,)`, and their covariances, left by right."""

    def summed(values: Tensor) -> Tensor:
        return total(values) if over_processes else values

    weights, width = mask[:, None].to(left.dtype), left.shape[-1]
    sums = summed(torch.cat([(left * weights).sum(0), (right * weights).sum(0), weights.sum(0)]))
    count = sums[-1].clamp(min=2)
    left, right = (left - sums[:width] / count) * weights, (right - sums[width:-1] / count) * weights
    # Centred before they are multiplied: differences of large squares would lose the variance to rounding.
    squares = torch.stack([left.pow(2).sum(0), right.pow(2).sum(0)])
    products = summed(torch.cat([squares, left.T @ right])) / (count - 1)
    return products[0] + eps, products[1] + eps, products[2:]


def vicreg_loss(
    predicted: Tensor,
    target: Tensor,
    mask: Tensor,
    std_weight: float = 1.0,
    cov_weight: float = 0.04,
    regularizer_weight: float = 1.0,
    regularize_targets: bool = False,
    over_processes: bool = False,
) -> Tensor:
    """Invariance + variance hinge + covariance, the last two on the sides that the gradient reaches.

    The weights are those of the paper (25, 25, 1) divided by 25, so that the invariance term is a mean squared error.

    Args:
        predicted, target (`torch.FloatTensor` of shape `(num_targets, hidden_size)`): Latents.
        mask (`torch.BoolTensor` of shape `(num_targets,)`): `False` at padding.
        std_weight (`float`, defaults to 1.0): Weight of the hinge on each feature's standard deviation, at 1.
        cov_weight (`float`, defaults to 0.04): Weight of the squared covariances of different features.
        regularizer_weight (`float`, defaults to 1.0): Multiplies both.
        regularize_targets (`bool`): Ask both of the targets, too, as the paper does: for targets with a gradient.
        over_processes (`bool`): See the module.

    Reference:
        Bardes et al., 2022, https://arxiv.org/abs/2105.04906
    """
    loss, width = mse_loss(predicted, target, mask), predicted.shape[-1]
    for side in (predicted, target) if regularize_targets else (predicted,):
        variance, _, covariance = _moments(side, side, mask, over_processes)
        hinge = F.relu(1 - variance.sqrt()).mean()
        off_diagonal = (covariance.pow(2).sum() - covariance.diagonal().pow(2).sum()) / width
        loss = loss + regularizer_weight * (std_weight * hinge + cov_weight * off_diagonal)
    return loss


def barlow_twins_loss(
    predicted: Tensor, target: Tensor, mask: Tensor, redundancy_weight: float = 0.005, over_processes: bool = False
) -> Tensor:
    """Distance of the cross-correlation of predictions and targets from the identity, per feature.

    Args:
        predicted, target (`torch.FloatTensor` of shape `(num_targets, hidden_size)`): Latents.
        mask (`torch.BoolTensor` of shape `(num_targets,)`): `False` at padding.
        redundancy_weight (`float`, defaults to 0.005): Weight of the correlations of different features.
        over_processes (`bool`): See the module.

    Reference:
        Zbontar et al., 2021, https://arxiv.org/abs/2103.03230 (there summed over features, not averaged).
    """
    left, right, covariance = _moments(predicted, target, mask, over_processes)
    correlation = covariance / (left.sqrt()[:, None] * right.sqrt())
    diagonal = correlation.diagonal()
    off_diagonal = correlation.pow(2).sum() - diagonal.pow(2).sum()
    return ((1 - diagonal).pow(2).sum() + redundancy_weight * off_diagonal) / predicted.shape[-1]


def infonce_loss(
    predicted: Tensor,
    target: Tensor,
    mask: Tensor,
    token_ids: Tensor,
    temperature: float = 0.1,
    over_processes: bool = False,
    shared_ids: bool = False,
) -> Tensor:
    """Cross-entropy, in nats, of finding each prediction's own target among the batch's targets by cosine.

    Targets of one token (target blocks may overlap) are never each other's negatives. At most `MAX_CONTRASTED`
    targets, evenly spread, are negatives.

    Args:
        predicted, target, mask: See the module.
        token_ids (`torch.LongTensor` of shape `(num_targets,)`): Number of the token in the batch that a row is for.
        temperature (`float`): Divides the cosines.
        over_processes (`bool`): See the module.
        shared_ids (`bool`): Numbers mean the same on all processes, which otherwise number their own tokens.

    Reference:
        van den Oord et al., 2018, https://arxiv.org/abs/1807.03748
    """
    if over_processes and not shared_ids:
        token_ids = token_ids * process_count() + process_index()
    predicted, target = F.normalize(predicted, dim=-1), F.normalize(target, dim=-1)
    spread = SpreadRows(mask, MAX_CONTRASTED, over_processes)
    others, other_ids = spread.gather(target), spread.gather(token_ids)
    exists = torch.arange(len(others), device=mask.device) < spread.count
    negatives = predicted @ others.T / temperature
    negatives = negatives.masked_fill(~exists | token_ids[:, None].eq(other_ids), -torch.inf)
    own = (predicted * target).sum(-1, keepdim=True) / temperature
    return masked_mean(-torch.cat([own, negatives], dim=1).log_softmax(dim=1)[:, 0], mask)


def sigreg_statistic(states: Tensor, mask: Tensor, directions: Tensor, over_processes: bool = False) -> Tensor:
    """Epps-Pulley distance of random one-dimensional projections from a standard normal, averaged over directions.

    The distance is the integral over t of `|phi(t) - exp(-t^2 / 2)|^2 exp(-t^2 / 2)`, with phi the empirical
    characteristic function, by the trapezoid rule on 17 points of [0, 5], doubled for symmetry. It is 0 for the
    normal law and does not grow with the number of rows.

    Args:
        states (`torch.FloatTensor` of shape `(num_states, hidden_size)`): Embeddings.
        mask (`torch.BoolTensor` of shape `(num_states,)`): Rows to use.
        directions (`torch.FloatTensor` of shape `(hidden_size, num_directions)`): Any non-zero columns. With
            `over_processes`, those of process 0 are used everywhere.
        over_processes (`bool`): See the module.

    Reference:
        Balestriero and LeCun, 2025, https://arxiv.org/abs/2511.08544
    """
    if over_processes:
        directions = total(directions if process_index() == 0 else torch.zeros_like(directions))
    spread = SpreadRows(mask, MAX_CONTRASTED, over_processes)
    projections = states[spread.places] @ F.normalize(directions, dim=0)
    points = torch.linspace(0, 5, 17, device=states.device, dtype=projections.dtype)
    angles = projections[:, :, None] * points
    weights = spread.chosen[:, None, None].to(projections.dtype)
    sums = torch.stack([(angles.cos() * weights).sum(0), (angles.sin() * weights).sum(0)])
    real, imaginary = (total(sums) if over_processes else sums) / spread.count.clamp(min=1)
    normal = torch.exp(-points.pow(2) / 2)
    distance = ((real - normal).pow(2) + imaginary.pow(2)) * normal
    return 2 * torch.trapezoid(distance, points, dim=-1).mean()


def sigreg_loss(
    predicted: Tensor,
    target: Tensor,
    mask: Tensor,
    directions: Tensor,
    regularizer_weight: float = 1.0,
    over_processes: bool = False,
) -> Tensor:
    """Mean squared error plus [`sigreg_statistic`] of the targets; the gradient reaches predictions and targets.

    It needs neither a target network nor a stopped gradient: what keeps the embeddings from collapsing is the
    statistic, which asks them to be an isotropic Gaussian.

    Args:
        predicted, target (`torch.FloatTensor` of shape `(num_targets, hidden_size)`): Latents.
        mask (`torch.BoolTensor` of shape `(num_targets,)`): `False` at padding.
        directions (`torch.FloatTensor` of shape `(hidden_size, num_directions)`): Projections of the statistic.
        regularizer_weight (`float`, defaults to 1.0): Weight of the statistic.
        over_processes (`bool`): See the module.

    Reference:
        Balestriero and LeCun, 2025, https://arxiv.org/abs/2511.08544 (LeJEPA)
    """
    statistic = sigreg_statistic(target, mask, directions, over_processes)
    return mse_loss(predicted, target, mask) + regularizer_weight * statistic


JEPA_LOSSES: dict[str, Callable[..., Tensor]] = {
    "cosine": cosine_loss,
    "mse": mse_loss,
    "smooth_l1": smooth_l1_loss,
    "vicreg": vicreg_loss,
    "barlow_twins": barlow_twins_loss,
    "infonce": infonce_loss,
    "sigreg": sigreg_loss,
}

BATCH_LOSSES = ("vicreg", "barlow_twins", "infonce", "sigreg")
"""Losses that compare rows with one another, and can do so over all processes."""
