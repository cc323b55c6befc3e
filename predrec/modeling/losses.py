"""Loss terms as pure functions.

Every JEPA loss takes `predicted` and `target` of shape `(num_targets, hidden_size)` and `mask` of shape
`(num_targets,)`: rows where the mask is `False` are padding and change nothing. Shapes stay static, so the losses
compile and never wait for the device.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

MAX_CONTRASTED = 2048
"""Most rows that `infonce_loss` and `sigreg_statistic` look at; their cost grows faster than the number of rows."""


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
    if torch.compiler.is_compiling():  # The compiler fuses this by itself.
        total = F.cross_entropy(logits.float(), labels, ignore_index=-100, reduction="sum")
    else:
        total = _CrossEntropySum.apply(logits, labels)
    return total / labels.ne(-100).sum().clamp(min=1)


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


def _standardised(values: Tensor, mask: Tensor, eps: float = 1e-5) -> tuple[Tensor, Tensor]:
    """Returns `values` centred over masked rows (0 elsewhere) and the per-feature variance, `(hidden_size,)`."""
    weights = mask[:, None].to(values.dtype)
    count = weights.sum().clamp(min=2)
    centred = (values - (values * weights).sum(0) / count) * weights
    return centred, centred.pow(2).sum(0) / (count - 1) + eps


def vicreg_loss(
    predicted: Tensor, target: Tensor, mask: Tensor, std_weight: float = 1.0, cov_weight: float = 0.04
) -> Tensor:
    """Invariance + variance hinge + covariance, the last two on the predictions, where the gradient is.

    The weights are those of the paper (25, 25, 1) divided by 25, so that the invariance term is a mean squared error.

    Args:
        predicted, target (`torch.FloatTensor` of shape `(num_targets, hidden_size)`): Latents.
        mask (`torch.BoolTensor` of shape `(num_targets,)`): `False` at padding.
        std_weight (`float`, defaults to 1.0): Weight of the hinge on each feature's standard deviation, at 1.
        cov_weight (`float`, defaults to 0.04): Weight of the squared covariances of different features.

    Reference:
        Bardes et al., 2022, https://arxiv.org/abs/2105.04906
    """
    centred, variance = _standardised(predicted, mask)
    hinge = F.relu(1 - variance.sqrt()).mean()
    covariance = centred.T @ centred / (mask.sum() - 1).clamp(min=1)
    off_diagonal = covariance.pow(2).sum() - covariance.diagonal().pow(2).sum()
    return mse_loss(predicted, target, mask) + std_weight * hinge + cov_weight * off_diagonal / predicted.shape[-1]


def barlow_twins_loss(predicted: Tensor, target: Tensor, mask: Tensor, redundancy_weight: float = 0.005) -> Tensor:
    """Distance of the cross-correlation of predictions and targets from the identity, per feature.

    Args:
        predicted, target (`torch.FloatTensor` of shape `(num_targets, hidden_size)`): Latents.
        mask (`torch.BoolTensor` of shape `(num_targets,)`): `False` at padding.
        redundancy_weight (`float`, defaults to 0.005): Weight of the correlations of different features.

    Reference:
        Zbontar et al., 2021, https://arxiv.org/abs/2103.03230 (there summed over features, not averaged).
    """
    (left, left_variance), (right, right_variance) = _standardised(predicted, mask), _standardised(target, mask)
    correlation = (left / left_variance.sqrt()).T @ (right / right_variance.sqrt()) / (mask.sum() - 1).clamp(min=1)
    diagonal = correlation.diagonal()
    off_diagonal = correlation.pow(2).sum() - diagonal.pow(2).sum()
    return ((1 - diagonal).pow(2).sum() + redundancy_weight * off_diagonal) / predicted.shape[-1]


def _spread(num_rows: int, device: torch.device) -> Tensor:
    """Returns at most `MAX_CONTRASTED` row numbers, evenly spread over `num_rows`."""
    kept = min(num_rows, MAX_CONTRASTED)
    return torch.arange(kept, device=device) * num_rows // kept


def infonce_loss(
    predicted: Tensor, target: Tensor, mask: Tensor, token_ids: Tensor, temperature: float = 0.1
) -> Tensor:
    """Cross-entropy, in nats, of finding each prediction's own target among the batch's targets by cosine.

    Rows of one token (target blocks may overlap) are never each other's negatives. At most `MAX_CONTRASTED` rows,
    evenly spread, take part.

    Args:
        predicted, target, mask: See the module.
        token_ids (`torch.LongTensor` of shape `(num_targets,)`): Number of the token in the batch that a row is for.
        temperature (`float`): Divides the cosines.

    Reference:
        van den Oord et al., 2018, https://arxiv.org/abs/1807.03748
    """
    rows = _spread(len(predicted), predicted.device)
    predicted, target, mask, token_ids = predicted[rows], target[rows], mask[rows], token_ids[rows]
    scores = F.normalize(predicted, dim=-1) @ F.normalize(target, dim=-1).T / temperature
    itself = torch.eye(len(rows), dtype=torch.bool, device=rows.device)
    allowed = mask[None, :] & token_ids[:, None].ne(token_ids[None, :]) | itself
    log_probabilities = scores.masked_fill(~allowed, -torch.inf).log_softmax(dim=-1)
    return masked_mean(-log_probabilities.diagonal(), mask)


def sigreg_statistic(states: Tensor, mask: Tensor, directions: Tensor) -> Tensor:
    """Epps-Pulley distance of random one-dimensional projections from a standard normal, averaged over directions.

    The distance is the integral over t of `|phi(t) - exp(-t^2 / 2)|^2 exp(-t^2 / 2)`, with phi the empirical
    characteristic function, by the trapezoid rule on 17 points of [0, 5], doubled for symmetry. It is 0 for the
    normal law and does not grow with the number of rows.

    Args:
        states (`torch.FloatTensor` of shape `(num_states, hidden_size)`): Embeddings.
        mask (`torch.BoolTensor` of shape `(num_states,)`): Rows to use.
        directions (`torch.FloatTensor` of shape `(hidden_size, num_directions)`): Any non-zero columns.

    Reference:
        Balestriero and LeCun, 2025, https://arxiv.org/abs/2511.08544
    """
    rows = _spread(len(states), states.device)
    projections = states[rows] @ F.normalize(directions, dim=0)
    points = torch.linspace(0, 5, 17, device=states.device, dtype=projections.dtype)
    angles = projections[:, :, None] * points
    weights = mask[rows, None, None].to(projections.dtype)
    count = weights.sum().clamp(min=1)
    real = (angles.cos() * weights).sum(0) / count
    imaginary = (angles.sin() * weights).sum(0) / count
    normal = torch.exp(-points.pow(2) / 2)
    distance = ((real - normal).pow(2) + imaginary.pow(2)) * normal
    return 2 * torch.trapezoid(distance, points, dim=-1).mean()


def sigreg_loss(
    predicted: Tensor, target: Tensor, mask: Tensor, directions: Tensor, regularizer_weight: float = 1.0
) -> Tensor:
    """Mean squared error plus [`sigreg_statistic`] of the targets; the gradient reaches predictions and targets.

    It needs neither a target network nor a stopped gradient: what keeps the embeddings from collapsing is the
    statistic, which asks them to be an isotropic Gaussian.

    Args:
        predicted, target (`torch.FloatTensor` of shape `(num_targets, hidden_size)`): Latents.
        mask (`torch.BoolTensor` of shape `(num_targets,)`): `False` at padding.
        directions (`torch.FloatTensor` of shape `(hidden_size, num_directions)`): Projections of the statistic.
        regularizer_weight (`float`, defaults to 1.0): Weight of the statistic.

    Reference:
        Balestriero and LeCun, 2025, https://arxiv.org/abs/2511.08544 (LeJEPA)
    """
    return mse_loss(predicted, target, mask) + regularizer_weight * sigreg_statistic(target, mask, directions)


JEPA_LOSSES: dict[str, Callable[..., Tensor]] = {
    "cosine": cosine_loss,
    "mse": mse_loss,
    "smooth_l1": smooth_l1_loss,
    "vicreg": vicreg_loss,
    "barlow_twins": barlow_twins_loss,
    "infonce": infonce_loss,
    "sigreg": sigreg_loss,
}
