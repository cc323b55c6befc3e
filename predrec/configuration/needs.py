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
"""An option, values of it, and what means nothing unless it has one of these."""


def _one_of(choice: str, values: tuple, names: tuple[str, ...]) -> Need:
    need = f"{choice}={' or '.join(map(str, values))}"
    return need, lambda given: getattr(given, choice) in values, names


NEEDS_OF_CHOICES: tuple[Need, ...] = tuple(_one_of(*row) for row in OF_CHOICES)
"""The same as needs, see [`unmet_needs`]."""


def without_meaning(choice: str, value: str) -> list[str]:
    """Returns the options that mean nothing with a value of another one, written as on a command line."""
    return [
        name
        for own, values, names in OF_CHOICES
        for name in names
        if own == choice and value.lower() not in [str(known).lower() for known in values]
    ]
