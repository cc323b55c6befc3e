"""Counted operations are those that torch counts; budgets are spent, not more, by every method alike."""

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.utils.flop_counter import FlopCounterMode

from predrec.modeling.llm_flops import LanguageModelCost, Spending, skips_views

from .. import causal


def counted(model, length, with_head):
    ids = torch.randint(0, 100, (3, length))
    with FlopCounterMode(display=False) as counter:
        if with_head:
            model(ids, use_cache=False).logits.sum().backward()
        else:
            base = model.get_base_model() if hasattr(model, "get_base_model") else model
            base.base_model(ids, use_cache=False).last_hidden_state.sum().backward()
    return counter.get_total_flops()


@pytest.mark.parametrize("with_head", [True, False])
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_operations_are_those_that_torch_counts(kind, with_head):
    model = causal.model(kind, "eager")
    ours = LanguageModelCost.of(model).flops([40] * 3, with_head)
    assert ours == pytest.approx(counted(model, 40, with_head), rel=0.01)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_a_pass_without_gradient_is_what_torch_counts(kind):
    model = causal.model(kind, "eager")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.base_model(torch.randint(0, 100, (3, 40)), use_cache=False)
    assert LanguageModelCost.of(model).forward_flops([40] * 3) == pytest.approx(counter.get_total_flops(), rel=0.01)


def test_frozen_weights_have_no_gradient_of_their_own():
    config = LoraConfig(r=8, target_modules=["q_proj", "k_proj", "v_proj", "o_proj"], trainable_token_indices=[3, 4])
    model = get_peft_model(causal.model("llama", "eager"), config)
    ours = LanguageModelCost.of(model).flops([40] * 3, True)
    # The first layer's frozen projections need no gradient of their input; that is all that is not counted right.
    assert ours == pytest.approx(counted(model, 40, True), rel=0.05)
    assert ours < 0.9 * LanguageModelCost.of(causal.model("llama", "eager")).flops([40] * 3, True)


def test_cost_of_llama_by_hand():
    """2 layers; queries, keys, values, output, and three feed-forward matrices; a head of 400 words."""
    layer = 32 * 32 + 2 * 32 * 16 + 32 * 32 + 3 * 32 * 48
    assert LanguageModelCost.of(causal.model()) == LanguageModelCost(2 * layer, 2 * layer, 400 * 32, 400 * 32, 2 * 32)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.75])
def test_a_budget_is_spent_and_not_more(share):
    spending = Spending(3.0, 2.0, share, seed=7)
    updates = spending.updates_for(1000.0)
    assert spending.until(updates) >= 1000.0 > spending.until(updates - 1)
    spent = sum(3.0 + 2.0 * (not skips_views(7, update, share)) for update in range(updates))
    assert spending.until(updates) == pytest.approx(spent)
    assert updates == pytest.approx(1000 / (3 + 2 * (1 - share)), rel=0.05)


def test_methods_with_less_to_do_get_more_updates():
    budget = 5000.0
    assert Spending(3.0).updates_for(budget) == 1667
    assert Spending(3.0, 2.0).updates_for(budget) == 1000


@pytest.mark.parametrize("budget", [0, -1.0, float("inf"), float("nan")])
def test_budgets_that_cannot_be_are_refused(budget):
    with pytest.raises(ValueError, match="`max_flops`"):
        Spending(3.0, 2.0, 0.5).updates_for(budget)


def test_draws_have_their_share_and_depend_on_seed_and_update_only():
    drawn = np.array([skips_views(3, update, 0.75) for update in range(2000)])
    assert abs(drawn.mean() - 0.75) < 4 * (0.75 * 0.25 / 2000) ** 0.5
    assert drawn.tolist() == [skips_views(3, update, 0.75) for update in range(2000)]
    assert drawn.tolist() != [skips_views(4, update, 0.75) for update in range(2000)]
    assert not any(skips_views(3, update, 0.0) for update in range(50))
