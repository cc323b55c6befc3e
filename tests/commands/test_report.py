"""The command that reports: results in, a report, its results and model cards out."""

import json
import re

import numpy as np
import pytest
from huggingface_hub import ModelCard

from predrec.commands.report import main
from predrec.eval.card import BEGIN
from predrec.eval.encoder import load_encoder
from predrec.eval.results import Results, read_results, write_results
from tests.eval.made import Page, full_results, model_entry, plant_seeds, results_of


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Two folders of results of the same models."""
    folder = tmp_path_factory.mktemp("inputs")
    for part in ("probe", "sts"):
        write_results(folder / part, full_results(parts=[part]))
    return folder


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """The folder of a report of everything, made from two folders."""
    folder = tmp_path_factory.mktemp("outputs")
    write_results(folder / "a", full_results(parts=["probe", "finetune"]))
    write_results(folder / "b", full_results(parts=["geometry", "sts"]))
    words = [str(folder / "a"), str(folder / "b"), "--output", str(folder / "report"), "--published", "true"]
    assert main(words) == 0
    return folder / "report"


@pytest.fixture
def small(tmp_path):
    """A folder of few results."""
    results = results_of(hybrid=1, mlm=1)
    for model in ("hybrid", "mlm"):
        plant_seeds(results, model, [0.6, 0.7], task="sst2", metric="accuracy")
    return write_results(tmp_path / "small", results).parent


@pytest.fixture
def refused(refusal, tmp_path):
    """Runs the command, expects that it refuses, and returns the message."""
    return lambda *words: refusal(main, *words, "--output", tmp_path / "report")


@pytest.mark.parametrize("name", ["report.md", "report.html", "results.json", "predictions.npz", "figures/probes.png"])
def test_report_writes_its_files(outputs, name):
    assert (outputs / name).stat().st_size > 0


@pytest.mark.parametrize(
    "heading",
    ["Probes of the frozen encoder", "Fine-tuning", "Geometry of the vectors", "Sentence similarity"],
)
def test_report_shows_all_inputs(outputs, heading):
    assert f"## {heading}\n" in (outputs / "report.md").read_text(encoding="utf-8")


def test_report_shows_the_figures_that_were_written(outputs):
    shown = re.findall(r"\]\((figures/[^)]+)\)", (outputs / "report.md").read_text(encoding="utf-8"))
    assert shown and all((outputs / name).is_file() for name in shown)


@pytest.mark.parametrize("name", ["report.md", "report.html"])
def test_report_holds_no_nan(outputs, name):
    text = (outputs / name).read_text(encoding="utf-8")
    text = re.sub(r"base64,[^\"]*", "", text)
    assert not re.search(r"\bnan\b", text, re.IGNORECASE)


def test_report_is_a_balanced_page(outputs):
    assert Page((outputs / "report.html").read_text(encoding="utf-8")).unbalanced == []


def test_report_is_a_page_that_loads_nothing(outputs):
    page = Page((outputs / "report.html").read_text(encoding="utf-8"))
    assert page.references and all(reference.startswith("data:image/svg+xml") for reference in page.references)


def test_report_is_a_page_with_a_title(outputs):
    assert "Evaluation of hybrid and mlm" in Page((outputs / "report.html").read_text(encoding="utf-8")).texts


def test_report_writes_the_merged_records(outputs):
    assert {record.kind for record in read_results(outputs).records} == {"probe", "finetune", "geometry", "sts"}


def test_report_writes_the_predictions(outputs):
    expected = full_results(parts=["probe"]).predictions
    np.testing.assert_array_equal(
        read_results(outputs).predictions["probe|labels|sst2"], expected["probe|labels|sst2"]
    )


def test_report_can_be_made_of_its_own_results(small, tmp_path):
    assert main([str(small), "--output", str(tmp_path / "one")]) == 0
    assert main([str(tmp_path / "one/results.json"), "--output", str(tmp_path / "two")]) == 0
    assert (tmp_path / "one/report.md").read_bytes() == (tmp_path / "two/report.md").read_bytes()


def test_report_prints_where_it_is(small, tmp_path, capsys):
    main([str(small), "--output", str(tmp_path / "report")])
    assert capsys.readouterr().out.split() == [
        str(tmp_path / "report" / name) for name in ("report.md", "report.html")
    ]


def test_report_leaves_its_inputs_alone(small, tmp_path):
    before = (small / "results.json").read_bytes()
    main([str(small), "--output", str(tmp_path / "report")])
    assert (small / "results.json").read_bytes() == before


def test_report_compares_with_the_last_model(small, tmp_path):
    main([str(small), "--output", str(tmp_path / "report")])
    assert "compared with **mlm**" in (tmp_path / "report/report.md").read_text(encoding="utf-8")


def test_report_compares_with_the_given_baseline(small, tmp_path):
    main([str(small), "--output", str(tmp_path / "report"), "--baseline", "hybrid"])
    assert "compared with **hybrid**" in (tmp_path / "report/report.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(("words", "expected"), [([], False), (["--published", "true"], True)])
def test_report_shows_published_numbers_when_asked(small, tmp_path, words, expected):
    main([str(small), "--output", str(tmp_path / "report"), *words])
    assert ("paper: hybrid" in (tmp_path / "report/report.md").read_text(encoding="utf-8")) is expected


def test_report_joins_checkpoints_of_two_inputs(tmp_path):
    for replicate in (0, 1):
        results = Results(models=[model_entry("hybrid", replicate)])
        plant_seeds(results, "hybrid", [0.6], replicate=replicate, task="sst2", metric="accuracy")
        write_results(tmp_path / str(replicate), results)
    assert main([str(tmp_path / "0"), str(tmp_path / "1"), "--output", str(tmp_path / "report")]) == 0
    assert [model["replicate"] for model in read_results(tmp_path / "report").models] == [0, 1]


def test_report_writes_names_as_they_are(tmp_path):
    results = results_of(**{"a|b <i>": 1})
    plant_seeds(results, "a|b <i>", [0.6], task="sst2", metric="accuracy")
    write_results(tmp_path, results)
    assert main([str(tmp_path), "--output", str(tmp_path / "report")]) == 0
    page = Page((tmp_path / "report/report.html").read_text(encoding="utf-8"))
    assert "a|b <i>" in page.texts and page.unbalanced == []


def test_report_of_weighted_pooling_alone_is_made(tmp_path):
    results = full_results(parts=["geometry"])
    results.records = [record for record in results.records if record.pooling == "weighted"]
    results.spectra = [spectrum for spectrum in results.spectra if spectrum["pooling"] == "weighted"]
    write_results(tmp_path, results)
    assert main([str(tmp_path), "--output", str(tmp_path / "report")]) == 0


@pytest.fixture
def encoders(tiny_encoder, tmp_path, small):
    """The folders of two checkpoints of `hybrid`, with cards, whose heads reached 0.6 and 0.9."""
    results = results_of(hybrid=2, mlm=1)
    folders = [tiny_encoder(tmp_path / f"h{seed}", seed=seed) for seed in (0, 1)]
    for replicate, folder in enumerate(folders):
        (folder / "README.md").write_text("---\nlicense: mit\n---\n\n# A model\n\n## Limits\n", encoding="utf-8")
        results.models[replicate]["weights"] = load_encoder(folder).weights
        scores = [0.6 + 0.3 * replicate] * 5
        plant_seeds(results, "hybrid", scores, task="sst2", metric="accuracy", replicate=replicate)
    write_results(small, results)
    return folders


def test_report_updates_model_cards(small, encoders, tmp_path):
    """Each with the scores of its own weights."""
    words = ["--output", str(tmp_path / "report"), "--model_cards", *(f"hybrid={folder}" for folder in encoders)]
    assert main([str(small), *words]) == 0
    cards = [ModelCard.load(folder / "README.md") for folder in encoders]
    assert all(BEGIN in card.text for card in cards)
    assert [[entry.metric_value for entry in card.data.eval_results] for card in cards] == [[0.6], [0.9]]


def test_report_writes_results_beside_model_cards(small, encoders, tmp_path):
    main([str(small), "--output", str(tmp_path / "report"), "--model_cards", f"hybrid={encoders[1]}"])
    assert read_results(encoders[1]).records == read_results(small).records


def test_report_refuses_the_card_of_other_weights(refused, small, encoders, tiny_encoder, tmp_path):
    other = tiny_encoder(tmp_path / "other", seed=2)
    (other / "README.md").write_text("# A model\n", encoding="utf-8")
    assert "is none of those that were measured as hybrid" in refused(small, "--model_cards", f"hybrid={other}")
    assert not (tmp_path / "report").exists() and (other / "README.md").read_text() == "# A model\n"


def test_report_needs_results(refused):
    assert "Give the folders of results first" in refused()


def test_report_explains_a_missing_folder(refused, tmp_path):
    assert "There are no results at" in refused(tmp_path / "nowhere")


def test_report_explains_a_folder_without_results(refused, tmp_path):
    assert "There are no results at" in refused(tmp_path)


def test_report_refuses_another_schema_version(refused, small):
    path = small / "results.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema_version": 99}))
    assert "schema version 99" in refused(small)


def test_report_refuses_a_damaged_file(refused, small):
    (small / "results.json").write_text("{")
    assert "is not a results file" in refused(small)


def test_report_refuses_results_without_numbers(refused, tmp_path):
    write_results(tmp_path / "empty", results_of(hybrid=1))
    assert "The results hold no numbers" in refused(tmp_path / "empty")


def test_report_refuses_results_that_disagree(refused, small, tmp_path):
    results = read_results(small)
    results.records = []
    plant_seeds(results, "hybrid", [0.9], task="sst2", metric="accuracy")
    write_results(tmp_path / "other", results)
    assert "The results disagree on hybrid, sst2, accuracy" in refused(small, tmp_path / "other")


def test_report_refuses_an_unknown_baseline(refused, small):
    assert "`baseline` 'bert' is not among the models: hybrid, mlm." in refused(small, "--baseline", "bert")


def test_report_refuses_an_unknown_argument(refused, small):
    assert "did you mean `baseline`?" in refused(small, "--baselin", "mlm")


def test_report_needs_an_output(small, capfd):
    assert main([str(small)]) == 2
    assert "output" in capfd.readouterr().err


@pytest.mark.parametrize("word", ["hybrid", "hybrid=", "bert=folder", "=folder"])
def test_report_refuses_model_cards_that_name_no_model(refused, small, word):
    assert f"`model_cards`: {word!r} must be name=DIR" in refused(small, "--model_cards", word)


def test_report_refuses_a_folder_without_a_card(refused, small, tmp_path):
    assert "there is no README.md" in refused(small, "--model_cards", f"hybrid={tmp_path}")


@pytest.mark.parametrize("part", ["probe", "sts"])
def test_report_of_one_kind_of_results_is_made(inputs, tmp_path, part):
    assert main([str(inputs / part), "--output", str(tmp_path / "report")]) == 0
