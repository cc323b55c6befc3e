"""The artefact of a run: the trained encoder with its head, as a checkpoint of its own architecture."""

import os
import shutil
from pathlib import Path

from transformers import AutoModel, AutoModelForMaskedLM, PreTrainedTokenizerBase
from transformers.utils import logging

from ..modeling import PredRecForPreTraining
from .checkpoints import write_errors_explained

AUTO_MAP = {
    "AutoConfig": "configuration_predrec.PredRecConfig",
    "AutoModel": "modeling_predrec.PredRecModel",
    "AutoModelForMaskedLM": "modeling_predrec.PredRecForMaskedLM",
    "AutoModelForSequenceClassification": "modeling_predrec.PredRecForSequenceClassification",
}
"""Which class loads what, in a process that does not have this package."""


def export_encoder(
    model: PredRecForPreTraining, tokenizer: PreTrainedTokenizerBase | None, output_dir: str | Path
) -> None:
    """Writes the encoder with its head, loads it back, and checks that nothing is missing.

    Args:
        model ([`PredRecForPreTraining`]): The trained model.
        tokenizer ([`PreTrainedTokenizerBase`], *optional*): Saved beside it.
        output_dir (`str`): Directory; other files in it stay.

    Raises:
        RuntimeError: If what was written does not load completely.
        UserError: If it cannot be written; what was in the directory before stays.
    """
    output_dir, masked_lm = Path(output_dir), model.masked_lm
    staging = output_dir / ".export.partial"
    if masked_lm.config.model_type == "predrec":
        masked_lm.config.auto_map = dict(AUTO_MAP)
    with write_errors_explained("the trained encoder", output_dir, staging):
        shutil.rmtree(staging, ignore_errors=True)
        masked_lm.save_pretrained(staging)
        if tokenizer is not None:
            tokenizer.save_pretrained(staging)
        check_export(staging)
        for path in sorted(staging.iterdir()):
            os.replace(path, output_dir / path.name)
        staging.rmdir()


def check_export(directory: str | Path) -> None:
    """Loads an export both ways; raises `RuntimeError` if a weight is missing, or unexpected beyond the head.

    `AutoModel` may add parts that no masked-LM training touches, such as BERT's pooler: they are not missed.
    """
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        masked_lm, with_head = AutoModelForMaskedLM.from_pretrained(directory, output_loading_info=True)
        _, bare = AutoModel.from_pretrained(directory, output_loading_info=True)
    finally:
        logging.set_verbosity(verbosity)
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
