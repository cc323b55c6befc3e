"""GLUE on a frozen or fine-tuned encoder: `python scripts/probe_glue.py --models hybrid=DIR mlm=DIR --tasks sst2`."""

import sys

from predrec.commands.main import main

if __name__ == "__main__":
    sys.exit(main(["probe", *sys.argv[1:]]))
