"""What the commands that evaluate have in common."""

import os
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from datasets.utils.logging import disable_progress_bar
from transformers.utils.logging import disable_progress_bar as disable_loading_bar

from ..configuration import EncoderArguments, parse_recipe
from ..configuration.help_screens import SCREENS
from ..eval.embeddings import Embedder, default_cache_dir
from ..eval.encoder import load_encoder
from ..eval.results import Results
from ..eval.tasks import Split
from ..trainers.cpu import usable_cores
from .invocation import without_secrets


def run(name: str, argv: list[str], arguments: Sequence[type], work: Callable[[list[Any], dict, str], int]) -> int:
    """Parses arguments and does the work of a command; returns its exit code."""
    parsed, given = parse_recipe(argv, arguments, name)
    disable_progress_bar()  # Of reading small files; encoding has its own.
    disable_loading_bar()
    return work(parsed, given, published_command(name, argv))


def published_command(name: str, argv: Sequence[str]) -> str:
    """Returns the command as results keep it: folders by their last two names, since these are published."""
    words = []
    for word in without_secrets(argv):
        name_of, equals, path = word.partition("=")
        path = path if equals else word
        short = ",".join(_short(part) for part in path.split(","))
        words.append(f"{name_of}={short}" if equals else short)
    return f"predrec {SCREENS[name].name} {shlex.join(words)}"


def _short(path: str) -> str:
    return (
        os.sep.join(path.rstrip(os.sep).split(os.sep)[-2:]) if os.path.isabs(path) or path.startswith("..") else path
    )


def set_threads(arguments: EncoderArguments) -> int:
    """Sets the CPU threads, every core unless told otherwise; returns how many."""
    torch.set_num_threads(arguments.num_threads or usable_cores())
    return torch.get_num_threads()


def embedders(arguments: EncoderArguments, results: Results) -> Iterator[tuple[str, int, Embedder]]:
    """Loads one encoder after the other: yields name, replicate and embedder, and describes each in the results."""
    cache_dir = None
    if arguments.use_embedding_cache:
        cache_dir = arguments.embedding_cache_dir or default_cache_dir()
    named = arguments.named_models()
    seen: dict[str, str] = {}
    for name, paths in named.items():
        for replicate, path in enumerate(paths):
            encoder = load_encoder(
                path, arguments.max_seq_length, arguments.encoder_dtype, trust_remote_code=arguments.trust_remote_code
            )
            label = name if len(paths) == 1 else f"{name} {replicate}"
            if encoder.weights in seen:
                print(f"note: {label} and {seen[encoder.weights]} have the same weights.", file=sys.stderr)
            seen[encoder.weights] = label
            results.models.append({"name": name, "replicate": replicate, **encoder.describe()})
            encoder.name = label
            yield name, replicate, Embedder(encoder, cache_dir, arguments.num_attention_draws)


def joined(split: Split) -> list[Any]:
    """Returns one text per row: pairs are encoded as one sequence."""
    return list(split.texts[0]) if len(split.texts) == 1 else list(zip(*split.texts, strict=True))


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lays out a table for the console."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in [header, *rows]]
    return "\n".join(line.rstrip() for line in lines)
