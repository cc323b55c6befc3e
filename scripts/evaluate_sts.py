"""Sentence similarity of frozen encoders: `python scripts/evaluate_sts.py --help`."""

import sys

from predrec.commands.evaluate_sts import main

if __name__ == "__main__":
    sys.exit(main())
