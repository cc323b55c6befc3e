"""Heads on a frozen encoder, the heads of all seeds trained in one loop on cached vectors.

Heads follow arXiv 2606.05173: LayerNorm, dropout and a linear layer for single texts; for pairs the features
`[u; v; |u - v|; u * v]` of the normalised vectors; for STS-B a scale and a bias on the cosine. What is reported is the
last epoch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .embeddings import TokenStates
from .pooling import attention_draw

HeadKind = Literal["linear", "mlp"]
Inputs = tuple[Tensor, ...] | tuple[TokenStates, ...]
EVAL_BATCH = 4096
LAYER_NORM_EPS = 1e-5


@dataclass(frozen=True)
class ProbeSettings:
    """How heads are trained: AdamW at a constant learning rate, no decay on biases and norms.

    Args:
        num_epochs (`int`): Epochs.
        batch_size (`int`, defaults to 256): Rows per update.
        learning_rate (`float`, defaults to 1e-3), weight_decay (`float`, defaults to 0.01): Of AdamW.
        dropout (`float`, defaults to 0.2): Before the last linear layer.
        head (`"linear"` or `"mlp"`, defaults to `"linear"`): With `mlp`, a hidden layer with GELU comes before it.
        mlp_size (`int`, defaults to 256): Width of that layer.
    """

    num_epochs: int
    batch_size: int = 256
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    dropout: float = 0.2
    head: HeadKind = "linear"
    mlp_size: int = 256


class StackedLinear(nn.Module):
    """One linear layer per seed, `(num_seeds, rows, in)` to `(num_seeds, rows, out)`, initialised as `nn.Linear`."""

    def __init__(self, num_in: int, num_out: int, generators: Sequence[torch.Generator]):
        super().__init__()
        bound = num_in**-0.5
        weights = [torch.rand(num_out, num_in, generator=generator) * 2 - 1 for generator in generators]
        biases = [torch.rand(num_out, generator=generator) * 2 - 1 for generator in generators]
        self.weight = nn.Parameter(torch.stack(weights) * bound)
        self.bias = nn.Parameter(torch.stack(biases) * bound)

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.baddbmm(self.bias[:, None], inputs, self.weight.transpose(1, 2))


class StackedNorm(nn.Module):
    """Scale and shift of one LayerNorm per seed. Its input is normalised already: the encoder does not change."""

    def __init__(self, size: int, num_seeds: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(num_seeds, size))
        self.bias = nn.Parameter(torch.zeros(num_seeds, size))

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.addcmul(self.bias[:, None], inputs, self.weight[:, None])


class StackedHeads(nn.Module):
    """The heads of all seeds for single texts or for pairs.

    Args:
        hidden_size (`int`): Width of the encoder.
        num_texts (`int`): 1, or 2 for pairs.
        num_outputs (`int`): Classes, or 1 for a score.
        settings (`ProbeSettings`): Of the probe.
        seeds (`Sequence[int]`): One head each.
    """

    def __init__(
        self, hidden_size: int, num_texts: int, num_outputs: int, settings: ProbeSettings, seeds: Sequence[int]
    ):
        super().__init__()
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        width = hidden_size * (4 if num_texts == 2 else 1)
        self.norm = StackedNorm(hidden_size, len(seeds))
        self.hidden = None
        if settings.head == "mlp":
            self.hidden = StackedLinear(width, settings.mlp_size, generators)
            width = settings.mlp_size
        self.classifier = StackedLinear(width, num_outputs, generators)
        self.kept = 1 / (1 - settings.dropout)

    def forward(self, inputs: tuple[Tensor, ...], dropout: Tensor | None = None) -> Tensor:
        """Scores rows.

        Args:
            inputs (`tuple[Tensor, ...]`): Normalised vectors, `(num_seeds or 1, batch_size, hidden_size)` per text.
            dropout (`Tensor`, *optional*): 0 where the last layer's input is dropped, else 1; of its shape.

        Returns:
            `torch.FloatTensor` of shape `(num_seeds, batch_size, num_outputs)`.
        """
        weight, bias = self.classifier.weight, self.classifier.bias
        if dropout is not None:
            weight = weight * self.kept
        if len(inputs) == 1 and self.hidden is None:
            # The same numbers as the long way below, without a pass over (seeds, rows, features) for scale and shift.
            rows = inputs[0].expand(len(weight), -1, -1)
            shift = weight * self.norm.bias[:, None]
            if dropout is None:
                moved = shift.sum(-1, keepdim=True)
            else:
                rows = rows * dropout
                moved = shift @ dropout.transpose(1, 2)
            weight = weight * self.norm.weight[:, None]
        else:
            rows = pair_features(*[self.norm(vectors) for vectors in inputs])
            if self.hidden is not None:
                rows = F.gelu(self.hidden(rows))
            rows, moved = (rows if dropout is None else rows * dropout), 0
        # Few outputs first: this way round, the gradient of the weight is a fast product.
        return (weight @ rows.transpose(1, 2) + moved + bias[..., None]).transpose(1, 2)

    @property
    def dropout_width(self) -> int:
        """Width of the last layer's input."""
        return self.classifier.weight.shape[2]


class CosineHeads(nn.Module):
    """Scale and bias that take the cosine of a pair onto the scores; the same start for every seed."""

    def __init__(self, label_range: tuple[float, float], num_seeds: int):
        super().__init__()
        low, high = label_range
        self.scale = nn.Parameter(torch.full((num_seeds, 1), (high - low) / 2))
        self.bias = nn.Parameter(torch.full((num_seeds, 1), (high + low) / 2))

    def forward(self, inputs: tuple[Tensor, ...], dropout: Tensor | None = None) -> Tensor:
        cosines = F.cosine_similarity(*inputs, dim=-1)
        return (self.scale * cosines + self.bias)[..., None]

    dropout_width = 0


def pair_features(first: Tensor, second: Tensor | None = None) -> Tensor:
    """Returns `[u; v; |u - v|; u * v]` of a pair, or the vectors of single texts as they are."""
    if second is None:
        return first
    return torch.cat([first, second, (first - second).abs(), first * second], dim=-1)


class StackedPooler(nn.Module):
    """Pooling that is trained with the head: one attention query and key, or weights by position, per seed."""

    def __init__(self, kind: str, hidden_size: int, longest: int, seeds: Sequence[int]):
        super().__init__()
        self.kind = kind
        if kind == "attention":
            queries, keys = zip(*(attention_draw(hidden_size, seed) for seed in seeds), strict=True)
            self.query, self.key = nn.Parameter(torch.stack(queries)), nn.Parameter(torch.stack(keys))
        else:
            self.position_weights = nn.Parameter(torch.zeros(len(seeds), longest))

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """Pools `(num_seeds, batch_size, length, hidden_size)` under `(num_seeds, batch_size, length)`."""
        if self.kind == "attention":
            direction = torch.einsum("skh,sk->sh", self.key, self.query)
            scores = torch.einsum("sblh,sh->sbl", states, direction) / states.shape[-1] ** 0.5
        else:
            # Positions beyond the longest text in training, whose weights are unknown, weigh as at the start.
            length = states.shape[2]
            known = self.position_weights[:, :length]
            scores = F.pad(known, (0, length - known.shape[1]))[:, None].expand(mask.shape)
        weights = scores.masked_fill(~mask, -torch.inf).softmax(-1)
        return torch.einsum("sbl,sblh->sbh", weights, states)


class Probe(nn.Module):
    """Heads, after a pooling that is trained with them where there is one.

    Args:
        heads (`nn.Module`): [`StackedHeads`] or [`CosineHeads`].
        pooler (`StackedPooler`, *optional*): For [`TokenStates`] as inputs.
        normalise (`bool`): Normalise vectors before the heads; the cosine needs none.
    """

    def __init__(self, heads: nn.Module, pooler: StackedPooler | None, normalise: bool):
        super().__init__()
        self.heads, self.pooler, self.normalise = heads, pooler, normalise

    def prepare(self, inputs: Inputs) -> Inputs:
        """Does once what does not change in training."""
        if self.pooler is not None or not self.normalise:
            return inputs
        return tuple(normalised(vectors) for vectors in inputs)

    def forward(self, inputs: Inputs, rows: Tensor, dropout: Tensor | None = None) -> Tensor:
        """Scores the chosen rows, `(num_seeds or 1, batch_size)` of them, of prepared inputs."""
        if self.pooler is None:
            return self.heads(tuple(_gathered(vectors, rows) for vectors in inputs), dropout)
        vectors = []
        for texts in inputs:
            states, mask = texts.rows(rows.flatten())
            states, mask = states.view(*rows.shape, *states.shape[1:]), mask.view(*rows.shape, -1)
            pooled = self.pooler(states, mask)
            vectors.append(normalised(pooled) if self.normalise else pooled)
        return self.heads(tuple(vectors), dropout)


def _gathered(vectors: Tensor, rows: Tensor) -> Tensor:
    return vectors.index_select(0, rows.flatten()).view(*rows.shape, -1)


def normalised(vectors: Tensor) -> Tensor:
    """Returns a LayerNorm without parameters of vectors, `(..., hidden_size)`."""
    return F.layer_norm(vectors, vectors.shape[-1:], eps=LAYER_NORM_EPS)


def build_probe(
    inputs: Inputs,
    num_labels: int,
    settings: ProbeSettings,
    seeds: Sequence[int],
    label_range: tuple[float, float] = (0.0, 5.0),
    trained_pooling: str | None = None,
) -> Probe:
    """Builds the untrained heads that a task needs; arguments as in [`train_probe`]."""
    states = isinstance(inputs[0], TokenStates)
    hidden_size = inputs[0].states.shape[1] if states else inputs[0].shape[1]
    cosine = num_labels == 0 and len(inputs) == 2 and settings.head == "linear"
    if cosine:
        heads: nn.Module = CosineHeads(label_range, len(seeds))
    else:
        heads = StackedHeads(hidden_size, len(inputs), num_labels or 1, settings, seeds)
        if num_labels == 0:
            nn.init.constant_(heads.classifier.bias, sum(label_range) / 2)
    longest = max(texts.longest for texts in inputs) if states else 0
    pooler = StackedPooler(trained_pooling or "attention", hidden_size, longest, seeds) if states else None
    return Probe(heads, pooler, normalise=not cosine)


def epoch_order(num_rows: int, generator: np.random.Generator) -> Tensor:
    """Draws the order of an epoch."""
    return torch.from_numpy(generator.permutation(num_rows))


class DropoutMasks:
    """Draws what dropout keeps, 0 with probability `rate`, to within 1 / 65536, else 1.

    Every draw is in the same memory: fresh memory, zeroed by the system, would cost more than the drawing.

    Args:
        rate (`float`): Probability of 0.
        rows (`int`), width (`int`): Largest draw.
        generators (`Sequence[np.random.Generator]`): One per seed.
    """

    def __init__(self, rate: float, rows: int, width: int, generators: Sequence[np.random.Generator]):
        self.generators, self.shape = generators, (rows, width)
        self.threshold = round(rate * 65536) - 32768
        self.words = np.empty((len(generators), -(-rows * width // 4)), np.uint64)
        self.mask = torch.empty(len(generators), rows, width)

    def draw(self, rows: int) -> Tensor:
        """Returns a mask, float32 of shape `(num_seeds, rows, width)`, that lasts until the next draw."""
        count = rows * self.shape[1]
        for words, generator in zip(self.words, self.generators, strict=True):
            words[: -(-count // 4)] = generator.bit_generator.random_raw(-(-count // 4))
        bits = torch.from_numpy(self.words.view(np.int16))[:, :count].view(-1, rows, self.shape[1])
        return torch.ge(bits, self.threshold, out=self.mask[:, :rows])


def probe_optimizer(probe: nn.Module, settings: ProbeSettings) -> torch.optim.Optimizer:
    """Returns AdamW with weight decay on the weights of linear layers and poolers alone, as the Trainer has it."""
    spared = [p for name, p in probe.named_parameters() if "norm" in name or name.endswith(("bias", "scale"))]
    decayed = [p for p in probe.parameters() if not any(p is other for other in spared)]
    groups = [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": spared, "weight_decay": 0.0}]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=settings.learning_rate, fused=True)


def train_probe(
    inputs: Inputs,
    labels: np.ndarray,
    num_labels: int,
    settings: ProbeSettings,
    seeds: Sequence[int],
    eval_inputs: Inputs | None = None,
    label_range: tuple[float, float] = (0.0, 5.0),
    trained_pooling: str | None = None,
) -> tuple[Probe, list[np.ndarray]]:
    """Trains one head per seed. Each seed's initialisation, order and dropout depend on the seed alone.

    Args:
        inputs (`tuple` of one or two): Vectors, `(num_rows, hidden_size)`, or [`TokenStates`] to pool with training.
        labels (`np.ndarray` of shape `(num_rows,)`): Classes or scores.
        num_labels (`int`): Classes; 0 for scores.
        settings (`ProbeSettings`): How.
        seeds (`Sequence[int]`): One head each.
        eval_inputs (`tuple`, *optional*): Predicted after every epoch.
        label_range (`tuple[float, float]`): Of scores.
        trained_pooling (`"attention"` or `"weighted"`, *optional*): With token states.

    Returns:
        The trained heads, and the predictions for `eval_inputs` after each epoch, see [`predict_probe`].
    """
    probe = build_probe(inputs, num_labels, settings, seeds, label_range, trained_pooling)
    optimizer = probe_optimizer(probe, settings)
    generators = [np.random.Generator(np.random.SFC64(seed)) for seed in seeds]
    prepared = probe.prepare(inputs)
    prepared_eval = None if eval_inputs is None else probe.prepare(eval_inputs)
    targets = torch.from_numpy(labels).float() if num_labels == 0 else torch.from_numpy(labels)
    masks = None
    if settings.dropout and probe.heads.dropout_width:
        rows = min(settings.batch_size, len(labels))
        masks = DropoutMasks(settings.dropout, rows, probe.heads.dropout_width, generators)
    history = []
    for _ in range(settings.num_epochs):
        order = torch.stack([epoch_order(len(labels), generator) for generator in generators])
        for rows in order.split(settings.batch_size, dim=1):
            dropout = None
            if masks is not None:
                dropout = masks.draw(rows.shape[1])
            loss = _loss(probe(prepared, rows, dropout), targets[rows], num_labels)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        if prepared_eval is not None:
            history.append(_predict(probe, prepared_eval))
    return probe, history


def _loss(logits: Tensor, targets: Tensor, num_labels: int) -> Tensor:
    """Sums the mean losses of the seeds, so each seed's gradient is its own."""
    if num_labels == 0:
        return (logits[..., 0] - targets).square().mean(1).sum()
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten()) * len(logits)


def predict_probe(probe: Probe, inputs: Inputs) -> np.ndarray:
    """Returns the scores of all heads, `(num_seeds, num_rows, num_outputs)`."""
    return _predict(probe, probe.prepare(inputs))


@torch.inference_mode()
def _predict(probe: Probe, prepared: Inputs) -> np.ndarray:
    size = EVAL_BATCH if probe.pooler is None else 256
    parts = []
    for rows in torch.arange(len(prepared[0])).split(size):
        rows = rows[None] if probe.pooler is None else rows.expand(len(next(probe.parameters())), -1)
        parts.append(probe(prepared, rows))
    return torch.cat(parts, dim=1).numpy()
