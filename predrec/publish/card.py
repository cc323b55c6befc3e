"""The model card of an export: what it is, which weights, how to load it, and how it was trained if that is known."""

import re
from pathlib import Path

from huggingface_hub import ModelCard, ModelCardData

from ..trainers.card_examples import REMOTE, loading_examples
from ..trainers.card_parts import block, compose
from .weights import Source

PIPELINES = {"transformers": "fill-mask", "sentence-transformers": "sentence-similarity", "onnx": "feature-extraction"}

SENTENCES = """\
from sentence_transformers import SentenceTransformer
{importing}
directory = "{directory}"  # the path of this folder
model = SentenceTransformer(directory{options})
vectors = model.encode(["A sentence.", "Another one."])
print(vectors.shape)
"""

ONNX = """\
import onnxruntime
from transformers import PreTrainedTokenizerFast

directory = "{directory}"  # the path of this folder
tokenizer = PreTrainedTokenizerFast.from_pretrained(directory)
session = onnxruntime.InferenceSession(f"{{directory}}/onnx/model.onnx")
batch = tokenizer(["A sentence.", "Another one."], padding=True, truncation=True, return_tensors="np")
inputs = {{name: batch[name] for name in ("input_ids", "attention_mask")}}
[output] = session.run(["{output}"], inputs)
print(output.shape)
"""


def render_card(name: str, source: Source, format: str, pooling: str | None, facts: list[str]) -> str:
    """Renders the card.

    Args:
        name (`str`): Title; also what the examples load.
        source ([`Source`]): What was exported.
        format (`str`): In which format.
        pooling (`str`, *optional*): How vectors are pooled.
        facts (`list[str]`): Further sentences.
    """
    custom = source.model.config.model_type == "predrec"
    tags = (["predrec"] if custom else []) + ([format] if format == "onnx" else [])
    data = ModelCardData(library_name=format, pipeline_tag=PIPELINES[format], tags=tags or None)
    if format == "transformers":
        examples = loading_examples(name, custom)
    elif format == "sentence-transformers":
        options = ", trust_remote_code=True" if custom else ""
        examples = block(
            "python", SENTENCES.format(directory=name, importing=REMOTE if custom else "", options=options)
        )
    else:
        output = "sentence_embedding" if pooling else "last_hidden_state"
        examples = block("python", ONNX.format(directory=name, output=output))
    return compose(
        data,
        name,
        " ".join([f"This is {source.description}, exported for {format} by predrec.", *facts, *source.notes]) + "\n",
        "## Load it\n",
        examples,
        training_sections(source.card) or "## Licence\n\nNone was given.\n",
    )


def training_sections(card: Path | None) -> str:
    """Returns what the card of a run says from `## Training` on, without its pictures, which are not copied."""
    if card is None:
        return ""
    _, heading, text = ModelCard.load(card, ignore_metadata_errors=True).text.partition("\n## Training\n")
    return heading.lstrip() + re.sub(r"\n!\[[^\]]*\]\([^)]*\)\n", "", text)
