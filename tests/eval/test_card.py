"""Results in the card of a model: a section that is replaced, and entries that the Hub reads."""

import numpy as np
import pytest
import yaml
from huggingface_hub import ModelCard

from predrec.errors import UserError
from predrec.eval.card import BEGIN, END, hub_entries, render_results, replicate_in, update_model_card
from predrec.eval.encoder import load_encoder
from predrec.eval.results import read_results

from .made import full_results, plant_seeds, results_of

CARD = """---
language: en
license: apache-2.0
tags:
- predrec
---

# A model

What it is.

## Limits

What it cannot do.
"""


@pytest.fixture(scope="module")
def results():
    """Of two models with one checkpoint each."""
    return full_results()


@pytest.fixture
def folder(tmp_path):
    """The folder of a model with a card."""
    (tmp_path / "README.md").write_text(CARD, encoding="utf-8")
    return tmp_path


def updated(folder, results, name: str = "hybrid") -> str:
    return update_model_card(folder, name, results).read_text(encoding="utf-8")


def test_update_model_card_returns_the_card(folder, results):
    assert update_model_card(folder, "hybrid", results) == folder / "README.md"


def test_update_model_card_puts_the_section_before_the_limits(folder, results):
    text = updated(folder, results)
    assert text.index("What it is.") < text.index(BEGIN) < text.index(END) < text.index("## Limits")


def test_update_model_card_puts_the_section_last_without_limits(folder, results):
    (folder / "README.md").write_text(CARD.partition("## Limits")[0], encoding="utf-8")
    assert updated(folder, results).rstrip().endswith(END)


def test_update_model_card_holds_the_tables(folder, results):
    assert render_results(results) in updated(folder, results)


@pytest.mark.parametrize("part", ["# A model\n\nWhat it is.\n", "## Limits\n\nWhat it cannot do.\n"])
def test_update_model_card_keeps_the_text(folder, results, part):
    assert part in updated(folder, results)


@pytest.mark.parametrize("card", [CARD, CARD.partition("## Limits")[0]], ids=["limits", "no limits"])
def test_update_model_card_twice_gives_the_same(folder, results, card):
    (folder / "README.md").write_text(card, encoding="utf-8")
    assert updated(folder, results) == updated(folder, results)


def test_update_model_card_replaces_earlier_results(folder, results):
    updated(folder, results)
    assert updated(folder, full_results(parts=["sts"])).count(BEGIN) == 1


def test_update_model_card_does_not_keep_earlier_scores(folder, results):
    updated(folder, results)
    assert "sst2" not in updated(folder, full_results(parts=["finetune"]))


@pytest.mark.parametrize(("name", "value"), [("language", "en"), ("license", "apache-2.0"), ("tags", ["predrec"])])
def test_update_model_card_keeps_metadata(folder, results, name, value):
    updated(folder, results)
    assert getattr(ModelCard.load(folder / "README.md").data, name) == value


def test_update_model_card_writes_entries_that_the_hub_reads(folder, results):
    updated(folder, results)
    assert ModelCard.load(folder / "README.md").data.eval_results == hub_entries(results, "hybrid")


def test_update_model_card_does_not_double_entries(folder, results):
    updated(folder, results)
    updated(folder, results)
    assert ModelCard.load(folder / "README.md").data.eval_results == hub_entries(results, "hybrid")


def test_update_model_card_names_the_model_by_its_folder(folder, results):
    updated(folder, results)
    assert ModelCard.load(folder / "README.md").data.model_name == folder.name


def test_update_model_card_writes_results_beside(folder, results):
    updated(folder, results)
    assert read_results(folder).records == results.records


@pytest.mark.parametrize("part", ["probe", "finetune", "geometry", "sts"])
def test_update_model_card_of_one_kind_of_results_can_be_loaded(folder, part):
    updated(folder, full_results(parts=[part]))
    assert BEGIN in ModelCard.load(folder / "README.md").text


def test_update_model_card_takes_a_card_without_metadata(folder, results):
    (folder / "README.md").write_text("# A model\n", encoding="utf-8")
    updated(folder, results)
    assert ModelCard.load(folder / "README.md").data.eval_results == hub_entries(results, "hybrid")


def test_update_model_card_keeps_backslashes(folder, results):
    (folder / "README.md").write_text(CARD.replace("What it is.", r"A \1 \n \g<0>."), encoding="utf-8")
    updated(folder, results)
    assert r"A \1 \n \g<0>." in updated(folder, results)


def test_update_model_card_needs_a_card(tmp_path, results):
    with pytest.raises(UserError, match=r"`model_cards`: there is no README\.md in"):
        update_model_card(tmp_path, "hybrid", results)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "heading",
    ["## Evaluation: probes of the frozen encoder", "## Evaluation: fine-tuning", "## Evaluation: geometry, mean"],
)
def test_render_results_has_a_heading_for_each_kind(results, heading):
    assert heading in render_results(results)


def test_render_results_leaves_out_headings_without_numbers():
    assert "geometry" not in render_results(full_results(parts=["probe"]))


def test_hub_entries_hold_means_over_seeds():
    results = results_of(hybrid=1)
    plant_seeds(results, "hybrid", [0.61, 0.64, 0.7], task="sst2", metric="accuracy")
    assert [entry.metric_value for entry in hub_entries(results, "hybrid")] == [0.65]


def test_hub_entries_are_of_one_checkpoint():
    results = results_of(hybrid=2)
    plant_seeds(results, "hybrid", [0.6] * 5, task="sst2", metric="accuracy")
    plant_seeds(results, "hybrid", [0.9] * 5, task="sst2", metric="accuracy", replicate=1)
    (entry,) = hub_entries(results, "hybrid", 1)
    assert entry.metric_value == 0.9 and "mean of 5 seeds" in entry.dataset_name


def test_entries_for_leaderboards_tell_both_parts_of_mnli_apart(folder):
    results = results_of(hybrid=1)
    for task in ("mnli", "mnli_mismatched"):
        plant_seeds(results, "hybrid", [0.6], task=task, metric="accuracy")
    updated(folder, results)
    notes = [entry["notes"] for entry in yaml.safe_load((folder / ".eval_results/glue.yaml").read_text())]
    assert [note.rpartition("; ")[2] for note in notes] == ["validation_matched", "validation_mismatched"]


def test_replicate_is_found_by_its_weights(tiny_encoder, tmp_path):
    results = results_of(hybrid=2, mlm=1)
    folders = [tiny_encoder(tmp_path / str(seed), seed=seed) for seed in range(3)]
    for model, folder in zip(results.models, folders, strict=True):
        model["weights"] = load_encoder(folder).weights
    assert [replicate_in(folder, "hybrid", results) for folder in folders[:2]] == [0, 1]
    with pytest.raises(UserError, match=r"`model_cards`: the encoder in .* is none of those that were measured as"):
        replicate_in(folders[2], "hybrid", results)


def test_hub_entries_hold_the_headline_metric(results):
    found = {entry.dataset_config: entry.metric_type for entry in hub_entries(results, "hybrid")}
    assert found == {"sst2": "accuracy", "stsb": "spearmanr", "rte": "accuracy"}


def test_hub_entries_are_of_one_model():
    results = results_of(hybrid=1, mlm=1)
    plant_seeds(results, "hybrid", [0.6], task="sst2", metric="accuracy")
    plant_seeds(results, "mlm", [0.8], task="sst2", metric="accuracy")
    assert [entry.metric_value for entry in hub_entries(results, "mlm")] == [0.8]


@pytest.mark.parametrize("fields", [{"head": "mlp"}, {"pooling": "max"}, {"variant": "best_on_eval"}])
def test_hub_entries_are_of_linear_heads_on_mean_pooled_vectors(fields):
    results = results_of(hybrid=1)
    plant_seeds(results, "hybrid", [0.6], task="sst2", metric="accuracy")
    plant_seeds(results, "hybrid", [0.8], task="sst2", metric="accuracy", **fields)
    assert [entry.metric_value for entry in hub_entries(results, "hybrid")] == [0.6]


def test_hub_entries_name_data_set_and_split(results):
    entry = hub_entries(results, "hybrid")[0]
    assert (entry.dataset_type, entry.dataset_config, entry.dataset_split) == ("nyu-mll/glue", "sst2", "validation")


def test_hub_entries_say_how_many_seeds(results):
    assert "mean of 6 seeds" in hub_entries(results, "hybrid")[0].dataset_name


def test_hub_entries_are_finite(results):
    assert np.isfinite([entry.metric_value for entry in hub_entries(results, "hybrid")]).all()


def test_hub_entries_of_a_model_without_scores_are_none():
    assert hub_entries(full_results(parts=["geometry"]), "hybrid") == []
