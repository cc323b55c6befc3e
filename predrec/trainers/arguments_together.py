"""Combinations of arguments of `pretrain` that no single group of them can see."""

from types import SimpleNamespace

from ..configuration import DataArguments, ModelArguments
from ..configuration.needs import NEEDS_OF_CHOICES
from ..errors import UserError
from ..rules import unmet_needs
from .best import check_evaluations
from .training_args import PredRecTrainingArguments


def check_together(data: DataArguments, model: ModelArguments, training: PredRecTrainingArguments) -> None:
    """Refuses, before anything is loaded, what cannot go together.

    Raises:
        UserError: If arguments contradict one another, or one of them has no effect beside the others.
    """
    if not (data.tokenizer_name or data.train_tokenizer or model.init_from):
        raise UserError("`tokenizer_name` is missing: give a Hub id or a directory, or pass `--train_tokenizer`.")
    if data.vocab_size and not data.train_tokenizer:
        raise UserError("`vocab_size` sizes a trained tokenizer: add `--train_tokenizer`, or drop it.")
    if data.train_tokenizer and model.init_from:
        raise UserError("`train_tokenizer` would not fit the vocabulary of `init_from`: drop one of them.")
    if data.padding_is_text and (model.init_from or model.model_type != "predrec"):
        raise UserError("`padding_is_text` is for new predrec encoders, which go on attending to padding afterwards.")
    if data.streaming and training.max_steps < 1:
        raise UserError("`streaming` does not know how long an epoch is: give `max_steps`.")
    if data.streaming and training.dataloader_num_workers > 1:
        raise UserError("`dataloader_num_workers` must be 0 or 1 with `streaming`, whose order is fixed.")
    further = (model.encoder_config or {}).get("position_embedding_type")
    rotary = "rotary" in (model.position_embedding_type, model.predictor_position_embedding_type, further)
    if model.model_type == "predrec" and model.rotary_base is not None and not rotary:
        raise UserError("`rotary_base` is only for `position_embedding_type=rotary`: leave it out.")
    if model.objective != "mlm":
        given, defaults = vars(data) | vars(model), vars(DataArguments()) | vars(ModelArguments())
        changed = {name for name, value in given.items() if value != defaults[name]}
        for name, need in unmet_needs(NEEDS_OF_CHOICES, SimpleNamespace(**given), changed).items():
            raise UserError(f"`{name}` is only for `{need}`: leave it out.")
        if model.loss_weighting == "schedule" and model.loss_lambda == model.loss_lambda_end:
            raise UserError(f"`loss_weighting=schedule` ends where it begins, at {model.loss_lambda}: give an end.")
    check_evaluations(model, training)
