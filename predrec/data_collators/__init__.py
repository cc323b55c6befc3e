"""From text to batches: corpora, tokenizers, rows of tokens, masks, the collator."""

from .collator import DataCollatorForPreTraining
from .corpus import Corpus, load_corpus
from .rows import DocumentRows, IsolatedRows, PackedRows, TokenRows, tokenize_documents
from .streamed_rows import PlacedCollator, StreamedRows
from .tokenizers import load_tokenizer, sample_documents, train_tokenizer

__all__ = [
    "Corpus",
    "DataCollatorForPreTraining",
    "DocumentRows",
    "IsolatedRows",
    "PackedRows",
    "PlacedCollator",
    "StreamedRows",
    "TokenRows",
    "load_corpus",
    "load_tokenizer",
    "sample_documents",
    "tokenize_documents",
    "train_tokenizer",
]
