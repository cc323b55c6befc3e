"""Arguments of `report`."""

from dataclasses import dataclass, field


@dataclass
class ReportArguments:
    """What the report shows.

    Args:
        output (`str`): Folder of `report.md`, `report.html`, `results.json` and `figures/`.
        baseline (`str`, *optional*): Model that the others are compared with; the last one by default.
        published (`bool`, defaults to `False`): Put the paper's numbers beside ours.
        model_cards (`list[str]`): `name=DIR`: write what was measured of a model into the card in DIR.
    """

    output: str = field(metadata={"help": "Folder of the report."})
    baseline: str | None = field(default=None, metadata={"help": "Model to compare with; the last if absent."})
    published: bool = field(default=False, metadata={"help": "Put the paper's numbers beside ours."})
    model_cards: list[str] = field(default_factory=list, metadata={"help": "name=DIR: add the results to its card."})
