"""Arguments of `reproduce`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ..errors import UserError
from ..rules import at_least, check_values, positive

ALONE = ("report_only", "plan_only", "time_rounds")
"""Arguments in place of runs."""


@dataclass
class ReproduceArguments:
    """Where an experiment finds its data, and how much of it is run now.

    Args:
        data (`str`, *optional*): Folder with the files that the experiment's `data` names.
        glue (`str`, *optional*): Folder with `<task>/<split>.parquet` in the Hub's columns.
        tokenizer_name (`str`, *optional*): Folder or Hub id, in place of the experiment's; it must be the same one.
        output_dir (`str`, *optional*): Folder of the work in progress; `outputs/reproduce/<name>` by default.
        only (`list[str]`): Arms to run; all by default.
        max_hours (`float`, *optional*): Begin no run that would end later than so many hours from now.
        keep (`"export"`, `"all"` or `"nothing"`, defaults to `"export"`): Of the weights of finished runs.
        report_only (`bool`, defaults to `False`): Run nothing; write the report of the runs that are there.
        plan_only (`bool`, defaults to `False`): Run nothing; list what is left, and the time it will take.
        time_rounds (`int`, *optional*): Make no runs; train a few updates of every arm that is to take the same time
            as another, in turn and so many times, and write `timing.json`.
        timed_updates (`int`, *optional*): How many, in each round; 60 by default.
        num_threads (`int`, *optional*): CPU threads; all cores by default.
    """

    data: str | None = field(default=None, metadata={"help": "Folder with the experiment's training data."})
    glue: str | None = field(default=None, metadata={"help": "Folder with <task>/<split>.parquet."})
    tokenizer_name: str | None = field(
        default=None, metadata={"help": "Folder or Hub id, in place of the experiment's; it must be the same one."}
    )
    output_dir: str | None = field(
        default=None, metadata={"help": "Folder of the work in progress (outputs/reproduce/<name>)."}
    )
    only: list[str] = field(default_factory=list, metadata={"help": "Arms to run; all if absent."})
    max_hours: float | None = field(
        default=None, metadata={"help": "Start no run that would end more than this many hours from now."}
    )
    keep: Literal["export", "all", "nothing"] = field(
        default="export", metadata={"help": "Weights of finished runs to keep."}
    )
    report_only: bool = field(default=False, metadata={"help": "Run nothing; write the report of what is there."})
    plan_only: bool = field(default=False, metadata={"help": "Run nothing; list what is left."})
    time_rounds: int | None = field(
        default=None, metadata={"help": "Make no runs; time a few updates of the arms, in so many rounds."}
    )
    timed_updates: int | None = field(default=None, metadata={"help": "Updates of an arm in a round (60)."})
    num_threads: int | None = field(default=None, metadata={"help": "CPU threads; all cores if absent."})

    def __post_init__(self):
        check_values(self, [positive("max_hours"), at_least(1, "num_threads", "time_rounds")])
        check_values(self, [at_least(10, "timed_updates")])
        given = [name for name in ALONE if getattr(self, name)]
        if len(given) > 1:
            raise UserError(f"`{given[0]}` and `{given[1]}` exclude each other: give one of them.")
        if self.timed_updates is not None and self.time_rounds is None:
            raise UserError("`timed_updates` has no effect without `time_rounds`.")

    def require_folders(self, glue: bool) -> None:
        """Checks the folders that training, and probing if asked for, will read.

        Raises:
            UserError: If one was not given, or is not there.
        """
        for name, wanted in (("data", True), ("glue", glue)):
            value = getattr(self, name)
            if wanted and value is None:
                raise UserError(f"`{name}` is missing: pass `--{name} DIR`, the {self.__class__.meaning(name)}.")
            if wanted and not Path(value).is_dir():
                raise UserError(f"`{name}`: there is no folder {value!r}.")

    @classmethod
    def meaning(cls, name: str) -> str:
        """Returns what an argument is, as the help says it."""
        return cls.__dataclass_fields__[name].metadata["help"].rstrip(".").lower()
