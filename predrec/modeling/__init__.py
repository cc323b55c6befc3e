"""Models and losses. `configuration_predrec.py` and `modeling_predrec.py` are the two files that travel to the Hub."""

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForPreTraining,
    AutoModelForSequenceClassification,
)

from .configuration_predrec import PredRecConfig
from .configuration_pretraining import PredRecPreTrainingConfig
from .modeling_predrec import PredRecForMaskedLM, PredRecForSequenceClassification, PredRecModel
from .modeling_pretraining import PredRecForPreTraining, PredRecForPreTrainingOutput
from .predictor import PredRecPredictor

AutoConfig.register("predrec", PredRecConfig, exist_ok=True)
AutoConfig.register("predrec_pretraining", PredRecPreTrainingConfig, exist_ok=True)
AutoModel.register(PredRecConfig, PredRecModel, exist_ok=True)
AutoModelForMaskedLM.register(PredRecConfig, PredRecForMaskedLM, exist_ok=True)
AutoModelForSequenceClassification.register(PredRecConfig, PredRecForSequenceClassification, exist_ok=True)
AutoModelForPreTraining.register(PredRecPreTrainingConfig, PredRecForPreTraining, exist_ok=True)

# Saving one of these classes copies its code beside the weights, so that a checkpoint loads without this package.
PredRecConfig.register_for_auto_class()
PredRecModel.register_for_auto_class("AutoModel")
PredRecForMaskedLM.register_for_auto_class("AutoModelForMaskedLM")
PredRecForSequenceClassification.register_for_auto_class("AutoModelForSequenceClassification")

__all__ = [
    "PredRecConfig",
    "PredRecForMaskedLM",
    "PredRecForPreTraining",
    "PredRecForPreTrainingOutput",
    "PredRecForSequenceClassification",
    "PredRecModel",
    "PredRecPreTrainingConfig",
    "PredRecPredictor",
]
