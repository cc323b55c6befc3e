"""A checkpoint of the original author's code as ours: `python scripts/convert_reference_checkpoint.py --help`."""

import sys

from predrec.commands.main import main

if __name__ == "__main__":
    sys.exit(main(["convert", *sys.argv[1:]]))
