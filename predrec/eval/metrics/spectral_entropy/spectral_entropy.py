"""The `evaluate` module of [`predrec.eval.geometry.spectral_entropy`]."""

from predrec.eval.geometry import spectral_entropy
from predrec.eval.metrics import base


class SpectralEntropy(base.GeometryMetric):
    measure = staticmethod(spectral_entropy)
