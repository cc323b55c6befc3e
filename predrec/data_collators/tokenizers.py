"""The tokenizer: loaded, or trained on the corpus."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tokenizers.trainers import WordPieceTrainer
from transformers import AutoTokenizer, BertTokenizer, PreTrainedTokenizerBase

from ..errors import UserError

MAX_VOCABULARY = 2_000_000
"""Most tokens of a vocabulary: twice the largest one that is published (XLM-V)."""

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
        tokenizer = AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"`tokenizer_name`: cannot load a tokenizer from {str(name)!r}: {error}") from error
    return check_tokenizer(tokenizer, str(name))


def check_tokenizer(tokenizer: PreTrainedTokenizerBase, name: str) -> PreTrainedTokenizerBase:
    """Returns the tokenizer if it has a mask, a padding and a separator token; raises `UserError` otherwise."""
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
    return tokenizer


def separator_id(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Returns the id that ends a document."""
    return tokenizer.sep_token_id if tokenizer.sep_token_id is not None else tokenizer.eos_token_id


def start_id(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Returns the id that begins a row, or `None` if the tokenizer has no such token."""
    return tokenizer.cls_token_id if tokenizer.cls_token_id is not None else tokenizer.bos_token_id


def train_tokenizer(texts: Sequence[str], vocab_size: int, max_seq_length: int) -> PreTrainedTokenizerBase:
    """Trains an uncased WordPiece tokenizer with BERT's special tokens; the same corpus gives the same tokenizer.

    Args:
        texts (`Sequence[str]`): The corpus, a document at a time; it is read twice.
        vocab_size (`int`): Most tokens in the vocabulary; a small corpus may give fewer.
        max_seq_length (`int`): Length that the tokenizer truncates to by default.
    """
    blank = BertTokenizer()
    backend = blank.backend_tokenizer
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    counts = Counter()
    for text in texts:
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
    backend.train_from_iterator(texts, trainer=trainer, length=len(texts))
    return BertTokenizer(vocab=backend.get_vocab(with_added_tokens=True), model_max_length=max_seq_length)
