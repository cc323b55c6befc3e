"""Geometry of frozen encoders: `python scripts/analyze_representations.py --help`."""

import sys

from predrec.commands.analyze_representations import main

if __name__ == "__main__":
    sys.exit(main())
