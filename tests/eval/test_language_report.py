"""Reports of language models: answers with paired tests, views, and none of what encoders have."""

import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from predrec.eval.document import Heading, Table, to_markdown
from predrec.eval.report import build_report
from predrec.eval.results import Results, add_record

EXACT = {"ntp": [0.50, 0.55, 0.52, 0.51, 0.54, 0.53], "llm_jepa": [0.60, 0.64, 0.63, 0.60, 0.66, 0.62]}
STARTS = {"ntp": [0.70, 0.71, 0.72, 0.70, 0.71, 0.70], "llm_jepa": [0.71, 0.70, 0.72, 0.71, 0.70, 0.70]}


def language_results(count: int = 6) -> Results:
    """Returns answers and views of two ways of training, with so many seeds."""
    results = Results(commands=["predrec finetune-llm"])
    for model in EXACT:
        for replicate in range(count):
            described = {"name": model, "replicate": replicate, "weights": f"{model}{replicate}"}
            results.models.append(described | {"seed": 80 + replicate, "steps": 1200, "flops": 1.5e13})
            shared = {"model": model, "replicate": replicate, "task": "synth"}
            for metric, values in (("exact_match", EXACT), ("startswith", STARTS)):
                add_record(results, kind="answers", metric=metric, value=values[model][replicate], **shared)
            add_record(results, kind="views", metric="matched_cosine", value=replicate / 10, **shared)
    return results


def table_below(blocks: list, heading: str) -> list[dict[str, str]]:
    """Returns the rows of the first table below a heading."""
    at = blocks.index(next(b for b in blocks if isinstance(b, Heading) and b.text == heading))
    table = next(block for block in blocks[at:] if isinstance(block, Table))
    return [dict(zip(table.header, row, strict=True)) for row in table.rows]


@pytest.fixture(scope="module")
def blocks():
    return build_report(language_results(), baseline="ntp")


def test_report_of_language_models_has_their_parts_alone(blocks):
    headings = [block.text for block in blocks if isinstance(block, Heading)]
    assert headings == [
        *("Evaluation of ntp and llm_jepa", "Answers", "llm_jepa against ntp", "Views", "How it was measured")
    ]


def test_models_are_listed_with_what_they_cost(blocks):
    table = next(block for block in blocks if isinstance(block, Table))
    assert table.header == ["model", "checkpoint", "seed", "updates", "training operations", "weights"]
    assert table.rows[1] == ["ntp", "1", "81", "1,200", "1.5e+13", "`ntp1`"]


def test_answers_are_means_over_checkpoints(blocks):
    row = table_below(blocks, "Answers")[0]
    assert (row["metric"], row["ntp"], row["llm_jepa"]) == ("exact_match", "0.5250 ± 0.0187", "0.6250 ± 0.0235")


def test_answers_are_tested_in_pairs_and_corrected(blocks):
    rows = table_below(blocks, "llm_jepa against ntp")
    plain = [stats.ttest_rel(values["llm_jepa"], values["ntp"]) for values in (EXACT, STARTS)]
    wanted = multipletests([one.pvalue for one in plain], method="holm")[1]
    assert rows[0]["corrected p"] == "< 0.001" and wanted[0] < 0.001
    assert rows[1]["corrected p"] == f"{wanted[1]:.3f}"
    low, high = plain[0].confidence_interval(0.95)
    assert rows[0]["95 % interval"] == f"{low:+.3f} to {high:+.3f}"
    assert [row["verdict"] for row in rows] == ["improves", "equivalent"]


@pytest.mark.parametrize("count", [1, 3])
def test_few_seeds_have_no_verdict(count):
    rows = table_below(build_report(language_results(count), baseline="ntp"), "llm_jepa against ntp")
    assert {row["verdict"] for row in rows} == {"too few seeds"}
    assert {row["pairs"] for row in rows} == {str(count)}


def test_views_are_shown(blocks):
    assert table_below(blocks, "Views")[0]["ntp"] == "0.2500 ± 0.1871"


def test_one_model_is_compared_with_none():
    results = language_results()
    results.models = [model for model in results.models if model["name"] == "ntp"]
    results.records = [record for record in results.records if record.model == "ntp"]
    text = to_markdown(build_report(results))
    assert "## Answers" in text and "against" not in text
