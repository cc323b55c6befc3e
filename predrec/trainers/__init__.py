"""Training: the Trainer, its arguments and its callbacks."""

from .collapse import CollapseMonitorCallback
from .ema import EMACallback
from .export import export_encoder
from .trainer import NonFiniteLossError, PredRecTrainer
from .training_args import PredRecTrainingArguments

__all__ = [
    "CollapseMonitorCallback",
    "EMACallback",
    "NonFiniteLossError",
    "PredRecTrainer",
    "PredRecTrainingArguments",
    "export_encoder",
]
