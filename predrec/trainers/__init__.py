"""Training: the Trainer, its arguments and its callbacks."""

from .collapse import CollapseMonitorCallback
from .ema import EMACallback
from .export import export_encoder
from .finite import NonFiniteLossError
from .trainer import PredRecTrainer
from .training_args import PredRecTrainingArguments

__all__ = [
    "CollapseMonitorCallback",
    "EMACallback",
    "NonFiniteLossError",
    "PredRecTrainer",
    "PredRecTrainingArguments",
    "export_encoder",
]
