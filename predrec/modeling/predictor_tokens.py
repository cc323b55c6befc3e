"""Predictor tokens of LLM-JEPA: k new rows of the vocabulary whose last state is the prediction of the other view."""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

MAX_PREDICTOR_TOKENS = 10
NAME = "<|predictor_{}|>"


def add_predictor_tokens(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, count: int, seed: int = 0
) -> tuple[int, ...]:
    """Adds predictor tokens to a tokenizer and a model, or finds them there.

    Embeddings grow only when the vocabulary has no free row, see [`grow_vocabulary`]; rows that pad it are used first.
    The new rows, of input and output embeddings, are the mean of the old ones plus noise of 2 % of their standard
    deviation.

    Args:
        model (`PreTrainedModel`): A causal language model; `config.predictor_token_ids` will name the tokens.
        tokenizer (`PreTrainedTokenizerBase`): Its tokenizer; its other special tokens stay.
        count (`int`): How many; 0 to 10.
        seed (`int`, defaults to 0): Of the noise.

    Returns:
        Their ids in reading order: the one that is read stands last and is `<|predictor_1|>`, whatever the count.

    Raises:
        ValueError: If `count` is out of range.
    """
    if not 0 <= count <= MAX_PREDICTOR_TOKENS:
        raise ValueError(f"`num_predictor_tokens` is {count}; it must be between 0 and {MAX_PREDICTOR_TOKENS}.")
    names = [NAME.format(number) for number in range(count, 0, -1)]
    known = set(tokenizer.get_vocab())
    new = [name for name in reversed(names) if name not in known]
    rows = model.get_input_embeddings().weight.shape[0]
    if new:
        first = len(tokenizer)
        tokenizer.add_special_tokens({"extra_special_tokens": new}, replace_extra_special_tokens=False)
        fresh = tokenizer.convert_tokens_to_ids(new)
        grow_vocabulary(model, max(fresh) + 1)
        written = sorted({*fresh, *_added_rows(model, rows)})
        generator = torch.Generator().manual_seed(seed)
        for embeddings in _embeddings(model):
            _initialise(embeddings.weight, written, first, generator)
        model.config.vocab_rows_before_predictor_tokens = rows
    ids = tuple(tokenizer.convert_tokens_to_ids(names))
    model.config.predictor_token_ids = list(ids)
    if ids and model.generation_config is not None:
        silent = {*ids, *_added_rows(model, getattr(model.config, "vocab_rows_before_predictor_tokens", rows))}
        model.generation_config.suppress_tokens = sorted({*(model.generation_config.suppress_tokens or []), *silent})
    return ids


def grow_vocabulary(model: PreTrainedModel, size: int) -> None:
    """Gives a model embeddings for at least `size` tokens, as even in number as they were.

    A table of 128,256 rows becomes one of 128,320: matrix products with an odd number of rows are slower on GPUs. Of
    the largest power of two in the old number, 64 at most, the new one is a multiple.
    """
    rows = model.get_input_embeddings().weight.shape[0]
    if size > rows:
        evenness = min(rows & -rows, 64)
        model.resize_token_embeddings(size, pad_to_multiple_of=evenness, mean_resizing=False)


def _added_rows(model: PreTrainedModel, before: int) -> range:
    return range(before, model.get_input_embeddings().weight.shape[0])


def predictor_ids_of(tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """Returns the ids of the predictor tokens that a tokenizer knows, in reading order; empty when it has none."""
    vocabulary = tokenizer.get_vocab()
    names = [NAME.format(number) for number in range(MAX_PREDICTOR_TOKENS, 0, -1)]
    return tuple(vocabulary[name] for name in names if name in vocabulary)


def strip_predictor_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """Gives a model its vocabulary without predictor tokens, in place; returns the tokenizer without them.

    What the model generates does not change: predictor tokens were never generated.
    """
    ids = getattr(model.config, "predictor_token_ids", None)
    if not ids:
        return tokenizer
    rows = getattr(model.config, "vocab_rows_before_predictor_tokens", None)
    added = () if rows is None else _added_rows(model, rows)
    if added:
        model.resize_token_embeddings(rows, mean_resizing=False)
    for name in ("predictor_token_ids", "vocab_rows_before_predictor_tokens"):
        if hasattr(model.config, name):
            delattr(model.config, name)
    if model.generation_config is not None and model.generation_config.suppress_tokens:
        silent = {*ids, *added}
        kept = [token_id for token_id in model.generation_config.suppress_tokens if token_id not in silent]
        model.generation_config.suppress_tokens = kept or None
    return _without(tokenizer, {NAME.format(number) for number in range(1, MAX_PREDICTOR_TOKENS + 1)})


def _embeddings(model: PreTrainedModel) -> list[nn.Module]:
    """Returns input and output embeddings; one module where they are tied."""
    inputs, outputs = model.get_input_embeddings(), model.get_output_embeddings()
    tied = outputs is None or outputs.weight is inputs.weight
    return [inputs] if tied else [inputs, outputs]


def _initialise(weight: Tensor, fresh: Sequence[int], before: int, generator: torch.Generator) -> None:
    """Writes new rows: the mean of the `before` old ones and a little noise."""
    with torch.no_grad():
        old = weight[:before].float()
        noise = torch.randn(len(fresh), weight.shape[1], generator=generator).to(weight.device)
        weight[list(fresh)] = (old.mean(0) + 0.02 * old.std() * noise).to(weight.dtype)


def _without(tokenizer: PreTrainedTokenizerBase, names: set[str]) -> PreTrainedTokenizerBase:
    """Returns a tokenizer whose last added tokens are gone, by way of its saved form."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            path = Path(folder, name)
            path.write_text(json.dumps(_pruned(json.loads(path.read_text("utf-8")), names)), encoding="utf-8")
        return type(tokenizer).from_pretrained(folder)


def _pruned(value: Any, names: set[str]) -> Any:
    """Returns JSON content without the entries for these tokens."""

    def is_named(entry: Any) -> bool:
        return entry in names if isinstance(entry, str) else isinstance(entry, dict) and entry.get("content") in names

    if isinstance(value, dict):
        return {key: _pruned(entry, names) for key, entry in value.items() if key not in names and not is_named(entry)}
    if isinstance(value, list):
        return [_pruned(entry, names) for entry in value if not is_named(entry)]
    return value
