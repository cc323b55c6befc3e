"""The `evaluate` module of [`predrec.eval.geometry.intra_inter_ratio`]."""

from predrec.eval.geometry import intra_inter_ratio
from predrec.eval.metrics import base


class IntraInterRatio(base.GeometryMetric):
    measure = staticmethod(intra_inter_ratio)
    by_class = True
