"""How much arithmetic LLM-JEPA takes, before it is spent: of one update, of a run, and how many updates a budget buys.

Matrix products on real tokens, two operations for each multiply-add; padding and recomputation are not counted.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from torch import nn

MAX_UPDATES = 10_000_000
"""A budget that lasts longer is a mistake."""


@dataclass(frozen=True)
class LanguageModelCost:
    """What a token costs, forward and backward.

    Args:
        body (`int`), trained_body (`int`): Weights of the layers, and how many of them are trained; no embeddings.
        head (`int`), trained_head (`int`): Weights of the output projection, likewise.
        attention (`int`): Layers times the width of their queries: what each pair of tokens costs, over 12.
    """

    body: int
    trained_body: int
    head: int
    trained_head: int
    attention: int

    @classmethod
    def of(cls, model: nn.Module) -> "LanguageModelCost":
        """Reads the numbers off a causal language model, also one with adapters."""
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        tables = {id(p) for p in base.get_input_embeddings().parameters()}
        tables |= {
            id(p) for name, p in base.named_parameters() if "embed_positions" in name or name.endswith("wpe.weight")
        }
        output = base.get_output_embeddings()
        heads = {id(p): p for p in output.parameters() if p.ndim == 2} if output is not None else {}
        body = {id(p): p for p in base.parameters() if p.ndim == 2 and id(p) not in tables | heads.keys()}
        body = {key: p for key, p in body.items() if not _is_rows_of_a_table(p, base)}
        config = base.config.get_text_config()
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        return cls(
            *_counted(body.values()),
            *_counted(heads.values()),
            config.num_hidden_layers * config.num_attention_heads * width,
        )

    def flops(self, lengths: Sequence[int] | np.ndarray, with_head: bool) -> int:
        """Returns the operations of sequences of these lengths.

        A weight costs 2 per token forward, 2 for the gradient of its input, and 2 more where it is trained itself.
        """
        lengths = np.asarray(lengths, dtype=np.int64)
        weights = 4 * self.body + 2 * self.trained_body
        if with_head:
            weights += 4 * self.head + 2 * self.trained_head
        return int(lengths.sum() * weights + 12 * self.attention * (lengths**2).sum())

    def forward_flops(self, lengths: Sequence[int] | np.ndarray) -> int:
        """Returns the operations of a pass without gradient and without a head, as of an averaged copy."""
        lengths = np.asarray(lengths, dtype=np.int64)
        return int(lengths.sum() * 2 * self.body + 4 * self.attention * (lengths**2).sum())


def _counted(parameters) -> tuple[int, int]:
    parameters = list(parameters)
    return sum(p.numel() for p in parameters), sum(p.numel() for p in parameters if p.requires_grad)


def _is_rows_of_a_table(parameter, base: nn.Module) -> bool:
    """Trained rows of the embeddings (PEFT's `trainable_tokens_delta`) are looked up, not multiplied."""
    return any(parameter is p for name, p in base.named_parameters() if "trainable_tokens" in name)


@dataclass(frozen=True)
class Spending:
    """How the operations of a run add up, update by update; known beforehand, and the same on every process.

    Args:
        generation (`float`): Of the generated sequences of one update, on average over the data.
        views (`float`): Of its views; 0 for methods without.
        jepa_dropout (`float`): Share of updates without views.
        seed (`int`): Of the draws, see [`skips_views`].
    """

    generation: float
    views: float = 0.0
    jepa_dropout: float = 0.0
    seed: int = 0

    def until(self, update: int) -> float:
        """Returns the operations of all updates before this one."""
        skipped = update - self.with_views(update)
        return update * (self.generation + self.views) - skipped * self.views

    def with_views(self, update: int) -> int:
        """Returns how many of the updates before this one have views; each of them is drawn once."""
        if not self.jepa_dropout:
            return update
        while len(self._made) <= update:
            skipped = skips_views(self.seed, len(self._made) - 1, self.jepa_dropout)
            self._made.append(self._made[-1] + (not skipped))
        return self._made[update]

    def updates_for(self, budget: float) -> int:
        """Returns how many updates spend the budget; the last one may go over it.

        Raises:
            ValueError: If the budget is not positive, or buys more than [`MAX_UPDATES`].
        """
        if not 0 < budget <= MAX_UPDATES * self.generation:
            most = MAX_UPDATES * self.generation
            raise ValueError(f"`max_flops` is {budget:g}; it must be positive and at most {most:.3g}.")
        if not self.jepa_dropout:
            return int(np.ceil(budget / (self.generation + self.views) - 1e-9))
        updates = 0
        while self.until(updates) < budget * (1 - 1e-12):
            updates += 1
        return updates

    @cached_property
    def _made(self) -> list[int]:
        return [0]


def skips_views(seed: int, update: int, share: float) -> bool:
    """Draws whether an update does without the latent term: from seed and update alone, so all processes agree."""
    return share > 0 and np.random.default_rng((seed, update)).random() < share
