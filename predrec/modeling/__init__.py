"""Models and losses. `configuration_predrec.py` and `modeling_predrec.py` are the two files that travel to the Hub."""

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForMultipleChoice,
    AutoModelForPreTraining,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)

from .configuration_predrec import PredRecConfig
from .configuration_pretraining import PredRecPreTrainingConfig
from .modeling_llm_jepa import LLMJepaModel, LLMJepaObjective
from .modeling_predrec import (
    AUTO_MAP,
    PredRecForMaskedLM,
    PredRecForMultipleChoice,
    PredRecForQuestionAnswering,
    PredRecForSequenceClassification,
    PredRecForTokenClassification,
    PredRecModel,
)
from .modeling_pretraining import PredRecForPreTraining, PredRecForPreTrainingOutput
from .predictor import PredRecPredictor
from .predictor_tokens import add_predictor_tokens

AUTO_CLASSES = {
    AutoModel: PredRecModel,
    AutoModelForMaskedLM: PredRecForMaskedLM,
    AutoModelForSequenceClassification: PredRecForSequenceClassification,
    AutoModelForTokenClassification: PredRecForTokenClassification,
    AutoModelForQuestionAnswering: PredRecForQuestionAnswering,
    AutoModelForMultipleChoice: PredRecForMultipleChoice,
}
"""What loads an encoder as what."""

AutoConfig.register("predrec", PredRecConfig, exist_ok=True)
AutoConfig.register("predrec_pretraining", PredRecPreTrainingConfig, exist_ok=True)
AutoModelForPreTraining.register(PredRecPreTrainingConfig, PredRecForPreTraining, exist_ok=True)

# Saving one of these classes copies its code beside the weights, so that a checkpoint loads without this package.
PredRecConfig.register_for_auto_class()
for auto, model in AUTO_CLASSES.items():
    auto.register(PredRecConfig, model, exist_ok=True)
    model.register_for_auto_class(auto.__name__)

__all__ = [
    "AUTO_CLASSES",
    "AUTO_MAP",
    "LLMJepaModel",
    "LLMJepaObjective",
    "PredRecConfig",
    "PredRecForMaskedLM",
    "PredRecForMultipleChoice",
    "PredRecForPreTraining",
    "PredRecForPreTrainingOutput",
    "PredRecForQuestionAnswering",
    "PredRecForSequenceClassification",
    "PredRecForTokenClassification",
    "PredRecModel",
    "PredRecPreTrainingConfig",
    "PredRecPredictor",
    "add_predictor_tokens",
]
