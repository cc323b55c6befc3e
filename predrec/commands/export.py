"""An encoder for other libraries: `python scripts/export.py out/run --format onnx --output_dir out/onnx`."""

import sys
from collections.abc import Sequence
from pathlib import Path

from transformers.utils.logging import disable_progress_bar

from ..configuration import parse_recipe
from ..configuration.export_arguments import ExportArguments
from ..errors import UserError
from ..publish.card import render_card
from ..publish.folder import check_output_dir, new_folder
from ..publish.formats import check_installed, sequence_limit, write_sentence_transformers, write_transformers
from ..publish.onnx_graph import write_onnx
from ..publish.weights import load_source
from .entry import command


@command
def main(argv: list[str]) -> int:
    """Runs the command; returns its exit code: 0, or 2 for what the user can mend."""
    return export(argv)


def export(argv: Sequence[str]) -> int:
    """Exports the source that comes first on the command line."""
    count = next((index for index, word in enumerate(argv) if word.startswith("-")), len(argv))
    paths, options = argv[:count], argv[count:]
    (arguments,), _ = parse_recipe(options, (ExportArguments,), "export")
    if len(paths) != 1:
        raise UserError(
            f"Give one folder or Hub id first, not {len(paths)}: export out/run --format onnx --output_dir out/onnx."
        )
    check_installed(arguments.format)
    check_output_dir(arguments.output_dir, paths[0])
    disable_progress_bar()
    source = load_source(paths[0], arguments.weights, with_head=arguments.format == "transformers")
    facts = []
    with new_folder(arguments.output_dir) as folder:
        if arguments.format == "transformers":
            write_transformers(source, folder)
        else:
            limit = sequence_limit(source.model, source.tokenizer, arguments.max_seq_length)
            pooled = f"{arguments.pooling} pooling{', normalised' if arguments.normalize else ''}"
            facts.append(f"Texts are cut at {limit} tokens{f'; {pooled}' if arguments.pooling else ''}.")
            options = (arguments.pooling, arguments.normalize, limit)
            if arguments.format == "onnx":
                difference = write_onnx(source, folder, *options)
                facts.append(f"The graph differs from torch by at most {difference:.1e}.")
            else:
                write_sentence_transformers(source, folder, *options)
        name = Path(arguments.output_dir).resolve().name
        text = render_card(name, source, arguments.format, arguments.pooling, facts)
        (folder / "README.md").write_text(text, encoding="utf-8")
    print(f"{arguments.output_dir}: {source.description}, for {arguments.format}.")
    for sentence in facts:
        print(sentence)
    for note in source.notes:
        print(f"note: {note}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
