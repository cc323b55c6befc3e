"""Greedy decoding in batches: the same tokens as one prompt at a time, in the order of the prompts."""

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn
from transformers import GenerationConfig, PreTrainedTokenizerBase

from ..errors import UserError
from ..modeling.flash import half_for_flash


def stop_token_ids(
    model: nn.Module, tokenizer: PreTrainedTokenizerBase, template_stop_ids: Iterable[int] = ()
) -> set[int]:
    """Returns all tokens at which generation ends: the tokenizer's, the model's and the chat template's.

    They need not agree: the tokenizer's end of text may never follow an answer, where the template ends a turn with
    another token and the model's generation configuration names several.

    Args:
        model (`nn.Module`): With a `generation_config`, as any causal language model of transformers.
        tokenizer (`PreTrainedTokenizerBase`): Of the model.
        template_stop_ids (`Iterable[int]`, defaults to none): What ends an answer in training.
    """
    stops = {*template_stop_ids}
    configured = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    for ids in (configured, tokenizer.eos_token_id):
        stops.update([ids] if isinstance(ids, int) else ids or [])
    return stops


@torch.no_grad()
def greedy(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    *,
    stop_ids: set[int],
    pad_id: int,
    max_new_tokens: int,
    batch_size: int,
    suppress_ids: Sequence[int] = (),
    device: torch.device | str | None = None,
) -> list[list[int]]:
    """Continues every prompt with the most probable token, until a stop token or `max_new_tokens`.

    Prompts of similar length share a batch, padded on the left. Of the model's own generation configuration nothing
    is used: no sampling, no repetition penalty, no other stop tokens. In float32 a batch gives what each prompt gives
    alone, but for ties; in half precision, in which flash attention computes, near-ties may fall either way.

    Args:
        model (`nn.Module`): Causal language model with `generate`; it is left in the mode in which it was.
        prompts (`Sequence[Sequence[int]]`): Token ids. They are never cut.
        stop_ids (`set[int]`): Tokens that end an answer, as from [`stop_token_ids`].
        pad_id (`int`): Fills rows up. It may be one of the stop tokens.
        max_new_tokens (`int`): Longest answer.
        batch_size (`int`): Prompts at a time.
        suppress_ids (`Sequence[int]`, defaults to none): Tokens that are never generated, such as predictor tokens.
        device (`torch.device`, *optional*): Of the inputs; the model's when absent.

    Returns:
        `list[list[int]]`: For each prompt what follows it, without stop and padding tokens.

    Raises:
        UserError: If a prompt is empty, or leaves no room for `max_new_tokens` in the model's positions, or there is
            no stop token.
    """
    if not stop_ids:
        raise UserError("There is no stop token, so no answer would end. Set the tokenizer's `eos_token`.")
    check_lengths(model, prompts, max_new_tokens)
    config = GenerationConfig(
        do_sample=False,
        num_beams=1,
        max_new_tokens=max_new_tokens,
        eos_token_id=sorted(stop_ids),
        pad_token_id=pad_id,
        suppress_tokens=list(suppress_ids) or None,
    )
    answers: list[list[int]] = [[] for _ in prompts]
    # The longest first: what does not fit into memory does not fit at once.
    order = sorted(range(len(prompts)), key=lambda number: -len(prompts[number]))
    owner = getattr(model, "get_base_model", lambda: model)()  # Below adapters.
    training, own_config = model.training, owner.generation_config
    # `generate` fills what a configuration leaves open from the model's own.
    owner.generation_config = GenerationConfig()
    model.eval()
    try:
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            batch = _padded([prompts[row] for row in rows], pad_id, device or model.device)
            with half_for_flash(model):
                generated = model.generate(**batch, generation_config=config)[:, batch["input_ids"].shape[1] :]
            for row, ids in zip(rows, generated.tolist(), strict=True):
                answers[row] = _before_stop(ids, stop_ids, pad_id)
    finally:
        owner.generation_config = own_config
        model.train(training)
    return answers


@torch.no_grad()
def next_token_logits(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    *,
    pad_id: int,
    batch_size: int,
    device: torch.device | str | None = None,
) -> Iterator[Tensor]:
    """Gives, for each prompt in order, the logits of the token after it, `(vocab_size,)` in float32.

    Raises:
        UserError: If a prompt is empty, or longer than the model's positions.
    """
    check_lengths(model, prompts, 1)
    training = model.training
    model.eval()
    try:
        for start in range(0, len(prompts), batch_size):
            batch = _padded(prompts[start : start + batch_size], pad_id, device or model.device)
            positions = (batch["attention_mask"].cumsum(1) - 1).clamp(min=0)
            with half_for_flash(model):
                logits = model(**batch, position_ids=positions, use_cache=False, logits_to_keep=1).logits
            yield from logits[:, -1].float()
    finally:
        model.train(training)


def check_lengths(model: nn.Module, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> None:
    """Raises `UserError` if a prompt is empty, or leaves no room for its answer in the model's positions."""
    if max_new_tokens < 1:
        raise UserError(f"`max_new_tokens` is {max_new_tokens}; it must be at least 1.")
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    for number, prompt in enumerate(prompts):
        if not len(prompt):
            raise UserError(f"Prompt {number} is empty.")
        if positions is not None and len(prompt) + max_new_tokens > positions:
            raise UserError(
                f"Prompt {number} has {len(prompt)} tokens; with `max_new_tokens` {max_new_tokens} that is more than "
                f"the model's {positions} positions. Prompts are not cut: lower `max_new_tokens`, or leave it out."
            )


def _padded(prompts: Sequence[Sequence[int]], pad_id: int, device: torch.device | str) -> dict[str, Tensor]:
    """Returns prompts with padding on the left, and the mask that says where it is."""
    length = max(map(len, prompts))
    ids = [[pad_id] * (length - len(prompt)) + list(prompt) for prompt in prompts]
    mask = [[0] * (length - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    return {
        "input_ids": torch.tensor(ids, dtype=torch.long, device=device),
        "attention_mask": torch.tensor(mask, dtype=torch.long, device=device),
    }


def _before_stop(ids: list[int], stop_ids: set[int], pad_id: int) -> list[int]:
    """Returns what stands before the first stop token, without padding."""
    end = next((place for place, token in enumerate(ids) if token in stop_ids), len(ids))
    return [token for token in ids[:end] if token != pad_id]
