"""From text to batches: corpora, tokenizers, rows of tokens, masks, the collator."""

from .chat_format import find_format
from .chat_tokenizer import train_chat_tokenizer
from .collator import DataCollatorForPreTraining
from .corpus import Corpus, load_corpus
from .llm_jepa import DataCollatorForLLMJepa
from .numbered_rows import NumberedRows
from .rows import DocumentRows, IsolatedRows, PackedRows, TokenRows, tokenize_documents
from .streamed_rows import PlacedCollator, StreamedRows
from .tokenizers import load_tokenizer, sample_documents, train_tokenizer
from .two_views import TwoViews
from .view_examples import RecordEncoder, ViewDataset, encode_records

__all__ = [
    "Corpus",
    "DataCollatorForLLMJepa",
    "DataCollatorForPreTraining",
    "DocumentRows",
    "IsolatedRows",
    "NumberedRows",
    "PackedRows",
    "PlacedCollator",
    "RecordEncoder",
    "StreamedRows",
    "TokenRows",
    "TwoViews",
    "ViewDataset",
    "encode_records",
    "find_format",
    "load_corpus",
    "load_tokenizer",
    "sample_documents",
    "tokenize_documents",
    "train_chat_tokenizer",
    "train_tokenizer",
]
