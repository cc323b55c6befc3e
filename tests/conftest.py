"""What all tests share: no network, one thread, one tiny tokenizer, tiny encoders."""

import gc
import os
import string
import tempfile
from collections.abc import Callable
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
_cache = tempfile.TemporaryDirectory(prefix="predrec-tests-", ignore_cleanup_errors=True)
os.environ["HF_DATASETS_CACHE"] = _cache.name
os.environ["TOKENIZERS_PARALLELISM"] = "false"  # Tests fork after tokenizing.

import datasets  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402
from transformers import AutoModel, BertTokenizer, PreTrainedTokenizerBase  # noqa: E402

from .modeling.tiny import encoder_config  # noqa: E402

torch.set_num_threads(1)  # Tiny tensors: a second thread costs more than it gives.
datasets.disable_progress_bars()

LONGEST = ("test_documentation", "tests/faults", "test_memory", "test_benchmark", "test_compile", "test_formats")
"""Parts of the names of tests that take longest."""

EXHAUSTIVE = (
    "test_benchmark_times_two_processes",
    "test_compile.py::test_compiled_run_has_no_graph_break_and_few_compilations[hybrid-options1-padded]",
    "test_compile.py::test_compiled_run_has_no_graph_break_and_few_compilations[hybrid-options2",
    "test_compile.py::test_compiled_run_has_no_graph_break_and_few_compilations[hybrid-options3-padded]",
    "test_accelerate_launch_of_shards_trains_as_one",
    "test_llm_jepa_distributed.py::test_two_processes_equal_one[{'distance'",
    "test_llm_jepa_distributed.py::test_two_processes_equal_one[{'method'",
    "test_memory_stays_flat_over_many_updates",
    "test_memory.py::test_ten_times_the_corpus_takes_the_same_memory[one line]",
    "test_resume.py::test_run_in_parts_equals_an_uninterrupted_one[documents-1-some]",
    "test_resume.py::test_run_in_parts_equals_an_uninterrupted_one[documents-1-some, persistent]",
    "test_resume.py::test_run_in_parts_equals_an_uninterrupted_one[isolated-1-some",
    "test_resume.py::test_run_in_parts_equals_an_uninterrupted_one[streamed-1-some, persistent]",
    "test_resume.py::test_run_in_parts_equals_an_uninterrupted_one[streamed-2-some]",
    "test_resume.py::test_run_in_parts_equals_an_uninterrupted_one[streamed documents-1",
    "test_several_processes_measure_the_same",
    "test_train_tokenizer_gives_the_same_in_every_process",
)
"""What tests are called that take long and have a sister that is much the same; `make test-all` alone runs them."""

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = ["the", "cat", "dog", "sat", "ran", "on", "a", "mat", "and", "then", "un", "##known", "##s", "##ing", "##ed"]


def tiny_vocabulary() -> dict[str, int]:
    """Returns a vocabulary that spells every lower-case English word: special tokens, words, pieces, characters."""
    characters = string.ascii_lowercase + string.digits + string.punctuation
    tokens = [*SPECIAL, *WORDS, *characters, *(f"##{character}" for character in characters)]
    return {token: number for number, token in enumerate(dict.fromkeys(tokens))}


@pytest.fixture(scope="session")
def tiny_tokenizer() -> BertTokenizer:
    """A WordPiece tokenizer whose special tokens have the ids 0 ([PAD]) to 4 ([MASK])."""
    return BertTokenizer(vocab=tiny_vocabulary(), model_max_length=128)


@pytest.fixture(scope="session")
def tiny_encoder(tiny_tokenizer) -> Callable[..., Path]:
    """Writes a random encoder and a tokenizer: `tiny_encoder(path, model_type="predrec", **config)` gives `path`."""

    def write(
        path: str | Path,
        model_type: str = "predrec",
        *,
        seed: int = 0,
        tokenizer: PreTrainedTokenizerBase = tiny_tokenizer,
        **config,
    ) -> Path:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            AutoModel.from_config(encoder_config(model_type, **config)).save_pretrained(path)
        tokenizer.save_pretrained(path)
        return Path(path)

    return write


def pytest_collection_modifyitems(items: list[pytest.Item]):
    """The longest tests go first, so that at the end no process waits for another that has just begun one."""
    items.sort(key=lambda item: not any(name in item.nodeid for name in LONGEST))
    for item in items:
        if any(name in item.nodeid for name in EXHAUSTIVE):
            item.add_marker("exhaustive")


def pytest_collection_finish():
    """Leaves what is imported by now out of garbage collection: every Trainer collects, half a second each time."""
    gc.freeze()


def pytest_unconfigure():
    gc.unfreeze()  # Extension modules count what nobody has collected, and complain.
