"""Predict and reconstruct: pre-train text encoders with JEPA latent prediction plus masked-token reconstruction.

Importing the package registers its models with the transformers Auto classes. The names below are loaded when they are
first used.
"""

import importlib
from importlib.metadata import version
from typing import TYPE_CHECKING

from . import modeling as modeling  # Registers the Auto classes.

if TYPE_CHECKING:
    from .configuration import DataArguments, ModelArguments
    from .data_collators import (
        DataCollatorForLLMJepa,
        DataCollatorForPreTraining,
        DocumentRows,
        NumberedRows,
        PackedRows,
        tokenize_documents,
    )
    from .modeling import (
        LLMJepaModel,
        LLMJepaObjective,
        PredRecConfig,
        PredRecForMaskedLM,
        PredRecForMultipleChoice,
        PredRecForPreTraining,
        PredRecForQuestionAnswering,
        PredRecForSequenceClassification,
        PredRecForTokenClassification,
        PredRecModel,
        PredRecPreTrainingConfig,
    )
    from .trainers import (
        CollapseMonitorCallback,
        EMACallback,
        LLMJepaArguments,
        LLMJepaTrainer,
        PredRecTrainer,
        PredRecTrainingArguments,
        export_encoder,
    )

__version__ = version("predrec")

__all__ = [
    "CollapseMonitorCallback",
    "DataArguments",
    "DataCollatorForLLMJepa",
    "DataCollatorForPreTraining",
    "DocumentRows",
    "EMACallback",
    "LLMJepaArguments",
    "LLMJepaModel",
    "LLMJepaObjective",
    "LLMJepaTrainer",
    "ModelArguments",
    "NumberedRows",
    "PackedRows",
    "PredRecConfig",
    "PredRecForMaskedLM",
    "PredRecForMultipleChoice",
    "PredRecForPreTraining",
    "PredRecForQuestionAnswering",
    "PredRecForSequenceClassification",
    "PredRecForTokenClassification",
    "PredRecModel",
    "PredRecPreTrainingConfig",
    "PredRecTrainer",
    "PredRecTrainingArguments",
    "export_encoder",
    "tokenize_documents",
]

_PARTS = ("modeling", "configuration", "data_collators", "trainers")


def __getattr__(name: str):
    if name in __all__:
        for part in _PARTS:
            module = importlib.import_module(f".{part}", __name__)
            if name in module.__all__:
                return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
