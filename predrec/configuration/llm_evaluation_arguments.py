"""Arguments of the command that evaluates language models."""

from dataclasses import dataclass, field

from ..errors import UserError
from ..rules import at_least, check_values
from .evaluation_arguments import EncoderArguments


@dataclass
class LLMEvaluationArguments:
    """Which models answer which records, and how the answers are judged."""

    output_dir: str | None = field(default=None, metadata={"help": "Folder for results, answers and pictures."})
    models: list[str] = field(default_factory=list, metadata={"help": "name=DIR, or name=DIR,DIR for several seeds."})
    task: str = field(default="exact_match", metadata={"help": "How answers are judged: synth, gsm8k, spider, ..."})
    test_file: list[str] = field(
        default_factory=list, metadata={"help": "Records to answer; those of the first model's recipe if absent."}
    )
    max_test_samples: int | None = field(default=None, metadata={"help": "Use only the first of them."})
    baseline: str | None = field(default=None, metadata={"help": "Model to compare with; the first one if absent."})
    spider_tables: str | None = field(
        default=None, metadata={"help": "tables.json(.gz) of Spider: its schemas, filled with made-up rows."}
    )
    max_new_tokens: int | None = field(default=None, metadata={"help": "Longest answer; the task's if absent."})
    batch_size: int = field(default=64, metadata={"help": "Prompts, or records, at a time."})
    generate: bool = field(default=True, metadata={"help": "Answer the records; otherwise only measure geometry."})
    geometry: bool = field(default=True, metadata={"help": "Measure the geometry of the two views."})
    tsne: bool = field(default=True, metadata={"help": "Plot both views in 2-D, if there are enough."})
    trust_remote_code: bool = field(default=False, metadata={"help": "Run model code that comes with a checkpoint."})
    num_threads: int | None = field(default=None, metadata={"help": "CPU threads; all cores by default."})

    def __post_init__(self):
        if not self.output_dir:
            raise UserError("`output_dir` is missing: say where results go.")
        if not self.generate and not self.geometry:
            raise UserError("`generate` and `geometry` are both off: there is nothing to do.")
        check_values(self, [at_least(1, "max_new_tokens", "batch_size", "num_threads", "max_test_samples")])

    def named_models(self) -> dict[str, list[str]]:
        """Returns the directories of each model: one per seed."""
        return EncoderArguments(models=self.models).named_models()
