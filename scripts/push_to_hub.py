"""Publish an encoder: `python scripts/push_to_hub.py --help`."""

import sys

from predrec.commands.main import main

if __name__ == "__main__":
    sys.exit(main(["push", *sys.argv[1:]]))
