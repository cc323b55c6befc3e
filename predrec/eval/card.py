"""What was measured of a model, in its model card: a section of tables, and entries that the Hub reads."""

import re
from pathlib import Path

from huggingface_hub import EvalResult, ModelCard

from ..errors import UserError
from .document import Table, to_markdown
from .report import GEOMETRY, measure_rows, score_blocks
from .results import Results, write_results
from .tasks import HUB_GLUE, TASKS

BEGIN, END = "<!-- evaluation: begin -->", "<!-- evaluation: end -->"


def update_model_card(folder: Path, name: str, results: Results) -> Path:
    """Writes results into the card of a model, in the place of earlier ones, and `results.json` beside it.

    Args:
        folder (`Path`): Of the model; its `README.md` must exist.
        name (`str`): Of the model in the results.
        results (`Results`): Of any commands. Other models stand beside it for comparison.

    Returns:
        The path of the card.

    Raises:
        UserError: If there is no card.
    """
    path = find_card(folder)
    card = ModelCard.load(path)
    section = f"{BEGIN}\n{render_results(results)}\n{END}"
    text = re.sub(f"\n*{re.escape(BEGIN)}.*?{re.escape(END)}\n*", "\n\n", card.text, flags=re.DOTALL)
    at = text.find("## Limits")
    card.text = text.rstrip() + f"\n\n{section}\n" if at < 0 else f"{text[:at]}{section}\n\n{text[at:]}"
    card.data.model_name = card.data.model_name or folder.resolve().name
    card.data.eval_results = hub_entries(results, name)
    card.save(path)
    write_results(folder, results)
    return path


def find_card(folder: Path) -> Path:
    """Returns the path of the model card in a folder; raises `UserError` if there is none."""
    path = folder / "README.md"
    if not path.is_file():
        raise UserError(f"`model_cards`: there is no README.md in {str(folder)!r}.")
    return path


def render_results(results: Results) -> str:
    """Renders the tables of probes and of geometry with mean pooling."""
    blocks = [*score_blocks(results, "probe", "Evaluation: probes of the frozen encoder", False)]
    blocks += score_blocks(results, "finetune", "Evaluation: fine-tuning", False)
    tasks = list(dict.fromkeys(record.task for record in results.select(kind="geometry", pooling="mean")))
    rows = [row for task in tasks for row in measure_rows(results, task, "mean", GEOMETRY, False)]
    text = to_markdown(blocks)
    if rows:
        header = ["task", "model", *(measure.replace("_", " ") for measure, _ in GEOMETRY)]
        text += "\n## Evaluation: geometry, mean pooling\n\n" + to_markdown([Table(header, rows)])
    return text


def hub_entries(results: Results, name: str) -> list[EvalResult]:
    """Returns the headline scores of probes and fine-tuning, means over seeds, as the Hub's metadata have them."""
    entries = []
    for kind, title in (("probe", "frozen encoder, linear probe"), ("finetune", "fine-tuned")):
        for task in dict.fromkeys(record.task for record in results.select(kind=kind, model=name)):
            metric = TASKS[task].metric
            records = results.select(kind=kind, model=name, task=task, metric=metric, variant=None)
            if kind == "probe":
                records = [record for record in records if (record.head, record.pooling) == ("linear", "mean")]
            if records:
                value = sum(record.value for record in records) / len(records)
                entries.append(
                    EvalResult(
                        task_type="text-classification",
                        dataset_type=HUB_GLUE,
                        dataset_name=f"GLUE {task} ({title}, mean of {len(records)} seeds)",
                        dataset_config=TASKS[task].folder,
                        dataset_split=TASKS[task].eval_split,
                        metric_type=metric,
                        metric_value=round(value, 4),
                    )
                )
    return entries
