"""What can be set: argument dataclasses and recipes."""

from ..modeling.configuration_predrec import PredRecConfig
from ..modeling.configuration_pretraining import PredRecPreTrainingConfig
from .data_arguments import DataArguments
from .model_arguments import ModelArguments
from .recipes import parse_recipe, read_recipe, write_recipe

__all__ = [
    "DataArguments",
    "ModelArguments",
    "PredRecConfig",
    "PredRecPreTrainingConfig",
    "parse_recipe",
    "read_recipe",
    "write_recipe",
]
