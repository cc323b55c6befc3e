"""Evaluate language models: `python scripts/evaluate_llm_jepa.py --models ntp=DIR jepa=DIR --output_dir OUT`."""

import sys

from predrec.commands.evaluate_llm_jepa import main

if __name__ == "__main__":
    sys.exit(main())
