"""LoRA: what is trained, how much it is, and that nothing is lost when adapters are merged."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from predrec.modeling.predictor_tokens import add_predictor_tokens
from predrec.trainers.adapters import with_lora

from .. import causal


def trained(model):
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("count", [0, 3])
def test_only_adapters_and_predictor_rows_are_trained(count):
    model, tokenizer = causal.model(), causal.tokenizer("qwen")
    add_predictor_tokens(model, tokenizer, count)
    names = trained(with_lora(model, 4))
    rows = [p for name, p in names.items() if "trainable_tokens_delta" in name]
    assert all("lora_" in name or "trainable_tokens_delta" in name for name in names)
    assert [tuple(row.shape) for row in rows] == ([(count, 32)] if count else [])
    assert len(names) - len(rows) == 2 * 2 * 7


def test_rank_512_on_llama_1b_is_a_fifth_of_it():
    """704,512 weights per rank: 22.59 % of all weights, as published."""
    config = LlamaConfig(
        vocab_size=128256,
        hidden_size=2048,
        intermediate_size=8192,
        num_hidden_layers=16,
        num_attention_heads=32,
        num_key_value_heads=8,
        head_dim=64,
        tie_word_embeddings=True,
    )
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    base = model.num_parameters()
    adapters = sum(p.numel() for p in trained(with_lora(model, 512)).values())
    assert adapters == 704_512 * 512 == 360_710_144
    assert round(100 * adapters / (base + adapters), 2) == 22.59


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_merged_equals_adapted(kind):
    model, tokenizer = causal.model(kind), causal.tokenizer("qwen")
    ids = add_predictor_tokens(model, tokenizer, 2)
    adapted = with_lora(model, 4, dropout=0.0).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in trained(adapted).items():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * (0.1 if "lora" in name else 1))
        tokens = torch.tensor([[5, 6, 7, *ids]])
        before = adapted(tokens).logits
        frozen = causal.model(kind, vocab_size=400)(torch.tensor([[5, 6, 7]])).logits
        assert (before[:, :3, :400] - frozen).abs().max() > 0.01
        torch.testing.assert_close(adapted.merge_and_unload()(tokens).logits, before, atol=1e-5, rtol=1e-4)


def test_adapters_are_float32_on_a_bfloat16_model():
    names = trained(with_lora(causal.model().bfloat16(), 4))
    assert {p.dtype for p in names.values()} == {torch.float32}
