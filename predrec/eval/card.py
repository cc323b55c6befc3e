"""What was measured of a model, in its model card: tables and pictures, and entries that the Hub reads."""

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import yaml
from huggingface_hub import EvalResult, EvalResultEntry, ModelCard, eval_result_entries_to_yaml

from ..errors import UserError
from .document import Table, to_markdown
from .encoder import load_encoder
from .report_geometry import GEOMETRY, measure_rows
from .report_scores import score_blocks
from .results import Results, write_results
from .tasks import HUB_GLUE, TASKS

BEGIN, END = "<!-- evaluation: begin -->", "<!-- evaluation: end -->"


def update_model_card(
    folder: Path, name: str, results: Results, figures: Path | None = None, replicate: int = 0
) -> Path:
    """Writes results into the card of a model, in the place of earlier ones.

    Beside the card come `results.json`, the pictures in `figures/`, and `.eval_results/glue.yaml`, which the Hub's
    leaderboards read.

    Args:
        folder (`Path`): Of the model; its `README.md` must exist.
        name (`str`): Of the model in the results.
        results (`Results`): Of any commands. Other models stand beside it for comparison.
        figures (`Path`, *optional*): Folder of the report's pictures.
        replicate (`int`, defaults to 0): Which of the model's checkpoints the folder holds: see [`replicate_in`].

    Returns:
        The path of the card.

    Raises:
        UserError: If there is no card.
    """
    path = find_card(folder)
    card = ModelCard.load(path)
    pictures = copy_figures(figures, folder / "figures") if figures is not None else []
    section = f"{BEGIN}\n{render_results(results, pictures)}\n{END}"
    text = re.sub(f"\n*{re.escape(BEGIN)}.*?{re.escape(END)}\n*", "\n\n", card.text, flags=re.DOTALL)
    at = text.find("## Limits")
    card.text = text.rstrip() + f"\n\n{section}\n" if at < 0 else f"{text[:at]}{section}\n\n{text[at:]}"
    card.data.model_name = card.data.model_name or folder.resolve().name
    card.data.eval_results = hub_entries(results, name, replicate)
    card.save(path)
    write_results(folder, results)
    write_leaderboard_entries(folder / ".eval_results" / "glue.yaml", results, name, replicate)
    return path


def find_card(folder: Path) -> Path:
    """Returns the path of the model card in a folder; raises `UserError` if there is none."""
    path = folder / "README.md"
    if not path.is_file():
        raise UserError(f"`model_cards`: there is no README.md in {str(folder)!r}.")
    return path


def replicate_in(folder: Path, name: str, results: Results) -> int:
    """Returns which of a model's checkpoints a folder holds, by the weights.

    Raises:
        UserError: If none of them, so that the results are not of what the card is about.
    """
    weights = load_encoder(folder, dtype="float32", device="cpu").weights
    for model in results.models:
        if model["name"] == name and model["weights"] == weights:
            return model["replicate"]
    raise UserError(
        f"`model_cards`: the encoder in {str(folder)!r} is none of those that were measured as {name}: its weights "
        "are different."
    )


def copy_figures(source: Path, folder: Path) -> list[Path]:
    """Copies pictures, in the place of earlier ones; returns where they are now."""
    shutil.rmtree(folder, ignore_errors=True)
    pictures = sorted(source.glob("*.png"))
    if pictures:
        folder.mkdir()
    return [Path(shutil.copy(picture, folder)) for picture in pictures]


def render_results(results: Results, pictures: Sequence[Path] = ()) -> str:
    """Renders the tables of probes and of geometry with mean pooling, and shows the pictures."""
    blocks = [*score_blocks(results, "probe", "Evaluation: probes of the frozen encoder", False)]
    blocks += score_blocks(results, "finetune", "Evaluation: fine-tuning", False)
    tasks = list(dict.fromkeys(record.task for record in results.select(kind="geometry", pooling="mean")))
    rows = [row for task in tasks for row in measure_rows(results, task, "mean", GEOMETRY, False)]
    text = to_markdown(blocks)
    if rows:
        header = ["task", "model", *(measure.replace("_", " ") for measure, _ in GEOMETRY)]
        text += "\n## Evaluation: geometry, mean pooling\n\n" + to_markdown([Table(header, rows)])
    if pictures:
        shown = (f"![{picture.stem.replace('_', ' ')}](figures/{picture.name})" for picture in pictures)
        text += "\n## Evaluation: figures\n\n" + "\n\n".join(shown) + "\n"
    return text


HEADLINES = {"probe": "frozen encoder, linear probe", "finetune": "fine-tuned"}


def headline_scores(results: Results, name: str, replicate: int) -> list[tuple[str, str, float, int]]:
    """Returns `(kind, task, mean, number of seeds)` of a checkpoint's probes with mean pooling, and of fine-tuning."""
    scores, who = [], {"model": name, "replicate": replicate}
    for kind in HEADLINES:
        for task in dict.fromkeys(record.task for record in results.select(kind=kind, **who)):
            metric = TASKS[task].metric
            records = results.select(kind=kind, **who, task=task, metric=metric, variant=None)
            if kind == "probe":
                records = [record for record in records if (record.head, record.pooling) == ("linear", "mean")]
            if records:
                mean = sum(record.value for record in records) / len(records)
                scores.append((kind, task, round(mean, 4), len(records)))
    return scores


def hub_entries(results: Results, name: str, replicate: int = 0) -> list[EvalResult]:
    """Returns the headline scores as the metadata of a card have them."""
    return [
        EvalResult(
            task_type="text-classification",
            dataset_type=HUB_GLUE,
            dataset_name=f"GLUE {task} ({HEADLINES[kind]}, mean of {count} seeds)",
            dataset_config=TASKS[task].folder,
            dataset_split=TASKS[task].eval_split,
            metric_type=TASKS[task].metric,
            metric_value=mean,
        )
        for kind, task, mean, count in headline_scores(results, name, replicate)
    ]


def write_leaderboard_entries(path: Path, results: Results, name: str, replicate: int) -> None:
    """Writes the headline scores as leaderboards read them; no file where there are none."""
    entries = [
        EvalResultEntry(
            dataset_id=TASKS[task].hub_id,
            task_id=TASKS[task].folder,
            value=mean,
            notes="; ".join(
                [
                    f"{TASKS[task].metric}, {HEADLINES[kind]}, mean of {count} seeds",
                    *([TASKS[task].eval_split] if TASKS[task].eval_split != "validation" else []),
                    *([results.notes[f"{kind}|{task}"]] if f"{kind}|{task}" in results.notes else []),
                ]
            ),
        )
        for kind, task, mean, count in headline_scores(results, name, replicate)
    ]
    path.unlink(missing_ok=True)
    if entries:
        path.parent.mkdir(exist_ok=True)
        text = yaml.safe_dump(eval_result_entries_to_yaml(entries), sort_keys=False)
        path.write_text(text, encoding="utf-8")
