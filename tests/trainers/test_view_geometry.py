"""Alignment, collapse and retrieval, by hand."""

import pytest
import torch

from predrec.trainers.view_geometry import view_measures

EYE = torch.eye(4)


def test_perfect_predictions_of_different_targets():
    found = view_measures(2 * EYE, EYE, torch.arange(4))
    assert found["matched_cosine"] == pytest.approx(1) and found["mismatched_cosine"] == pytest.approx(0)
    assert found["retrieval"] == 1 and found["effective_rank"] == pytest.approx(3)


def test_collapse_shows_although_views_align():
    same = torch.ones(4, 3)
    found = view_measures(same, same, torch.arange(4))
    assert found["matched_cosine"] == pytest.approx(1) == found["mismatched_cosine"]
    assert found["effective_rank"] == 0 and found["retrieval"] == 0.25
    assert found["collapsed"] == 1 and view_measures(EYE, EYE, torch.arange(4))["collapsed"] == 0


def test_equal_targets_are_no_mistake():
    target = torch.stack([EYE[0], EYE[0], EYE[1]])
    found = view_measures(target, target, torch.tensor([7, 7, 2]))
    assert found["retrieval"] == 1 and found["mismatched_cosine"] == 0
    assert view_measures(EYE.roll(1, 0), EYE, torch.arange(4))["retrieval"] == 0


def test_one_record_shows_alignment_only():
    assert view_measures(EYE[:1], EYE[:1], torch.arange(1)) == {"matched_cosine": 1.0}
