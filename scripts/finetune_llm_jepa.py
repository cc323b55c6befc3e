"""Train language models with LLM-JEPA: `python scripts/finetune_llm_jepa.py recipes/llm-jepa-quickstart.yaml`."""

import sys

from predrec.commands.main import main

if __name__ == "__main__":
    sys.exit(main(["finetune-llm", *sys.argv[1:]]))
