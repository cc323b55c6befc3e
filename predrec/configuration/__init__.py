"""What can be set: argument dataclasses and recipes."""

from ..modeling.configuration_predrec import PredRecConfig
from ..modeling.configuration_pretraining import PredRecPreTrainingConfig
from .data_arguments import DataArguments
from .evaluation_arguments import EncoderArguments, TaskArguments
from .model_arguments import ModelArguments
from .recipes import parse_recipe, read_recipe, write_recipe

__all__ = [
    "DataArguments",
    "EncoderArguments",
    "ModelArguments",
    "PredRecConfig",
    "PredRecPreTrainingConfig",
    "TaskArguments",
    "parse_recipe",
    "read_recipe",
    "write_recipe",
]
