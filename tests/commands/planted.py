"""Tiny tasks with planted answers: a word, a copy or shared words decide. Written as a data directory of parquet."""

from pathlib import Path

import numpy as np
from datasets import Dataset

NEUTRAL = ("the", "sat", "ran", "on", "a", "and", "then")
DECIDING = ("cat", "dog", "mat")
NUM_TRAIN, NUM_EVAL = 60, 30
SPLITS = {"train": NUM_TRAIN, "validation": NUM_EVAL}
MNLI_SPLITS = {"train": NUM_TRAIN, "validation_matched": NUM_EVAL, "validation_mismatched": NUM_EVAL}


def filler(generator: np.random.Generator) -> list[str]:
    """Returns a few words that decide nothing."""
    return list(generator.choice(NEUTRAL, size=generator.integers(1, 4)))


def with_word(generator: np.random.Generator, word: str) -> str:
    """Returns a text that has the word somewhere."""
    words = filler(generator)
    words.insert(generator.integers(len(words) + 1), word)
    return " ".join(words)


def single_texts(generator: np.random.Generator, count: int) -> dict[str, list]:
    """The text with a cat has label 0, the one with a dog label 1."""
    labels = generator.permutation(np.arange(count) % 2).tolist()
    return {"sentence": [with_word(generator, DECIDING[label]) for label in labels], "label": labels}


def copies(generator: np.random.Generator, count: int) -> dict[str, list]:
    """A pair of one text twice has label 1, one with another animal label 0."""
    labels = generator.permutation(np.arange(count) % 2).tolist()
    first = [with_word(generator, "cat") for _ in labels]
    second = [text if label else with_word(generator, "dog") for text, label in zip(first, labels, strict=True)]
    return {"sentence1": first, "sentence2": second, "label": labels}


def inferences(generator: np.random.Generator, count: int) -> dict[str, list]:
    """The hypothesis decides alone."""
    labels = generator.permutation(np.arange(count) % 3).tolist()
    hypotheses = [with_word(generator, DECIDING[label]) for label in labels]
    return {"premise": [" ".join(filler(generator)) for _ in labels], "hypothesis": hypotheses, "label": labels}


def similarities(generator: np.random.Generator, count: int, column: str = "label") -> dict[str, list]:
    """The score is the number of shared words, of five."""
    words = (*NEUTRAL, *DECIDING)
    rows: dict[str, list] = {"sentence1": [], "sentence2": [], column: []}
    for shared in generator.permutation(np.arange(count) % 6):
        drawn = list(generator.permutation(words))
        rows["sentence1"].append(" ".join(drawn[:5]))
        rows["sentence2"].append(" ".join(generator.permutation(drawn[:shared] + drawn[5 : 10 - shared])))
        rows[column].append(float(shared))
    return rows


TASKS = {
    "sst2": (single_texts, SPLITS),
    "mrpc": (copies, SPLITS),
    "mnli": (inferences, MNLI_SPLITS),
    "cola": (single_texts, SPLITS),
    "stsb": (similarities, SPLITS),
}


def write_split(data_dir: str | Path, task: str, split: str, columns: dict[str, list]) -> None:
    """Writes one split of a task."""
    folder = Path(data_dir) / task
    folder.mkdir(parents=True, exist_ok=True)
    Dataset.from_dict(columns).to_parquet(folder / f"{split}.parquet")


def write_task(data_dir: str | Path, task: str, seed: int = 0) -> None:
    """Writes all splits of a planted task."""
    make, splits = TASKS[task]
    generator = np.random.default_rng([seed, *task.encode()])
    for split, count in splits.items():
        write_split(data_dir, task, split, make(generator, count))
