"""Evaluate language models: `python scripts/evaluate_llm_jepa.py --models ntp=DIR jepa=DIR --output_dir OUT`."""

import sys

from predrec.commands.main import main

if __name__ == "__main__":
    sys.exit(main(["evaluate-llm", *sys.argv[1:]]))
