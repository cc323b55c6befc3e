"""The `predrec` console command: `predrec pretrain ...` is `python scripts/pretrain.py ...`."""

import importlib
import sys
from collections.abc import Sequence

from ..configuration.help_screens import SCREENS
from ..configuration.suggestions import did_you_mean

COMMANDS = {screen.name: module for module, screen in SCREENS.items()}
"""Module of every sub-command."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a sub-command; returns its exit code."""
    argv = sys.argv[1:] if argv is None else list(argv)
    name = argv[0] if argv else "--help"
    if name in COMMANDS:
        # Imported only now: the commands that evaluate need the extra `eval`.
        try:
            command = importlib.import_module(f"predrec.commands.{COMMANDS[name]}")
        except ModuleNotFoundError as error:
            if str(error.name).startswith("predrec"):
                raise
            print(f"error: `{name}` needs {error.name}: pip install 'predrec[eval]'.", file=sys.stderr)
            return 2
        return command.main(argv[1:])
    if name not in ("-h", "--help"):
        print(f"error: there is no command {name!r}{did_you_mean(name, list(COMMANDS))}", file=sys.stderr)
        return 2
    width = max(map(len, COMMANDS)) + 2
    print("usage: predrec COMMAND [--help] [--argument value ...]\n")
    for screen in SCREENS.values():
        print(f"  {screen.name.ljust(width)}{screen.summary}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
