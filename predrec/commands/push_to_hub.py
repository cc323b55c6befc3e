"""Publish an encoder: `python scripts/push_to_hub.py out/run --repo_id me/name`."""

import sys
from collections.abc import Sequence
from pathlib import Path

from ..configuration import parse_recipe
from ..configuration.push_arguments import PushArguments
from ..errors import UserError
from ..publish.repository import assemble, tree
from ..publish.upload import check_repo_id, upload
from .entry import command


@command
def main(argv: list[str]) -> int:
    """Runs the command; returns its exit code: 0, or 2 for what the user can mend."""
    return push_to_hub(argv)


def push_to_hub(argv: Sequence[str]) -> int:
    """Assembles the folder, prints it and uploads it; returns the exit code."""
    source = Path(argv[0]) if argv and not argv[0].startswith("-") else None
    (arguments,), _ = parse_recipe(argv[1:] if source else argv, (PushArguments,), "push_to_hub")
    if source is None:
        raise UserError("Give the folder of the run first: push_to_hub out/run --repo_id me/name.")
    if not source.is_dir():
        raise UserError(f"There is no folder {str(source)!r}.")
    check_repo_id(arguments.repo_id)
    folder = Path(arguments.output_dir or f"{source.resolve()}-hub")
    assemble(source, folder, arguments.repo_id, arguments.license)
    print(f"{folder}\n{tree(folder)}", flush=True)
    if arguments.license is None:
        print("The card names no licence: add --license apache-2.0, or another.")
    if arguments.dry_run:
        print("Nothing was uploaded.")
        return 0
    address = upload(folder, arguments.repo_id, arguments.private, arguments.update, arguments.commit_message)
    print(f"published: {address}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
