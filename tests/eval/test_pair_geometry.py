"""Measures of two views against formulas written out here, and against laws they must obey."""

import math

import numpy as np
import pytest
import torch

from predrec.errors import UserError
from predrec.eval.pair_geometry import (
    RIDGES,
    difference_spectrum,
    linear_map,
    measure_pairs,
    mismatched_cosine,
    pair_numbers,
    retrieval,
    tsne_points,
)

EYE = torch.eye(4)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_pair_numbers_are_equal_where_codes_are():
    assert pair_numbers(["a", "b", "a", "c"]).tolist() == [0, 1, 0, 2]


def test_difference_spectrum_is_not_centred_and_cut():
    source, target = random(40, 6), random(40, 6, seed=1) + 3
    expected = np.linalg.svd((source.double() - target.double()).numpy(), compute_uv=False)
    np.testing.assert_allclose(difference_spectrum(source, target, most=4), expected[:4], rtol=1e-10)


@pytest.mark.parametrize(("pairs", "least_squares"), [(200, True), (30, False)])
def test_a_linear_map_is_found_with_few_pairs_and_many(pairs, least_squares):
    source = random(pairs, 12)
    found = linear_map(source, source @ random(12, 12, seed=1) + 5)
    assert (found.ridge == 0) is least_squares
    assert found.relative_error < 1e-6 and found.r2 == pytest.approx(1)


@pytest.mark.parametrize("pairs", [40, 400])
def test_what_is_unrelated_is_not_explained(pairs):
    found = linear_map(random(pairs, 12), random(pairs, 12, seed=1))
    assert found.relative_error > 0.95 and found.r2 < 0.1


def test_fewer_pairs_than_features_do_not_fit_by_themselves():
    source, target = random(60, 200), random(60, 200, seed=1)
    fitted = torch.linalg.lstsq(source, target).solution
    assert (source @ fitted - target).norm() < 1e-3 * target.norm()  # What an analysis of its own pairs would say.
    assert linear_map(source, target).relative_error > 0.9


def test_the_strength_of_the_ridge_follows_the_noise():
    source, noise = random(60, 40), random(60, 40, seed=2)
    weak = 0.1 * source @ random(40, 40, seed=1)
    assert linear_map(source, weak).ridge == RIDGES[0]
    assert linear_map(source, weak + noise).ridge >= 0.1


def test_linear_map_equals_least_squares_on_the_other_pairs():
    source, target = random(100, 3), random(100, 3, seed=1) + random(100, 3)
    found = linear_map(source, target, held_out=0.25, seed=5)
    order = torch.randperm(100, generator=torch.Generator().manual_seed(5))
    rest, fit = order[:25], order[25:]
    with_one = torch.cat([source, torch.ones(100, 1)], dim=1).double().numpy()
    solution = np.linalg.lstsq(with_one[fit], target[fit].double().numpy(), rcond=None)[0]
    error = np.linalg.norm(with_one[rest] @ solution - target[rest].double().numpy())
    around = np.linalg.norm((target[rest] - target[rest].double().mean(0)).numpy())
    assert (found.fitted, found.held_out) == (75, 25)
    assert found.absolute_error == pytest.approx(error) and found.relative_error == pytest.approx(error / around)
    assert found.r2 == pytest.approx(1 - (error / around) ** 2)


def test_equal_targets_stay_on_one_side_of_the_split():
    numbers = torch.arange(80) % 8
    source, target = random(80, 40), random(8, 40, seed=1)[numbers]
    source[:, :8] += 20 * torch.eye(8)[numbers]  # The source says which target; the targets say nothing of each other.
    assert linear_map(source, target, numbers).r2 < 0.2 < 0.9 < linear_map(source, target).r2


def test_collapsed_targets_leave_nothing_to_explain():
    assert linear_map(random(40, 6), torch.ones(40, 6)) is None


def test_a_linear_map_needs_targets():
    with pytest.raises(UserError, match="needs 8 different targets; there are 7"):
        linear_map(random(70, 6), random(70, 6), torch.arange(70) % 7)


def test_retrieval_ranks_by_cosine():
    source = torch.tensor([[1.0, 0.1, 0.0], [1.0, 0.4, 0.0], [0.0, 0.0, 1.0]])
    assert retrieval(source, torch.eye(3)) == {"recall_at_1": 2 / 3, "mrr": pytest.approx((1 + 1 / 2 + 1) / 3)}


def test_retrieval_does_not_count_equal_targets_against_each_other():
    target = torch.stack([EYE[0], EYE[0], EYE[1], EYE[0]])
    assert retrieval(target, target, pair_numbers(["a", "a", "b", "a"])) == {"recall_at_1": 1, "mrr": 1}


def test_retrieval_among_equals_is_drawn_by_lot():
    same = torch.ones(5, 3)
    assert retrieval(same, same) == {"recall_at_1": pytest.approx(0.2), "mrr": pytest.approx(1 / 3)}


def test_retrieval_equals_a_loop_over_chunks():
    source, numbers = random(1100, 8), torch.arange(1100) % 700
    target = random(700, 8, seed=1)[numbers] + 0.5 * source.mean(0)
    cosines = torch.nn.functional.normalize(source.double()) @ torch.nn.functional.normalize(target[:700].double()).T
    ranks = [1 + int((row > row[number]).sum()) for row, number in zip(cosines, numbers, strict=True)]
    found = retrieval(source, target, numbers)
    assert found["mrr"] == pytest.approx(sum(1 / rank for rank in ranks) / 1100)
    assert found["recall_at_1"] == pytest.approx(sum(rank == 1 for rank in ranks) / 1100)


def test_mismatched_cosine_leaves_out_a_pair_and_its_equals():
    source = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    target = torch.tensor([[1.0, 0.0], [1.0, 1.0], [1.0, 0.0]])
    # Pairs 0 and 2 have one target: what counts is 0-1, 2-1, 1-0, 1-2.
    assert mismatched_cosine(source, target, torch.tensor([0, 1, 0])) == pytest.approx(math.sqrt(0.5) / 2)
    assert mismatched_cosine(source, target, torch.zeros(3, dtype=torch.long)) is None


def test_alignment_is_told_from_collapse():
    aligned = random(60, 6)
    good, spectrum = measure_pairs(aligned + 0.05 * random(60, 6, seed=1), aligned)
    collapsed, _ = measure_pairs(torch.ones(60, 6), torch.ones(60, 6))
    assert good["matched_cosine"] > 0.99 and collapsed["matched_cosine"] == pytest.approx(1)
    assert abs(good["mismatched_cosine"]) < 0.1 and collapsed["mismatched_cosine"] == pytest.approx(1)
    assert good["target_effective_rank"] > 5 and collapsed["target_effective_rank"] == 0
    assert good["recall_at_1"] > 0.9 and collapsed["recall_at_1"] == pytest.approx(1 / 60)
    assert good["target_variance"] == pytest.approx(aligned.var(0).mean().item()) and collapsed["target_variance"] == 0
    assert good["linear_r2"] > 0.95 and "linear_r2" not in collapsed
    assert good["difference_singular_mean"] == pytest.approx(spectrum.mean().item()) and len(spectrum) == 6


def test_what_few_pairs_cannot_show_is_left_out():
    measured, _ = measure_pairs(EYE, EYE, torch.zeros(4, dtype=torch.long))
    assert "mismatched_cosine" not in measured and "linear_r2" not in measured
    assert measured["recall_at_1"] == 1


@pytest.mark.parametrize(
    ("source", "target", "numbers", "message"),
    [
        (EYE, torch.eye(5), None, "both must be"),
        (EYE[0], EYE[0], None, "both must be"),
        (EYE, EYE, torch.arange(3), "`numbers` has shape"),
        (EYE[:1], EYE[:1], None, "needs two of them"),
        (EYE, EYE / 0, None, "finite"),
    ],
)
def test_what_cannot_be_measured_is_refused(source, target, numbers, message):
    with pytest.raises(ValueError, match=message):
        measure_pairs(source, target, numbers)


def test_tsne_keeps_pairs_together_and_repeats():
    source = torch.cat([random(20, 5), random(20, 5, seed=1) + 20])
    first, second = tsne_points(source, source + 0.01, perplexity=10, seed=3)
    assert first.shape == second.shape == (40, 2)
    groups = first[:20].mean(0), first[20:].mean(0)
    assert np.linalg.norm(groups[0] - groups[1]) > 3 * np.linalg.norm(first - second, axis=1).mean()
    np.testing.assert_array_equal(tsne_points(source, source + 0.01, perplexity=10, seed=3)[0], first)


def test_tsne_lays_out_collapsed_points_too():
    assert np.isfinite(tsne_points(torch.ones(20, 3), torch.ones(20, 3), perplexity=5)[0]).all()


def test_tsne_needs_more_points_than_its_perplexity():
    with pytest.raises(UserError, match=r"`perplexity` 30\.0 needs more points than that; there are 8"):
        tsne_points(EYE, EYE)
