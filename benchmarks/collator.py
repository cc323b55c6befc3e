"""How fast the collator makes batches, on one core: `python benchmarks/collator.py`."""

import argparse
import time

import numpy as np
import torch

from predrec.data_collators import DataCollatorForPreTraining, train_tokenizer
from predrec.data_collators.python_docs import python_documents


def tokens_per_second(collator: DataCollatorForPreTraining, rows: list[np.ndarray], repeats: int) -> float:
    """Returns the best of several repeats, in tokens per second."""
    features = [{"input_ids": row, "example_ids": index, "epoch": 0} for index, row in enumerate(rows)]
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        collator(features)
        seconds.append(time.perf_counter() - start)
    return sum(map(len, rows)) / min(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=30)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    tokenizer = train_tokenizer(python_documents()[:200], vocab_size=8192, max_seq_length=512)
    generator = np.random.default_rng(0)
    print("| row length | batch | masking unit | million tokens/s |\n|---|---|---|---|")
    for length in (128, 512):
        rows = [generator.integers(5, len(tokenizer), length) for _ in range(64)]
        for unit in ("token", "word", "span"):
            rate = tokens_per_second(DataCollatorForPreTraining(tokenizer, masking_unit=unit), rows, repeats)
            print(f"| {length} | 64 | {unit} | {rate / 1e6:.1f} |")


if __name__ == "__main__":
    main()
