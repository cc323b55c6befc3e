"""Batched greedy decoding against a loop that picks the largest logit."""

from types import SimpleNamespace

import pytest
import torch
from transformers import GenerationConfig, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from predrec.errors import UserError
from predrec.eval.generation import greedy, next_token_logits, stop_token_ids

from ..causal import with_flash

VOCAB, PAD = 48, 0
PROMPTS = [[5, 6, 7, 8, 9, 10], [11], [12, 13, 14], [15, 16, 17, 18], [19, 20], [11]]


def tiny(kind: str):
    torch.manual_seed(3)
    if kind == "llama":
        config = LlamaConfig(
            vocab_size=VOCAB,
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=32,
            initializer_range=0.6,
        )
        return LlamaForCausalLM(config).eval()
    config = GPT2Config(
        vocab_size=VOCAB, n_embd=16, n_layer=2, n_head=2, n_positions=32, initializer_range=0.6, eos_token_id=1
    )
    return GPT2LMHeadModel(config).eval()


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def model(request):
    return tiny(request.param)


@torch.no_grad()
def by_hand(model, prompt, stop_ids, max_new_tokens, suppressed=()):
    ids = list(prompt)
    while len(ids) < len(prompt) + max_new_tokens:
        logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].clone()
        logits[list(suppressed)] = -torch.inf
        token = int(logits.argmax())
        if token in stop_ids:
            break
        ids.append(token)
    return [token for token in ids[len(prompt) :] if token != PAD]


@pytest.fixture
def never_generated(model):
    """A stop token that these prompts never lead to."""
    seen = {token for prompt in PROMPTS for token in by_hand(model, prompt, set(), 12)}
    return max(set(range(VOCAB)) - seen - {PAD})


@pytest.mark.parametrize("batch_size", [1, 2, 6])
def test_batches_give_what_each_prompt_gives_alone(model, never_generated, batch_size):
    expected = [by_hand(model, prompt, {never_generated}, 12) for prompt in PROMPTS]
    assert len({tuple(answer) for answer in expected}) > 3  # Otherwise the order would not matter.
    options = {"pad_id": PAD, "max_new_tokens": 12, "batch_size": batch_size, "stop_ids": {never_generated}}
    assert greedy(model, PROMPTS, **options) == expected


def test_longest_prompts_come_first(model, never_generated):
    """What does not fit into memory does not fit at once, and not after hours."""
    widths = []
    generate = model.generate
    model.generate = lambda **batch: (widths.append(batch["input_ids"].shape[1]), generate(**batch))[1]
    try:
        greedy(model, PROMPTS, stop_ids={never_generated}, pad_id=PAD, max_new_tokens=2, batch_size=1)
    finally:
        del model.generate
    assert widths == sorted(map(len, PROMPTS), reverse=True) and len(set(widths)) > 1


def test_every_stop_token_ends_an_answer_and_is_left_out(model):
    free = [by_hand(model, prompt, set(), 12) for prompt in PROMPTS]
    stops = {free[0][3], free[2][2]}
    expected = [by_hand(model, prompt, stops, 12) for prompt in PROMPTS]
    assert len({len(answer) for answer in expected}) > 1
    for pad in (PAD, min(stops)):
        options = {"pad_id": pad, "max_new_tokens": 12, "batch_size": 6, "stop_ids": stops}
        assert greedy(model, PROMPTS, **options) == expected


def test_a_batch_ends_when_its_last_answer_does(model):
    free = [by_hand(model, prompt, set(), 12) for prompt in PROMPTS[:3]]
    stops = {free[0][1], free[2][2]}
    longest = max(len(by_hand(model, prompt, stops, 12)) for prompt in (PROMPTS[0], PROMPTS[2]))
    passes = []
    handle = model.register_forward_hook(lambda *_: passes.append(1))
    greedy(model, [PROMPTS[0], PROMPTS[2]], stop_ids=stops, pad_id=PAD, max_new_tokens=12, batch_size=2)
    handle.remove()
    assert len(passes) == longest + 1 < 12


def test_flash_attention_generates_in_half_precision():
    """Its kernels refuse float32; after a batch, float32 is back."""
    model, stops = with_flash(tiny("llama")), {"stop_ids": {1}, "max_new_tokens": 4}
    assert len(greedy(model, PROMPTS, pad_id=PAD, batch_size=2, **stops)) == len(PROMPTS)
    logits = next_token_logits(model, PROMPTS, pad_id=PAD, batch_size=2)
    assert next(logits).dtype == torch.float32 and not torch.is_autocast_enabled("cpu")


def test_suppressed_tokens_are_never_generated(model, never_generated):
    suppressed = (by_hand(model, PROMPTS[0], set(), 1)[0],)
    expected = [by_hand(model, prompt, {never_generated}, 8, suppressed) for prompt in PROMPTS]
    options = {"pad_id": PAD, "max_new_tokens": 8, "batch_size": 3, "stop_ids": {never_generated}}
    assert greedy(model, PROMPTS, suppress_ids=suppressed, **options) == expected
    assert greedy(model, PROMPTS, **options) != expected


def test_the_models_own_configuration_is_not_used_and_stays():
    model = tiny("llama").train()
    own = GenerationConfig(do_sample=True, repetition_penalty=5.0, eos_token_id=by_hand(model, [5], set(), 1)[0])
    model.generation_config = own
    plain = greedy(tiny("llama"), PROMPTS, stop_ids={1}, pad_id=PAD, max_new_tokens=6, batch_size=6)
    assert greedy(model, PROMPTS, stop_ids={1}, pad_id=PAD, max_new_tokens=6, batch_size=6) == plain
    assert model.generation_config is own
    assert model.training


def test_adapters_generate_and_leave_the_configuration_alone():
    peft = pytest.importorskip("peft")
    base = tiny("llama")
    own = base.generation_config
    adapted = peft.get_peft_model(base, peft.LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM"))
    options = {"stop_ids": {1}, "pad_id": PAD, "max_new_tokens": 6, "batch_size": 6}
    assert greedy(adapted, PROMPTS, **options) == greedy(tiny("llama"), PROMPTS, **options)
    assert base.generation_config is own and adapted.generation_config is own


def test_prompts_that_leave_no_room_are_refused(model):
    options = {"stop_ids": {1}, "pad_id": PAD, "batch_size": 2}
    assert len(greedy(model, [[5] * 28], max_new_tokens=4, **options)) == 1
    with pytest.raises(UserError, match="Prompt 1 has 29 tokens; with `max_new_tokens` 4"):
        greedy(model, [[5], [5] * 29], max_new_tokens=4, **options)


@pytest.mark.parametrize(
    ("prompts", "change", "message"),
    [
        ([[5], []], {}, "Prompt 1 is empty"),
        ([[5]], {"stop_ids": set()}, "no stop token"),
        ([[5]], {"max_new_tokens": 0}, "at least 1"),
    ],
)
def test_what_cannot_be_generated_is_refused(model, prompts, change, message):
    options = {"stop_ids": {1}, "pad_id": PAD, "batch_size": 2, "max_new_tokens": 4, **change}
    with pytest.raises(UserError, match=message):
        greedy(model, prompts, **options)


def test_no_prompts_give_no_answers(model):
    assert greedy(model, [], stop_ids={1}, pad_id=PAD, max_new_tokens=4, batch_size=2) == []


@pytest.mark.parametrize("batch_size", [1, 4])
def test_next_token_logits_are_those_after_each_prompt(model, batch_size):
    with torch.no_grad():
        expected = [model(input_ids=torch.tensor([prompt])).logits[0, -1] for prompt in PROMPTS]
    logits = list(next_token_logits(model, PROMPTS, pad_id=PAD, batch_size=batch_size))
    torch.testing.assert_close(torch.stack(logits), torch.stack(expected), rtol=1e-4, atol=1e-4)  # Float32 sums.


@pytest.mark.parametrize(
    ("configured", "tokenizer", "template", "expected"),
    [(7, 9, {3}, {3, 7, 9}), ([7, 8], None, (), {7, 8}), (None, 9, [9], {9}), (None, None, (), set())],
)
def test_stop_token_ids_are_those_of_model_tokenizer_and_template(configured, tokenizer, template, expected):
    model = SimpleNamespace(generation_config=GenerationConfig(eos_token_id=configured))
    assert stop_token_ids(model, SimpleNamespace(eos_token_id=tokenizer), template) == expected
