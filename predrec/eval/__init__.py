"""Evaluation of frozen encoders: vectors of texts, probes, geometry."""

from .embeddings import Embedder
from .encoder import FrozenEncoder, load_encoder
from .probes import ProbeSettings
from .probing import probe

__all__ = ["Embedder", "FrozenEncoder", "ProbeSettings", "load_encoder", "probe"]
