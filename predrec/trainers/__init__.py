"""Training: the Trainer, its arguments and its callbacks."""

from .collapse import CollapseMonitorCallback
from .ema import EMACallback
from .export import export_encoder
from .finite import NonFiniteLossError
from .llm_jepa_args import LLMJepaArguments
from .llm_jepa_trainer import LLMJepaTrainer
from .trainer import PredRecTrainer
from .training_args import PredRecTrainingArguments

__all__ = [
    "CollapseMonitorCallback",
    "EMACallback",
    "LLMJepaArguments",
    "LLMJepaTrainer",
    "NonFiniteLossError",
    "PredRecTrainer",
    "PredRecTrainingArguments",
    "export_encoder",
]
