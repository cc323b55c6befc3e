"""Options that were set although nothing in this run looks at them: they are named when it begins."""

from dataclasses import MISSING, fields
from typing import Any

from ..modeling import PredRecPreTrainingConfig
from ..rules import Need, unmet_needs

NEEDS: tuple[Need, ...] = (
    (
        "objective=hybrid",
        lambda config: config.objective == "hybrid",
        ("loss_weighting", "loss_schedule", "loss_lambda", "loss_lambda_end", "mlm_view"),
    ),
    (
        "loss_weighting=schedule",
        lambda config: config.loss_weighting == "schedule",
        ("loss_schedule", "loss_lambda_end"),
    ),
    ("jepa_loss=infonce", lambda config: config.jepa_loss == "infonce", ("jepa_temperature",)),
    (
        "jepa_loss=sigreg or vicreg",
        lambda config: config.jepa_loss in ("sigreg", "vicreg"),
        ("jepa_regularizer_weight",),
    ),
    (
        "center_targets or whiten_targets",
        lambda config: config.center_targets or config.whiten_targets,
        ("center_decay",),
    ),
    ("whiten_targets", lambda config: config.whiten_targets, ("whiten_epsilon",)),
    ("an averaged target encoder", lambda config: config.has_target_encoder, ("ema_decay", "ema_decay_end")),
    (
        "jepa_view=blocks",
        lambda config: config.jepa_view == "blocks",
        (
            "predictor_hidden_size",
            "predictor_num_hidden_layers",
            "predictor_num_attention_heads",
            "predictor_intermediate_size",
            "predictor_attention",
            "predictor_position_embedding_type",
            "context_scale",
            "target_scale",
            "num_target_blocks",
            "min_context_tokens",
            "context_excludes_targets",
        ),
    ),
    (
        "masked text",
        lambda config: config.objective != "jepa" or config.context_text == "masked",
        ("mlm_probability", "mask_replace_prob", "random_replace_prob", "masking_unit"),
    ),
)
"""What options of model, training and masks need to make a difference; the checks look at the model's."""


def unused_options(config: PredRecPreTrainingConfig, *others: Any) -> dict[str, str]:
    """Finds options that are not at their default although the run never looks at them.

    With `objective=mlm` there are none: it is the baseline of comparisons, whose arms share their recipe.

    Args:
        config: Of the model.
        others: Further dataclasses with options, as training arguments and the collator.

    Returns:
        `dict`: Of each its name, and what it needs.
    """
    if config.objective == "mlm":
        return {}
    changed = {
        option.name
        for holder in (config, *others)
        for option in fields(holder)
        if option.default is not MISSING and getattr(holder, option.name) != option.default
    }
    return unmet_needs(NEEDS, config, changed)


def describe(unused: dict[str, str]) -> str:
    """Says in one line which options have no effect, and what they need."""
    named = {need: [f"`{name}`" for name, own in unused.items() if own == need] for need in unused.values()}
    return "Without effect: " + "; ".join(f"{', '.join(names)} (without {need})" for need, names in named.items())
