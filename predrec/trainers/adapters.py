"""LoRA for LLM-JEPA: adapters on every projection, and the predictor tokens' own rows."""

from collections.abc import Sequence

from torch import nn
from transformers import PreTrainedModel

from ..errors import UserError

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""The published choice: all projections of Llama-like layers."""


def with_lora(
    model: PreTrainedModel,
    rank: int,
    alpha: int | None = None,
    dropout: float = 0.1,
    target_modules: Sequence[str] = PROJECTIONS,
) -> nn.Module:
    """Puts adapters on a causal language model; everything else is frozen but the rows of the predictor tokens.

    In the published code these rows stay at their random start; here they are trained, and only they, without a copy
    of the whole embedding table.

    Args:
        model (`PreTrainedModel`): With predictor tokens or without, see [`add_predictor_tokens`].
        rank (`int`): Of the adapters.
        alpha (`int`, *optional*): Scale of the adapters times their rank; twice the rank when absent.
        dropout (`float`, defaults to 0.1): Of what goes into adapters.
        target_modules (`Sequence[str]`): Names of the adapted layers; where the model has none of them, all its linear
            layers but the head.

    Returns:
        `PeftModel`, with float32 adapters.
    """
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise UserError(f"`use_lora` needs the optional library: pip install 'predrec[peft]' ({error}).") from error
    names = {name.rpartition(".")[2] for name, _ in model.named_modules()}
    targets = [name for name in target_modules if name in names] or "all-linear"
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=rank,
        lora_alpha=2 * rank if alpha is None else alpha,
        lora_dropout=dropout,
        bias="none",
        target_modules=targets,
        trainable_token_indices=list(getattr(model.config, "predictor_token_ids", None) or []) or None,
    )
    return get_peft_model(model, config, autocast_adapter_dtype=True)
