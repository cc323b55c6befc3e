"""A tokenizer for language models trained from random weights: byte-level, case-preserving, with a chat template."""

from collections.abc import Sequence

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

BOS, PAD, END = "<|begin|>", "<|pad|>", "<|end|>"
ROLES = ("system", "user", "assistant")

TEMPLATE = (
    "{{ bos_token }}{% for turn in messages %}<|{{ turn.role }}|>{{ turn.content }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
"""A role, a content, an end; the end is what stops generation."""


def train_chat_tokenizer(texts: Sequence[str], vocab_size: int, max_seq_length: int) -> PreTrainedTokenizerFast:
    """Trains a byte-level BPE tokenizer with a chat template; the same texts give the same tokenizer.

    Digits and punctuation marks stay apart from words, since in code they mean something by themselves.

    Args:
        texts (`Sequence[str]`): Texts and codes of the training data.
        vocab_size (`int`): Most tokens; at least the 256 bytes are there.
        max_seq_length (`int`): Length that the tokenizer gives as the model's.
    """
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Punctuation(), pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)]
    )
    backend.decoder = decoders.ByteLevel()
    special = [PAD, BOS, END, *(f"<|{role}|>" for role in ROLES)]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=max(vocab_size, len(special) + len(alphabet)),
        special_tokens=special,
        initial_alphabet=alphabet,
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=END,
        extra_special_tokens=special[3:],
        chat_template=TEMPLATE,
        model_max_length=max_seq_length,
        clean_up_tokenization_spaces=False,
    )
