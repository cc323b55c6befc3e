"""The collapse monitor: is the encoder still telling texts apart, and is the prediction task more than a formality?"""

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import TrainerCallback
from transformers.utils import logging

from ..modeling import PredRecForPreTraining
from .geometry import effective_rank, uniformity
from .random_state import kept_random_state
from .strategies import autocast, fetch_weights_for

logger = logging.get_logger(__name__)

MIN_MONITORED = 4
"""Fewest held-out rows that have a geometry; with fewer, a run has no monitor."""


def text_spread(states: Tensor, mask: Tensor) -> Tensor:
    """Standard deviation, over texts, of the normalised state at the same position, averaged over all states.

    About 1 when texts have nothing in common, 0 when every text gives the same states: then only the position is left.

    Args:
        states (`torch.FloatTensor` of shape `(batch_size, sequence_length, hidden_size)`): Token states.
        mask (`torch.BoolTensor` of shape `(batch_size, sequence_length)`): Real tokens.
    """
    states, weights = F.layer_norm(states.float(), states.shape[-1:]), mask[..., None].float()
    count = weights.sum(0)
    mean = (states * weights).sum(0) / count.clamp(min=1)
    variance = ((states - mean).pow(2) * weights).sum(0) / (count - 1).clamp(min=1)
    shared = (count[:, 0] >= 2).float()
    return (variance.sqrt().mean(-1) * shared).sum() / shared.sum().clamp(min=1)


def token_spread(states: Tensor, mask: Tensor) -> Tensor:
    """Does as [`text_spread`] over the positions of one text: 0 when all tokens of a text have the same state."""
    return text_spread(states.transpose(0, 1), mask.transpose(0, 1))


@torch.no_grad()
def measure(model: PredRecForPreTraining, batch: dict[str, Tensor]) -> dict[str, float]:
    """Measures geometry, and the prediction task against trivial predictors.

    Args:
        model ([`PredRecForPreTraining`]): In evaluation mode.
        batch (`dict`): From the collator, on the model's device.

    Returns:
        `dict` with, for the encoder on unmasked texts, `uniformity` and `effective_rank` of the mean-pooled vectors,
        `rank_share` of the largest possible rank, `text_spread` and `token_spread` of token states; and, if there is
        a predictor, `target_spread` and `target_token_spread`, `matched_cosine`, `mismatched_cosine` (prediction
        against the target of another text), `trivial_loss_mean`, `trivial_loss_position`, `trivial_loss_text` (the
        JEPA loss of predicting the mean target, the target at another position of the same text, or another block of
        it that shares no token if targets are pooled, the target of another text at the same position) and
        `jepa_margin`, by which the JEPA loss, on the same targets, beats the best of them. What no row has is absent.
    """
    with kept_random_state(model.device):
        return _measures(model, batch)


@torch.no_grad()
def _measures(model: PredRecForPreTraining, batch: dict[str, Tensor]) -> dict[str, float]:
    texts = batch.get("original_input_ids")
    texts = _unmasked(batch) if texts is None else texts
    mask = batch.get("attention_mask")
    real = torch.ones_like(texts, dtype=torch.bool) if mask is None else mask.bool()
    states, targets = model.states_of_texts(texts, mask)
    # To the CPU, since the geometry is computed in float64, which some accelerators lack.
    pooled = ((states * real[..., None]).sum(1) / real.sum(1, keepdim=True)).cpu()
    rank = effective_rank(pooled)
    measures = {
        "uniformity": uniformity(pooled),
        "effective_rank": rank,
        "rank_share": rank / min(len(pooled) - 1, pooled.shape[1]),
        "text_spread": text_spread(states, real),
        "token_spread": token_spread(states, real),
    }
    if model.active_objective != "mlm":
        measures |= _measure_prediction(model, batch, targets, real)
    return {name: float(value) for name, value in measures.items()}


def _unmasked(batch: dict[str, Tensor]) -> Tensor:
    return torch.where(batch["labels"] == -100, batch["input_ids"], batch["labels"])


def _measure_prediction(
    model: PredRecForPreTraining, batch: dict[str, Tensor], targets: Tensor, real: Tensor
) -> dict[str, Tensor]:
    indices, chosen = batch["target_indices"], batch["target_mask"]
    output = model(**batch)
    predicted, target = output.predicted_latents.float(), output.target_latents.float()
    other_texts = targets.roll(1, dims=0)
    spreads = {
        "target_spread": text_spread(other_texts, real.roll(1, dims=0)),
        "target_token_spread": token_spread(other_texts, real.roll(1, dims=0)),
    }
    if not chosen.any():
        return spreads
    # A text that is shorter than this one has nothing at the position.
    other_real = real.roll(1, dims=0).repeat(len(indices) // len(real), 1)
    both_real = chosen & other_real.gather(1, indices.flatten(1)).view(indices.shape)
    guesses = {
        "mean": (target[chosen].mean(0).expand_as(target), chosen),
        "position": _elsewhere(model, target, indices, chosen, len(real)),
        "text": (model.gather_latents(other_texts, indices), both_real),
    }
    target_ids = model.target_ids(indices, *batch["input_ids"].shape)

    def jepa_loss(guess: Tensor, where: Tensor) -> Tensor:
        torch.manual_seed(0)  # The same random directions for all; the caller keeps training's own state.
        return model.jepa_loss(guess, target, where, target_ids)

    def cosine(left: Tensor, where: Tensor) -> Tensor:
        (left, _), (right, counted) = model.pool(left, where), model.pool(target, where)
        return F.cosine_similarity(left, right, dim=-1)[counted].mean()

    guesses = {name: guess for name, guess in guesses.items() if guess[1].any()}
    trivial = {name: jepa_loss(*guess) for name, guess in guesses.items()}
    # On the same targets: a loss that compares them with one another grows with their number.
    margins = [trivial[name] - jepa_loss(predicted, where) for name, (_, where) in guesses.items()]
    cosines = {"matched_cosine": (predicted, chosen)}
    cosines["mismatched_cosine"] = (predicted.roll(1, dims=0), chosen & chosen.roll(1, dims=0))
    return {
        **spreads,
        **{name: cosine(*pair) for name, pair in cosines.items() if pair[1].any()},
        **{f"trivial_loss_{name}": loss for name, loss in trivial.items()},
        "jepa_margin": torch.stack(margins).min(),
    }


def _elsewhere(
    model: PredRecForPreTraining, target: Tensor, indices: Tensor, chosen: Tensor, num_rows: int
) -> tuple[Tensor, Tensor]:
    """Returns, for each target, that of another place in the same text, and where there is one.

    The other place is half of the longest block away (of their own length where all are short) or, if targets are
    pooled, the next block, or that of the text's next context, where it has no token in common with this one: such a
    guess would hold a part of the answer.

    Args:
        target (`torch.FloatTensor` of shape `(num_contexts, num_blocks, block_length, hidden_size)`): Targets.
        indices, chosen (same without `hidden_size`, long and bool): Their positions, and which there are.
        num_rows (`int`): Texts of the batch.
    """
    if not model.config.pool_targets:
        half = indices.shape[2] // 2
        there = chosen & chosen.roll(half, dims=2)
        if half and there.any():
            return target.roll(half, dims=2), there
        lengths = chosen.cumsum(-1).argmax(-1, keepdim=True) + 1  # To the last target; special tokens may lie between.
        places = (torch.arange(indices.shape[2], device=indices.device) + lengths // 2) % lengths
        guess = target.gather(2, places[..., None].expand_as(target))
        return guess, chosen & chosen.gather(2, places) & (lengths > 1)
    shift, along = (1, 1) if indices.shape[1] > 1 else (num_rows, 0)
    first = indices.masked_fill(~chosen, 2**31).amin(-1, keepdim=True)
    last = indices.masked_fill(~chosen, -1).amax(-1, keepdim=True)
    apart = (last < first.roll(shift, dims=along)) | (last.roll(shift, dims=along) < first)
    return target.roll(shift, dims=along), chosen & chosen.roll(shift, dims=along) & apart


def collapse_reasons(measures: dict[str, float], min_rank: float, min_std: float) -> list[str]:
    """Returns why the measures mean collapse, in words; an empty list when they do not."""
    checks = (
        ("rank_share", min_rank, "the pooled vectors of different texts span almost nothing"),
        ("text_spread", min_std, "the encoder gives different texts nearly the same states"),
        ("token_spread", min_std, "the encoder gives all tokens of a text nearly the same state"),
        ("target_spread", min_std, "different texts have nearly the same targets: predicting them is trivial"),
        ("target_token_spread", min_std, "the tokens of a text have nearly the same target: predicting it is trivial"),
    )
    return [
        f"{name} {measures[name]:.4f} is below {limit}: {meaning}"
        for name, limit, meaning in checks
        if name in measures and not measures[name] >= limit
    ]


class CollapseMonitorCallback(TrainerCallback):
    """Logs [`measure`] at every evaluation, on a fixed held-out batch, and acts on collapse.

    `collapse_action` "warn" says so in the log, "stop" also saves and ends the run, "switch" goes on with masked-LM
    training alone. It acts after `collapse_patience` evaluations in a row; the count is read from the log history, so
    a resumed run goes on counting.

    Args:
        trainer ([`PredRecTrainer`]): Gives the collator, the evaluation data and the log.
    """

    def __init__(self, trainer):
        self.trainer = trainer
        self._batch = None

    def batch(self) -> dict[str, Tensor]:
        """Returns the fixed batch: held-out rows evenly spread over the evaluation data, masked as in epoch 0."""
        if self._batch is None:
            rows, most = self.trainer.eval_dataset, self.trainer.args.monitor_examples
            kept = min(most, len(rows))
            features = [rows[index * len(rows) // kept] for index in range(kept)]
            collator = self.trainer.eval_collator.changed(unpad=False)
            self._batch = self.trainer._prepare_inputs(collator(features))
        return self._batch

    def on_evaluate(self, args, state, control, model=None, metrics=None, **kwargs):
        if metrics is None or "eval_loss" not in metrics or not self.trainer.evaluates_own_rows:
            return
        model.eval()
        fetch_weights_for(model, ("states_of_texts",))
        with autocast(self.trainer.accelerator):
            measures = measure(model, self.batch())
        reasons = collapse_reasons(measures, args.collapse_min_rank, args.collapse_min_std)
        logs = {f"eval_{name}": round(value, 6) for name, value in measures.items()}
        metrics.update(logs)
        self.trainer.log(logs | {"eval_collapsed": float(bool(reasons))})
        if reasons:
            logger.warning(f"Step {state.global_step}: representations collapse: {'; '.join(reasons)}.")
        if self._in_a_row(state) >= args.collapse_patience:
            self._act(args, state, control, model)

    @staticmethod
    def _in_a_row(state) -> int:
        by_step = {entry["step"]: entry["eval_collapsed"] for entry in state.log_history if "eval_collapsed" in entry}
        flags = list(by_step.values())
        return len(flags) - max((i + 1 for i, flag in enumerate(flags) if not flag), default=0)

    def _act(self, args, state, control, model):
        if args.collapse_action == "stop":
            logger.warning(f"Step {state.global_step}: stopping, because `collapse_action` is stop.")
            control.should_save = control.should_training_stop = True
        elif args.collapse_action == "switch" and model.active_objective == "hybrid":
            logger.warning(f"Step {state.global_step}: going on with mlm alone, because `collapse_action` is switch.")
            model.switch_objective("mlm")
