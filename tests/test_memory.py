"""Memory does not grow: with the corpus, with the length of a line, with the number of updates."""

import os
from pathlib import Path

import pytest

from .memory import peak_of, python

pytestmark = pytest.mark.slow
SENTENCE = "the old sea takes a slow grey ship past two quiet towns where few people ever wait for any news "
MEBIBYTE = 2**20
UPDATES = int(os.environ.get("MEMORY_UPDATES", "800"))
"""The guide's figures are of 2,000."""

PREPARE = """
import sys
import datasets
from predrec.data_collators import PackedRows, tokenize_documents
from predrec.data_collators.corpus import load_corpus
from predrec.data_collators.tokenizers import train_tokenizer
datasets.disable_progress_bars()
path, held_out, batched = sys.argv[1:]
corpus = load_corpus([path], [held_out])
tokenizer = train_tokenizer(corpus.train["text"], vocab_size=200, max_seq_length=128)
rows = PackedRows(tokenize_documents(corpus.train, tokenizer), tokenizer, 128)
tokens = sum(len(rows[number]["input_ids"]) for number in range(0, len(rows), 50))
print(len(rows), tokens)
"""

TRAIN = """
import sys, tempfile
from pathlib import Path
from transformers import TrainerCallback
from tests import training
from tests.memory import anonymous_bytes
import os

class Watch(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step % (args.max_steps // 4) == 0:
            print("held", state.global_step, anonymous_bytes(os.getpid()), flush=True)

with tempfile.TemporaryDirectory() as folder:
    saves = dict(save_strategy="steps", save_steps=500, save_total_limit=1)
    looks = dict(eval_strategy="steps", eval_steps=200, logging_steps=20)
    length = dict(max_steps=int(sys.argv[1]), disable_tqdm=True)
    trainer = training.trainer(Path(folder), callbacks=[Watch()], **length, **looks, **saves)
    trainer.train()
"""


def prepared(tmp_path: Path, name: str, mebibytes: int, one_line: bool) -> tuple[int, int]:
    """Prepares a corpus of this size in a process; returns the most memory it took, and its rows."""
    corpus, held_out = tmp_path / f"{name}.txt", tmp_path / "held-out.txt"
    end = "" if one_line else "\n"
    times = mebibytes * MEBIBYTE // len(SENTENCE)
    with corpus.open("w", encoding="utf-8") as file:
        for _ in range(times // 1000):
            file.write((SENTENCE + end) * 1000)
    held_out.write_text((SENTENCE + "\n") * 20, encoding="utf-8")
    command = python(PREPARE, str(corpus), str(held_out), name)
    peak, done = peak_of(command, env=environment(tmp_path / f"cache-{name}"))
    assert done.returncode == 0, done.stderr[-3000:]
    return peak, int(done.stdout.split()[-2])


def environment(cache: Path) -> dict[str, str]:
    return os.environ | {"HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(cache), "OMP_NUM_THREADS": "1"}


@pytest.mark.parametrize(("one_line", "most"), [(False, 8), (True, 40)], ids=["many documents", "one line"])
def test_ten_times_the_corpus_takes_the_same_memory(tmp_path, one_line, most):
    """Of a line, which is cut into pieces, buffers hold more as it grows, up to a bound: 30 MiB at 20 MiB."""
    small, few = prepared(tmp_path, "small", 1, one_line)
    large, many = prepared(tmp_path, "large", 10, one_line)
    assert many > 9 * few
    print(f"{small / MEBIBYTE:.0f} and {large / MEBIBYTE:.0f} MiB")
    assert large < small + most * MEBIBYTE, f"{small / MEBIBYTE:.0f} and {large / MEBIBYTE:.0f} MiB"


def test_memory_stays_flat_over_many_updates():
    _, done = peak_of(python(TRAIN, str(UPDATES)), env=environment(Path("unused")))
    assert done.returncode == 0, done.stderr[-3000:]
    held = {int(line.split()[1]): int(line.split()[2]) for line in done.stdout.splitlines() if line.startswith("held")}
    print({step: f"{size / MEBIBYTE:.1f} MiB" for step, size in held.items()})
    assert len(held) == 4
    assert held[UPDATES] < held[UPDATES // 4] + 8 * MEBIBYTE, {
        step: f"{size / MEBIBYTE:.0f} MiB" for step, size in held.items()
    }
