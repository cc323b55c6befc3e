"""Arms and sizes of the benchmark."""

import pytest

from predrec.benchmark.settings import ARMS, BASELINES, QUICK, SIZES, Setting


@pytest.mark.parametrize("arm", ARMS)
@pytest.mark.parametrize("size", SIZES)
def test_every_arm_has_a_configuration(arm, size):
    config = Setting(arm, size).pretraining_config()
    assert config.encoder_config.hidden_size == SIZES[size]["hidden_size"]
    if config.has_jepa_branch:
        assert config.predictor_config().hidden_size % config.predictor_config().num_attention_heads == 0


def test_hybrid_is_the_papers_predictor():
    predictor = Setting("hybrid").pretraining_config().predictor_config()
    assert (predictor.hidden_size, predictor.num_hidden_layers, predictor.num_attention_heads) == (512, 6, 8)


def test_cheapest_has_half_the_predictor_and_both_losses():
    config = Setting("cheapest").pretraining_config()
    assert config.objective == "hybrid"
    assert (config.mlm_view, config.predictor_attention) == ("context", "cross")
    assert (config.predictor_hidden_size, config.predictor_num_hidden_layers) == (256, 3)


def test_baseline_has_the_size_of_the_arm():
    bert, ours = Setting("bert").bert_config(), Setting("mlm").encoder_config()
    for name in ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"):
        assert getattr(bert, name) == getattr(ours, name)
    assert bert.hidden_dropout_prob == bert.attention_probs_dropout_prob == 0


def test_quick_arms_and_baselines_are_arms():
    assert set(QUICK) | set(BASELINES) <= set(ARMS)
