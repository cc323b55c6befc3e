"""Arguments of the commands that evaluate."""

from dataclasses import dataclass, field
from pathlib import Path

from ..errors import UserError
from ..rules import at_least, check_values

POOLINGS = ("mean", "max", "weighted", "attention", "cls", "embeddings", "attention-trained", "weighted-trained")


@dataclass
class EncoderArguments:
    """Which encoders are evaluated, and how they turn text into vectors.

    Args:
        models (`list[str]`): `name=DIR`, `name=DIR,DIR,...` for several pre-training seeds, or Hub ids.
        model_name_or_path (`str`, *optional*): One model, as in `run_glue.py`; named after its folder.
        max_seq_length (`int`, defaults to 128): Longer texts are cut, in tokens.
        encoder_dtype (`"auto"`, `"float32"` or `"bfloat16"`, defaults to `"auto"`): Of the encoder's computation.
        num_attention_draws (`int`, defaults to 8): Untrained attention poolings.
        trust_remote_code (`bool`, defaults to `False`): Run model code that comes with a checkpoint.
        use_embedding_cache (`bool`, defaults to `True`): Keep vectors on disk, for the next call.
        embedding_cache_dir (`str`, *optional*): Where. `$PREDREC_CACHE/embeddings` or `~/.cache/predrec/embeddings`.
        num_threads (`int`, *optional*): CPU threads; all cores by default.
    """

    models: list[str] = field(
        default_factory=list, metadata={"help": "name=DIR or Hub id; name=DIR,DIR for several seeds."}
    )
    model_name_or_path: str | None = field(default=None, metadata={"help": "One model, as in run_glue.py."})
    max_seq_length: int = field(default=128, metadata={"help": "Longest text, in tokens."})
    encoder_dtype: str = field(
        default="auto", metadata={"help": "Precision of the encoder.", "choices": ["auto", "float32", "bfloat16"]}
    )
    num_attention_draws: int = field(default=8, metadata={"help": "Random queries of pooling `attention`."})
    trust_remote_code: bool = field(default=False, metadata={"help": "Run model code that comes with a checkpoint."})
    use_embedding_cache: bool = field(default=True, metadata={"help": "Keep vectors on disk for later calls."})
    embedding_cache_dir: str | None = field(default=None, metadata={"help": "Folder of the vectors on disk."})
    num_threads: int | None = field(default=None, metadata={"help": "CPU threads; all cores by default."})

    def __post_init__(self):
        if bool(self.models) == bool(self.model_name_or_path):
            raise UserError("Give `models` (name=DIR ...) or `model_name_or_path`, one of them.")
        check_values(self, [at_least(1, "max_seq_length", "num_attention_draws", "num_threads")])

    def named_models(self) -> dict[str, list[str]]:
        """Returns the directories of each model: one per pre-training seed.

        Raises:
            UserError: If a name comes twice or is empty.
        """
        named: dict[str, list[str]] = {}
        for word in self.models or [str(self.model_name_or_path)]:
            name, equals, paths = word.partition("=")
            if not equals:
                name, paths = Path(word).name, word
            if not name or not all(paths.split(",")) or name in named:
                raise UserError(f"`models`: {word!r} must be name=DIR, and each name must come once.")
            named[name] = paths.split(",")
        return named


@dataclass
class TaskArguments:
    """Which tasks.

    Args:
        tasks (`list[str]`): Names in the table of tasks.
        task_name (`str`, *optional*): One task, as in `run_glue.py`.
        data_dir (`str`, *optional*): Folder with `<task>/<split>.parquet`; the Hub when absent.
        max_train_samples, max_eval_samples (`int`, *optional*): Use only the first rows.
    """

    tasks: list[str] = field(
        default_factory=list,
        metadata={"help": "Tasks, the paper's if absent; an unknown name lists them all."},
    )
    task_name: str | None = field(default=None, metadata={"help": "One task, as in run_glue.py."})
    data_dir: str | None = field(default=None, metadata={"help": "Folder with <task>/<split>.parquet; else the Hub."})
    max_train_samples: int | None = field(default=None, metadata={"help": "Use only the first training rows."})
    max_eval_samples: int | None = field(default=None, metadata={"help": "Use only the first evaluation rows."})

    def names(self, default: tuple[str, ...]) -> tuple[str, ...]:
        """Returns the names of the tasks, `default` when none was given."""
        if self.tasks and self.task_name:
            raise UserError("Give `tasks` or `task_name`, one of them.")
        return tuple(self.tasks) or ((self.task_name,) if self.task_name else default)


def check_poolings(poolings: list[str], allowed: tuple[str, ...] = POOLINGS) -> None:
    """Raises `UserError` for a pooling that is not offered."""
    for pooling in poolings:
        if pooling not in allowed:
            raise UserError(f"`pooling` {pooling!r} is not one of {', '.join(allowed)}.")
