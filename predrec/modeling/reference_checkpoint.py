"""Our models from a checkpoint of the original author's code."""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from .configuration_predrec import PredRecConfig
from .configuration_pretraining import PredRecPreTrainingConfig
from .modeling_predrec import PredRecForMaskedLM
from .modeling_pretraining import PredRecForPreTraining
from .reference_format import ReferenceCheckpoint

HEAD_WIDTH = 64
"""Of the paper's encoder: 512 in 8 heads."""

NUM_HEADS = re.compile(r"(?:\w+_)?(?:num_attention_heads|num_heads|n_heads?|nheads?|heads)")
"""What a configuration may call it."""


def choose_heads(checkpoint: ReferenceCheckpoint, given: int | None) -> tuple[int, str]:
    """Chooses the number of heads of the encoder, which no weight shows.

    Args:
        checkpoint ([`ReferenceCheckpoint`]): Its `config` is searched when nothing is given.
        given (`int`, *optional*): What the user says.

    Returns:
        The number of heads, and where it is from.

    Raises:
        ValueError: If it does not divide the width, `config` contradicts itself, or there is nothing to go by.
    """
    width = checkpoint.sizes["D"]
    default = width // HEAD_WIDTH if width % HEAD_WIDTH == 0 else None
    source = f"the paper's width of {HEAD_WIDTH} each, since `config` names none"
    return _choose(
        "num_attention_heads", given, _configured(checkpoint.config, predictor=False), default, source, width
    )


def choose_predictor_heads(checkpoint: ReferenceCheckpoint, given: int | None, encoder_heads: int) -> tuple[int, str]:
    """Chooses the number of heads of the predictor, as [`choose_heads`] does; as many as the encoder's by default."""
    configured, name = _configured(checkpoint.config, predictor=True), "predictor_num_attention_heads"
    return _choose(name, given, configured, encoder_heads, "as many as the encoder", checkpoint.sizes["P"])


def _choose(
    name: str, given: int | None, configured: set[int], default: int | None, default_source: str, width: int
) -> tuple[int, str]:
    if given is not None:
        number, source = given, f"`--{name}`"
    elif len(configured) > 1:
        raise ValueError(f"its `config` names several numbers of heads {sorted(configured)}: give `--{name}`.")
    elif configured:
        number, source = configured.pop(), "`config` of the checkpoint"
    elif default:
        number, source = default, default_source
    else:
        raise ValueError(f"its width of {width} does not tell the number of heads: give `--{name}`.")
    if number < 1 or width % number:
        raise ValueError(f"{number} heads ({source}) do not divide its width of {width}: give another `--{name}`.")
    return number, source


def _configured(config: Any, predictor: bool) -> set[int]:
    """Finds every number of heads in a free-form configuration that is, or is not, the predictor's."""
    found, waiting, seen = set(), [("", False, config)], set()
    while waiting:
        name, of_predictor, value = waiting.pop()
        if isinstance(value, int) and not isinstance(value, bool):
            if of_predictor == predictor and NUM_HEADS.fullmatch(name):
                found.add(value)
        elif isinstance(value, Mapping | list | tuple) and id(value) not in seen:
            seen.add(id(value))
            entries = value.items() if isinstance(value, Mapping) else (("", entry) for entry in value)
            named = ((key.lower() if isinstance(key, str) else "", entry) for key, entry in entries)
            waiting += [(key, of_predictor or "pred" in key, entry) for key, entry in named]
    return found


def masked_lm_of(checkpoint: ReferenceCheckpoint, num_attention_heads: int, **config: Any) -> PredRecForMaskedLM:
    """Returns the encoder with its token regressor; further keyword arguments are fields of its configuration."""
    model = PredRecForMaskedLM(_encoder_config(checkpoint, num_attention_heads, **config))
    model.load_state_dict(_masked_lm_weights(checkpoint))
    return model.eval()


def pretraining_model_of(
    checkpoint: ReferenceCheckpoint, num_attention_heads: int, predictor_num_attention_heads: int, **config: Any
) -> PredRecForPreTraining:
    """Returns the pre-training model of a hybrid checkpoint: both encoders, regressor, predictor, loss weight.

    Further keyword arguments are fields of the encoder's configuration.
    """
    sizes, weights = checkpoint.sizes, checkpoint.weights
    model = PredRecForPreTraining(
        PredRecPreTrainingConfig(
            encoder_config=_encoder_config(checkpoint, num_attention_heads, **config),
            predictor_hidden_size=sizes["P"],
            predictor_num_hidden_layers=sizes["predictor_blocks"],
            predictor_num_attention_heads=predictor_num_attention_heads,
            predictor_intermediate_size=sizes["Q"],
        )
    )
    predictor = weights["predictor"] | {"mask_token": weights["predictor"]["mask_token"].flatten()}
    model.load_state_dict(
        _prefixed("masked_lm.", _masked_lm_weights(checkpoint))
        | _prefixed("target_encoder.", weights["target_encoder"])
        | _prefixed("predictor.", predictor)
        | {"loss_logit": weights["loss_weight"]["loss_weight"].flatten()}
    )
    return model.eval()


def _encoder_config(checkpoint: ReferenceCheckpoint, num_attention_heads: int, **config: Any) -> PredRecConfig:
    sizes = checkpoint.sizes
    return PredRecConfig(
        vocab_size=sizes["V"],
        hidden_size=sizes["D"],
        num_hidden_layers=sizes["blocks"],
        num_attention_heads=num_attention_heads,
        intermediate_size=sizes["F"],
        max_position_embeddings=sizes["L"],
        **config,
    )


def _masked_lm_weights(checkpoint: ReferenceCheckpoint) -> dict[str, Tensor]:
    weights = checkpoint.weights
    return _prefixed("model.", weights["encoder"]) | _prefixed("lm_head.", weights["token_regressor"])


def _prefixed(prefix: str, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + key: tensor for key, tensor in weights.items()}
