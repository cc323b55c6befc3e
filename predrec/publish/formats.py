"""One function per format that writes a source into an empty folder and checks what it wrote."""

import tempfile
from importlib.util import find_spec
from pathlib import Path

import torch
import torch.nn.functional as F
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..errors import UserError
from ..eval.pooling import POOLINGS
from ..modeling.encoders import position_limit
from ..quiet import quiet_loading
from ..trainers.export import check_export
from .weights import Source

NEEDED = {"sentence-transformers": ("sentence_transformers",), "onnx": ("onnx", "onnxscript", "onnxruntime")}
"""Modules that a format needs; the extra that brings them has the name of the format."""

TOLERANCE = 1e-5

PROBES = ("A sentence.", "Another one, which is longer than the first.", "And a third. " * 512)
"""Texts of different length; the last one is cut by most encoders."""


def check_installed(format: str) -> None:
    """Raises `UserError`, with the command to type, if a format needs what is not installed."""
    missing = [name for name in NEEDED.get(format, ()) if find_spec(name) is None]
    if missing:
        raise UserError(f"`format` {format} needs {', '.join(missing)}: pip install 'predrec[{format}]'.")


def sequence_limit(encoder: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, asked: int | None) -> int:
    """Returns where the tokenizer cuts.

    Args:
        encoder (`PreTrainedModel`): Base model.
        tokenizer (`PreTrainedTokenizerBase`): Its own limit, often the length of training, is the default.
        asked (`int`, *optional*): The argument `max_seq_length`.

    Raises:
        UserError: If the encoder has fewer positions, or there is no room for a token between the special ones.
    """
    limit = position_limit(encoder)
    if asked is not None and asked > limit:
        raise UserError(
            f"`max_seq_length` is {asked}, but the encoder takes {limit} tokens: ask for {limit} or fewer."
        )
    special = tokenizer.num_special_tokens_to_add()
    if asked is not None and asked <= special:
        raise UserError(f"`max_seq_length` is {asked}, and the tokenizer adds {special} tokens of its own: raise it.")
    return asked or min(limit, tokenizer.model_max_length)


def write_transformers(source: Source, directory: Path) -> None:
    """Writes a checkpoint of the model's own architecture, with its head.

    Raises:
        RuntimeError: If what was written does not load completely.
    """
    source.model.save_pretrained(directory)
    source.tokenizer.save_pretrained(directory)
    check_export(directory)


def write_sentence_transformers(
    source: Source, directory: Path, pooling: str, normalize: bool, max_seq_length: int
) -> None:
    """Writes a folder that `SentenceTransformer` loads: encoder, pooling and, if asked for, normalisation.

    Args:
        source ([`Source`]): Without head.
        directory (`Path`): Empty.
        pooling (`"mean"`, `"cls"` or `"max"`): From token states to one vector.
        normalize (`bool`): Give the vectors length 1.
        max_seq_length (`int`): Where the tokenizer cuts.

    Raises:
        RuntimeError: If the folder does not give the vectors that pooling by hand gives.
    """
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    source.tokenizer.model_max_length = max_seq_length
    with tempfile.TemporaryDirectory() as plain, quiet_loading():
        source.model.save_pretrained(plain)
        source.tokenizer.save_pretrained(plain)
        transformer = Transformer(plain)
        transformer.model = source.model  # As it is, without a random pooler that loading may have added.
        modules = [
            transformer,
            Pooling(source.model.config.hidden_size, pooling),
            *([Normalize()] if normalize else []),
        ]
        SentenceTransformer(modules=modules, device="cpu").save(str(directory), create_model_card=False)
        written = SentenceTransformer(str(directory), device="cpu")
    vectors = written.encode(list(PROBES), convert_to_tensor=True, show_progress_bar=False)
    difference = (vectors - _by_hand(source, pooling, normalize)).abs().max().item()
    if not difference <= TOLERANCE:
        raise RuntimeError(f"sentence-transformers gives vectors that differ by {difference:.2g} from pooled states.")


@torch.no_grad()
def _by_hand(source: Source, pooling: str, normalize: bool) -> torch.Tensor:
    """Returns the vectors of `PROBES`, float32 of shape `(num_texts, hidden_size)`."""
    batch = source.tokenizer(list(PROBES), padding=True, truncation=True, return_tensors="pt")
    states = source.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
    vectors = POOLINGS[pooling](states, batch["attention_mask"].bool())
    return F.normalize(vectors) if normalize else vectors
