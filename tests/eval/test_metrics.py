"""Every `evaluate` module loads without network and gives what its function gives."""

import json
import os
import subprocess
import sys

import evaluate
import numpy as np
import pytest
import torch
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import f1_score, matthews_corrcoef

from predrec.eval import geometry
from predrec.eval.metrics import METRICS, load_metric, metric_path
from predrec.eval.tasks import TASKS

ROWS = 30
BY_CLASS = ("alignment", "intra_inter_ratio")
EXACT = 1e-9  # Float64 on both sides.


@pytest.fixture
def vectors():
    return np.random.default_rng(0).normal(size=(ROWS, 5))


@pytest.fixture
def labels():
    return np.arange(ROWS) % 3


def computed(name: str, vectors, labels, **options) -> dict[str, float]:
    references = {"references": labels} if name in BY_CLASS else {}
    return evaluate.load(metric_path(name)).compute(predictions=vectors, **references, **options)


def measured(name: str, vectors, labels, **options) -> float:
    classes = (torch.from_numpy(labels),) if name in BY_CLASS else ()
    return float(getattr(geometry, name)(torch.from_numpy(vectors), *classes, **options))


@pytest.mark.parametrize("name", [name for name in METRICS if name != "glue"])
def test_metric_equals_its_function(name, vectors, labels):
    expected = {name: pytest.approx(measured(name, vectors, labels), rel=EXACT)}
    assert computed(name, vectors, labels) == expected


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("alignment", {"power": "outside"}),
        ("alignment", {"alpha": 1.0}),
        ("spectral_entropy", {"spectrum": "singular"}),
        ("spectral_entropy", {"center": False}),
        ("effective_rank", {"center": False}),
        ("stable_rank", {"center": False}),
        ("rank_for_variance", {"share": 0.5}),
        ("uniformity", {"t": 0.5}),
    ],
)
def test_metric_passes_options_on(name, options, vectors, labels):
    vectors = vectors + 0.5
    expected = measured(name, vectors, labels, **options)
    assert expected != pytest.approx(measured(name, vectors, labels), rel=1e-4)
    assert computed(name, vectors, labels, **options) == {name: pytest.approx(expected, rel=EXACT)}


def test_metric_takes_lists(vectors, labels):
    assert computed("alignment", vectors.tolist(), labels.tolist()) == computed("alignment", vectors, labels)


def test_metric_takes_batches(vectors, labels):
    metric = load_metric("uniformity")
    for start in range(0, ROWS, 7):
        metric.add_batch(predictions=vectors[start : start + 7])
    assert metric.compute() == computed("uniformity", vectors, labels)


def test_metric_by_class_needs_a_pair(vectors):
    with pytest.raises(ValueError, match="no class has two members"):
        computed("alignment", vectors, np.arange(ROWS))


def test_load_metric_loads_what_metric_path_names(vectors, labels):
    assert load_metric("mean_cosine").compute(predictions=vectors) == computed("mean_cosine", vectors, labels)


@pytest.mark.parametrize("find", [metric_path, load_metric])
def test_unknown_metric_is_refused(find):
    with pytest.raises(ValueError, match="There is no metric 'bleu'; there are glue, uniformity"):
        find("bleu")


CLASSIFICATION = [name for name, task in TASKS.items() if not task.is_regression]


def classes(num_labels: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(num_labels, size=ROWS)


def glue(task: str, predicted: np.ndarray, expected: np.ndarray) -> dict[str, float]:
    return evaluate.load(metric_path("glue"), task).compute(predictions=predicted, references=expected)


@pytest.mark.parametrize("task", CLASSIFICATION)
def test_glue_of_classes_equals_scikit_learn(task):
    predicted, expected = (classes(TASKS[task].num_labels, seed) for seed in (0, 1))
    wanted = {"accuracy": (predicted == expected).mean(), "macro_f1": f1_score(expected, predicted, average="macro")}
    if task == "cola":
        wanted["matthews_correlation"] = matthews_corrcoef(expected, predicted)
    if task in ("mrpc", "qqp"):
        wanted["f1"] = f1_score(expected, predicted)
    assert glue(task, predicted, expected) == pytest.approx(wanted)


def test_glue_of_scores_equals_scipy():
    generator = np.random.default_rng(0)
    predicted = generator.normal(size=ROWS)
    expected = predicted**3 + generator.normal(size=ROWS)
    wanted = {"pearson": pearsonr(predicted, expected)[0], "spearmanr": spearmanr(predicted, expected)[0]}
    assert glue("stsb", predicted, expected) == pytest.approx(wanted)


@pytest.mark.parametrize("task", TASKS)
def test_glue_has_the_headline_metric(task):
    expected = np.arange(ROWS) % (TASKS[task].num_labels or 5)
    assert glue(task, expected, expected)[TASKS[task].metric] == pytest.approx(1)


@pytest.mark.parametrize("predicted", [0, 1])
def test_glue_of_a_constant_class_is_no_correlation(predicted):
    assert glue("cola", np.full(ROWS, predicted), classes(2, 0))["matthews_correlation"] == 0


def test_glue_of_a_constant_score_is_no_correlation():
    assert glue("stsb", np.full(ROWS, 2.5), np.linspace(0, 5, ROWS)) == {"pearson": 0, "spearmanr": 0}


def test_glue_of_constant_labels_is_no_correlation():
    assert glue("stsb", np.linspace(0, 5, ROWS), np.full(ROWS, 2.5)) == {"pearson": 0, "spearmanr": 0}


def test_glue_without_a_positive_prediction_has_no_f1():
    assert glue("mrpc", np.zeros(ROWS, np.int64), np.arange(ROWS) % 2)["f1"] == 0


LOADS_ALL = """
import json
from predrec.eval.metrics import METRICS, load_metric
loaded = {name: load_metric(name, "stsb" if name == "glue" else None) for name in METRICS}
uniform = loaded["uniformity"].compute(predictions=[[1.0, 0.0], [0.0, 1.0]])
scores = loaded["glue"].compute(predictions=[0.5, 2.0, 3.0], references=[1.0, 2.0, 4.0])
print(json.dumps([sorted(loaded), uniform["uniformity"], scores["spearmanr"]]))
"""


@pytest.mark.slow
def test_metrics_load_offline_from_another_folder(tmp_path):
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")}
    result = subprocess.run(
        [sys.executable, "-c", LOADS_ALL], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    names, uniformity, correlation = json.loads(result.stdout.splitlines()[-1])
    assert names == sorted(METRICS)
    assert uniformity == pytest.approx(-4)
    assert correlation == pytest.approx(1)
