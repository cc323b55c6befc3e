"""How fast pre-training is here, beside what a user would otherwise run: `python scripts/benchmark.py --help`."""

import sys

from predrec.commands.main import main

if __name__ == "__main__":
    sys.exit(main(["benchmark", *sys.argv[1:]]))
