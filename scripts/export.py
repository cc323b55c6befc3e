"""A trained encoder in the format of another library: `python scripts/export.py --help`."""

import sys

from predrec.commands.main import main

if __name__ == "__main__":
    sys.exit(main(["export", *sys.argv[1:]]))
