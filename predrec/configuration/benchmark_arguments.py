"""Arguments of `benchmark`."""

from dataclasses import dataclass, field
from pathlib import Path

import torch

from ..benchmark.settings import ARMS, QUICK, SIZES
from ..errors import UserError
from ..rules import at_least, check_values

DEFAULTS = {"arms": tuple(ARMS), "rounds": 3, "steps": 4, "warmup_steps": 3, "batch_size": 8}
QUICK_DEFAULTS = DEFAULTS | {"arms": QUICK, "rounds": 1, "steps": 2, "warmup_steps": 2}

ON_ACCELERATORS = {"steps": 30, "warmup_steps": 10, "batch_size": 64}
"""On accelerators updates take milliseconds: small ones measure what launches them, few of them the clock. The first
ones of compiled code compile, until every length that varies has varied."""


@dataclass
class BenchmarkArguments:
    """What is timed, and how often.

    Args:
        output (`str`): JSON file to write; with `scaling`, a plot beside it.
        arms (`list[str]`, *optional*): What to time, of `ARMS`; all, or with `quick` the most telling ones.
        size (`str`, *optional*): Size of the encoder, of `SIZES`; the paper's when absent.
        max_seq_length (`int`, defaults to 512): Tokens in a row.
        batch_size (`int`, *optional*): Rows in a batch; when absent 8, on accelerators 64.
        rounds, steps, warmup_steps (`int`, *optional*): Times that every arm is run, in turn; updates that are timed
            in a run, and updates before. When absent 3, 4 and 3, with `quick` 1, 2 and 2 (1 for the baselines); on
            accelerators 30 updates after 10.
        num_workers (`int`, defaults to 2): Processes that make batches.
        torch_compile (`bool`, defaults to `False`): Compile the models, the baseline's included; not the plain step.
        use_cpu (`bool`, defaults to `False`): Leave an accelerator alone.
        quick (`bool`, defaults to `False`): Do with little.
        scaling (`bool`, defaults to `False`): Time masked-LM and hybrid over lengths, sizes and processes instead.
    """

    output: str = field(metadata={"help": "JSON file to write."})
    arms: list[str] = field(default=None, metadata={"help": f"What to time, of {', '.join(ARMS)}; all by default."})
    size: str | None = field(default=None, metadata={"help": f"Size of the encoder: {', '.join(SIZES)} (paper)."})
    max_seq_length: int = field(default=512, metadata={"help": "Tokens in a row."})
    batch_size: int | None = field(default=None, metadata={"help": "Rows in a batch (8; on accelerators 64)."})
    rounds: int | None = field(default=None, metadata={"help": "How often every arm is run, in turn (3)."})
    steps: int | None = field(
        default=None, metadata={"help": "Updates that are timed in a run (4; on accelerators 30)."}
    )
    warmup_steps: int | None = field(default=None, metadata={"help": "Untimed updates before those (3; 10)."})
    num_workers: int = field(default=2, metadata={"help": "Processes that make batches."})
    torch_compile: bool = field(default=False, metadata={"help": "Compile the models, the baseline's included."})
    use_cpu: bool = field(default=False, metadata={"help": "Run on the CPU, whatever else there is."})
    quick: bool = field(default=False, metadata={"help": "One round of two updates of the most telling arms."})
    scaling: bool = field(default=False, metadata={"help": "Time lengths, sizes and processes instead; adds a plot."})

    def __post_init__(self):
        if self.scaling:
            for name in ("arms", "size"):
                if getattr(self, name) is not None:
                    raise UserError(f"`{name}` has no effect with `scaling`, which has arms and sizes of its own.")
        self.size = self.size or "paper"
        defaults = QUICK_DEFAULTS if self.quick else DEFAULTS
        if torch.accelerator.is_available() and not self.use_cpu:
            defaults = defaults | ON_ACCELERATORS
        for name, value in defaults.items():
            if getattr(self, name) is None:
                setattr(self, name, value)
        for name, values, known in (("arms", self.arms, ARMS), ("size", [self.size], SIZES)):
            for value in values:
                if value not in known:
                    raise UserError(f"`{name}`: {value!r} must be one of {', '.join(known)}.")
        positive_counts = at_least(1, "max_seq_length", "batch_size", "rounds", "steps", "warmup_steps")
        check_values(self, [positive_counts, at_least(0, "num_workers")])
        if not Path(self.output).parent.is_dir():
            raise UserError(f"`output`: there is no folder {Path(self.output).parent}.")
