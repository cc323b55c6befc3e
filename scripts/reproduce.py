"""An experiment from its definition to its report: `python scripts/reproduce.py --help`."""

import sys

from predrec.commands.reproduce import main

if __name__ == "__main__":
    sys.exit(main())
