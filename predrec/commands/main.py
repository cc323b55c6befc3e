"""The `predrec` console command: `predrec pretrain ...` is `python scripts/pretrain.py ...`."""

import importlib
import sys
from collections.abc import Sequence

COMMANDS = ("pretrain", "probe_glue", "analyze_representations", "evaluate_sts", "report", "benchmark")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a sub-command; returns its exit code."""
    argv = sys.argv[1:] if argv is None else list(argv)
    name = argv[0] if argv else "--help"
    if name in COMMANDS:
        # Imported only now: the commands that evaluate need the extra `eval`.
        try:
            command = importlib.import_module(f"predrec.commands.{name}")
        except ModuleNotFoundError as error:
            if str(error.name).startswith("predrec"):
                raise
            print(f"error: `{name}` needs {error.name}: pip install 'predrec[eval]'.", file=sys.stderr)
            return 2
        return command.main(argv[1:])
    print(f"usage: predrec {{{','.join(COMMANDS)}}} [recipe.yaml] [--argument value ...]")
    if name in ("-h", "--help"):
        return 0
    print(f"error: there is no command {name!r}.", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
