"""Pre-train a text encoder: `accelerate launch scripts/pretrain.py recipes/quickstart.yaml`."""

import sys

from predrec.commands.main import main

if __name__ == "__main__":
    sys.exit(main(["pretrain", *sys.argv[1:]]))
