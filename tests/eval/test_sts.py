"""Similarity by cosine against formulas written out."""

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from predrec.eval.sts import VARIANTS, centred, similarity_scores, whitened


def draw(num_rows: int = 40, hidden_size: int = 6, seed: int = 0) -> torch.Tensor:
    """Returns vectors whose features are correlated, of different size and not centred."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(hidden_size, hidden_size, generator=generator, dtype=torch.float64)
    vectors = torch.randn(num_rows, hidden_size, generator=generator, dtype=torch.float64)
    return vectors @ mixing * torch.arange(1, hidden_size + 1) + 3


def naive_whitening(vectors: np.ndarray) -> np.ndarray:
    """As published: subtract the mean, multiply with the eigenvectors over the roots of the eigenvalues."""
    moved = vectors - vectors.mean(0)
    values, directions = np.linalg.eigh(moved.T @ moved / len(moved))
    return moved @ directions / np.sqrt(values)


def naive_cosines(first: np.ndarray, second: np.ndarray) -> list[float]:
    return [float(u @ v / np.linalg.norm(u) / np.linalg.norm(v)) for u, v in zip(first, second, strict=True)]


NAIVE = {
    "raw": lambda vectors: vectors,
    "centred": lambda vectors: vectors - vectors.mean(0),
    "whitened": naive_whitening,
}


@pytest.fixture
def pairs():
    """Vectors of both sentences of 20 pairs, and scores."""
    first, second = draw().chunk(2)
    return first, second, np.random.default_rng(0).uniform(0, 5, size=20)


def test_centred_has_mean_zero():
    torch.testing.assert_close(centred(draw()).mean(0), torch.zeros(6, dtype=torch.float64))


def test_centred_keeps_differences():
    vectors = draw()
    torch.testing.assert_close(centred(vectors)[0] - centred(vectors)[1], vectors[0] - vectors[1])


def test_whitened_has_mean_zero():
    torch.testing.assert_close(whitened(draw()).mean(0), torch.zeros(6, dtype=torch.float64))


def test_whitened_has_the_identity_as_covariance():
    made = whitened(draw())
    torch.testing.assert_close(made.T @ made / len(made), torch.eye(6, dtype=torch.float64))


def test_whitened_has_the_products_of_the_published_formula():
    """Up to a rotation, which no cosine sees."""
    vectors = draw()
    made, naive = whitened(vectors), torch.from_numpy(naive_whitening(vectors.numpy()))
    torch.testing.assert_close(made @ made.T, naive @ naive.T)


def test_whitened_does_not_depend_on_the_basis():
    vectors, mixing = draw(), draw(6, 6, seed=1)
    one, other = whitened(vectors), whitened(vectors @ mixing)
    torch.testing.assert_close(one @ one.T, other @ other.T)


@pytest.mark.parametrize("factor", [1e-6, 1e6])
def test_whitened_does_not_depend_on_the_scale(factor):
    vectors = draw()
    one, other = whitened(vectors), whitened(vectors * factor)
    torch.testing.assert_close(one @ one.T, other @ other.T)


def test_whitened_takes_float32():
    assert whitened(draw().float()).dtype == torch.float64


def test_whitened_keeps_the_directions_that_rows_vary_in():
    """Five rows vary in four directions at most."""
    assert whitened(draw(num_rows=5, hidden_size=12)).shape == (5, 4)


def test_whitened_fewer_rows_than_features_are_equally_far_apart():
    distances = torch.pdist(whitened(draw(num_rows=5, hidden_size=12)))
    torch.testing.assert_close(distances, distances[:1].expand(10))


def test_whitened_drops_a_copied_feature():
    vectors = draw()
    made, more = whitened(vectors), whitened(torch.cat([vectors, vectors[:, :2]], dim=1))
    torch.testing.assert_close(made @ made.T, more @ more.T)


def test_whitened_drops_a_constant_feature():
    vectors = draw()
    assert whitened(torch.cat([vectors, torch.full((40, 1), 7.0)], dim=1)).shape == (40, 6)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e6])
def test_whitened_leaves_nothing_of_constant_rows(value):
    assert not whitened(torch.full((8, 3), value)).any()


@pytest.mark.parametrize("variant", VARIANTS)
def test_similarity_scores_follow_the_formula(pairs, variant):
    first, second, labels = pairs
    changed = NAIVE[variant](torch.cat([first, second]).numpy())
    expected = spearmanr(naive_cosines(changed[:20], changed[20:]), labels).statistic
    assert similarity_scores(first, second, labels, variant=variant)["spearmanr"] == pytest.approx(expected)


def test_similarity_scores_are_raw_by_default(pairs):
    assert similarity_scores(*pairs) == similarity_scores(*pairs, variant="raw")


@pytest.mark.parametrize("variant", VARIANTS)
def test_similarity_scores_do_not_depend_on_the_order_of_the_sentences(pairs, variant):
    first, second, labels = pairs
    swapped = similarity_scores(second, first, labels, variant=variant)["spearmanr"]
    assert similarity_scores(first, second, labels, variant=variant)["spearmanr"] == pytest.approx(swapped)


def test_similarity_scores_find_a_planted_similarity():
    """The second sentence turns away from the first as the score falls."""
    labels = np.linspace(0, 5, 20)
    angles = torch.from_numpy(5 - labels) / 2
    start = torch.rand(20, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 6
    first = torch.stack([start.cos(), start.sin()], dim=1)
    second = torch.stack([(start + angles).cos(), (start + angles).sin()], dim=1)
    assert similarity_scores(first, second, labels)["spearmanr"] == pytest.approx(1.0)


def test_similarity_scores_do_not_depend_on_lengths():
    first, second = draw().chunk(2)
    labels, factors = np.arange(20.0), torch.arange(1, 21)[:, None]
    assert similarity_scores(first * factors, second, labels) == pytest.approx(
        similarity_scores(first, second, labels)
    )


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("value", [0.0, 0.1, 3.0])
def test_similarity_scores_of_constant_vectors_are_zero(variant, value):
    vectors = torch.full((9, 5), value)
    assert similarity_scores(vectors, vectors, np.arange(9.0), variant=variant) == {"spearmanr": 0.0}


@pytest.mark.parametrize("variant", VARIANTS)
def test_similarity_scores_of_constant_labels_are_zero(variant):
    assert similarity_scores(*draw().chunk(2), np.full(20, 2.5), variant=variant) == {"spearmanr": 0.0}


@pytest.mark.parametrize("variant", ["raw", "centred"])
def test_similarity_scores_take_fewer_sentences_than_features(variant):
    first, second = draw(num_rows=6, hidden_size=16).chunk(2)
    assert -1 <= similarity_scores(first, second, np.arange(3.0), variant=variant)["spearmanr"] <= 1


@pytest.mark.parametrize(("num_pairs", "scored"), [(8, False), (9, True)])
def test_similarity_scores_of_whitened_vectors_need_more_sentences_than_features(num_pairs, scored):
    """Up to 16 features and 17 sentences, whitening takes them equally far apart."""
    first, second = draw(num_rows=2 * num_pairs, hidden_size=16).chunk(2)
    assert bool(similarity_scores(first, second, np.arange(num_pairs), variant="whitened")) is scored


def test_similarity_scores_of_whitened_vectors_count_different_sentences():
    first, second = (side.repeat(4, 1) for side in draw(num_rows=6, hidden_size=16).chunk(2))
    assert similarity_scores(first, second, np.arange(12.0), variant="whitened") == {}


def test_similarity_scores_average_over_groups(pairs):
    first, second, labels = pairs
    groups = ["news"] * 8 + ["forum"] * 12
    parts = [
        spearmanr(naive_cosines(first[rows].numpy(), second[rows].numpy()), labels[rows]).statistic
        for rows in (slice(8), slice(8, 20))
    ]
    found = similarity_scores(first, second, labels, groups)["spearmanr_mean_of_groups"]
    assert found == pytest.approx(np.mean(parts))


def test_similarity_scores_over_all_pairs_do_not_depend_on_groups(pairs):
    grouped = similarity_scores(*pairs, ["news", "forum"] * 10)
    assert grouped["spearmanr"] == similarity_scores(*pairs)["spearmanr"]


@pytest.mark.parametrize("groups", [[], ["news"] * 20])
def test_similarity_scores_have_no_mean_of_one_group(pairs, groups):
    assert set(similarity_scores(*pairs, groups)) == {"spearmanr"}


def test_similarity_scores_center_over_all_groups(pairs):
    """The transformation is that of the whole data set, the correlation that of each group."""
    first, second, labels = pairs
    groups = ["news"] * 8 + ["forum"] * 12
    changed = centred(torch.cat([first, second])).chunk(2)
    expected = similarity_scores(*changed, labels, groups)["spearmanr_mean_of_groups"]
    found = similarity_scores(first, second, labels, groups, "centred")["spearmanr_mean_of_groups"]
    assert found == pytest.approx(expected)
