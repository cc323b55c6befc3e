"""Options that were set although nothing in this run looks at them: they are named when it begins."""

from dataclasses import MISSING, fields
from typing import Any

from ..configuration.needs import NEEDS_OF_CHOICES
from ..modeling import PredRecPreTrainingConfig
from ..rules import Need, unmet_needs

NEEDS: tuple[Need, ...] = (
    (
        "objective=hybrid",
        lambda config: config.objective == "hybrid",
        ("loss_weighting", "loss_schedule", "loss_lambda", "loss_lambda_end", "mlm_view"),
    ),
    *NEEDS_OF_CHOICES,
    (
        "center_targets or whiten_targets",
        lambda config: config.center_targets or config.whiten_targets,
        ("center_decay",),
    ),
    ("an averaged target encoder", lambda config: config.has_target_encoder, ("ema_decay", "ema_decay_end")),
    (
        "masked text",
        lambda config: config.objective != "jepa" or config.context_text == "masked",
        ("mlm_probability", "mask_replace_prob", "random_replace_prob", "masking_unit"),
    ),
)
"""What options of model, training and masks need to make a difference; the checks look at the model's."""

OF_THE_MONITOR = ("monitor_examples", "collapse_patience", "collapse_min_rank", "collapse_min_std")
"""What nothing looks at without held-out rows."""


def unused_options(
    config: PredRecPreTrainingConfig, args: Any, collator: Any, evaluates: bool = True
) -> dict[str, str]:
    """Finds options that are not at their default although the run never looks at them.

    With `objective=mlm` there are none: it is the baseline of comparisons, whose arms share their recipe.

    Args:
        config: Of the model.
        args, collator: Of the run; dataclasses with further options.
        evaluates (`bool`, defaults to `True`): Whether there are rows to evaluate on.

    Returns:
        `dict`: Of each its name, and what it needs.
    """
    if config.objective == "mlm":
        return {}
    changed = {
        option.name
        for holder in (config, args, collator)
        for option in fields(holder)
        if option.default is not MISSING and getattr(holder, option.name) != option.default
    }
    needs = [*NEEDS, ("held-out rows", lambda config: evaluates, OF_THE_MONITOR)]
    return unmet_needs(needs, config, changed)


def describe(unused: dict[str, str]) -> str:
    """Says in one line which options have no effect, and what they need."""
    named = {need: [f"`{name}`" for name, own in unused.items() if own == need] for need in unused.values()}
    return "Without effect: " + "; ".join(f"{', '.join(names)} (without {need})" for need, names in named.items())
