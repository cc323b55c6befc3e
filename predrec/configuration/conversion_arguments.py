"""Arguments of `convert_reference_checkpoint`."""

from dataclasses import dataclass, field

from ..rules import at_least, check_values


@dataclass
class ConversionArguments:
    """What a checkpoint of the original author's code does not say.

    Args:
        tokenizer_name (`str`, *optional*): Hub id or folder of the tokenizer it was trained with; saved beside it.
        num_attention_heads (`int`, *optional*): Heads of the encoder; by default what the checkpoint's own
            configuration names, else heads of width 64, as in the paper.
        predictor_num_attention_heads (`int`, *optional*): Heads of the predictor; by default what the checkpoint's own
            configuration names, else as many as the encoder's.
    """

    tokenizer_name: str | None = field(default=None, metadata={"help": "Tokenizer it was trained with: id or folder."})
    num_attention_heads: int | None = field(default=None, metadata={"help": "Heads of the encoder."})
    predictor_num_attention_heads: int | None = field(default=None, metadata={"help": "Heads of the predictor."})

    def __post_init__(self):
        check_values(self, [at_least(1, "num_attention_heads", "predictor_num_attention_heads")])
