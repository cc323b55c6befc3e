"""Linear models on vectors against scikit-learn written out here, and the baselines that see only words."""

import math

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import f1_score, matthews_corrcoef
from sklearn.model_selection import KFold, StratifiedKFold

from predrec.eval.classical import (
    bag_of_words_predictions,
    in_parallel,
    majority_predictions,
    rank_correlation,
    semantic_probe,
    token_probe,
)
from predrec.eval.tasks import TASKS, Split

ROWS = 90
SPECIAL = {0, 1}


def cloud(rows: int = ROWS, size: int = 6, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, size)).astype(np.float32)


def noisy_classes(vectors: np.ndarray, share: float = 0.3) -> np.ndarray:
    """Classes that the first feature tells in part; `share` of the rows are of class 1."""
    signal = vectors[:, 0] + np.random.default_rng(1).normal(size=len(vectors))
    return (signal > np.quantile(signal, 1 - share)).astype(np.int64)


def out_of_fold(model, folds, vectors: np.ndarray, labels: np.ndarray) -> np.ndarray:
    predicted = np.empty(len(labels))
    for train, held_out in folds.split(vectors, labels):
        mean, deviation = vectors[train].mean(0), vectors[train].std(0)
        model.fit((vectors[train] - mean) / deviation, labels[train])
        predicted[held_out] = model.predict((vectors[held_out] - mean) / deviation)
    return predicted


def stratified(vectors: np.ndarray, labels: np.ndarray) -> np.ndarray:
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    return out_of_fold(LogisticRegression(C=1.0, max_iter=1000), folds, vectors, labels)


def test_semantic_probe_equals_cross_validation_written_out():
    vectors = cloud()
    labels = noisy_classes(vectors)
    predicted = stratified(vectors, labels)
    found = semantic_probe(vectors, labels, TASKS["sst2"])
    assert found == {
        "semantic_probe": pytest.approx((predicted == labels).mean()),
        "semantic_macro_f1": pytest.approx(f1_score(labels, predicted, average="macro")),
    }


def test_semantic_probe_of_cola_is_the_matthews_correlation():
    vectors = cloud()
    labels = noisy_classes(vectors)
    expected = matthews_corrcoef(labels, stratified(vectors, labels))
    assert semantic_probe(vectors, labels, TASKS["cola"])["semantic_probe"] == pytest.approx(expected)


def test_semantic_probe_of_scores_is_a_rank_correlation_of_ridge_regression():
    vectors = cloud()
    scores = vectors[:, 0] + np.random.default_rng(1).normal(size=ROWS)
    predicted = out_of_fold(Ridge(), KFold(5, shuffle=True, random_state=0), vectors, scores)
    ranks = [np.argsort(np.argsort(values)) for values in (predicted, scores)]
    expected = {"semantic_probe": pytest.approx(np.corrcoef(*ranks)[0, 1], abs=1e-3)}
    assert semantic_probe(vectors, scores, TASKS["stsb"]) == expected


def test_semantic_probe_does_not_depend_on_the_scale_of_features():
    vectors = cloud().astype(np.float64)
    labels = noisy_classes(vectors)
    scaled = vectors * np.logspace(-2, 2, vectors.shape[1])
    assert semantic_probe(scaled, labels, TASKS["sst2"]) == semantic_probe(vectors, labels, TASKS["sst2"])


def test_semantic_probe_finds_a_planted_signal():
    labels = np.arange(ROWS) % 3
    vectors = cloud() + 6 * np.eye(3, 6)[labels]
    assert semantic_probe(vectors, labels, TASKS["mnli"])["semantic_probe"] > 0.95


def test_semantic_probe_finds_planted_scores():
    vectors = cloud()
    assert semantic_probe(vectors, vectors @ np.arange(6), TASKS["stsb"])["semantic_probe"] > 0.98


def test_semantic_probe_of_noise_stays_at_chance():
    labels = np.random.default_rng(1).permutation(np.arange(400) % 2)
    found = semantic_probe(cloud(400), labels, TASKS["sst2"])["semantic_probe"]
    assert abs(found - 0.5) < 4 * (0.25 / 400) ** 0.5


def test_semantic_probe_of_one_class_is_empty():
    assert semantic_probe(cloud(), np.ones(ROWS, np.int64), TASKS["sst2"]) == {}


@pytest.mark.parametrize(("members", "measured"), [(4, False), (5, True)])
def test_semantic_probe_needs_a_member_of_every_class_per_fold(members, measured):
    labels = (np.arange(ROWS) < members).astype(np.int64)
    assert bool(semantic_probe(cloud(), labels, TASKS["sst2"])) == measured


@pytest.mark.parametrize(("rows", "measured"), [(4, False), (5, True)])
def test_semantic_probe_of_scores_needs_a_row_per_fold(rows, measured):
    assert bool(semantic_probe(cloud(rows), np.arange(rows) / 2, TASKS["stsb"])) == measured


@pytest.mark.parametrize("task", ["sst2", "cola", "stsb"])
def test_semantic_probe_of_constant_vectors_is_finite(task):
    labels = np.arange(ROWS) % 2
    assert all(map(math.isfinite, semantic_probe(np.full((ROWS, 6), 0.1), labels, TASKS[task]).values()))


@pytest.mark.parametrize("task", ["sst2", "cola", "stsb"])
def test_semantic_probe_measures_fewer_rows_than_features(task):
    found = semantic_probe(cloud(20, 50), np.arange(20) % 2, TASKS[task])
    assert found
    assert all(-1 <= value <= 1 for value in found.values())


def test_semantic_probe_of_constant_scores_is_zero():
    assert semantic_probe(cloud(), np.full(ROWS, 2.5), TASKS["stsb"]) == {"semantic_probe": 0.0}


def separated(groups: np.ndarray) -> np.ndarray:
    """Vectors that tell the group."""
    return 10 * np.eye(groups.max() + 1)[groups] + cloud(len(groups), groups.max() + 1) / 10


def test_token_probe_finds_the_most_frequent_token():
    groups = np.arange(30) % 2
    ids = [[0, 7, 5, 7, 1] if group else [0, 5, 7, 5, 1] for group in groups]
    assert token_probe(separated(groups), ids, SPECIAL) == {"token_probe": 1.0, "token_probe_majority": 0.5}


def test_token_probe_of_noise_is_near_its_majority():
    ids = [[5] if row % 2 else [7] for row in range(200)]
    found = token_probe(cloud(200), ids, SPECIAL)
    assert abs(found["token_probe"] - found["token_probe_majority"]) < 4 * (0.25 / 200) ** 0.5


def test_token_probe_does_not_count_special_tokens():
    groups = np.arange(12) % 2
    ids = [[0, 0, 0, 1, 1, 7 if group else 5] for group in groups]
    assert token_probe(separated(groups), ids, SPECIAL)["token_probe"] == 1


def test_token_probe_takes_the_first_of_equally_frequent_tokens():
    groups = np.arange(12) % 2
    ids = [[8, 7, 7, 8] if group else [7, 8, 8, 7] for group in groups]
    assert token_probe(separated(groups), ids, SPECIAL) == {"token_probe": 1.0, "token_probe_majority": 0.5}


def test_token_probe_leaves_out_tokens_of_fewer_than_five_texts():
    groups = np.repeat([0, 1, 2], [6, 6, 4])
    found = token_probe(separated(groups), [[5 + group] for group in groups], SPECIAL)
    assert found["token_probe_majority"] == 0.5


def test_token_probe_keeps_tokens_of_five_texts():
    groups = np.repeat([0, 1], [15, 5])
    found = token_probe(separated(groups), [[5 + group] for group in groups], SPECIAL)
    assert found["token_probe_majority"] == 0.75


def test_token_probe_leaves_out_texts_without_ordinary_tokens():
    groups = np.repeat([0, 1, 2], [6, 6, 8])
    ids = [[0, 1] if group == 2 else [5 + group] for group in groups]
    assert token_probe(separated(groups), ids, SPECIAL)["token_probe_majority"] == 0.5


@pytest.mark.parametrize("ids", [[[5]] * 12, [[5]] * 8 + [[7]] * 4, [[0]] * 12, [[]] * 12])
def test_token_probe_of_fewer_than_two_tokens_is_empty(ids):
    assert token_probe(cloud(12), ids, SPECIAL) == {}


def test_token_probe_of_constant_vectors_is_at_its_majority():
    ids = [[5]] * 20 + [[7]] * 10
    found = token_probe(np.full((30, 4), 0.1), ids, SPECIAL)
    assert found["token_probe"] == pytest.approx(found["token_probe_majority"])


def test_rank_correlation_sees_order_alone():
    values = np.array([0.1, 0.5, 0.2, 0.9])
    assert rank_correlation(values, values**3) == pytest.approx(1)
    assert rank_correlation(values, -np.exp(values)) == pytest.approx(-1)


def test_rank_correlation_with_a_constant_is_zero():
    values = np.arange(4.0)
    assert rank_correlation(np.ones(4), values) == 0
    assert rank_correlation(values, np.ones(4)) == 0


def split_of(*texts: list[str], labels) -> Split:
    return Split(texts, np.asarray(labels))


def test_majority_predictions_are_the_most_frequent_class():
    train = split_of(["a"] * 5, labels=[2, 0, 2, 1, 2])
    evaluation = split_of(["a"] * 3, labels=[0, 1, 0])
    assert majority_predictions(train, evaluation, TASKS["mnli"]).tolist() == [2, 2, 2]


def test_majority_predictions_of_scores_are_their_mean():
    train = split_of(["a"] * 4, labels=[0.0, 1.0, 2.0, 5.0])
    evaluation = split_of(["a"] * 2, labels=[0.0, 1.0])
    assert majority_predictions(train, evaluation, TASKS["stsb"]).tolist() == [2.0, 2.0]


FILLERS = ["sea", "ship", "town", "news", "road", "rain"]


def sentence(generator: np.random.Generator, *extra: str) -> str:
    return " ".join(generator.permutation([*generator.choice(FILLERS, 4), *extra]))


def planted_words(rows: int, seed: int) -> Split:
    """Single texts whose class is in one word."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(2, size=rows)
    return split_of([sentence(generator, "good" if label else "bad") for label in labels], labels=labels)


def planted_overlap(rows: int, seed: int, scores: bool, num_words: int = 12) -> Split:
    """Pairs whose score is how many of six words they share; their class, whether it is more than three."""
    generator = np.random.default_rng(seed)
    words = [f"word{number}" for number in range(num_words)]
    first, second, shared = [], [], generator.integers(7, size=rows)
    for count in shared:
        chosen = generator.permutation(words)
        first.append(" ".join(chosen[:6]))
        second.append(" ".join(generator.permutation([*chosen[:count], *chosen[6 : 12 - count]])))
    return split_of(first, second, labels=shared * 5 / 6 if scores else (shared > 3).astype(np.int64))


def test_bag_of_words_finds_a_planted_word():
    train, evaluation = planted_words(120, 0), planted_words(60, 1)
    assert (bag_of_words_predictions(train, evaluation, TASKS["sst2"]) == evaluation.labels).mean() > 0.95


def test_bag_of_words_of_pairs_finds_a_planted_overlap():
    train, evaluation = planted_overlap(200, 0, scores=False), planted_overlap(100, 1, scores=False)
    assert (bag_of_words_predictions(train, evaluation, TASKS["mrpc"]) == evaluation.labels).mean() > 0.9


def test_bag_of_words_of_scores_finds_a_planted_overlap():
    train, evaluation = planted_overlap(200, 0, scores=True), planted_overlap(100, 1, scores=True)
    predicted = bag_of_words_predictions(train, evaluation, TASKS["stsb"])
    assert rank_correlation(predicted, evaluation.labels) > 0.9


def test_bag_of_words_of_scores_finds_an_overlap_in_rare_words():
    train, evaluation = (planted_overlap(100, seed, scores=True, num_words=600) for seed in (0, 1))
    predicted = bag_of_words_predictions(train, evaluation, TASKS["stsb"])
    assert rank_correlation(predicted, evaluation.labels) > 0.8


def test_bag_of_words_knows_words_of_one_letter():
    train = split_of(["a", "b"] * 10, labels=[0, 1] * 10)
    assert bag_of_words_predictions(train, split_of(["b", "a"], labels=[1, 0]), TASKS["sst2"]).tolist() == [1, 0]


def test_bag_of_words_without_words_is_the_majority():
    train = split_of(["!?", "...", ""], labels=[1, 0, 1])
    evaluation = split_of(["a word", "?"], labels=[0, 0])
    assert bag_of_words_predictions(train, evaluation, TASKS["sst2"]).tolist() == [1, 1]


def test_bag_of_words_of_scores_without_words_is_the_mean():
    train = split_of(["!?", "..."], ["", "?"], labels=[1.0, 2.0])
    evaluation = split_of(["a word"], ["?"], labels=[0.0])
    assert bag_of_words_predictions(train, evaluation, TASKS["stsb"]).tolist() == [1.5]


def test_bag_of_words_of_one_class_predicts_it():
    train = split_of(["a good ship", "a town"], labels=[1, 1])
    evaluation = split_of(["a bad ship", ""], labels=[0, 1])
    assert bag_of_words_predictions(train, evaluation, TASKS["sst2"]).tolist() == [1, 1]


def test_bag_of_words_predicts_texts_of_unknown_words():
    train = planted_words(40, 0)
    predicted = bag_of_words_predictions(train, split_of(["unheard", "..."], labels=[0, 1]), TASKS["sst2"])
    assert predicted[0] == predicted[1]


def test_in_parallel_of_one_process_keeps_the_order():
    assert in_parallel(divmod, [(7, 2), (9, 4), (5, 5)], 1) == [(3, 1), (2, 1), (1, 0)]


@pytest.mark.slow
def test_in_parallel_of_two_processes_equals_one():
    vectors = cloud()
    arguments = [(vectors, noisy_classes(vectors, share), TASKS["cola"]) for share in (0.2, 0.3, 0.5)]
    assert in_parallel(semantic_probe, arguments, 2) == in_parallel(semantic_probe, arguments, 1)
