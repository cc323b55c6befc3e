"""A report of what was measured: `python scripts/report.py --help`."""

import sys

from predrec.commands.main import main

if __name__ == "__main__":
    sys.exit(main(["report", *sys.argv[1:]]))
