"""A report of results: `python scripts/report.py out/probes out/analysis --output out/report`."""

import sys
from collections.abc import Sequence
from pathlib import Path

from ..configuration import parse_recipe
from ..configuration.report_arguments import ReportArguments
from ..errors import UserError
from ..eval.card import find_card, replicate_in, update_model_card
from ..eval.document import Heading, write_document
from ..eval.report import build_report
from ..eval.results import merge_results, read_results, write_results
from .entry import command


@command
def main(argv: list[str]) -> int:
    """Runs the command; returns its exit code: 0, or 2 for what the user can mend."""
    return report(argv)


def report(argv: Sequence[str]) -> int:
    """Reads the results that come first on the command line and writes the report."""
    count = next((index for index, word in enumerate(argv) if word.startswith("-")), len(argv))
    paths, options = argv[:count], argv[count:]
    (arguments,), _ = parse_recipe(options, (ReportArguments,), "report")
    if not paths:
        raise UserError("Give the folders of results first: report out/probes out/analysis --output out/report.")
    results = merge_results([read_results(path) for path in paths])
    if not results.records:
        raise UserError("The results hold no numbers.")
    cards = []
    for word in arguments.model_cards:
        name, _, folder = word.partition("=")
        if name not in results.model_names or not folder:
            raise UserError(f"`model_cards`: {word!r} must be name=DIR with one of {', '.join(results.model_names)}.")
        path = find_card(Path(folder)).parent
        cards.append((path, name, replicate_in(path, name, results)))
    blocks = build_report(results, arguments.baseline, arguments.published)
    title = next(block.text for block in blocks if isinstance(block, Heading))
    markdown, page = write_document(arguments.output, title, blocks)
    write_results(arguments.output, results)
    for path, name, replicate in cards:
        print(update_model_card(path, name, results, Path(arguments.output) / "figures", replicate))
    print(markdown, page, sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
