"""Poolings see real tokens and nothing else."""

import pytest
import torch

from predrec.eval.pooling import (
    POOLINGS,
    attention_draw,
    attention_pooling,
    cls_pooling,
    max_pooling,
    mean_pooling,
    weighted_pooling,
)

LENGTHS = [5, 2, 3]


@pytest.fixture
def states():
    return torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def mask():
    return torch.arange(5) < torch.tensor(LENGTHS)[:, None]


def all_poolings(size: int = 4):
    query, key = attention_draw(size, seed=0)
    return {**POOLINGS, "attention": lambda states, mask: attention_pooling(states, mask, query, key)}


def test_mean_pooling_averages_real_tokens(states, mask):
    expected = torch.stack([row[:length].mean(0) for row, length in zip(states, LENGTHS, strict=True)])
    torch.testing.assert_close(mean_pooling(states, mask), expected)


def test_max_pooling_takes_the_largest_of_real_tokens(states, mask):
    expected = torch.stack([row[:length].amax(0) for row, length in zip(states, LENGTHS, strict=True)])
    assert torch.equal(max_pooling(states, mask), expected)


def test_cls_pooling_takes_the_first_real_token(states, mask):
    assert torch.equal(cls_pooling(states, mask), states[:, 0])
    assert torch.equal(cls_pooling(states, mask.flip(1)), states[[0, 1, 2], [0, 3, 2]])


def test_weighted_pooling_at_its_start_is_the_mean(states, mask):
    torch.testing.assert_close(weighted_pooling(states, mask), mean_pooling(states, mask))


def test_weighted_pooling_follows_its_weights(states, mask):
    weights = torch.tensor([0.0, 50.0, 0.0, 0.0, 0.0])
    torch.testing.assert_close(weighted_pooling(states, mask, weights), states[:, 1])


def test_attention_pooling_equals_a_loop(states, mask):
    query, key = attention_draw(4, seed=3)
    expected = []
    for row, length in zip(states, LENGTHS, strict=True):
        scores = torch.stack([query @ (key @ token) / 2.0 for token in row[:length]])
        expected.append((scores.softmax(0)[:, None] * row[:length]).sum(0))
    torch.testing.assert_close(attention_pooling(states, mask, query, key), torch.stack(expected))


def test_attention_draws_differ_and_repeat():
    assert not torch.equal(attention_draw(4, 0)[0], attention_draw(4, 1)[0])
    assert torch.equal(attention_draw(4, 5)[1], attention_draw(4, 5)[1])


@pytest.mark.parametrize("name", [*POOLINGS, "attention"])
def test_pooling_ignores_padding(states, mask, name):
    pool = all_poolings()[name]
    noisy = torch.where(mask[..., None], states, 1e3)
    torch.testing.assert_close(pool(noisy, mask), pool(states, mask))


@pytest.mark.parametrize("name", [*POOLINGS, "attention"])
def test_pooling_refuses_a_text_without_tokens(states, mask, name):
    mask[1] = False
    with pytest.raises(ValueError, match=r"Texts \[1\] have no token"):
        all_poolings()[name](states, mask)
