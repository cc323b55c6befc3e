"""The tokenizer: loaded, or trained on the corpus."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow.compute as pc
from datasets import Dataset
from tokenizers import Tokenizer
from tokenizers.trainers import WordPieceTrainer
from transformers import AutoTokenizer, BertTokenizer, PreTrainedTokenizerBase

from ..errors import UserError, reason_of
from .documents import cut
from .tokenizer_files import check_tokenizer_files

MAX_VOCABULARY = 2_000_000
"""Most tokens of a vocabulary: twice the largest one that is published (XLM-V)."""

MAX_TRAINING_CHARACTERS = 10**8
"""Characters that a tokenizer is trained on at most: some fifteen million words."""

TRAINED_AT_ONCE = 2**12
"""Characters of a text that are handed to the trainer at once; it collects some hundred texts before it reads them."""

LONGEST_WORD = 100
"""Characters of a word that WordPiece splits; it takes longer ones for unknown."""

LONG_RUN = re.compile(rf"\S{{{LONGEST_WORD + 1}}}")

MAX_ALPHABET = 1000
"""Most characters a trained vocabulary knows; rarer ones become the unknown token."""


def load_tokenizer(name: str | Path) -> PreTrainedTokenizerBase:
    """Loads a tokenizer and checks that masked-LM training can use it.

    Args:
        name (`str`): Hub id or directory.

    Raises:
        UserError: If it cannot be loaded, or lacks a token that training needs.
    """
    try:
        check_tokenizer_files(name)
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
        tokenizer("A trial.", add_special_tokens=False, split_special_tokens=True)
    except UserError:
        raise
    # Files that are not what they should be make their readers raise anything.
    except Exception as error:
        raise UserError(
            f"`tokenizer_name`: cannot load a tokenizer from {str(name)!r}: {reason_of(error)}. Give a Hub id or a "
            "directory that a tokenizer was saved to."
        ) from error
    return check_tokenizer(tokenizer, str(name))


def check_tokenizer(tokenizer: PreTrainedTokenizerBase, name: str) -> PreTrainedTokenizerBase:
    """Returns the tokenizer if masked-LM training can use it; raises `UserError` otherwise.

    It needs a mask, a padding and a separator token, a mask token that stands for nothing else, ids from 0 on without
    gaps at the end, and at most [`MAX_VOCABULARY`] tokens, not all of them special.
    """
    needed = {
        "mask": tokenizer.mask_token_id,
        "padding": tokenizer.pad_token_id,
        "separator (sep or eos)": separator_id(tokenizer),
    }
    missing = [kind for kind, token_id in needed.items() if token_id is None]
    if missing:
        raise UserError(
            f"`tokenizer_name`: {name!r} has no {' and no '.join(missing)} token; masked-LM training needs a "
            "tokenizer made for it, such as google-bert/bert-base-uncased."
        )
    if needed["mask"] in (needed["padding"], needed["separator (sep or eos)"], tokenizer.unk_token_id):
        raise UserError(
            f"`tokenizer_name`: the mask token of {name!r}, {tokenizer.mask_token!r}, is its padding, separator or "
            "unknown token, too: give it one of its own."
        )
    size, highest = len(tokenizer), max(tokenizer.get_vocab().values())
    if size > MAX_VOCABULARY:
        raise UserError(f"`tokenizer_name`: {name!r} has {size:,} tokens; at most {MAX_VOCABULARY:,} can be trained.")
    if highest >= size:
        raise UserError(
            f"`tokenizer_name`: {name!r} has {size:,} tokens, but numbers them up to {highest:,}: an encoder would "
            "need a vector for every number. Number them without gaps."
        )
    if size <= len(set(tokenizer.all_special_ids)):
        raise UserError(f"`tokenizer_name`: {name!r} has special tokens only, so there is nothing to predict.")
    return tokenizer


def separator_id(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Returns the id that ends a document."""
    return tokenizer.sep_token_id if tokenizer.sep_token_id is not None else tokenizer.eos_token_id


def start_id(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Returns the id that begins a row, or `None` if the tokenizer has no such token."""
    return tokenizer.cls_token_id if tokenizer.cls_token_id is not None else tokenizer.bos_token_id


def sample_documents(dataset: Dataset, characters: int = MAX_TRAINING_CHARACTERS) -> Sequence[str]:
    """Returns the documents to train a tokenizer on: all of them, or evenly spread ones of a larger corpus.

    Args:
        dataset (`Dataset`): Documents in a column `text`.
        characters (`int`): How many characters, about, are enough.
    """
    sizes = (pc.sum(pc.binary_length(chunk)).as_py() or 0 for chunk in dataset.data.column("text").chunks)
    step = -(-sum(sizes) // characters)
    return (dataset if step <= 1 else dataset.select(range(0, len(dataset), step)))["text"]


def train_tokenizer(texts: Sequence[str], vocab_size: int, max_seq_length: int) -> PreTrainedTokenizerBase:
    """Trains an uncased WordPiece tokenizer with BERT's special tokens; the same corpus gives the same tokenizer.

    Words of more than 100 characters teach it nothing, since WordPiece takes them for unknown ones.

    Args:
        texts (`Sequence[str]`): The corpus, a document at a time; it is read twice, and no further than
            [`MAX_TRAINING_CHARACTERS`] reach.
        vocab_size (`int`): Most tokens in the vocabulary; a small corpus may give fewer.
        max_seq_length (`int`): Length that the tokenizer truncates to by default.
    """
    blank = BertTokenizer()
    backend = blank.backend_tokenizer
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    counts = Counter()
    for text in _readable(texts):
        counts.update(backend.normalizer.normalize_str(text))
    alphabet = sorted(sorted(c for c in counts if not c.isspace()), key=counts.get, reverse=True)[:MAX_ALPHABET]
    # The trainer numbers continuation pieces in the order of a hash map, which differs between runs and decides ties.
    # Handing them over first fixes their numbers.
    trainer = WordPieceTrainer(
        vocab_size=max(vocab_size, len(special) + 2 * len(alphabet)),
        special_tokens=special + [f"##{character}" for character in sorted(alphabet)],
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        show_progress=False,
    )
    backend.train_from_iterator(_readable(texts), trainer=trainer, length=len(texts))
    return BertTokenizer(vocab=backend.get_vocab(with_added_tokens=True), model_max_length=max_seq_length)


def _readable(texts: Sequence[str]) -> Iterator[str]:
    """Gives documents up to the limit, without words that WordPiece takes for unknown, however long those are."""
    # One of its own: the backend that is being trained is locked, and would wait for itself.
    backend, left = BertTokenizer().backend_tokenizer, MAX_TRAINING_CHARACTERS
    for text in texts:
        for piece in cut(text, TRAINED_AT_ONCE):
            if left <= 0:
                return
            left -= len(piece)
            yield _without_long_words(piece, backend) if LONG_RUN.search(piece) else piece


def _without_long_words(text: str, backend: Tokenizer) -> str:
    words = backend.pre_tokenizer.pre_tokenize_str(backend.normalizer.normalize_str(text))
    return " ".join(word for word, _ in words if len(word) <= LONGEST_WORD)
