"""Causal language models: built, loaded, and loaded again after training, with adapters or without."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import nn
from transformers import (
    CONFIG_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    set_seed,
)

from ..configuration.llm_arguments import LLMModelArguments
from ..configuration.suggestions import did_you_mean
from ..data_collators.chat_tokenizer import train_chat_tokenizer
from ..errors import UserError
from ..modeling.flash import half_for_flash
from ..modeling.predictor_tokens import grow_vocabulary

CANNOT_LOAD = (
    *(OSError, ValueError, RuntimeError, KeyError, ImportError, AttributeError, TypeError),
    StrictDataclassError,
)


def prepare_language_tokenizer(
    arguments: LLMModelArguments, texts: Sequence[str], max_seq_length: int
) -> PreTrainedTokenizerBase:
    """Loads the tokenizer, or trains it on the records' texts; one without padding pads with its EOS.

    Raises:
        UserError: If it cannot be loaded, or has neither a padding nor an EOS token.
    """
    if arguments.train_tokenizer:
        return train_chat_tokenizer(texts, arguments.vocab_size, max_seq_length)
    return load_language_tokenizer(
        str(arguments.tokenizer_name or arguments.model_name_or_path), arguments.trust_remote_code
    )


def load_language_tokenizer(name: str, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """Loads a tokenizer that sequences can be padded with; raises `UserError`."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=trust_remote_code)
    except CANNOT_LOAD as error:
        raise UserError(f"`tokenizer_name`: cannot load a tokenizer from {name!r}: {error}") from error
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token_id is None:
            raise UserError(f"`tokenizer_name`: {name!r} has neither a padding nor an EOS token; give it one.")
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def prepare_language_model(
    arguments: LLMModelArguments,
    tokenizer: PreTrainedTokenizerBase,
    max_seq_length: int,
    seed: int,
    device: torch.device | str = "cpu",
) -> PreTrainedModel:
    """Loads the language model, or makes one with random weights.

    Args:
        arguments ([`LLMModelArguments`]): Which one.
        tokenizer (`PreTrainedTokenizerBase`): Its tokenizer.
        max_seq_length (`int`): Must fit the model.
        seed (`int`): Of random weights.
        device (`torch.device`, defaults to the CPU): Where it is to be trained, and tried: some attention needs a GPU.

    Raises:
        UserError: If there is no such model, or model and tokenizer do not fit.
    """
    name, dtype = arguments.model_name_or_path, getattr(torch, arguments.param_dtype)
    if name and (Path(name) / "adapter_config.json").is_file():
        raise UserError(f"`model_name_or_path`: {name!r} is an adapter. Merge it into its model, or name that model.")
    options: dict[str, Any] = {"dtype": dtype}
    if arguments.attn_implementation:
        options["attn_implementation"] = arguments.attn_implementation
    try:
        if arguments.init == "pretrained":
            model = AutoModelForCausalLM.from_pretrained(
                name, trust_remote_code=arguments.trust_remote_code, **options
            )
        else:
            config = _configuration(arguments, tokenizer, max_seq_length)
            set_seed(seed)
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=arguments.trust_remote_code, **options)
    except UserError:
        raise
    except CANNOT_LOAD as error:
        field = "model_name_or_path" if name else "model_type"
        raise UserError(
            f"`{field}`: cannot make a causal language model of {name or arguments.model_type!r}: {error}"
        ) from error
    model.to(device)
    _check_fit(model, tokenizer, max_seq_length)
    return model


def _configuration(
    arguments: LLMModelArguments, tokenizer: PreTrainedTokenizerBase, max_seq_length: int
) -> PreTrainedConfig:
    given = dict(arguments.model_config or {})
    if arguments.model_name_or_path:
        config = AutoConfig.from_pretrained(
            arguments.model_name_or_path, trust_remote_code=arguments.trust_remote_code
        )
    elif arguments.model_type not in CONFIG_MAPPING:
        raise UserError(
            f"`model_type` {arguments.model_type!r} is unknown"
            + did_you_mean(str(arguments.model_type), CONFIG_MAPPING)
        )
    else:
        config = CONFIG_MAPPING[arguments.model_type]()
    unknown = [name for name in given if not hasattr(config, name)]
    if unknown:
        raise UserError(
            f"`model_config`: {config.model_type} has no `{unknown[0]}`{did_you_mean(unknown[0], vars(config))}"
        )
    if not arguments.model_name_or_path:
        # Room for prompts of full length with their answers.
        given = {"vocab_size": len(tokenizer), "max_position_embeddings": 2 * max_seq_length} | given
        given |= {f"{kind}_token_id": getattr(tokenizer, f"{kind}_token_id") for kind in ("bos", "eos", "pad")}
        return CONFIG_MAPPING[arguments.model_type](**given)
    for name, value in given.items():
        setattr(config, name, value)
    return config


def _check_fit(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, max_seq_length: int) -> None:
    rows = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        raise UserError(
            f"The tokenizer has {len(tokenizer)} tokens but the model has {rows}: they do not belong together."
        )
    longest = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if longest is not None and max_seq_length > longest:
        raise UserError(f"`max_seq_length` is {max_seq_length}, but the model takes at most {longest} tokens.")
    with torch.no_grad(), half_for_flash(model):
        ids = torch.zeros(2, 3, dtype=torch.long, device=model.device)
        ids[1, -1] = 1
        first, second = model.eval()(ids, use_cache=False).logits[:, 0].float()
    model.train()
    if (first - second).abs().max() > 1e-3 * first.abs().max():
        raise UserError(f"`model_type` {model.config.model_type} sees later tokens: it is no causal language model.")


def load_trained(path: str | Path, trust_remote_code: bool = False) -> tuple[nn.Module, PreTrainedTokenizerBase]:
    """Loads what training left: a whole model, or adapters on the model that they were trained on.

    Args:
        path (`str`): Directory or Hub id.
        trust_remote_code (`bool`, defaults to `False`): Run model code that comes with a checkpoint.

    Raises:
        UserError: If it cannot be loaded, or the adapters belong to another model.
    """
    tokenizer = load_language_tokenizer(str(path), trust_remote_code)
    adapter = Path(path) / "adapter_config.json"
    try:
        if not adapter.is_file():
            model = AutoModelForCausalLM.from_pretrained(
                path, trust_remote_code=trust_remote_code, dtype=torch.float32
            )
            return model.eval(), tokenizer
        from peft import PeftModel

        base_name = json.loads(adapter.read_text(encoding="utf-8"))["base_model_name_or_path"]
        base = AutoModelForCausalLM.from_pretrained(
            base_name, trust_remote_code=trust_remote_code, dtype=torch.float32
        )
        grow_vocabulary(base, len(tokenizer))
        return PeftModel.from_pretrained(base, str(path)).eval(), tokenizer
    except CANNOT_LOAD as error:
        what = f"the adapters at {str(path)!r}" if adapter.is_file() else f"{str(path)!r}"
        raise UserError(f"`models`: cannot load {what} as a causal language model: {error}") from error
