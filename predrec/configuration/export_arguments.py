"""Arguments of `export`."""

from dataclasses import dataclass, field

from ..errors import UserError
from ..rules import at_least, check_values

FORMATS = ("transformers", "sentence-transformers", "onnx")
POOLINGS = ("mean", "cls", "max")


@dataclass
class ExportArguments:
    """What is written, and of which weights.

    Args:
        format (`"transformers"`, `"sentence-transformers"` or `"onnx"`): What the folder is for.
        output_dir (`str`): New or empty folder.
        pooling (`"mean"`, `"cls"` or `"max"`, *optional*): From token states to one vector per text: `mean` by default
            for sentence-transformers; with onnx, adds the output `sentence_embedding`.
        normalize (`bool`, defaults to `False`): Give the pooled vectors length 1.
        weights (`"online"` or `"ema"`, defaults to `"online"`): The trained encoder, or the target encoder.
        max_seq_length (`int`, *optional*): Where the tokenizer cuts; what tokenizer and encoder take by default.
    """

    format: str = field(metadata={"help": "What the folder is for.", "choices": list(FORMATS)})
    output_dir: str = field(metadata={"help": "New or empty folder."})
    pooling: str | None = field(
        default=None, metadata={"help": "From token states to one vector per text.", "choices": list(POOLINGS)}
    )
    normalize: bool = field(default=False, metadata={"help": "Give the pooled vectors length 1."})
    weights: str = field(
        default="online", metadata={"help": "The trained encoder or its target encoder.", "choices": ["online", "ema"]}
    )
    max_seq_length: int | None = field(default=None, metadata={"help": "Where the tokenizer cuts, in tokens."})

    def __post_init__(self):
        if self.format == "transformers":
            for name in ("pooling", "normalize", "max_seq_length"):
                if getattr(self, name):
                    raise UserError(
                        f"`{name}` has no effect on `format` transformers, which gives token states: drop it, or use "
                        "sentence-transformers or onnx."
                    )
        check_values(self, [at_least(1, "max_seq_length")])
        if self.format == "sentence-transformers" and self.pooling is None:
            self.pooling = "mean"
        if self.normalize and self.pooling is None:
            raise UserError("`normalize` is about pooled vectors: add `--pooling mean`, cls or max, or drop it.")
