"""The `evaluate` module of [`predrec.eval.geometry.stable_rank`]."""

from predrec.eval.geometry import stable_rank
from predrec.eval.metrics import base


class StableRank(base.GeometryMetric):
    measure = staticmethod(stable_rank)
