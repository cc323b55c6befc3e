"""Every measure against a formula written out here, and against laws it must obey."""

import math

import pytest
import torch

from predrec.eval import geometry

EXACT = {"rtol": 1e-9, "atol": 1e-9}  # Float64 on both sides.


@pytest.fixture
def vectors():
    return torch.randn(40, 12, generator=torch.Generator().manual_seed(0)).double()


@pytest.fixture
def labels():
    return torch.arange(40) % 3


def spectrum_of(rank: int, rows: int = 400, size: int = 16) -> torch.Tensor:
    """A Gaussian cloud with `rank` equal directions."""
    generator = torch.Generator().manual_seed(1)
    basis = torch.linalg.qr(torch.randn(size, size, generator=generator).double())[0][:rank]
    points = torch.randn(rows, rank, generator=generator).double()
    points -= points.mean(0)
    return torch.linalg.qr(points)[0] @ basis


def test_spectral_entropy_of_variance_equals_its_formula(vectors):
    values = torch.linalg.svdvals(vectors - vectors.mean(0)).tolist()
    total = sum(value**2 for value in values)
    expected = -sum(value**2 / total * math.log(value**2 / total) for value in values) / math.log(len(values))
    torch.testing.assert_close(geometry.spectral_entropy(vectors).item(), expected, **EXACT)


def test_spectral_entropy_of_singular_values_equals_its_formula(vectors):
    values = torch.linalg.svdvals(vectors - vectors.mean(0)).tolist()
    expected = -sum(v / sum(values) * math.log(v / sum(values)) for v in values) / math.log(12)
    torch.testing.assert_close(geometry.spectral_entropy(vectors, "singular").item(), expected, **EXACT)


@pytest.mark.parametrize("rank", [1, 4, 16])
def test_ranks_of_a_gaussian_are_its_rank(rank):
    cloud = spectrum_of(rank)
    assert geometry.stable_rank(cloud).item() == pytest.approx(rank, rel=1e-6)
    assert geometry.effective_rank(cloud).item() == pytest.approx(rank, rel=1e-5)
    assert geometry.rank_for_variance(cloud) == math.ceil(0.9 * rank)
    assert geometry.spectral_entropy(cloud).item() == pytest.approx(math.log(rank) / math.log(16), abs=1e-6)


def test_equal_rows_have_no_spectrum():
    rows = torch.ones(5, 4)
    assert geometry.spectral_entropy(rows).item() == 0
    assert geometry.stable_rank(rows).item() == 0
    assert geometry.rank_for_variance(rows) == 0


def test_fewer_rows_than_features_are_measured():
    few = torch.randn(3, 50, generator=torch.Generator().manual_seed(0))
    assert 1 <= geometry.stable_rank(few).item() <= 2
    assert geometry.rank_for_variance(few) == 2


def test_mean_cosine_equals_a_loop(vectors):
    cosines = [
        torch.cosine_similarity(vectors[i], vectors[j], dim=0).item() for i in range(40) for j in range(i + 1, 40)
    ]
    torch.testing.assert_close(geometry.mean_cosine(vectors).item(), sum(cosines) / len(cosines), **EXACT)


@pytest.mark.parametrize("power", ["inside", "outside"])
def test_alignment_equals_a_loop(vectors, labels, power):
    unit = vectors / vectors.norm(dim=1, keepdim=True)
    per_class = []
    for label in range(3):
        members = unit[labels == label]
        squared = [(members[i] - members[j]).pow(2).sum().item() for i in range(len(members)) for j in range(i)]
        mean = sum(value**2 for value in squared) / len(squared)
        per_class.append(mean if power == "inside" else (sum(squared) / len(squared)) ** 2)
    expected = sum(per_class) / 3
    torch.testing.assert_close(geometry.alignment(vectors, labels, power=power).item(), expected, **EXACT)


def test_alignment_of_tight_clusters_is_nothing():
    centres = torch.eye(2, 6).double()
    assert geometry.alignment(centres.repeat(5, 1), torch.arange(10) % 2).item() == pytest.approx(0, abs=1e-12)


def test_alignment_leaves_out_classes_of_one(vectors):
    labels = torch.zeros(40, dtype=torch.long)
    labels[0] = 1
    torch.testing.assert_close(
        geometry.alignment(vectors, labels), geometry.alignment(vectors[1:], labels[1:]), **EXACT
    )


def test_alignment_needs_a_pair(vectors):
    with pytest.raises(ValueError, match="no class has two members"):
        geometry.alignment(vectors, torch.arange(40))


def test_intra_inter_ratio_equals_a_loop(vectors, labels):
    unit = vectors / vectors.norm(dim=1, keepdim=True)
    groups = {True: [], False: []}
    for i in range(40):
        for j in range(i):
            groups[bool(labels[i] == labels[j])].append((unit[i] - unit[j]).norm().item())
    expected = (sum(groups[True]) / len(groups[True])) / (sum(groups[False]) / len(groups[False]))
    # The square root of a difference of nearly equal numbers.
    assert geometry.intra_inter_ratio(vectors, labels).item() == pytest.approx(expected, rel=1e-7)


def test_intra_inter_ratio_is_near_one_without_classes():
    cloud = torch.randn(600, 32, generator=torch.Generator().manual_seed(0))
    assert geometry.intra_inter_ratio(cloud, torch.arange(600) % 4).item() == pytest.approx(1, abs=0.01)


def test_intra_inter_ratio_needs_two_classes(vectors):
    with pytest.raises(ValueError, match="two classes"):
        geometry.intra_inter_ratio(vectors, torch.zeros(40, dtype=torch.long))


def test_uniformity_of_a_sphere_is_about_minus_four():
    sphere = torch.randn(800, 256, generator=torch.Generator().manual_seed(0))
    assert geometry.uniformity(sphere).item() == pytest.approx(-4 + 8 / 256, abs=0.01)
