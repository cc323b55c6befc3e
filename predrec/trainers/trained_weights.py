"""Weights to begin with or to go on with: from safetensors alone, without code, and complete."""

import json
from pathlib import Path

import torch
from safetensors import safe_open
from transformers import AutoModelForMaskedLM, PreTrainedConfig, PreTrainedModel
from transformers.utils import logging

from ..errors import UserError, reason_of
from .contents import pickles_instead

logger = logging.get_logger(__name__)

INDEX_FILE = "model.safetensors.index.json"


def load_masked_lm(name: str, config: PreTrainedConfig) -> PreTrainedModel:
    """Loads a trained encoder with its head, in float32.

    Args:
        name (`str`): `init_from`: a Hub id or a directory.
        config (`PreTrainedConfig`): Its configuration.

    Raises:
        UserError: If there are no weights in safetensors, if they are damaged, or if any of the encoder's is missing,
            of another size, or not finite. A head that is missing is drawn at random, with a warning.
    """
    try:
        _check_index(Path(name))
        model, info = AutoModelForMaskedLM.from_pretrained(
            name,
            config=config,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    # A file made to do harm decides what is raised here.
    except Exception as error:
        raise UserError(
            f"`init_from`: cannot load {name!r} as a masked LM: {reason_of(error)}{pickles_instead(Path(name))}. Give "
            "a checkpoint with whole weights in safetensors."
        ) from error
    _check_complete(name, model, info["missing_keys"])
    return model


def _check_index(folder: Path) -> None:
    """Raises `ValueError` if the parts of the weights are not files of safetensors beside their index."""
    path = folder / INDEX_FILE
    if path.is_file():
        parts = json.loads(path.read_text(encoding="utf-8"))["weight_map"].values()
        for part in parts:
            if Path(part).name != part or not part.endswith(".safetensors"):
                raise ValueError(f"{INDEX_FILE} names {part!r}, which is no file of safetensors beside it")


def _check_complete(name: str, model: PreTrainedModel, missing: set[str]) -> None:
    prefix = model.base_model_prefix + "."
    of_encoder = sorted(key for key in missing if key.startswith(prefix))
    if of_encoder:
        raise UserError(
            f"`init_from`: {len(of_encoder)} weights of the encoder are not in {name!r} and would be random, such as "
            f"{of_encoder[0]!r}. It is no checkpoint of a {model.config.model_type}."
        )
    if missing:
        logger.warning(f"`init_from`: the masked-LM head is not in {name!r} and begins at random: {sorted(missing)}.")
    for key, tensor in model.state_dict().items():
        if not torch.isfinite(tensor).all():
            raise UserError(f"`init_from`: {key!r} in {name!r} holds NaN or infinity: take an earlier checkpoint.")


def check_fits(checkpoint: Path, model: PreTrainedModel) -> None:
    """Raises [`UserError`] if a checkpoint's weights are not those of the model: the Trainer would go on with a part.

    Args:
        checkpoint (`Path`): What a run goes on from. Weights that are sharded in another way are left to their loader.
        model (`PreTrainedModel`): The model that was built for it.
    """
    shapes = {}
    for path in checkpoint.glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            shapes |= {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118 - no mapping
    if not shapes:
        return
    tensors = model.state_dict()
    there = {tensors[key].data_ptr() for key in shapes.keys() & tensors.keys()}
    for key, tensor in tensors.items():
        if key not in shapes and tensor.data_ptr() not in there:
            raise UserError(f"{str(checkpoint)!r} lacks the weight {key!r}: it is no checkpoint of this model.")
        if shapes.get(key, tensor.shape) != tensor.shape:
            raise UserError(
                f"{str(checkpoint)!r}: the weight {key!r} has shape {shapes[key]}, not {tuple(tensor.shape)} as the "
                "model's: it is no checkpoint of this model."
            )
