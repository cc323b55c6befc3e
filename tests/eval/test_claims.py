"""The claims on planted differences, each p against scipy and statsmodels."""

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from predrec.eval.claims import CLAIMS, by_checkpoint, evaluate_claims, evaluate_family, in_paper_convention
from predrec.eval.results import Record, add_record
from predrec.eval.statistics import equivalence_p

from .made import full_results, plant, results_of, variant_in_paper

METRICS = {
    1: "uniformity", 2: "spectral_entropy", 3: "token_probe", 4: "probe_gap", 5: "accuracy", 6: "alignment",
    7: "semantic_probe",
}  # fmt: skip
"""What decides each claim; for similar scores, the headline of SST-2."""

SIGNS = {1: -1, 2: 1, 3: -1, 4: 1, 5: 1, 6: 1, 7: 1}
NOISE = np.array([1, -1, 1, -1, 1, -1, 1, -1.0])
CHECKPOINTS = np.array([0.1, 0.4, -0.3, 0.2, 0.0, -0.2, 0.3, -0.1])
"""What two checkpoints of one seed have in common."""

MARGINAL = 0.1 + 0.1 * 8**0.5 / stats.t.isf(0.02, 7) * stats.zscore(CHECKPOINTS, ddof=1)
"""Differences with p = 0.04."""


def where(number: int) -> dict:
    """Returns the fields of records that a claim is about."""
    metric = METRICS[number]
    if number == 5:
        return {"kind": "probe", "task": "sst2", "metric": metric, "pooling": "mean", "head": "linear", "seed": 0}
    fields = {"kind": "geometry", "metric": metric, "variant": variant_in_paper(metric)}
    return fields | {"task": "cola" if number == 7 else "sst2", "pooling": "max" if number == 2 else "mean"}


def planted(number: int, differences, results=None, **fields):
    """Returns results in which the models differ by these, in the claimed direction, and in nothing else."""
    count = len(differences)
    results = results or results_of(hybrid=count, mlm=count)
    base = 0.5 + CHECKPOINTS[:count]
    values = np.array(differences) if number == 7 else base + SIGNS[number] * np.array(differences)
    plant(results, "hybrid", values, **(where(number) | fields))
    if number != 7:
        plant(results, "mlm", base, **(where(number) | fields))
    return results


def claim_of(results, number: int):
    """Returns what is found of one claim."""
    return next(found for found in evaluate_claims(results, "hybrid", "mlm") if found.claim.number == number)


def p_of(differences) -> float:
    return float(stats.ttest_1samp(differences, 0).pvalue)


@pytest.mark.parametrize("number", SIGNS)
def test_claims_hold_where_planted(number):
    differences = 0.001 * NOISE if number == 5 else 0.1 + 0.02 * NOISE
    assert claim_of(planted(number, differences), number).verdict == "holds"


@pytest.mark.parametrize("number", SIGNS)
def test_claims_are_contradicted_where_planted(number):
    expected = "contradicted: worse" if number == 5 else "contradicted"
    assert claim_of(planted(number, -0.1 + 0.02 * NOISE), number).verdict == expected


def test_claims_of_equality_are_contradicted_by_better_scores():
    assert claim_of(planted(5, 0.1 + 0.02 * NOISE), 5).verdict == "contradicted: better"


def test_claims_of_equality_hold_for_a_sure_difference_that_does_not_matter():
    differences = 0.002 + 0.0003 * NOISE
    found = claim_of(planted(5, differences), 5)
    assert found.p < 0.001 and found.verdict == "holds"


def test_claims_of_equality_need_the_corrected_p_of_equivalence():
    """At p = 0.04 they do not hold, since the test of a difference is in their family."""
    differences = 0.01 * 8**0.5 / stats.t.isf(0.04, 7) * stats.zscore(CHECKPOINTS, ddof=1)
    assert equivalence_p(differences, 0.01) == pytest.approx(0.04)
    assert claim_of(planted(5, differences), 5).verdict == "undecided"


DIRECTED = [number for number in SIGNS if number != 5]


@pytest.mark.parametrize("number", DIRECTED)
@pytest.mark.parametrize(("sign", "verdict"), [(1, "holds"), (-1, "contradicted")])
def test_claims_of_a_direction_tell_a_sure_difference_that_does_not_matter(number, sign, verdict):
    margin = "0.05" if number == 1 else "one point"
    found = claim_of(planted(number, sign * (0.002 + 0.0003 * NOISE)), number)
    assert found.verdict == f"{verdict}, by less than {margin}"


def test_claims_of_a_direction_correct_their_tests_of_equivalence():
    """At p = 0.04 there is no difference, but not as one of two such tests."""
    within = 0.05 * 8**0.5 / stats.t.isf(0.04, 7) * stats.zscore(CHECKPOINTS, ddof=1)
    assert equivalence_p(within, 0.05) == pytest.approx(0.04)
    results = planted(1, within)
    assert claim_of(results, 1).verdict == "no difference"
    planted(3, 0.3 * NOISE, results)
    assert claim_of(results, 1).verdict == "undecided"


@pytest.mark.parametrize("number", DIRECTED)
def test_claims_of_a_direction_show_no_difference_where_planted(number):
    assert claim_of(planted(number, 0.001 * NOISE), number).verdict == "no difference"


@pytest.mark.parametrize("number", SIGNS)
def test_claims_are_undecided_where_planted(number):
    assert claim_of(planted(number, 0.3 * NOISE), number).verdict == "undecided"


@pytest.mark.parametrize("number", SIGNS)
@pytest.mark.parametrize("count", [1, 5])
def test_claims_need_six_checkpoints(number, count):
    assert claim_of(planted(number, (0.1 + 0.02 * NOISE)[:count]), number).verdict == "too few seeds"


@pytest.mark.parametrize("number", SIGNS)
def test_claims_have_effects_in_the_claimed_direction(number):
    assert claim_of(planted(number, 0.1 + 0.02 * NOISE), number).overall.effect == pytest.approx(0.1)


@pytest.mark.parametrize("number", SIGNS)
def test_claims_have_cells_in_the_claimed_direction(number):
    (cell,) = claim_of(planted(number, 0.1 + 0.02 * NOISE), number).cells
    np.testing.assert_allclose(cell.differences, 0.1 + 0.02 * NOISE)


@pytest.mark.parametrize("number", SIGNS)
def test_claims_without_numbers_are_absent(number):
    found = evaluate_claims(planted(number, NOISE), "hybrid", "mlm")
    assert [one.claim.number for one in found] == [number]


def test_claims_of_no_results_are_none():
    assert evaluate_claims(results_of(hybrid=8, mlm=8), "hybrid", "mlm") == []


def test_claims_without_the_baseline_are_those_against_zero():
    results = full_results(2, models=["hybrid"])
    assert [one.claim.number for one in evaluate_claims(results, "hybrid", "mlm")] == [7]


def test_claims_with_numbers_of_everything_are_all_there():
    found = evaluate_claims(full_results(2), "hybrid", "mlm")
    assert [one.claim for one in found] == list(CLAIMS)


def test_claims_of_similar_scores_use_the_headline_metric():
    results = planted(5, 0.1 + 0.02 * NOISE, task="cola", metric="matthews_correlation")
    plant(results, "hybrid", 9 + NOISE, **(where(5) | {"task": "cola"}))
    plant(results, "mlm", NOISE, **(where(5) | {"task": "cola"}))
    assert claim_of(results, 5).overall.effect == pytest.approx(0.1)


def test_claims_of_linear_probes_leave_out_other_heads():
    results = planted(5, 0.1 + 0.02 * NOISE)
    planted(5, 9 + NOISE, results, head="mlp")
    assert claim_of(results, 5).overall.effect == pytest.approx(0.1)


def test_claims_of_scores_leave_out_the_best_epoch_on_the_evaluation_split():
    results = planted(5, 0.1 + 0.02 * NOISE)
    planted(5, 9 + NOISE, results, variant="best_on_eval")
    assert claim_of(results, 5).overall.effect == pytest.approx(0.1)


def test_claims_of_max_pooling_leave_out_mean_pooling():
    results = planted(2, 0.1 + 0.02 * NOISE)
    planted(2, 9 + NOISE, results, pooling="mean")
    assert claim_of(results, 2).overall.effect == pytest.approx(0.1)


def test_claims_of_cola_leave_out_other_tasks():
    results = planted(7, 0.1 + 0.02 * NOISE)
    planted(7, 9 + NOISE, results, task="sst2")
    assert claim_of(results, 7).overall.effect == pytest.approx(0.1)


def test_claims_against_zero_do_not_depend_on_the_baseline():
    results = planted(7, 0.1 + 0.02 * NOISE)
    plant(results, "mlm", 9 + NOISE, **where(7))
    assert claim_of(results, 7).overall.effect == pytest.approx(0.1)


def test_claims_average_tasks_and_poolings():
    results = planted(1, 0.1 + 0.02 * NOISE)
    planted(1, 0.3 - 0.02 * NOISE, results, task="cola")
    planted(1, 0.5 + 0.01 * NOISE, results, pooling="max")
    assert claim_of(results, 1).overall.effect == pytest.approx(0.3)


def test_claims_are_decided_by_their_first_metric():
    results = planted(2, 0.1 + 0.02 * NOISE)
    planted(2, -9 + NOISE, results, metric="effective_rank")
    assert claim_of(results, 2).overall.effect == pytest.approx(0.1)


def test_claims_show_their_other_metrics():
    results = planted(2, 0.1 + 0.02 * NOISE)
    planted(2, -9 + NOISE, results, metric="effective_rank")
    assert [cell.metric for cell in claim_of(results, 2).cells] == ["spectral_entropy", "effective_rank"]


def test_claims_do_not_count_weighted_pooling_twice():
    results = planted(1, 0.1 + 0.02 * NOISE)
    planted(1, 0.1 + 0.02 * NOISE, results, pooling="weighted")
    assert [cell.pooling for cell in claim_of(results, 1).cells] == ["mean"]


def test_claims_do_not_average_weighted_pooling():
    results = planted(1, 0.1 + 0.02 * NOISE)
    planted(1, 9 + NOISE, results, pooling="weighted")
    assert claim_of(results, 1).overall.effect == pytest.approx(0.1)


def test_claims_count_draws_of_a_checkpoint_once():
    results = results_of(hybrid=8, mlm=8)
    for draw in range(3):
        planted(1, 0.1 * draw + 0.02 * NOISE, results, pooling="attention", draw=draw)
    overall = claim_of(results, 1).overall
    assert (overall.num_seeds, overall.effect) == (8, pytest.approx(0.1))


def test_claims_count_seeds_of_a_head_once():
    results = results_of(hybrid=8, mlm=8)
    for seed in range(3):
        planted(5, 0.1 * seed + 0.02 * NOISE, results, seed=seed)
    overall = claim_of(results, 5).overall
    assert (overall.num_seeds, overall.effect) == (8, pytest.approx(0.1))


def test_claims_pair_as_many_checkpoints_as_both_have():
    results = results_of(hybrid=8, mlm=6)
    plant(results, "hybrid", 0.5 - NOISE, **where(1))
    plant(results, "mlm", 0.5 - NOISE[:6] + np.arange(6), **where(1))
    np.testing.assert_allclose(claim_of(results, 1).cells[0].differences, np.arange(6), atol=1e-12)


def test_claims_average_cells_over_the_checkpoints_that_all_have():
    results = planted(1, 0.1 + 0.02 * NOISE)
    planted(1, (0.1 + 0.02 * NOISE)[:7], results, task="cola")
    assert claim_of(results, 1).overall.num_seeds == 7


def test_claims_have_the_p_of_a_paired_t_test():
    differences = 0.1 + 0.2 * CHECKPOINTS
    assert claim_of(planted(1, differences), 1).p == pytest.approx(p_of(differences))


def three_claims() -> tuple:
    """Returns results for three claims of different certainty, and their differences."""
    generator = np.random.default_rng(3)
    differences = {number: generator.normal(0.1, sd, 8) for number, sd in ((1, 0.05), (3, 0.1), (6, 0.2))}
    results = results_of(hybrid=8, mlm=8)
    for number, values in differences.items():
        planted(number, values, results)
    return results, differences


def test_claims_are_corrected_over_claims():
    results, differences = three_claims()
    expected = multipletests([p_of(values) for values in differences.values()], method="holm")[1]
    np.testing.assert_allclose([found.p for found in evaluate_claims(results, "hybrid", "mlm")], expected)


def test_claims_are_judged_by_the_corrected_p():
    """A difference at p = 0.04 holds alone, but not as one of three."""
    results = planted(1, MARGINAL)
    assert claim_of(results, 1).verdict == "holds"
    for number in (3, 6):
        planted(number, 0.3 * NOISE, results)
    assert claim_of(results, 1).verdict == "undecided"


def test_claims_correct_cells_within_the_claim():
    generator = np.random.default_rng(4)
    results, differences = results_of(hybrid=8, mlm=8), []
    for task in ("sst2", "cola", "mrpc"):
        differences.append(generator.normal(0.1, 0.1, 8))
        planted(1, differences[-1], results, task=task)
    planted(3, 0.3 * NOISE, results)
    expected = multipletests([p_of(values) for values in differences], method="holm")[1]
    np.testing.assert_allclose([cell.p for cell in claim_of(results, 1).cells], expected)


def test_claims_take_another_level():
    assert evaluate_claims(planted(1, MARGINAL), "hybrid", "mlm", alpha=0.03)[0].verdict == "undecided"


def test_by_checkpoint_averages_draws_and_seeds():
    results = results_of(hybrid=2)
    values = np.random.default_rng(0).normal(size=(2, 3, 2))
    for place, value in np.ndenumerate(values):
        fields = dict(zip(("replicate", "seed", "draw"), place, strict=True))
        add_record(results, model="hybrid", value=float(value), **(where(5) | fields))
    found = by_checkpoint(results, "probe", "hybrid", "sst2", "accuracy", "mean")
    np.testing.assert_allclose(found, values.mean((1, 2)))


def test_by_checkpoint_is_in_the_order_of_checkpoints():
    results = results_of(hybrid=3)
    for replicate in (2, 0, 1):
        add_record(results, model="hybrid", replicate=replicate, value=float(replicate), **where(1))
    assert by_checkpoint(results, "geometry", "hybrid", "sst2", "uniformity", "mean").tolist() == [0, 1, 2]


def test_by_checkpoint_of_nothing_is_empty():
    assert by_checkpoint(results_of(hybrid=2), "geometry", "hybrid", "sst2", "uniformity", "mean").shape == (0,)


CENTRED = {
    "uniformity": False,
    "mean_cosine": False,
    "alignment": False,
    "intra_inter_ratio": False,
    "spectral_entropy": True,
    "effective_rank": True,
    "stable_rank": True,
    "rank_90": True,
}


@pytest.mark.parametrize(("metric", "centred"), CENTRED.items())
def test_by_checkpoint_is_raw_or_centred_as_in_the_paper(metric, centred):
    results = results_of(hybrid=1)
    for variant, value in (("raw", 0.0), ("centred", 1.0)):
        plant(results, "hybrid", [value], **(where(1) | {"metric": metric, "variant": variant}))
    assert by_checkpoint(results, "geometry", "hybrid", "sst2", metric, "mean").tolist() == [float(centred)]


@pytest.mark.parametrize(
    ("kind", "variant", "expected"),
    [("probe", None, True), ("probe", "best_on_eval", False), ("finetune", None, True), ("geometry", None, True)],
)
def test_in_paper_convention_of_what_is_neither_raw_nor_centred(kind, variant, expected):
    assert in_paper_convention(Record(kind, "hybrid", "sst2", "accuracy", 0.5, variant=variant)) is expected


@pytest.mark.parametrize("number", [1, 5])
def test_bag_of_word_embeddings_is_in_no_claim(number):
    results = planted(number, 0.1 + 0.02 * NOISE)
    planted(number, 9 + NOISE, results, pooling="embeddings")
    assert [cell.pooling for cell in claim_of(results, number).cells] == ["mean"]


def test_claim_about_a_model_alone_is_tested_once():
    """CoLA against zero is the same test beside a second baseline: it counts once in the family."""
    results = results_of(hybrid=8, mlm=8, other=8)
    planted(7, 0.1 + 0.2 * NOISE + 0.1 * CHECKPOINTS, results)
    planted(3, 0.02 + 0.1 * CHECKPOINTS, results)
    plant(results, "other", 0.5 + 0.9 * CHECKPOINTS, **where(3))
    pairs = evaluate_family(results, [("hybrid", "mlm"), ("hybrid", "other")])
    first, second = ({found.claim.number: found for found in pair} for pair in pairs)
    raw = [first[3].overall.t_p, first[7].overall.t_p, second[3].overall.t_p]
    expected = multipletests(raw, method="holm")[1]
    assert [first[3].p, first[7].p, second[3].p] == pytest.approx(expected)
    assert (second[7].p, second[7].verdict) == (first[7].p, first[7].verdict)
