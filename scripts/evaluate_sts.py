"""Sentence similarity of frozen encoders: `python scripts/evaluate_sts.py --help`."""

import sys

from predrec.commands.main import main

if __name__ == "__main__":
    sys.exit(main(["sts", *sys.argv[1:]]))
