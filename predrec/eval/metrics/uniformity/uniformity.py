"""The `evaluate` module of [`predrec.eval.geometry.uniformity`]."""

from predrec.eval.geometry import uniformity
from predrec.eval.metrics import base


class Uniformity(base.GeometryMetric):
    measure = staticmethod(uniformity)
