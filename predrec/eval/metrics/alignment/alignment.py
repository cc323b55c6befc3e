"""The `evaluate` module of [`predrec.eval.geometry.alignment`]."""

from predrec.eval.geometry import alignment
from predrec.eval.metrics import base


class Alignment(base.GeometryMetric):
    measure = staticmethod(alignment)
    by_class = True
