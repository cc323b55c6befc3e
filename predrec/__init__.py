"""Predict and reconstruct: pre-train text encoders with JEPA latent prediction plus masked-token reconstruction.

Importing the package registers its models with the transformers Auto classes.
"""

import importlib
from importlib.metadata import version

from . import modeling as modeling  # Registers the Auto classes.

__version__ = version("predrec")

_PUBLIC = {
    "configuration": ("DataArguments", "ModelArguments", "PredRecConfig", "PredRecPreTrainingConfig"),
    "data_collators": ("DataCollatorForPreTraining",),
    "modeling": (
        "PredRecForMaskedLM",
        "PredRecForMultipleChoice",
        "PredRecForPreTraining",
        "PredRecForQuestionAnswering",
        "PredRecForSequenceClassification",
        "PredRecForTokenClassification",
        "PredRecModel",
    ),
    "trainers": ("CollapseMonitorCallback", "EMACallback", "PredRecTrainer", "PredRecTrainingArguments"),
}
_MODULE_OF = {name: module for module, names in _PUBLIC.items() for name in names}

__all__ = sorted(_MODULE_OF)


def __getattr__(name: str):
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_MODULE_OF[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
