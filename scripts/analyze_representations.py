"""Geometry of frozen encoders: `python scripts/analyze_representations.py --help`."""

import sys

from predrec.commands.main import main

if __name__ == "__main__":
    sys.exit(main(["analyze", *sys.argv[1:]]))
