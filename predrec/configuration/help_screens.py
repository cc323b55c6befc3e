"""What `--help` shows: one screen per command. `--help_all` explains every argument."""

import argparse
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, fields

from transformers import TrainingArguments

WIDTH, HEIGHT = 100, 46
"""Columns and lines of a screen."""


@dataclass(frozen=True)
class Screen:
    """The help of one command.

    Args:
        name (`str`): Sub-command of `predrec`.
        summary (`str`): What it does.
        usage (`str`): What follows the name.
        example (`str`): A command line that works.
        main (`tuple[str, ...]`): Arguments to explain; all of them when empty.
    """

    name: str
    summary: str
    usage: str
    example: str
    main: tuple[str, ...] = ()


SCREENS = {
    "pretrain": Screen(
        "pretrain",
        "Pre-train a text encoder with JEPA latent prediction, masked-token reconstruction, or both.",
        "[recipe.yaml] [--argument value ...]",
        "accelerate launch scripts/pretrain.py recipes/quickstart.yaml --max_steps 100",
        (
            *("train_file", "dataset_name", "tokenizer_name", "train_tokenizer", "init_from"),
            *("max_seq_length", "objective", "center_targets", "output_dir"),
            *("per_device_train_batch_size", "gradient_accumulation_steps", "gradient_checkpointing"),
            *("max_steps", "num_train_epochs", "learning_rate", "bf16", "resume_from_checkpoint", "push_to_hub"),
        ),
    ),
    "probe_glue": Screen(
        "probe",
        "Probe frozen encoders on GLUE, or fine-tune them.",
        "[recipe.yaml] [--argument value ...]",
        "predrec probe --models a=outputs/a b=outputs/b --tasks sst2 --output_dir outputs/probes",
        (
            *("models", "tasks", "data_dir", "output_dir", "mode", "head", "pooling", "seeds", "max_seq_length"),
            *("max_train_samples", "max_eval_samples", "learning_rate", "num_train_epochs"),
            *("per_device_train_batch_size", "weight_decay"),
        ),
    ),
    "analyze_representations": Screen(
        "analyze",
        "Measure the geometry of the vectors that encoders give to texts.",
        "[recipe.yaml] [--argument value ...]",
        "predrec analyze --models a=outputs/a b=outputs/b --output_dir outputs/analysis",
    ),
    "evaluate_sts": Screen(
        "sts",
        "Correlate cosines of sentence vectors with human scores.",
        "[recipe.yaml] [--argument value ...]",
        "predrec sts --models a=outputs/a --tasks stsb sickr --output_dir outputs/sts",
    ),
    "report": Screen(
        "report",
        "Write a report on what the other commands measured.",
        "RESULTS ... --output FOLDER [--argument value ...]",
        "predrec report outputs/probes outputs/analysis --output outputs/report --baseline b",
    ),
    "reproduce": Screen(
        "reproduce",
        "Make the missing runs of an experiment, and write its report.",
        "EXPERIMENT.yaml --data DIR --glue DIR [--argument value ...]",
        "predrec reproduce results/cpu/experiment.yaml --data wikipedia --glue glue --max_hours 8",
    ),
    "benchmark": Screen(
        "benchmark",
        "Compare the speed of pre-training with that of stock code.",
        "--output FILE [--argument value ...]",
        "predrec benchmark --output machine.json --quick",
    ),
    "export": Screen(
        "export",
        "Write an encoder for transformers, sentence-transformers or ONNX.",
        "SOURCE --format FORMAT --output_dir FOLDER [--argument value ...]",
        "predrec export outputs/run --format sentence-transformers --output_dir outputs/st",
    ),
    "push_to_hub": Screen(
        "push",
        "Publish an encoder, with its card, on the Hugging Face Hub.",
        "SOURCE --repo_id OWNER/NAME [--argument value ...]",
        "predrec push outputs/run --repo_id me/encoder --dry_run",
    ),
    "convert_reference_checkpoint": Screen(
        "convert",
        "Turn a checkpoint of the original author's code into one of this package.",
        "FILE FOLDER [--argument value ...]",
        "predrec convert checkpoint.pth.tar out --tokenizer_name google-bert/bert-base-uncased",
    ),
    "finetune_llm_jepa": Screen(
        "finetune-llm",
        "Train language models with next tokens and LLM-JEPA, and compare methods.",
        "[recipe.yaml] [--argument value ...]",
        "accelerate launch scripts/finetune_llm_jepa.py recipes/llm-jepa-quickstart.yaml",
        (
            *("output_dir", "train_file", "test_file", "task", "model_name_or_path", "init", "use_lora"),
            *("compare", "seeds", "method", "num_predictor_tokens", "jepa_lambda", "jepa_dropout"),
            *("learning_rate", "num_train_epochs", "bf16", "resume_from_checkpoint"),
        ),
    ),
    "evaluate_llm_jepa": Screen(
        "evaluate-llm",
        "Let language models answer test records, and measure the geometry of their views.",
        "[recipe.yaml] [--argument value ...]",
        "predrec evaluate-llm --models a=outputs/a b=outputs/b --output_dir outputs/answers",
    ),
}
"""Commands, by their module and script."""


STOCK_HELP = {
    "output_dir": "Output folder.",
    "max_steps": "Updates to train for, instead of `num_train_epochs`.",
    "num_train_epochs": "Passes over the rows.",
    "gradient_accumulation_steps": "Batches per update.",
    "gradient_checkpointing": "Keep fewer activations, and compute them again: less memory.",
    "bf16": "Compute in bfloat16 where that is safe.",
    "resume_from_checkpoint": "Resume a run: true (newest checkpoint), or a checkpoint folder.",
    "push_to_hub": "Publish the finished encoder as `hub_model_id`.",
}
"""In place of what transformers says at length."""


def help_screen(module: str, parser: argparse.ArgumentParser, dataclass_types: Sequence[type]) -> str:
    """Renders the help of a command.

    Args:
        module (`str`): A key of `SCREENS`.
        parser (`argparse.ArgumentParser`): Of the command.
        dataclass_types (`Sequence[type]`): Its arguments. Of `TrainingArguments`, only what is not stock is listed.
    """
    screen = SCREENS[module]
    actions = {action.dest: action for action in parser._actions}
    stock = {field.name for field in fields(TrainingArguments)}
    names = [field.name for kind in dataclass_types for field in fields(kind) if field.init]
    own = {f.name for kind in dataclass_types if not issubclass(kind, TrainingArguments) for f in fields(kind)}
    main = screen.main or tuple(names)
    others = [f"--{name}" for name in names if name not in main and name not in stock]
    lines = [f"usage: predrec {screen.name} {screen.usage}", "", screen.summary, f"Example: {screen.example}", ""]
    width = max(len(name) for name in main) + 4
    for name in main:
        start = f"  --{name}".ljust(width + 2)
        lines += textwrap.wrap(
            _explained(actions[name], name in own), WIDTH, initial_indent=start, subsequent_indent=" " * len(start)
        )
    if others:
        lines += ["", *textwrap.wrap("Also: " + " ".join(others), WIDTH, subsequent_indent="  ")]
    if any(issubclass(kind, TrainingArguments) for kind in dataclass_types):
        when = "With --mode finetune, the" if "mode" in own else "The"
        lines += ["", f"{when} arguments of transformers.TrainingArguments are accepted, too."]
    return "\n".join([*lines, "", "--help_all explains every argument."]) + "\n"


def _explained(action: argparse.Action, own: bool) -> str:
    """Says what an argument is, its choices and its default; `own` ones explain themselves, stock ones at length."""
    text = ("" if own else STOCK_HELP.get(action.dest)) or action.help or ""
    choices = f" [{', '.join(map(str, action.choices))}]" if action.choices else ""
    default = " ".join(map(str, action.default)) if isinstance(action.default, list) else action.default
    known = default not in (None, "", False, -1)
    return text + choices + (f" ({default})" if known and "(" not in text else "")
