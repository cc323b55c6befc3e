"""Probes without gradient descent: cross-validated linear models on vectors, and the baselines that use no encoder."""

import warnings
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
from joblib import Parallel, delayed
from scipy import sparse
from scipy.stats import spearmanr
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef
from sklearn.model_selection import KFold, StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from .tasks import Split, Task

SEMANTIC_FOLDS = 5
TOKEN_FOLDS = 3
MIN_TOKEN_EXAMPLES = 5


def semantic_probe(vectors: np.ndarray, labels: np.ndarray, task: Task) -> dict[str, float]:
    """How well a linear model on the vectors finds the label, by 5-fold cross-validation.

    Logistic regression (C = 1) on standardised vectors; for scores, ridge regression. Predictions are out of fold. The
    correlation of scores is over all folds at once: where there is no signal it lies a little below 0, since each fold
    is predicted by the mean of the others.

    Args:
        vectors (`np.ndarray` of shape `(num_rows, hidden_size)`): One per example.
        labels (`np.ndarray` of shape `(num_rows,)`): Classes or scores.
        task (`Task`): Decides what is reported as `semantic_probe`: Spearman for scores, MCC for CoLA, else accuracy.

    Returns:
        `dict` with `semantic_probe` and, for classes, `semantic_macro_f1`. Empty where folds or classes are lacking:
        one class only, a class with fewer members than folds, or fewer rows than folds.
    """
    if task.is_regression:
        if len(labels) < SEMANTIC_FOLDS:
            return {}
        folds = KFold(SEMANTIC_FOLDS, shuffle=True, random_state=0)
        predicted = _out_of_fold(Ridge(), vectors, labels, folds)
        return {"semantic_probe": rank_correlation(predicted, labels)}
    counts = np.unique(labels, return_counts=True)[1]
    if len(counts) < 2 or counts.min() < SEMANTIC_FOLDS:
        return {}
    folds = StratifiedKFold(SEMANTIC_FOLDS, shuffle=True, random_state=0)
    predicted = _out_of_fold(LogisticRegression(C=1.0, solver="newton-cg"), vectors, labels, folds)
    mcc = task.metric == "matthews_correlation"
    score = matthews_corrcoef(labels, predicted) if mcc else accuracy_score(labels, predicted)
    return {"semantic_probe": float(score), "semantic_macro_f1": float(f1_score(labels, predicted, average="macro"))}


def token_probe(vectors: np.ndarray, ids: Sequence[Sequence[int]], special: set[int]) -> dict[str, float]:
    """How well a linear model on the vectors finds each text's most frequent ordinary token: accuracy, 3-fold.

    Among equally frequent tokens the first counts. Tokens that are so of fewer than five texts are left out.

    Args:
        vectors (`np.ndarray` of shape `(num_rows, hidden_size)`): One per text.
        ids (`Sequence[Sequence[int]]`): Token ids of each text.
        special (`set[int]`): Ids that do not count.

    Returns:
        `dict` with `token_probe`, and `token_probe_majority`, the share of the most frequent class. Empty when fewer
        than two tokens have five texts.
    """
    ordinary = [Counter(token for token in row if token not in special).most_common(1) for row in ids]
    labels = np.array([row[0][0] if row else -1 for row in ordinary])
    names, counts = np.unique(labels, return_counts=True)
    kept = np.isin(labels, names[(counts >= MIN_TOKEN_EXAMPLES) & (names >= 0)])
    if len(np.unique(labels[kept])) < 2:
        return {}
    folds = StratifiedKFold(TOKEN_FOLDS, shuffle=True, random_state=0)
    model = LogisticRegression(C=1.0, solver="newton-cg")
    predicted = _out_of_fold(model, vectors[kept], labels[kept], folds)
    majority = np.unique(labels[kept], return_counts=True)[1].max() / kept.sum()
    return {"token_probe": float(accuracy_score(labels[kept], predicted)), "token_probe_majority": float(majority)}


def _out_of_fold(model: object, vectors: np.ndarray, labels: np.ndarray, folds: KFold) -> np.ndarray:
    """Returns a prediction for every row from the model that did not see it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return cross_val_predict(make_pipeline(StandardScaler(), clone(model)), vectors, labels, cv=folds)


def in_parallel(function: Callable, arguments: Sequence[tuple], num_processes: int) -> list:
    """Calls the function for every tuple, in processes of one thread: products so small gain from no more."""
    if num_processes <= 1 or len(arguments) < 2:
        with threadpool_limits(1):
            return [function(*values) for values in arguments]
    return Parallel(num_processes)(delayed(_limited)(function, values) for values in arguments)


def _limited(function: Callable, values: tuple):
    with threadpool_limits(1):
        return function(*values)


def rank_correlation(predicted: np.ndarray, labels: np.ndarray) -> float:
    """Spearman's correlation; 0 when either side is constant, which has no ranks to compare."""
    if np.ptp(predicted) == 0 or np.ptp(labels) == 0:
        return 0.0
    return float(spearmanr(predicted, labels).statistic)


def majority_predictions(train: Split, evaluation: Split, task: Task) -> np.ndarray:
    """Predicts the most frequent class of the training rows, or their mean score."""
    if task.is_regression:
        return np.full(len(evaluation), train.labels.mean())
    return np.full(len(evaluation), np.bincount(train.labels, minlength=task.num_labels).argmax())


def bag_of_words_predictions(train: Split, evaluation: Split, task: Task) -> np.ndarray:
    """Predicts from TF-IDF of words alone.

    Logistic regression on `u`, for pairs on `[u; v; |u - v|; u * v]`; for scores, ridge regression on the same and the
    cosine of the two.
    """
    vectorizer = TfidfVectorizer(sublinear_tf=True, token_pattern=r"(?u)\b\w+\b")
    try:
        vectorizer.fit([text for column in train.texts for text in column])
    except ValueError:  # No word at all.
        return majority_predictions(train, evaluation, task)
    features, eval_features = (_word_features(vectorizer, split, task) for split in (train, evaluation))
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        if task.is_regression:
            return Ridge(solver="lsqr").fit(features, train.labels).predict(eval_features)
        if len(np.unique(train.labels)) < 2:
            return majority_predictions(train, evaluation, task)
        return LogisticRegression(max_iter=300).fit(features, train.labels).predict(eval_features)


def _word_features(vectorizer: TfidfVectorizer, split: Split, task: Task) -> sparse.csr_matrix:
    columns = [vectorizer.transform(column) for column in split.texts]
    if len(columns) == 1:
        return columns[0]
    first, second = columns
    product = first.multiply(second)
    parts = [first, second, abs(first - second), product]
    if task.is_regression:
        parts.append(sparse.csr_matrix(product.sum(1)))
    return sparse.hstack(parts).tocsr()
