"""An experiment from its definition to its report: `python scripts/reproduce.py --help`."""

import sys

from predrec.commands.main import main

if __name__ == "__main__":
    sys.exit(main(["reproduce", *sys.argv[1:]]))
