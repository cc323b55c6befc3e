"""The metrics of GLUE's tasks, as an `evaluate` module: the configuration is the task's name."""

import datasets
import evaluate
import numpy as np
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

SCORES = ("stsb",)
CORRELATION = ("cola",)
PAIRS = ("mrpc", "qqp")
ACCURACY = ("sst2", "mnli", "rte", "qnli", "wnli", "mnli_matched", "mnli_mismatched")


class Glue(evaluate.Metric):
    """Accuracy and macro F1 for every classification task, with the binary F1 for MRPC and QQP and the Matthews
    correlation for CoLA; for STS-B Pearson's and Spearman's correlations.

    A correlation with a constant is 0: a constant knows nothing.
    """

    def _info(self) -> evaluate.MetricInfo:
        if self.config_name not in (*SCORES, *CORRELATION, *PAIRS, *ACCURACY):
            raise ValueError(f"The configuration must be a task of GLUE, such as 'sst2', not {self.config_name!r}.")
        kind = datasets.Value("float64" if self.config_name in SCORES else "int64")
        return evaluate.MetricInfo(
            description="Metrics of the General Language Understanding Evaluation.",
            citation="Wang et al., 2019. GLUE. arXiv:1804.07461",
            inputs_description="predictions and references: classes, or scores for stsb.",
            features=datasets.Features({"predictions": kind, "references": kind}),
        )

    def _compute(self, predictions: list, references: list) -> dict[str, float]:
        predicted, expected = np.asarray(predictions), np.asarray(references)
        if self.config_name in SCORES:
            constant = np.ptp(predicted) == 0 or np.ptp(expected) == 0
            return {
                "spearmanr": 0.0 if constant else float(spearmanr(predicted, expected).statistic),
                "pearson": 0.0 if constant else float(pearsonr(predicted, expected).statistic),
            }
        result = {"accuracy": float(accuracy_score(expected, predicted))}
        if self.config_name in CORRELATION:
            result["matthews_correlation"] = float(matthews_corrcoef(expected, predicted))
        if self.config_name in PAIRS:
            result["f1"] = float(f1_score(expected, predicted, pos_label=1, zero_division=0))
        result["macro_f1"] = float(f1_score(expected, predicted, average="macro", zero_division=0))
        return result
