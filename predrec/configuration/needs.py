"""What options need to make a difference: refused on the command line, left out of recipes, named by the Trainer."""

from ..rules import Need

OF_CHOICES = (
    (
        "jepa_view",
        ("blocks",),
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
    ("jepa_view", ("crops",), ("crop_length",)),
    ("loss_weighting", ("schedule",), ("loss_schedule", "loss_lambda_end")),
    ("jepa_loss", ("infonce",), ("jepa_temperature",)),
    ("jepa_loss", ("sigreg", "vicreg"), ("jepa_regularizer_weight",)),
    ("whiten_targets", (True,), ("whiten_epsilon",)),
)
"""An option of pre-training, values of it, and what means nothing unless it has one of these."""

OF_METHODS = (
    ("method", ("llm_jepa",), ("num_predictor_tokens", "target_grad", "jepa_dropout")),
    # With `ntp`, evaluations measure the distance of views all the same.
    ("method", ("llm_jepa", "ntp"), ("distance", "temperature", "symmetric_infonce", "jepa_layer")),
    ("distance", ("infonce",), ("temperature", "symmetric_infonce")),
    ("method", ("llm_jepa", "tube"), ("jepa_lambda", "jepa_lambda_schedule", "lambda_warmup")),
    ("jepa_lambda_schedule", ("warmup",), ("lambda_warmup",)),
    ("target_grad", ("ema",), ("ema_decay", "ema_decay_end")),
)
"""The same of LLM-JEPA."""

OF_RECIPES = (*OF_CHOICES, *OF_METHODS, ("position_embedding_type", ("rotary",), ("rotary_base",)))
"""What a choice on the command line takes out of a recipe. Where both are typed, the base may be the predictor's."""

OF_BOTH_LOSSES = ("mlm_view=context", "jepa_dropout", "jepa_start", "collapse_action=switch")
"""Options of pre-training, or values of them, that mean nothing without `objective=hybrid`."""

OF_LOSSES = {
    "mlm": (*OF_BOTH_LOSSES, "metric_for_best_model=eval_jepa_loss"),
    "jepa": (
        *OF_BOTH_LOSSES,
        "metric_for_best_model=eval_mlm_loss",
        "metric_for_best_model=eval_mlm_accuracy",
    ),
}
"""What means nothing with an objective of one loss."""


def _one_of(choice: str, values: tuple, names: tuple[str, ...]) -> Need:
    need = f"{choice}={' or '.join(map(str, values))}"
    return need, lambda given: getattr(given, choice) in values, names


NEEDS_OF_CHOICES: tuple[Need, ...] = tuple(_one_of(*row) for row in OF_CHOICES)
NEEDS_OF_METHODS: tuple[Need, ...] = tuple(_one_of(*row) for row in OF_METHODS)
"""The same as needs, see [`unmet_needs`]."""


def without_meaning(choice: str, value: str) -> list[str]:
    """Returns the options, or values of them, that mean nothing with a value of another one.

    Args:
        choice (`str`): Name of that one.
        value (`str`): As on a command line; `true` and `false` of a switch.
    """
    names = [
        name
        for own, values, needing in OF_RECIPES
        for name in needing
        if own == choice and value.lower() not in [str(known).lower() for known in values]
    ]
    # What is left out has its default, with which what needs another value of it means nothing either.
    names += [name for own, _, needing in OF_RECIPES if own in names for name in needing]
    return [*names, *(OF_LOSSES.get(value, ()) if choice == "objective" else ())]
