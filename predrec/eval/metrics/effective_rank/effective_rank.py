"""The `evaluate` module of [`predrec.eval.geometry.effective_rank`]."""

from predrec.eval.geometry import effective_rank
from predrec.eval.metrics import base


class EffectiveRank(base.GeometryMetric):
    measure = staticmethod(effective_rank)
