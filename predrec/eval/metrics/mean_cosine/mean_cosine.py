"""The `evaluate` module of [`predrec.eval.geometry.mean_cosine`]."""

from predrec.eval.geometry import mean_cosine
from predrec.eval.metrics import base


class MeanCosine(base.GeometryMetric):
    measure = staticmethod(mean_cosine)
