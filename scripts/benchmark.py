"""How fast pre-training is here, beside what a user would otherwise run: `python scripts/benchmark.py --help`."""

import sys

from predrec.commands.benchmark import main

if __name__ == "__main__":
    sys.exit(main())
