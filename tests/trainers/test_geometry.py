"""Measures of a set of vectors, against naive formulas and laws whose value is known."""

import math

import pytest
import torch

from predrec.trainers.geometry import effective_rank, pairwise_cosines, uniformity


def normal(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


# Double precision on both sides.
EXACT = {"rtol": 1e-9, "atol": 1e-9}


@pytest.mark.parametrize("t", [1.0, 2.0])
def test_uniformity_equals_naive_twin(t):
    vectors = normal(7, 4).double()
    unit = [row / row.norm() for row in vectors]
    terms = [math.exp(-t * (unit[i] - unit[j]).pow(2).sum()) for i in range(7) for j in range(i)]
    torch.testing.assert_close(uniformity(vectors, t=t).item(), math.log(sum(terms) / len(terms)), **EXACT)


def test_uniformity_of_equal_directions_is_zero():
    vectors = normal(1, 8) * torch.tensor([[1.0], [2.0], [0.1]])
    # Rounding of the float32 input.
    torch.testing.assert_close(uniformity(vectors).item(), 0.0, rtol=0, atol=1e-6)


def test_uniformity_of_orthogonal_vectors_is_known():
    """Every pair is at distance sqrt(2)."""
    torch.testing.assert_close(uniformity(torch.eye(6)).item(), -4.0, **EXACT)


def test_uniformity_of_the_uniform_circle_is_known():
    """The mean of exp(-4 (1 - cos a)) over a uniform angle is exp(-4) I0(4)."""
    angles = torch.arange(2000, dtype=torch.float64) * (2 * math.pi / 2000)
    vectors = torch.stack([angles.cos(), angles.sin()], dim=1)
    expected = math.log(math.exp(-4) * torch.special.i0(torch.tensor(4.0, dtype=torch.float64)).item())
    # The pairs (i, i), which are left out, weigh 1 / 2000.
    torch.testing.assert_close(uniformity(vectors).item(), expected, rtol=0, atol=5e-3)


def test_uniformity_of_the_uniform_sphere_is_near_the_limit():
    """In many dimensions cosines vanish: -2 t, plus half the variance of 4 cos, which is 8 / width."""
    width = 256
    # One standard error of the mean over 300 rows is about 1e-3.
    torch.testing.assert_close(uniformity(normal(300, width)).item(), -4 + 8 / width, rtol=0, atol=5e-3)


def test_uniformity_ignores_length_and_order():
    vectors = normal(9, 5)
    changed = (vectors * torch.arange(1, 10)[:, None]).flip(0)
    # Rounding of the float32 input.
    torch.testing.assert_close(uniformity(changed), uniformity(vectors), rtol=0, atol=1e-6)


def test_pairwise_cosines_holds_every_pair_once():
    vectors = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 3.0]])
    expected = torch.tensor([0.0, 0.5**0.5, 0.5**0.5], dtype=torch.float64)
    torch.testing.assert_close(pairwise_cosines(vectors), expected, **EXACT)


def test_effective_rank_equals_naive_twin():
    vectors = normal(9, 5).double()
    covariance = (vectors - vectors.mean(0)).T @ (vectors - vectors.mean(0))
    values = [math.sqrt(value) for value in torch.linalg.eigvalsh(covariance).tolist()]
    shares = [value / sum(values) for value in values]
    expected = math.exp(-sum(share * math.log(share) for share in shares))
    torch.testing.assert_close(effective_rank(vectors).item(), expected, **EXACT)


@pytest.mark.parametrize("value", [1.0, 1e-6, 1e6])
def test_effective_rank_of_equal_rows_is_zero(value):
    assert effective_rank(torch.full((6, 4), value) * torch.tensor([1.0, -0.3, 0.7, 2.1])) == 0


def test_effective_rank_of_a_line_is_one():
    vectors = torch.arange(6.0)[:, None] * torch.tensor([[1.0, 2.0, 3.0]])
    # Singular values at the level of rounding still take a little of the entropy.
    torch.testing.assert_close(effective_rank(vectors).item(), 1.0, rtol=0, atol=1e-6)


def test_effective_rank_of_a_simplex_is_rows_minus_one():
    """Centred orthonormal rows have n - 1 equal singular values."""
    # The last singular value is rounding.
    torch.testing.assert_close(effective_rank(torch.eye(8)).item(), 7.0, rtol=0, atol=1e-6)


@pytest.mark.parametrize("rank", [1, 3, 10])
def test_effective_rank_of_a_low_rank_gaussian_is_near_its_rank(rank):
    vectors = normal(2000, rank, seed=1) @ torch.linalg.qr(normal(40, rank, seed=2)).Q.T
    # Singular values of 2000 draws differ by a few percent; the entropy is flat there.
    torch.testing.assert_close(effective_rank(vectors).item(), float(rank), rtol=0.01, atol=1e-4)


@pytest.mark.parametrize("change", [lambda x: 3 * x, lambda x: x + 5, lambda x: x.flip(0), lambda x: x.flip(1)])
def test_effective_rank_ignores_scale_shift_and_order(change):
    vectors = normal(9, 5).double()
    torch.testing.assert_close(effective_rank(change(vectors)), effective_rank(vectors), **EXACT)


def test_effective_rank_of_two_rows_is_one():
    # As for the line.
    torch.testing.assert_close(effective_rank(normal(2, 5)).item(), 1.0, rtol=0, atol=1e-6)
