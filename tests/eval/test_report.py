"""Reports of results written by hand: every number against numpy, scipy and statsmodels written out."""

import re
from itertools import pairwise

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from predrec.errors import UserError
from predrec.eval.document import Heading, Paragraph, Picture, Table, to_html, to_markdown
from predrec.eval.published import published
from predrec.eval.report import build_report
from predrec.eval.report_geometry import GEOMETRY
from predrec.eval.report_scores import score_blocks
from predrec.eval.results import Results, add_record, merge_results
from predrec.eval.statistics import equivalence_p

from .made import (
    MODELS,
    Page,
    add_geometry,
    add_probes,
    full_results,
    model_entry,
    plant,
    plant_seeds,
    results_of,
    variant_in_paper,
)

PROBES, COMPARISON = "Probes of the frozen encoder", "hybrid against mlm"
SCORE = {"task": "sst2", "metric": "accuracy"}
SCORES = {"hybrid": [0.71, 0.74, 0.72, 0.75, 0.70, 0.73], "mlm": [0.62, 0.68, 0.61, 0.66, 0.64, 0.60]}
DIFFERENCES = np.array(SCORES["hybrid"]) - np.array(SCORES["mlm"])


def tables_of(blocks: list, heading: str) -> list[Table]:
    """Returns the tables below a heading, up to the next heading."""
    found, below = [], False
    for block in blocks:
        if isinstance(block, Heading):
            below = block.text == heading
        elif below and isinstance(block, Table):
            found.append(block)
    return found


def rows_of(blocks: list, heading: str) -> list[dict[str, str]]:
    """Returns the rows of the only table below a heading, cells by column."""
    (table,) = tables_of(blocks, heading)
    return [dict(zip(table.header, row, strict=True)) for row in table.rows]


def headings(blocks: list) -> list[str]:
    return [block.text for block in blocks if isinstance(block, Heading)]


def pictures(blocks: list) -> list[str]:
    return [block.name for block in blocks if isinstance(block, Picture)]


def seeds_results(**scores) -> Results:
    """Returns results of one checkpoint per model, whose heads have these scores on SST-2."""
    results = results_of(**dict.fromkeys(scores, 1))
    for model, values in scores.items():
        plant_seeds(results, model, values, **SCORE)
    return results


def checkpoints_results(**scores) -> Results:
    """Returns results in which each score is the mean of two heads of one checkpoint."""
    results = results_of(**{model: len(values) for model, values in scores.items()})
    for model, values in scores.items():
        for replicate, value in enumerate(values):
            plant_seeds(results, model, [value - 0.1, value + 0.1], replicate=replicate, **SCORE)
    return results


def comparison_row(results: Results, heading: str = COMPARISON, index: int = 0) -> dict[str, str]:
    return rows_of(without_figures(results), heading)[index]


def holm(*differences) -> list[float]:
    return multipletests([stats.ttest_1samp(one, 0).pvalue for one in differences], method="holm")[1].tolist()


def interval_of(values) -> tuple[float, float]:
    interval = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    return float(interval.low), float(interval.high)


@pytest.fixture(scope="module")
def full():
    """The report of everything, of one checkpoint per model."""
    return build_report(full_results())


def without_figures(results: Results, **options) -> list:
    """Builds a report without figures, which take the most time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("predrec.eval.report.all_figures", lambda results: [])
        return build_report(results, **options)


@pytest.fixture(scope="module")
def full_by_checkpoint():
    """The report of everything, of six checkpoints per model."""
    return without_figures(full_results(6))


# Parts


def test_report_is_named_after_its_models(full):
    assert full[0] == Heading("Evaluation of hybrid and mlm", 1)


def test_report_is_named_after_three_models():
    results = seeds_results(a=[0.5], b=[0.6], c=[0.7])
    assert build_report(results)[0].text == "Evaluation of a, b and c"


def test_report_has_a_row_per_checkpoint():
    blocks = build_report(full_results(2, parts=["sts"]))
    assert [row[:2] for row in tables_of(blocks, headings(blocks)[0])[0].rows] == [
        ["hybrid", "0"],
        ["hybrid", "1"],
        ["mlm", "0"],
        ["mlm", "1"],
    ]


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ("probe", PROBES),
        ("finetune", "Fine-tuning"),
        ("geometry", "Geometry of the vectors"),
        ("sts", "Sentence similarity"),
    ],
)
def test_report_of_one_kind_of_results_has_no_other(part, expected):
    titles = {PROBES, "Fine-tuning", "Geometry of the vectors", "Sentence similarity"}
    assert titles & set(headings(without_figures(full_results(parts=[part])))) == {expected}


def test_report_of_everything_has_every_figure(full):
    expected = ["probes", "measures", "spectra", "alignment_uniformity", "effective_rank", "pooling"]
    assert pictures(full) == expected


def test_report_of_fine_tuning_shows_its_figure():
    assert pictures(build_report(full_results(parts=["finetune"]))) == ["probes"]


def test_report_of_one_model_compares_nothing():
    found = headings(without_figures(full_results(models=["hybrid"])))
    assert not any("against" in heading for heading in found)


def test_report_of_one_model_has_its_parts():
    found = headings(without_figures(full_results(models=["hybrid"])))
    assert {PROBES, "Fine-tuning", "Geometry of the vectors", "Sentence similarity"} <= set(found)


def test_report_of_one_model_marks_none_as_best():
    assert "**0." not in to_markdown(build_report(seeds_results(hybrid=[0.5, 0.6])))


def test_report_shows_commands_and_versions(full):
    texts = [block.text for block in full if isinstance(block, Paragraph)]
    assert texts[-2:] == ["`predrec by_hand`", "torch 2.0"]


def test_report_shows_notes(full):
    note = "**sst2**: trained on 100 of 67,349 rows: not comparable with published scores."
    assert note in [block.text for block in full if isinstance(block, Paragraph)]


def test_report_says_that_weighted_pooling_is_mean_pooling(full):
    assert any("equal rows are to be expected" in block.text for block in full if isinstance(block, Paragraph))


@pytest.mark.parametrize("word", ["nan", "inf", "None"])
def test_report_shows_numbers_only(full, word):
    assert not re.search(rf"\b{word}\b", to_markdown(full))


@pytest.mark.parametrize("word", ["nan", "inf", "None"])
def test_report_by_checkpoint_shows_numbers_only(full_by_checkpoint, word):
    assert not re.search(rf"\b{word}\b", to_markdown(full_by_checkpoint))


def test_report_shows_numbers_only_of_a_single_seed():
    text = to_markdown(build_report(seeds_results(hybrid=[0.7], mlm=[0.6])))
    assert not re.search(r"\b(nan|inf)\b", text, re.IGNORECASE)


def test_report_has_as_many_cells_as_columns(full):
    tables = [block for block in full if isinstance(block, Table)]
    assert all(len(row) == len(table.header) for table in tables for row in table.rows)


def test_report_has_no_table_without_rows(full):
    assert all(block.rows for block in full if isinstance(block, Table))


def test_report_is_a_page_with_balanced_tags(full):
    assert Page(to_html("Title", full)).unbalanced == []


def test_report_is_a_page_that_loads_nothing(full):
    assert all(reference.startswith("data:") for reference in Page(to_html("Title", full)).references)


def test_report_does_not_skip_a_level_of_headings(full):
    levels = [block.level for block in full if isinstance(block, Heading)]
    assert all(below <= level + 1 for level, below in pairwise(levels))


# The baseline


def test_report_compares_with_the_last_model():
    results = seeds_results(a=[0.5], b=[0.6], c=[0.7])
    assert {"a against c", "b against c"} <= set(headings(build_report(results)))


def test_report_compares_with_the_given_baseline():
    results = seeds_results(a=[0.5], b=[0.6], c=[0.7])
    found = [block for block in build_report(results, "a") if isinstance(block, Heading) and block.level == 3]
    assert [heading.text for heading in found] == ["All metrics", "b against a", "c against a"]


def test_report_refuses_an_unknown_baseline():
    with pytest.raises(UserError, match=r"`baseline` 'bert' is not among the models: hybrid, mlm\."):
        build_report(seeds_results(**SCORES), "bert")


@pytest.mark.parametrize(("count", "expected"), [(2, True), (6, False)])
def test_report_warns_of_too_few_checkpoints(count, expected):
    results = checkpoints_results(hybrid=[0.7] * count, mlm=[0.6] * count)
    assert ("too few seeds" in build_report(results)[2].text) is expected


# Claims


def test_report_has_a_row_per_claim(full_by_checkpoint):
    rows = rows_of(full_by_checkpoint, "The paper's claims: hybrid against mlm")
    assert [row["claim"][:2] for row in rows] == [f"{number}." for number in range(1, 8)]


def test_report_has_no_claims_without_their_numbers():
    assert not any("claims" in heading for heading in headings(build_report(full_results(parts=["sts"]))))


def claim_row(differences) -> dict[str, str]:
    """Returns the row of the first claim for models that differ by these in uniformity."""
    results = results_of(hybrid=len(differences), mlm=len(differences))
    fields = {"kind": "geometry", "task": "sst2", "metric": "uniformity", "pooling": "mean", "variant": "raw"}
    plant(results, "hybrid", -np.array(differences), **fields)
    plant(results, "mlm", np.zeros(len(differences)), **fields)
    return rows_of(without_figures(results), "The paper's claims: hybrid against mlm")[0]


def test_claim_row_has_its_numbers():
    low, high = interval_of(DIFFERENCES)
    p = stats.ttest_1samp(DIFFERENCES, 0).pvalue
    expected = [f"{DIFFERENCES.mean():+.3f}", f"{low:+.3f} to {high:+.3f}", "< 0.001" if p < 0.001 else f"{p:.3f}"]
    row = claim_row(DIFFERENCES)
    assert [row["effect"], row["95 % interval"], row["corrected p"]] == expected


@pytest.mark.parametrize(("sign", "observed", "cells"), [(1, "yes", "1 of 1"), (-1, "no", "0 of 1")])
def test_claim_row_says_what_was_observed(sign, observed, cells):
    row = claim_row(sign * DIFFERENCES)
    assert (row["observed"], row["cells that agree"]) == (observed, cells)


@pytest.mark.parametrize(("sign", "verdict"), [(1, "**holds**"), (-1, "**contradicted**")])
def test_claim_row_has_its_verdict(sign, verdict):
    assert claim_row(sign * DIFFERENCES)["verdict"] == verdict


def test_claim_row_of_one_checkpoint_has_no_p():
    row = claim_row([0.1])
    assert (row["95 % interval"], row["corrected p"], row["verdict"]) == ("-", "-", "**too few seeds**")


# Scores


def test_score_is_mean_deviation_and_interval_over_seeds_of_the_head():
    row = rows_of(build_report(seeds_results(hybrid=SCORES["hybrid"])), PROBES)
    values = np.array(SCORES["hybrid"])
    low, high = interval_of(values)
    assert row[0]["sst2 (accuracy)"] == f"{values.mean():.3f} ± {values.std(ddof=1):.3f} [{low:.3f}, {high:.3f}]"


def test_score_is_mean_deviation_and_interval_over_checkpoints():
    row = rows_of(build_report(checkpoints_results(hybrid=SCORES["hybrid"])), PROBES)
    values = np.array(SCORES["hybrid"])
    low, high = interval_of(values)
    assert row[0]["sst2 (accuracy)"] == f"{values.mean():.3f} ± {values.std(ddof=1):.3f} [{low:.3f}, {high:.3f}]"


@pytest.mark.parametrize(
    ("make", "unit"), [(seeds_results, "seeds of the head"), (checkpoints_results, "checkpoints")]
)
def test_scores_say_what_they_are_means_over(make, unit):
    assert f"standard deviation over {unit} [" in to_markdown(build_report(make(**SCORES)))


def test_text_says_so_where_some_models_have_one_checkpoint():
    results = results_of(hybrid=3, mlm=3, other=1)
    for model, score in (("hybrid", 0.7), ("mlm", 0.6)):
        for replicate in range(3):
            plant_seeds(results, model, [score + replicate**2 / 100] * 2, replicate=replicate, **SCORE)
    plant_seeds(results, "other", [0.5, 0.6], **SCORE)
    text = to_markdown(build_report(results))
    assert "standard deviation over checkpoints, or over seeds of the head for a single one, [" in text
    assert "Paired differences over checkpoints" in text and "Only the heads vary, of one checkpoint each" not in text


def test_score_of_one_seed_is_the_number_alone():
    assert rows_of(build_report(seeds_results(hybrid=[0.7])), PROBES)[0]["sst2 (accuracy)"] == "0.700"


def test_score_leaves_out_the_best_epoch_on_the_evaluation_split():
    results = seeds_results(hybrid=[0.7])
    plant_seeds(results, "hybrid", [0.9], variant="best_on_eval", **SCORE)
    assert rows_of(build_report(results), PROBES)[0]["sst2 (accuracy)"] == "0.700"


def test_whitened_vectors_have_rows_of_their_own():
    results = seeds_results(hybrid=[0.7, 0.72], mlm=[0.6, 0.65])
    for model, values in (("hybrid", [0.9, 0.92]), ("mlm", [0.7, 0.75])):
        plant_seeds(results, model, values, variant="whitened", **SCORE)
    blocks = without_figures(results)
    found = {(row["model"], row["how"]): row["sst2 (accuracy)"].strip("*")[:5] for row in rows_of(blocks, PROBES)}
    assert found[("hybrid", "mean linear")] == "0.710" and found[("hybrid", "mean linear whitened")] == "0.910"
    differences = {row["how"]: row["difference"] for row in rows_of(blocks, COMPARISON)}
    assert differences == {"mean linear": "+0.085", "mean linear whitened": "+0.185"}


def test_claims_are_not_of_whitened_vectors():
    results = full_results(6)
    heading = "The paper's claims: hybrid against mlm"
    before = rows_of(without_figures(results), heading)
    for replicate in range(6):
        plant_seeds(results, "mlm", [0.99, 0.99], variant="whitened", replicate=replicate, **SCORE)
    assert rows_of(without_figures(results), heading) == before


def test_score_that_was_not_measured_is_a_dash():
    results = seeds_results(hybrid=[0.7], mlm=[0.6])
    plant_seeds(results, "mlm", [0.1], task="cola", metric="matthews_correlation")
    rows = rows_of(build_report(results), PROBES)
    assert [row["cola (matthews_correlation)"] for row in rows] == ["-", "0.100"]


@pytest.mark.parametrize(("first", "best"), [(0.8, [True, False]), (0.4, [False, True]), (0.6, [True, True])])
def test_best_score_is_bold(first, best):
    rows = rows_of(build_report(seeds_results(hybrid=[first], mlm=[0.6])), PROBES)
    assert [row["sst2 (accuracy)"].startswith("**") for row in rows] == best


def test_best_score_may_be_that_of_a_baseline():
    results = seeds_results(hybrid=[0.7], mlm=[0.6])
    add_record(results, kind="probe", model="majority", value=0.9, **SCORE)
    rows = rows_of(build_report(results), PROBES)
    assert (rows[0]["model"], rows[0]["sst2 (accuracy)"]) == ("majority class", "**0.900**")


def test_every_head_and_pooling_has_a_row():
    results = seeds_results(hybrid=[0.7])
    plant_seeds(results, "hybrid", [0.8], head="mlp", **SCORE)
    plant_seeds(results, "hybrid", [0.9], pooling="max", **SCORE)
    assert [row["how"] for row in rows_of(build_report(results), PROBES)] == ["mean linear", "mean mlp", "max linear"]


def test_all_metrics_are_shown(full):
    rows = rows_of(full[: headings_at(full, "Fine-tuning")], "All metrics")
    assert [(row["task"], row["metric"]) for row in rows] == [
        ("sst2", "accuracy"),
        ("stsb", "spearmanr"),
        ("stsb", "pearson"),
    ]


def headings_at(blocks: list, text: str) -> int:
    return next(index for index, block in enumerate(blocks) if isinstance(block, Heading) and block.text == text)


# Comparisons


@pytest.mark.parametrize("make", [seeds_results, checkpoints_results])
def test_comparison_is_of_paired_differences(make):
    assert comparison_row(make(**SCORES))["difference"] == f"{DIFFERENCES.mean():+.3f}"


@pytest.mark.parametrize("make", [seeds_results, checkpoints_results])
def test_comparison_has_the_interval_of_a_paired_t_test(make):
    low, high = interval_of(DIFFERENCES)
    assert comparison_row(make(**SCORES))["95 % interval"] == f"{low:+.3f} to {high:+.3f}"


def test_comparison_has_the_p_of_a_paired_t_test():
    scores = {"hybrid": [0.71, 0.64, 0.72, 0.65, 0.70, 0.63], "mlm": [0.62, 0.68, 0.61, 0.66, 0.64, 0.60]}
    p = stats.ttest_rel(scores["hybrid"], scores["mlm"]).pvalue
    assert comparison_row(seeds_results(**scores))["corrected p"] == f"{p:.3f}"


def test_comparison_has_the_p_of_the_sign_flip_test():
    assert comparison_row(seeds_results(**SCORES))["sign-flip p"] == f"{2 / 2**6:.3f}"


def test_comparison_is_corrected_over_its_rows():
    generator = np.random.default_rng(0)
    results, differences = results_of(hybrid=1, mlm=1), []
    for task in ("sst2", "rte", "qnli"):
        values = generator.normal([[0.62], [0.6]], 0.02, (2, 6))
        for model, scores in zip(MODELS, values, strict=True):
            plant_seeds(results, model, scores, task=task, metric="accuracy")
        differences.append(values[0] - values[1])
    rows = rows_of(without_figures(results), COMPARISON)
    assert [row["corrected p"] for row in rows] == [f"{p:.3f}" for p in holm(*differences)]


def test_comparison_corrects_equivalence_over_its_rows():
    """At p = 0.04 a row alone is equivalent; beside another it is not."""
    spread = stats.zscore([0.1, 0.4, -0.3, 0.2, 0.0, -0.2], ddof=1)
    differences = 0.01 * 6**0.5 / stats.t.isf(0.04, 5) * spread
    results = seeds_results(hybrid=0.5 + differences, mlm=[0.5] * 6)
    assert equivalence_p(differences, 0.01) == pytest.approx(0.04)
    assert comparison_row(results)["verdict"] == "equivalent"
    for model, sign in (("hybrid", 1), ("mlm", -1)):
        plant_seeds(results, model, 0.5 + sign * np.tile([1, -1], 3) / 10, task="rte", metric="accuracy")
    assert comparison_row(results)["verdict"] == "undecided"


WAYS = {
    "improves": DIFFERENCES,
    "harms, by less than one point": -0.004 - np.array([1, -1, 1, -1, 1, -1]) / 1000,
    "harms": -DIFFERENCES,
    "equivalent": np.array([1, -1, 1, -1, 1, -1]) / 1000,
    "undecided": np.array([1, -1, 1, -1, 1, -1]) / 10,
    "too few seeds": DIFFERENCES[:5],
}


@pytest.mark.parametrize("make", [seeds_results, checkpoints_results])
@pytest.mark.parametrize(("expected", "differences"), WAYS.items(), ids=WAYS)
def test_comparison_has_a_verdict(make, expected, differences):
    base = np.linspace(0.5, 0.6, len(differences))
    assert comparison_row(make(hybrid=base + differences, mlm=base))["verdict"] == expected


def test_comparison_of_single_seeds_has_too_few():
    row = comparison_row(seeds_results(hybrid=[0.7], mlm=[0.6]))
    assert (row["difference"], row["95 % interval"], row["verdict"]) == ("+0.100", "-", "too few seeds")


@pytest.mark.parametrize("count", [2, 3, 6, 10])
@pytest.mark.parametrize(("first", "second"), [(0.281, 0.283), (0.1, 0.2), (0.35, 0.3), (0.3, 0.3)])
def test_comparison_of_heads_without_variation_is_not_tested(count, first, second):
    row = comparison_row(seeds_results(hybrid=[first] * count, mlm=[second] * count))
    assert (row["verdict"], row["corrected p"]) == ("does not vary by seed", "-")


def test_comparison_without_variation_is_not_counted_in_the_correction():
    scores = {"hybrid": [0.71, 0.64, 0.72, 0.65, 0.70, 0.63], "mlm": [0.62, 0.68, 0.61, 0.66, 0.64, 0.60]}
    results = seeds_results(**scores)
    for model, value in (("hybrid", 0.25), ("mlm", 0.5)):
        plant_seeds(results, model, [value] * 6, task="stsb", metric="spearmanr")
    p = stats.ttest_rel(scores["hybrid"], scores["mlm"]).pvalue
    assert comparison_row(results)["corrected p"] == f"{p:.3f}"


def test_comparison_pairs_as_many_checkpoints_as_both_have():
    scores = {"hybrid": [*SCORES["hybrid"], 0.1, 0.9], "mlm": SCORES["mlm"]}
    assert comparison_row(checkpoints_results(**scores))["difference"] == f"{DIFFERENCES.mean():+.3f}"


def test_comparison_does_not_pair_checkpoints_with_seeds_of_a_head():
    """Eight checkpoints against one: that one has many heads, but there is one difference between checkpoints."""
    results = results_of(hybrid=8, mlm=1)
    for replicate in range(8):
        plant_seeds(results, "hybrid", [0.70 + replicate / 1000] * 8, replicate=replicate, **SCORE)
    plant_seeds(results, "mlm", 0.6 + np.arange(8) ** 2 / 1000, **SCORE)
    assert comparison_row(results)["verdict"] not in ("improves", "harms", "equivalent")


def test_comparison_of_seeds_says_that_they_are_of_one_checkpoint():
    assert "Only the heads vary, of one checkpoint each" in to_markdown(build_report(seeds_results(**SCORES)))


def test_comparison_of_checkpoints_does_not_say_so():
    assert "Only the heads vary, of one checkpoint each" not in to_markdown(
        build_report(checkpoints_results(**SCORES))
    )


LABELS = np.random.default_rng(0).integers(0, 2, 200)


def with_votes(key: str = "mean|linear", kind: str = "probe", **shares) -> Results:
    """Returns results in which three heads per model are right this often, two of them always agreeing."""
    results, generator = results_of(**dict.fromkeys(shares, 1)), np.random.default_rng(1)
    results.predictions[f"{kind}|labels|sst2"] = LABELS
    fields = {"pooling": None, "head": None} if kind == "finetune" else {}
    for model, share in shares.items():
        plant_seeds(results, model, SCORES[model], kind=kind, **SCORE, **fields)
        majority = np.where(generator.random(200) < share, LABELS, 1 - LABELS)
        results.predictions[f"{kind}|{model}|0|sst2|{key}"] = np.stack([majority, 1 - LABELS, majority])
    return results


def right_of(results: Results, model: str, key: str = "mean|linear", kind: str = "probe") -> np.ndarray:
    return results.predictions[f"{kind}|{model}|0|sst2|{key}"][0] == LABELS


@pytest.mark.parametrize(("key", "kind"), [("mean|linear", "probe"), ("finetune|-", "finetune")])
def test_comparison_has_mcnemars_p_of_votes(key, kind):
    results = with_votes(key, kind, hybrid=0.72, mlm=0.65)
    first, second = right_of(results, "hybrid", key, kind), right_of(results, "mlm", key, kind)
    wins, losses = int((first & ~second).sum()), int((~first & second).sum())
    assert comparison_row(results)["McNemar p"] == f"{stats.binomtest(wins, wins + losses).pvalue:.3f}"


def test_comparison_has_the_difference_in_accuracy_of_votes():
    results = with_votes(hybrid=0.75, mlm=0.65)
    expected = right_of(results, "hybrid").mean() - right_of(results, "mlm").mean()
    assert comparison_row(results)["items: accuracy"].startswith(f"{expected:+.3f} [")


def test_comparison_has_a_bootstrap_interval_over_items():
    results = with_votes(hybrid=0.75, mlm=0.65)
    differences = right_of(results, "hybrid").astype(float) - right_of(results, "mlm")
    reference = stats.bootstrap([differences], np.mean, method="percentile", rng=np.random.default_rng(0))
    found = [float(number) for number in re.findall(r"[+-]\d\.\d+", comparison_row(results)["items: accuracy"])]
    # Both are random; a bound has a standard error of about 0.002 with 2000 draws.
    expected = [reference.confidence_interval.low, reference.confidence_interval.high]
    assert found[1:] == pytest.approx(expected, abs=0.01)


def test_comparison_of_several_checkpoints_is_not_one_of_items():
    """The votes of all heads of all checkpoints are an ensemble, whose score is no mean over checkpoints."""
    results = with_votes(hybrid=0.75, mlm=0.65)
    assert {"items: accuracy", "McNemar p"} <= set(comparison_row(results))
    results.models += [model | {"replicate": 1, "weights": model["name"]} for model in results.models]
    for model in MODELS:
        plant_seeds(results, model, SCORES[model], replicate=1, **SCORE)
    assert not {"items: accuracy", "McNemar p"} & set(comparison_row(results))


@pytest.mark.parametrize(("majority", "at_the_floor"), [(0.6, False), (0.507, True), (0.52, False)])
def test_comparison_at_the_majority_class_says_so(majority, at_the_floor):
    results = checkpoints_results(hybrid=[0.5, 0.51, 0.505, 0.5, 0.501, 0.502], mlm=[0.5] * 6)
    add_record(results, kind="probe", model="majority", task="sst2", metric="accuracy", value=majority)
    assert (comparison_row(results)["verdict"] == "both at the majority class") == at_the_floor


def test_comparison_has_the_p_of_equivalence():
    same, other = [0.5, 0.51, 0.505, 0.5, 0.501, 0.502], [0.501, 0.509, 0.505, 0.502, 0.5, 0.502]
    row = comparison_row(checkpoints_results(hybrid=same, mlm=other))
    p = equivalence_p(np.array(same) - np.array(other), 0.01)
    assert row["p of equivalence"] == ("< 0.001" if p < 0.001 else f"{p:.3f}") and row["verdict"] == "equivalent"


def test_one_checkpoint_among_several_is_marked():
    results = checkpoints_results(hybrid=SCORES["hybrid"], mlm=SCORES["mlm"])
    results.models.append(model_entry("single"))
    plant_seeds(results, "single", [0.4, 0.5], **SCORE)
    names = [row["model"] for row in rows_of(without_figures(results), PROBES)]
    assert "single (one checkpoint)" in names and "hybrid" in names


@pytest.mark.parametrize("missing", ["probe|labels|sst2", "probe|mlm|0|sst2|mean|linear"])
def test_comparison_without_predictions_has_no_items(missing):
    results = with_votes(hybrid=0.75, mlm=0.65)
    del results.predictions[missing]
    row = comparison_row(results)
    assert (row["items: accuracy"], row["McNemar p"]) == ("-", "-")


def test_votes_on_held_out_rows_are_not_those_on_the_evaluation_split():
    parts = [with_votes(kind=kind, hybrid=0.75, mlm=0.65) for kind in ("probe", "probe-development")]
    parts[1].predictions |= {key: 1 - votes for key, votes in parts[1].predictions.items() if "mlm" in key}
    merged = merge_results(parts)
    blocks = without_figures(merged)
    cells = [row["items: accuracy"] for row in comparisons(blocks)]
    expected = [comparison_row(part)["items: accuracy"] for part in parts]
    assert cells == expected and cells[0] != cells[1]


def comparisons(blocks: list) -> list[dict[str, str]]:
    """Returns the rows of the comparisons of all kinds."""
    return [dict(zip(table.header, row, strict=True)) for table in tables_of(blocks, COMPARISON) for row in table.rows]


def test_votes_on_another_number_of_rows_are_not_compared():
    results = with_votes(hybrid=0.75, mlm=0.65)
    results.predictions["probe|mlm|0|sst2|mean|linear"] = np.ones((3, 150))
    row = comparison_row(results)
    assert (row["items: accuracy"], row["McNemar p"]) == ("-", "-")


def test_notes_are_shown_below_the_scores_that_they_are_about():
    results = seeds_results(hybrid=[0.7])
    plant_seeds(results, "hybrid", [0.8], kind="probe-development", **SCORE)
    results.notes = {"probe-development|sst2": "scored on 20 rows held out"}
    shown = [to_markdown(score_blocks(results, kind, "Title", False)) for kind in ("probe", "probe-development")]
    assert ["**sst2**: scored on 20 rows held out." in text for text in shown] == [False, True]


def test_comparison_of_scores_has_no_items():
    results = results_of(hybrid=1, mlm=1)
    results.predictions["probe|labels|stsb"] = np.array([1.5, 4.0])
    for model in MODELS:
        plant_seeds(results, model, SCORES[model], task="stsb", metric="spearmanr")
        results.predictions[f"probe|{model}|0|stsb|mean|linear"] = np.array([[1.0, 3.0]])
    assert comparison_row(results)["McNemar p"] == "-"


# Geometry


def geometry_row(first: float, second: float, metric: str) -> list[str]:
    """Returns the cells of a measure for two models."""
    results = results_of(hybrid=1, mlm=1)
    for model, value in zip(MODELS, (first, second), strict=True):
        fields = {"kind": "geometry", "task": "sst2", "pooling": "mean", "variant": variant_in_paper(metric)}
        plant(results, model, [value], metric=metric, **fields)
    return [row[metric.replace("_", " ")] for row in rows_of(without_figures(results), "mean pooling")]


BETTER = {
    "uniformity": "lower",
    "alignment": None,
    "spectral_entropy": "higher",
    "effective_rank": "higher",
    "stable_rank": "higher",
    "rank_90": "higher",
    "intra_inter_ratio": "lower",
    "semantic_probe": "higher",
    "token_probe": None,
    "probe_gap": "higher",
}


def test_better_is_known_of_every_measure():
    assert list(BETTER) == [name for name, _ in GEOMETRY]


@pytest.mark.parametrize(("metric", "better"), BETTER.items())
def test_best_measure_is_bold_where_one_way_is_better(metric, better):
    bold = [cell.startswith("**") for cell in geometry_row(2.0, 1.0, metric)]
    assert bold == {"higher": [True, False], "lower": [False, True], None: [False, False]}[better]


def test_measure_is_mean_and_deviation_over_checkpoints():
    results = results_of(hybrid=3)
    fields = {"kind": "geometry", "task": "sst2", "pooling": "mean", "variant": "raw", "metric": "uniformity"}
    plant(results, "hybrid", [-0.1, -0.2, -0.4], **fields)
    (row,) = rows_of(without_figures(results), "mean pooling")
    assert row["uniformity"] == f"{-0.7 / 3:.3f} ± {np.std([0.1, 0.2, 0.4], ddof=1):.3f}"


def test_measure_of_one_checkpoint_is_mean_and_deviation_over_draws():
    results = results_of(hybrid=1)
    fields = {"kind": "geometry", "task": "sst2", "pooling": "attention", "variant": "raw", "metric": "uniformity"}
    for draw, value in enumerate([-0.1, -0.2, -0.4]):
        plant(results, "hybrid", [value], draw=draw, **fields)
    (row,) = rows_of(without_figures(results), "attention pooling")
    assert row["uniformity"] == f"{-0.7 / 3:.3f} ± {np.std([0.1, 0.2, 0.4], ddof=1):.3f}"


@pytest.mark.parametrize(
    ("heading", "value"), [("mean pooling", "-1.000"), ("mean pooling, centred vectors", "-2.000")]
)
def test_measure_is_raw_or_centred_as_its_table_says(heading, value):
    results = results_of(hybrid=1)
    for variant, number in (("raw", -1.0), ("centred", -2.0)):
        fields = {"kind": "geometry", "task": "sst2", "pooling": "mean", "metric": "uniformity"}
        plant(results, "hybrid", [number], variant=variant, **fields)
    assert rows_of(without_figures(results), heading)[0]["uniformity"] == value


def test_measures_of_word_embeddings_are_shown():
    """They are in no claim, but in the tables."""
    results = results_of(hybrid=1)
    add_geometry(results, ("sst2",), ("mean", "embeddings"), noise=0)
    mean, words = (rows_of(without_figures(results), f"{name} pooling")[0] for name in ("mean", "embeddings"))
    assert words == mean and words["uniformity"] != "-"


def test_every_pooling_has_a_table(full):
    assert {f"{pooling} pooling" for pooling in ("mean", "max", "weighted", "attention")} <= set(headings(full))


# Similarity


def test_best_similarity_is_bold(full):
    rows = rows_of(full, "Sentence similarity")
    assert [row["model"] for row in rows if row["sts12"].startswith("**")] == ["hybrid"]


def test_similarity_has_a_row_per_model_and_variant(full):
    rows = rows_of(full, "Sentence similarity")
    assert [(row["model"], row["vectors"]) for row in rows] == [
        (model, variant) for variant in ("raw", "centred", "whitened") for model in MODELS
    ]


# Published numbers


@pytest.fixture(scope="module")
def beside_published():
    """A report with the paper's numbers."""
    results = results_of(hybrid=1, mlm=1)
    add_probes(results, num_seeds=2)
    add_geometry(results)
    return without_figures(results, with_published=True)


def test_published_numbers_are_left_out_unless_asked_for(full):
    assert "paper:" not in to_markdown(full)


@pytest.mark.parametrize(("task", "scale"), [("sst2", 100), ("stsb", 1)])
@pytest.mark.parametrize(("index", "name"), [(0, "hybrid"), (1, "mlm")])
def test_published_scores_are_beside_ours(beside_published, task, scale, index, name):
    rows = rows_of(beside_published, "Beside the published scores")
    (row,) = [row for row in rows if (row["task"], row["model"]) == (task, f"paper: {name}")]
    value = published()["linear_probe"][task]["value"][index] / scale
    assert row["best epoch on the evaluation split"] == f"{value:.3f}"


def test_published_scores_are_of_tasks_that_were_measured(beside_published):
    rows = rows_of(beside_published, "Beside the published scores")
    assert {row["task"] for row in rows} == {"sst2", "stsb"}


def test_published_scores_are_beside_our_best_epoch_on_the_evaluation_split():
    results = seeds_results(hybrid=[0.7])
    plant_seeds(results, "hybrid", [0.9], variant="best_on_eval", **SCORE)
    row = rows_of(build_report(results, with_published=True), "Beside the published scores")[0]
    assert (row["last epoch"], row["best epoch on the evaluation split"]) == ("0.700", "0.900")


@pytest.mark.parametrize("task", ["sst2", "cola"])
@pytest.mark.parametrize("pooling", ["mean", "max", "weighted", "attention"])
@pytest.mark.parametrize(("index", "name"), [(0, "hybrid"), (1, "mlm")])
def test_published_geometry_is_below_ours(beside_published, task, pooling, index, name):
    rows = rows_of(beside_published, f"{pooling} pooling")
    (row,) = [row for row in rows if (row["task"], row["model"]) == (task, f"paper: {name}")]
    numbers = published()["geometry"][task][pooling]
    found = {metric: row[metric.replace("_", " ")] for metric in numbers}
    assert found == {metric: f"{pair[index]:g}" for metric, pair in numbers.items()}


def test_published_numbers_are_never_bold(beside_published):
    tables = [block for block in beside_published if isinstance(block, Table)]
    rows = [row for table in tables for row in table.rows if any(cell.startswith("paper:") for cell in row)]
    assert rows and not any("**" in cell for row in rows for cell in row)


def test_published_numbers_without_any_of_ours_are_left_out():
    results = results_of(hybrid=1)
    plant_seeds(results, "hybrid", [0.6], task="rte", metric="accuracy")
    assert "paper:" not in to_markdown(build_report(results, with_published=True))


# Scores on held-out training rows


def development_results() -> Results:
    """Returns results of two models on two tasks, scored on held-out training rows alone."""
    results = results_of(hybrid=1, mlm=1)
    for model, (first, second) in {"hybrid": (0.8, 0.1), "mlm": (0.7, 0.4)}.items():
        plant_seeds(results, model, [first], kind="probe-development", **SCORE)
        plant_seeds(results, model, [second], kind="probe-development", task="stsb", metric="spearmanr")
    return results


def test_development_scores_stand_alone():
    blocks = without_figures(development_results(), with_published=True)
    assert "Probes on held-out training rows" in headings(blocks)
    assert not {PROBES, "Beside the published scores"} & set(headings(blocks))


def test_development_scores_have_a_mean():
    rows = rows_of(without_figures(development_results()), "Probes on held-out training rows")
    assert [row["mean"] for row in rows] == ["0.4500", "**0.5500**"]


def test_development_scores_do_not_claim_the_official_splits():
    text = to_markdown(without_figures(development_results()))
    assert "for choices between models" in text and "Scored on the evaluation splits" not in text


def test_development_scores_are_not_mixed_with_others():
    results = development_results()
    plant_seeds(results, "hybrid", [0.2], **SCORE)
    assert rows_of(without_figures(results), PROBES)[0]["sst2 (accuracy)"] == "0.200"


def test_mean_is_of_those_that_have_all_scores():
    results = seeds_results(hybrid=[0.7, 0.9], mlm=[0.6])
    plant_seeds(results, "mlm", [0.1], task="cola", metric="matthews_correlation")
    assert [row["mean"] for row in rows_of(without_figures(results), PROBES)] == ["-", "0.3500"]


def test_mean_takes_mrpc_by_accuracy():
    """The binary F1 of who always says the same is 0.81."""
    results = seeds_results(hybrid=[0.7], mlm=[0.6])
    for model, (f1, accuracy) in {"hybrid": (0.81, 0.7), "mlm": (0.8, 0.72)}.items():
        plant_seeds(results, model, [f1], task="mrpc", metric="f1")
        plant_seeds(results, model, [accuracy], task="mrpc", metric="accuracy")
    rows = rows_of(without_figures(results), PROBES)
    assert [row["mean (mrpc by accuracy)"] for row in rows] == ["**0.7000**", "0.6600"]


def test_one_task_has_no_mean():
    assert "mean" not in rows_of(without_figures(seeds_results(hybrid=[0.7])), PROBES)[0]
