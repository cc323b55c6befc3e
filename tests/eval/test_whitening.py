"""The map that gives vectors the same variance in every direction, and the sentences it is fitted on."""

import pytest
import torch

from predrec.eval.whitening import EPSILON, MOST_SENTENCES, fit_whitening, sentences

SIZE = 5


@pytest.fixture
def vectors():
    """Correlated vectors around a mean, of very different variances."""
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(SIZE, SIZE, generator=generator) * torch.logspace(-2, 1, SIZE)
    return torch.randn(400, SIZE, generator=generator) @ mixing.T + torch.arange(SIZE)


def test_mean_becomes_zero(vectors):
    torch.testing.assert_close(fit_whitening(vectors)(vectors).mean(0), torch.zeros(SIZE), atol=1e-4, rtol=0)


def test_covariance_becomes_one(vectors):
    changed = fit_whitening(vectors.double(), epsilon=0)(vectors.double())
    covariance = torch.cov(changed.T, correction=0)
    torch.testing.assert_close(covariance, torch.eye(SIZE, dtype=torch.double), atol=1e-8, rtol=0)


def test_quiet_directions_stay_quiet(vectors):
    """A direction of variance v has v / (v + epsilon mean) afterwards."""
    before = torch.linalg.eigvalsh(torch.cov(vectors.double().T, correction=0))
    after = torch.linalg.eigvalsh(torch.cov(fit_whitening(vectors.double())(vectors.double()).T, correction=0))
    torch.testing.assert_close(after, before / (before + EPSILON * before.mean()), atol=1e-8, rtol=1e-6)
    assert after[0] < 0.9  # Otherwise nothing was shown.


def test_no_direction_is_turned_into_another(vectors):
    matrix = fit_whitening(vectors).matrix
    torch.testing.assert_close(matrix, matrix.T)
    assert torch.linalg.eigvalsh(matrix).min() > 0


def test_other_vectors_are_mapped_by_what_was_fitted(vectors):
    """One vector by itself has no variance, and is mapped all the same."""
    change = fit_whitening(vectors)
    torch.testing.assert_close(change(vectors[3:4])[0], change(vectors)[3])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_vectors_keep_their_type(vectors, dtype):
    assert fit_whitening(vectors)(vectors.to(dtype)).dtype == dtype


def test_vectors_that_are_all_the_same_become_zeros():
    same = torch.full((4, SIZE), 2.0)
    assert torch.equal(fit_whitening(same)(same), torch.zeros(4, SIZE))


def test_fewer_vectors_than_features_do_no_harm():
    few = torch.randn(3, 8, generator=torch.Generator().manual_seed(1))
    assert fit_whitening(few)(few).isfinite().all()


def test_sentences_end_at_marks_with_a_space_behind():
    text = "One two three four five six. Is 3.5 less than 4 or more? Yes! It is less, they said at once."
    found = ["One two three four five six.", "Is 3.5 less than 4 or more?", "It is less, they said at once."]
    assert sentences([text]) == found


@pytest.mark.parametrize(("count", "kept"), [(5, False), (6, True), (20, True), (21, False)])
def test_sentences_are_as_long_as_those_of_the_tasks(count, kept):
    assert bool(sentences(["word " * count])) == kept


def test_sentences_are_the_first_ones():
    documents = (f"this is the text of number {number}" for number in range(3 * MOST_SENTENCES))
    found = sentences(documents)
    assert len(found) == MOST_SENTENCES and found[-1].endswith(str(MOST_SENTENCES - 1))
    assert next(documents).endswith(str(MOST_SENTENCES))  # The rest was not read.
