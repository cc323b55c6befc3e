"""A checkpoint of the original author's code as ours: `predrec convert file.pth.tar out/`."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from transformers import PreTrainedTokenizerBase
from transformers.utils.logging import disable_progress_bar

from ..configuration import parse_recipe
from ..configuration.conversion_arguments import ConversionArguments
from ..data_collators.tokenizers import load_tokenizer
from ..errors import UserError
from ..modeling.reference_checkpoint import choose_heads, choose_predictor_heads, masked_lm_of, pretraining_model_of
from ..modeling.reference_file import load_weights_file
from ..modeling.reference_format import ReferenceCheckpoint, check_reference_checkpoint
from ..publish.folder import check_output_dir, new_folder
from ..publish.reference_card import render_reference_card
from ..trainers.export import write_masked_lm
from .entry import command

USAGE = "Give the file and the folder first: predrec convert file.pth.tar out/ --tokenizer_name NAME."

PADDED_LENGTH = 128
"""What the original code pads texts to when it evaluates."""

TRAINS_ON = "pretraining has `attend_to_padding` false, since training masks padding; the encoder has it true"


@command
def main(argv: list[str]) -> int:
    """Runs the command; returns its exit code: 0, or 2 for what the user can mend."""
    return convert(argv)


def convert(argv: Sequence[str]) -> int:
    """Reads the file that comes first on the command line and writes the folder that comes second."""
    count = next((index for index, word in enumerate(argv) if word.startswith("-")), len(argv))
    paths, options = argv[:count], argv[count:]
    (arguments,), _ = parse_recipe(options, (ConversionArguments,), "convert_reference_checkpoint")
    if len(paths) != 2:
        raise UserError(USAGE)
    path, output_dir = Path(paths[0]), Path(paths[1])
    check_output_dir(str(output_dir), str(path))
    disable_progress_bar()
    try:
        checkpoint = check_reference_checkpoint(load_weights_file(path), path.stat().st_size)
        heads = {"encoder": choose_heads(checkpoint, arguments.num_attention_heads)}
        if checkpoint.training_mode == "hybrid":
            given = arguments.predictor_num_attention_heads
            heads["predictor"] = choose_predictor_heads(checkpoint, given, heads["encoder"][0])
        tokenizer = fitting_tokenizer(arguments.tokenizer_name, checkpoint)
        facts = describe(checkpoint, heads)
        files = write(output_dir, path, checkpoint, [number for number, _ in heads.values()], tokenizer, facts)
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"{str(path)!r} cannot be converted: {' '.join(str(error).split())}") from error
    if tokenizer is None:
        facts.append(
            ("note", "no tokenizer was written; the paper's is --tokenizer_name google-bert/bert-base-uncased")
        )
    print(*(f"{name}: {fact}" for name, fact in facts), *files, sep="\n")
    return 0


def fitting_tokenizer(name: str | None, checkpoint: ReferenceCheckpoint) -> PreTrainedTokenizerBase | None:
    """Loads the tokenizer, if one is named, and checks that every token has a vector."""
    if name is None:
        return None
    tokenizer, vocab_size = load_tokenizer(name), checkpoint.sizes["V"]
    if len(tokenizer) > vocab_size:
        raise UserError(
            f"`tokenizer_name`: {name!r} has {len(tokenizer)} tokens, but the checkpoint {vocab_size}: give the one "
            "that it was trained with."
        )
    tokenizer.model_max_length = min(tokenizer.model_max_length, checkpoint.sizes["L"])
    return tokenizer


def write(
    output_dir: Path,
    path: Path,
    checkpoint: ReferenceCheckpoint,
    num_heads: list[int],
    tokenizer: PreTrainedTokenizerBase | None,
    facts: list[tuple[str, str]],
) -> list[Path]:
    """Writes the folder, which gets everything or nothing; returns what can be loaded."""
    special = {} if tokenizer is None else {"pad_token_id": tokenizer.pad_token_id}
    with path.open("rb") as file:
        origin = [
            ("file", " ".join(path.name.replace("|", "\\|").split())),
            ("sha256", hashlib.file_digest(file, "sha256").hexdigest()),
        ]
    length = min(PADDED_LENGTH, checkpoint.sizes["L"])
    card = render_reference_card(
        output_dir.resolve().name, checkpoint.training_mode, length, [*origin, *facts], tokenizer is not None
    )
    with new_folder(str(output_dir)) as folder:
        # The original code masks no attention: only so do padded texts get the states that they had there.
        write_masked_lm(masked_lm_of(checkpoint, num_heads[0], attend_to_padding=True, **special), tokenizer, folder)
        if checkpoint.training_mode == "hybrid":
            pretraining_model_of(checkpoint, *num_heads, **special).save_pretrained(folder / "pretraining")
        (folder / "README.md").write_text(card, encoding="utf-8")
    return [written for written in (output_dir, output_dir / "pretraining") if written.is_dir()]


def describe(checkpoint: ReferenceCheckpoint, heads: dict[str, tuple[int, str]]) -> list[tuple[str, str]]:
    """Returns what was found and what was decided."""
    sizes = checkpoint.sizes
    shapes = {
        "encoder": f"{sizes['blocks']} layers, hidden size {sizes['D']}, feed-forward {sizes['F']}, vocabulary "
        f"{sizes['V']}, {sizes['L']} positions"
    }
    if "predictor" in heads:
        shapes["predictor"] = (
            f"{sizes['predictor_blocks']} layers, hidden size {sizes['P']}, feed-forward {sizes['Q']}"
        )
    return [
        ("training mode", checkpoint.training_mode),
        *((part, f"{shapes[part]}, {number} heads ({source})") for part, (number, source) in heads.items()),
        *(("note", note) for note in checkpoint.notes),
        *((("note", TRAINS_ON),) if "predictor" in heads else ()),
    ]
