"""What the metric modules of geometry share."""

from collections.abc import Callable
from typing import Any

import datasets
import evaluate
import numpy as np
import torch

VECTORS = datasets.Sequence(datasets.Value("float64"))
CITATION = "Boukhari, 2026. Predict and Reconstruct. arXiv:2606.05173"


# `evaluate` takes the first metric class in a module, so the modules import this file and not the class.
class GeometryMetric(evaluate.Metric):
    """A measure of vectors, and of classes where it needs them.

    `compute(predictions=vectors)`, or `compute(predictions=vectors, references=labels)`, with vectors of shape
    `(num_vectors, hidden_size)`. Further arguments go to the measure.
    """

    measure: Callable[..., Any]
    by_class = False

    def _info(self) -> evaluate.MetricInfo:
        features = {"predictions": VECTORS}
        if self.by_class:
            features["references"] = datasets.Value("int64")
        text = type(self).measure.__doc__ or ""
        return evaluate.MetricInfo(
            description=text.split("\n")[0],
            citation=CITATION,
            inputs_description=text,
            features=datasets.Features(features),
        )

    def _compute(self, predictions: Any, references: Any = None, **options: Any) -> dict[str, float]:
        vectors = torch.from_numpy(np.asarray(predictions, dtype=np.float64))
        classes = (torch.as_tensor(references),) if self.by_class else ()
        return {self.__class__.measure.__name__: float(type(self).measure(vectors, *classes, **options))}
