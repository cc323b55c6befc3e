"""The model card of a run: every section, examples that run as they stand, and results that others can read."""

import os
import re
import subprocess
import sys
from importlib.util import find_spec

import pytest
import yaml
from huggingface_hub import ModelCard, parse_eval_result_entries

from predrec.commands import report
from predrec.eval.card import BEGIN
from predrec.eval.results import read_results
from predrec.modeling import PredRecConfig
from predrec.trainers.model_card import CITATION, render_model_card
from tests.publish.runs import copied, evaluated_run, finished_run, text_file

ARCHITECTURES = ["predrec", "bert"]
NUM_BLOCKS = 5


@pytest.fixture(scope="module", params=ARCHITECTURES)
def run(request):
    """The output directory of a finished run."""
    return finished_run(request.param)


@pytest.fixture(scope="module")
def card():
    """The text of the card of a run."""
    return (finished_run() / "README.md").read_text(encoding="utf-8")


def section(card: str, title: str) -> str:
    """Returns what stands under a heading."""
    return re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", card, re.MULTILINE | re.DOTALL)[1].strip()


def code_blocks(text: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def test_card_has_its_sections_in_order(run):
    found = re.findall(r"^## (.*)$", (run / "README.md").read_text(), re.MULTILINE)
    assert found == ["Load it", "Training", "What was measured", "Limits", "Licence", "Citation", "Recipe"]


def test_card_says_what_the_model_is(card):
    assert card.index("# predrec\n") < card.index("A text encoder pre-trained with JEPA latent prediction")
    assert "base_model" not in card and "starting from" not in card
    assert "[*Predict and Reconstruct*](https://arxiv.org/abs/2606.05173)" in card


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("architecture", r"predrec, 2 layers, hidden size 16, vocabulary \d+"),
        ("objective", "JEPA latent prediction together with masked-token reconstruction .*"),
        ("data", r"corpus\.txt; \d+ rows of at most 32 tokens; \d+ rows held out"),
        ("tokenizer", r"\d+ tokens"),
        ("unigram entropy", r"\d\.\d+ nats .*"),
        ("steps", "4 updates of 4 rows"),
        ("precision", "float32"),
        ("compute", r"1 x .+; [\d,]+ s, evaluation included; [\d,]+ tokens/s at the end"),
        ("versions", r"predrec [\d.]+, torch [\w.+]+, transformers [\d.]+, .* Python 3\.\d+\.\d+"),
    ],
)
def test_card_tells_of_the_training(card, row, expected):
    rows = dict(re.findall(r"^\| (.+?) \| (.+) \|$", section(card, "Training"), re.MULTILINE))
    assert re.fullmatch(expected, rows[row])


@pytest.mark.parametrize(
    "measure", ["held-out masked-LM loss (nats)", "held-out JEPA loss", "JEPA loss of predicting the mean target"]
)
def test_card_tells_held_out_losses(card, measure):
    rows = dict(re.findall(r"^\| (.+?) \| (.+) \|$", section(card, "What was measured"), re.MULTILINE))
    assert float(rows[measure]) >= 0


def test_card_shows_the_curves_that_are_there(run):
    pictures = re.findall(r"!\[[^]]*\]\(([^)]+)\)", (run / "README.md").read_text())
    assert pictures == ["training_curves.png"] and (run / pictures[0]).is_file()


def test_card_tells_limits(card):
    assert "not fine-tuned" in section(card, "Limits")


def test_card_of_a_run_names_no_licence(card):
    assert section(card, "Licence") == "None was given."


def test_card_cites_the_method(card):
    assert section(card, "Citation").endswith(f"```bibtex\n{CITATION}```")


def test_card_holds_the_recipe(run):
    block = re.search(r"```yaml\n(.*?)```", section((run / "README.md").read_text(), "Recipe"), re.DOTALL)[1]
    assert yaml.safe_load(block) == yaml.safe_load((run / "recipe.yaml").read_text())
    assert yaml.safe_load(block)["train_file"] == [str(text_file())]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("library_name", "transformers"),
        ("pipeline_tag", "fill-mask"),
        ("tags", ["predrec", "masked-lm", "hybrid", "jepa"]),
    ],
)
def test_card_has_metadata(card, name, value):
    assert getattr(ModelCard(card).data, name) == value


def test_card_says_that_the_pooler_of_bert_is_untrained():
    assert "The `pooler` that `AutoModel` adds is untrained" in (finished_run("bert") / "README.md").read_text()


def test_card_of_predrec_speaks_of_no_pooler(card):
    assert "untrained" not in card


@pytest.mark.parametrize(("model_type", "expected"), [("predrec", True), ("bert", False)])
def test_card_asks_to_trust_code_only_where_there_is_some(model_type, expected):
    card = (finished_run(model_type) / "README.md").read_text()
    assert ("trust_remote_code" in card) is expected


@pytest.mark.slow
def test_card_examples_run_one_after_the_other(run, tmp_path):
    """In a process that cannot import predrec, which stands where the card's relative name works."""
    blocks = code_blocks((run / "README.md").read_text(encoding="utf-8"))
    assert len(blocks) == NUM_BLOCKS
    if find_spec("sentence_transformers") is None:
        blocks = [block for block in blocks if "sentence_transformers" not in block]
    copied(run, tmp_path / run.name)
    script = "import sys; sys.modules['predrec'] = None\n" + "\nprint('next')\n".join(blocks)
    environment = os.environ | {"HF_MODULES_CACHE": str(tmp_path / "modules"), "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    printed = result.stdout.split("next\n")
    assert printed[1] == "torch.Size([2, 16])\n" and "(2, 16)\n" in printed[2:]
    assert "train_runtime" in printed[-1]


# With results


@pytest.fixture(scope="module")
def evaluated():
    """The text of the card of an evaluated run."""
    return (evaluated_run() / "README.md").read_text(encoding="utf-8")


def test_evaluated_card_has_its_sections_before_the_limits(evaluated):
    found = re.findall(r"^## (.*)$", evaluated, re.MULTILINE)
    assert found == [
        *("Load it", "Training", "What was measured", "Evaluation: probes of the frozen encoder"),
        *("Evaluation: geometry, mean pooling", "Evaluation: figures", "Limits", "Licence", "Citation", "Recipe"),
    ]


def test_evaluated_card_compares_with_baselines(evaluated):
    rows = re.findall(r"^\| (.+?) \|", section(evaluated, "Evaluation: probes of the frozen encoder"), re.MULTILINE)
    assert {"hybrid", "mlm", "majority class", "TF-IDF bag of words"} <= set(rows)


def test_evaluated_card_shows_uncertainty(evaluated):
    probes = section(evaluated, "Evaluation: probes of the frozen encoder")
    assert re.search(r"\| hybrid \|.*\d\.\d{3} ± \d\.\d{3} \[\d\.\d{3}, \d\.\d{3}\]", probes)


def test_evaluated_card_shows_the_geometry(evaluated):
    geometry = section(evaluated, "Evaluation: geometry, mean pooling")
    assert "effective rank" in geometry and re.search(r"\| sst2 \| hybrid \|.*\d", geometry)


def test_evaluated_card_shows_pictures_that_are_there(evaluated):
    pictures = re.findall(r"!\[[^]]*\]\(([^)]+)\)", evaluated)
    assert "figures/probes.png" in pictures
    assert all((evaluated_run() / picture).read_bytes().startswith(b"\x89PNG") for picture in pictures)


def test_evaluated_card_shows_every_picture(evaluated):
    assert all(f"(figures/{path.name})" in evaluated for path in (evaluated_run() / "figures").iterdir())


def test_evaluated_card_does_not_deny_its_evaluation(evaluated):
    assert "no downstream task was evaluated" not in evaluated


def test_evaluated_card_has_a_model_index(evaluated):
    found = {(result.dataset_config, result.metric_type): result for result in ModelCard(evaluated).data.eval_results}
    assert set(found) == {("sst2", "accuracy"), ("stsb", "spearmanr")}
    scores = read_results(evaluated_run()).select(kind="probe", model="hybrid", task="sst2", variant=None)
    mean = sum(record.value for record in scores) / len(scores)
    assert found["sst2", "accuracy"].metric_value == pytest.approx(mean, abs=1e-4)


def test_evaluated_card_has_entries_for_leaderboards(evaluated):
    text = (evaluated_run() / ".eval_results/glue.yaml").read_text()
    entries = {entry.task_id: entry for entry in parse_eval_result_entries(yaml.safe_load(text))}
    index = {result.dataset_config: result.metric_value for result in ModelCard(evaluated).data.eval_results}
    assert {task: entry.value for task, entry in entries.items()} == index
    assert {entry.dataset_id for entry in entries.values()} == {"nyu-mll/glue"}


def test_entries_for_leaderboards_say_what_does_not_compare():
    entries = yaml.safe_load((evaluated_run() / ".eval_results/glue.yaml").read_text())
    notes = {entry["dataset"]["task_id"]: entry["notes"] for entry in entries}
    assert notes["sst2"].endswith("trained on 100 of 67,349 rows: not comparable with published scores")
    assert notes["stsb"].endswith("mean of 6 seeds")


def test_report_again_leaves_one_section(tmp_path):
    folder = copied(evaluated_run(), tmp_path / "again")
    before = (folder / "README.md").read_text()
    (folder / "figures/stale.png").write_bytes(b"x")
    words = ["--output", str(tmp_path / "report"), "--model_cards", f"hybrid={folder}"]
    assert report.main([str(folder / "results.json"), *words]) == 0
    assert (folder / "README.md").read_text() == before and before.count(BEGIN) == 1
    assert not (folder / "figures/stale.png").exists()


def test_examples_survive_an_evaluation(evaluated, card):
    assert code_blocks(evaluated) == code_blocks(card)


@pytest.mark.parametrize("name", ["somebody/encoder", "folder"])
def test_card_of_a_continued_encoder_says_what_it_was(name, tmp_path, monkeypatch):
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    card = render_model_card("mine", PredRecConfig(), "hybrid", {"init_from": name}, [], {})
    assert f", starting from `{name}`, by predrec" in card
    assert ("base_model: somebody/encoder" in card) == (name == "somebody/encoder")
