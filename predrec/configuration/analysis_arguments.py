"""Arguments of `analyze_representations` and `evaluate_sts`."""

from dataclasses import dataclass, field

from ..errors import UserError
from .evaluation_arguments import check_poolings


@dataclass
class AnalysisArguments:
    """What is measured of representations.

    Args:
        output_dir (`str`): Where `results.json` goes.
        pooling (`list[str]`): Poolings.
        num_examples (`int`, defaults to 2000): First rows of each evaluation split.
        seed (`int`, defaults to 0): Of poolings that are trained.
    """

    output_dir: str = field(default="outputs/analysis", metadata={"help": "Where results.json goes."})
    pooling: list[str] = field(
        default_factory=lambda: ["mean", "max", "weighted", "attention"], metadata={"help": "Poolings, as of a probe."}
    )
    num_examples: int = field(default=2000, metadata={"help": "Rows to use of each evaluation split."})
    seed: int = field(default=0, metadata={"help": "Seed of the trained poolings."})

    def __post_init__(self):
        check_poolings(self.pooling)
        if self.num_examples < 2:
            raise UserError(f"`num_examples` is {self.num_examples}; geometry needs at least 2.")


@dataclass
class STSArguments:
    """How sentence similarity is measured.

    Args:
        output_dir (`str`): Where `results.json` goes.
        pooling (`list[str]`): Untrained poolings.
        mteb (`bool`, defaults to `False`): Hand the model to `mteb`, which loads its own data, instead.
    """

    output_dir: str = field(default="outputs/sts", metadata={"help": "Where results.json goes."})
    pooling: list[str] = field(default_factory=lambda: ["mean"], metadata={"help": "Poolings."})
    mteb: bool = field(default=False, metadata={"help": "Hand the model to mteb (extra `mteb`)."})

    def __post_init__(self):
        check_poolings(self.pooling, ("mean", "max", "weighted", "attention", "cls", "embeddings"))
