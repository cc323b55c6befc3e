"""The `evaluate` module of [`predrec.eval.geometry.rank_for_variance`]."""

from predrec.eval.geometry import rank_for_variance
from predrec.eval.metrics import base


class RankForVariance(base.GeometryMetric):
    measure = staticmethod(rank_for_variance)
