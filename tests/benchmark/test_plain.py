"""The plain step and the fast one are the same objective: losses, gradients, averages."""

import pytest
import torch

from predrec.benchmark.plain import plain_average, plain_loss
from predrec.data_collators import DataCollatorForPreTraining

from ..modeling.tiny import drift, pretraining_model


def batch_of(tokenizer, lengths, objective: str, unpad: bool) -> dict:
    collator = DataCollatorForPreTraining(
        tokenizer, num_target_blocks=2 if objective == "hybrid" else 0, min_context_tokens=4, unpad=unpad
    )
    rows = [{"input_ids": [2, *range(5, 4 + n)], "example_ids": n, "epoch": 0} for n in lengths]
    return collator(rows)


@pytest.mark.parametrize("lengths", [(48, 48, 48), (48, 40, 33)], ids=["full", "padded"])
@pytest.mark.parametrize("objective", ["mlm", "hybrid"])
@pytest.mark.parametrize("attention", [None, "sdpa"])
def test_fast_step_equals_the_plain_one(tiny_tokenizer, objective, lengths, attention):
    model = drift(pretraining_model(objective=objective, attn_implementation=attention, seed=3)).train()
    batch = batch_of(tiny_tokenizer, lengths, objective, unpad=model.takes_layout)
    assert ("layout" in batch) == (attention is None and (objective == "hybrid" or min(lengths) < max(lengths)))
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    fast = model(**batch).loss
    fast_gradients = torch.autograd.grad(fast, trained.values())
    plain = plain_loss(model, batch)
    plain_gradients = torch.autograd.grad(plain, trained.values())
    torch.testing.assert_close(fast, plain, rtol=1e-5, atol=1e-6)
    for name, left, right in zip(trained, fast_gradients, plain_gradients, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}")


def test_fast_step_under_bfloat16_stays_within_its_rounding(tiny_tokenizer):
    model = drift(pretraining_model(seed=3)).train()
    batch = batch_of(tiny_tokenizer, (48, 40, 33), "hybrid", unpad=True)
    with torch.no_grad():
        exact = plain_loss(model, batch)
        with torch.autocast("cpu", torch.bfloat16):
            fast, plain = model(**batch).loss, plain_loss(model, batch)
    assert fast.item() == pytest.approx(exact.item(), rel=1e-2)
    assert abs(fast - exact) < 4 * abs(plain - exact) + 1e-3 * exact


@pytest.mark.parametrize("decay", [0.0, 0.996, 1.0])
def test_plain_average_equals_the_fused_one(decay):
    plain, fused = drift(pretraining_model()), drift(pretraining_model())
    plain_average(plain.target_encoder, plain.encoder, decay)
    fused.update_target_encoder(decay)
    for left, right in zip(plain.target_encoder.parameters(), fused.target_encoder.parameters(), strict=True):
        torch.testing.assert_close(left, right, rtol=1e-6, atol=1e-7)
