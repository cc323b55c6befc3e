"""The artefact of a run: the trained encoder with its head, as a checkpoint of its own architecture."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor
from transformers import AutoModel, AutoModelForMaskedLM, PreTrainedModel, PreTrainedTokenizerBase

from ..modeling import AUTO_MAP, PredRecForPreTraining
from ..quiet import quiet_loading
from .checkpoints import write_errors_explained
from .whole_folders import sync

EXPORT_STAGING = ".export.partial"


def export_encoder(
    model: PredRecForPreTraining,
    tokenizer: PreTrainedTokenizerBase | None,
    output_dir: str | Path,
    state_dict: dict[str, Tensor] | None = None,
) -> None:
    """Writes the encoder with its head, loads it back, and checks that nothing is missing.

    Args:
        model ([`PredRecForPreTraining`]): The trained model.
        tokenizer ([`PreTrainedTokenizerBase`], *optional*): Saved beside it.
        output_dir (`str`): Directory; other files in it stay.
        state_dict (`dict[str, torch.Tensor]`, *optional*): All weights, if the model holds shards of them.

    Raises:
        RuntimeError: If what was written does not load completely.
        UserError: If it cannot be written; what was in the directory before stays.
    """
    output_dir = Path(output_dir)
    staging = output_dir / EXPORT_STAGING
    with write_errors_explained("the trained encoder", output_dir, staging):
        shutil.rmtree(staging, ignore_errors=True)
        prefix = "masked_lm."
        weights = state_dict and {n.removeprefix(prefix): t for n, t in state_dict.items() if n.startswith(prefix)}
        with attending_as_trained(model):
            write_masked_lm(model.masked_lm, tokenizer, staging, weights)
        for path in sorted(staging.iterdir()):
            sync(path)
            os.replace(path, output_dir / path.name)
        staging.rmdir()


@contextmanager
def attending_as_trained(model: PredRecForPreTraining) -> Iterator[None]:
    """Has the encoder's configuration say, while it is written, that it attends to padding, if it was trained so.

    In training, rows that are filled up have no mask, and the flag would also ignore those of contexts.
    """
    config, attends = model.masked_lm.config, model.config.padding_is_text
    if attends:
        config.attend_to_padding = True
    try:
        yield
    finally:
        if attends:
            config.attend_to_padding = False


def write_masked_lm(
    masked_lm: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    directory: str | Path,
    state_dict: dict[str, Tensor] | None = None,
) -> None:
    """Writes an encoder with its head into a new directory, and loads it back; raises as [`check_export`]."""
    if masked_lm.config.model_type == "predrec":
        masked_lm.config.auto_map = dict(AUTO_MAP)
    masked_lm.save_pretrained(directory, state_dict=state_dict)
    if tokenizer is not None:
        tokenizer.save_pretrained(directory)
    check_export(directory)


def check_export(directory: str | Path) -> None:
    """Loads an export both ways; raises `RuntimeError` if a weight is missing, or unexpected beyond the head.

    `AutoModel` may add parts that no masked-LM training touches, such as BERT's pooler: they are not missed.
    """
    with quiet_loading():
        masked_lm, with_head = AutoModelForMaskedLM.from_pretrained(directory, output_loading_info=True)
        _, bare = AutoModel.from_pretrained(directory, output_loading_info=True)
    trained = set(masked_lm.base_model.state_dict())
    prefix = masked_lm.base_model_prefix + "."
    problems = {
        "missing with the head": with_head["missing_keys"],
        "unexpected with the head": with_head["unexpected_keys"],
        "missing in the encoder": [key for key in bare["missing_keys"] if key in trained],
        "unexpected in the encoder": [key for key in bare["unexpected_keys"] if key.startswith(prefix)],
    }
    found = {what: sorted(keys) for what, keys in problems.items() if keys}
    if found:
        raise RuntimeError(f"The export in {str(directory)!r} does not load completely: {found}")
