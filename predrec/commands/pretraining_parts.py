"""What a pre-training run is made of, from its arguments: corpus, tokenizer, rows, model and collator."""

from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from ..configuration import DataArguments, ModelArguments
from ..data_collators import (
    Corpus,
    DataCollatorForPreTraining,
    DocumentRows,
    IsolatedRows,
    PackedRows,
    StreamedRows,
    TokenRows,
    load_corpus,
    load_tokenizer,
    sample_documents,
    tokenize_documents,
    train_tokenizer,
)
from ..data_collators.masked_tokens import special_token_table
from ..errors import UserError
from ..modeling import PredRecForPreTraining
from ..modeling.encoders import ENCODERS, position_limit
from ..trainers import PredRecTrainingArguments
from ..trainers.model_size import check_memory
from ..trainers.trained_weights import load_masked_lm

DEFAULT_VOCAB_SIZE = 30522


def load_data(data: DataArguments, seed: int) -> Corpus:
    """Loads the corpus that the arguments name."""
    return load_corpus(
        train_file=data.train_file,
        validation_file=data.validation_file,
        dataset_name=data.dataset_name,
        dataset_config_name=data.dataset_config_name,
        text_column=data.text_column,
        sample_by=data.sample_by,
        streaming=data.streaming,
        validation_share=data.validation_share,
        max_validation_documents=data.max_validation_documents,
        seed=seed,
        max_characters=data.max_characters,
    )


def prepare_tokenizer(
    data: DataArguments, model: ModelArguments, corpus: Corpus, checkpoint: Path | None
) -> PreTrainedTokenizerBase:
    """Loads the tokenizer, that of the checkpoint when resuming, or trains it on the corpus."""
    if checkpoint is not None:
        return load_tokenizer(checkpoint)
    if data.train_tokenizer:
        documents = sample_documents(corpus.train)
        return train_tokenizer(documents, data.vocab_size or DEFAULT_VOCAB_SIZE, data.max_seq_length)
    return load_tokenizer(data.tokenizer_name or model.init_from)


def prepare_rows(
    data: DataArguments, corpus: Corpus, tokenizer: PreTrainedTokenizerBase
) -> tuple[TokenRows | StreamedRows, TokenRows]:
    """Tokenizes the corpus and cuts it into rows to train and to evaluate on."""
    kind, workers = (PackedRows if data.packing else DocumentRows), data.preprocessing_num_workers
    if data.isolate_documents:
        kind = IsolatedRows
    validation = kind(tokenize_documents(corpus.validation, tokenizer, workers), tokenizer, data.max_seq_length)
    if data.streaming:
        return StreamedRows(corpus.train, tokenizer, data.max_seq_length, data.packing), validation
    return kind(tokenize_documents(corpus.train, tokenizer, workers), tokenizer, data.max_seq_length), validation


def new_encoder_config(
    arguments: ModelArguments, max_seq_length: int, tokenizer: PreTrainedTokenizerBase
) -> PreTrainedConfig:
    """Returns the configuration of a new encoder that reads what the tokenizer makes, rows of this length at least."""
    special = {name: getattr(tokenizer, name) for name in ("pad_token_id", "cls_token_id", "sep_token_id")}
    stock = arguments.new_encoder_config(vocab_size=128)
    for name, stand_in in (("bos_token_id", "cls_token_id"), ("eos_token_id", "sep_token_id")):
        if getattr(stock, name, None) is not None:
            special[name] = getattr(tokenizer, name) if getattr(tokenizer, name) is not None else special[stand_in]
    spec = ENCODERS.get(arguments.model_type)
    # Architectures that are not in the table may count positions as RoBERTa does, MPNet from a padding id of 1.
    padding = tokenizer.pad_token_id if spec is not None else max(1, tokenizer.pad_token_id)
    offset = padding + 1 if spec is None or spec.padded_positions else 0
    longest = max(getattr(stock, "max_position_embeddings", 0), max_seq_length + offset)
    multiple = arguments.pad_vocab_to_multiple_of
    vocab_size = -(-len(tokenizer) // multiple) * multiple
    return arguments.new_encoder_config(vocab_size=vocab_size, max_position_embeddings=longest, **special)


def build_model(
    arguments: ModelArguments,
    data: DataArguments,
    tokenizer: PreTrainedTokenizerBase,
    encoder_config: PreTrainedConfig | None = None,
) -> PredRecForPreTraining:
    """Builds the pre-training model around a new encoder or, given the configuration of `init_from`, a trained one."""
    if encoder_config is None:
        encoder_config = new_encoder_config(arguments, data.max_seq_length, tokenizer)
    _check_fit(encoder_config, tokenizer, arguments)
    config = arguments.pretraining_config(encoder_config)
    config.padding_is_text = data.padding_is_text
    check_memory(config)
    model = PredRecForPreTraining(config)
    longest = position_limit(model.encoder)
    if data.max_seq_length > longest:
        raise UserError(f"`max_seq_length` is {data.max_seq_length}, but the encoder takes at most {longest} tokens.")
    # What comes out cuts texts to what it can read, whatever the tokenizer was made for.
    tokenizer.model_max_length = min(tokenizer.model_max_length, longest)
    if arguments.init_from:
        model.load_masked_lm(load_masked_lm(arguments.init_from, arguments.loaded_encoder_config()))
    return model


def _check_fit(config: Any, tokenizer: PreTrainedTokenizerBase, arguments: ModelArguments) -> None:
    source = f"`init_from` {arguments.init_from!r}" if arguments.init_from else "`encoder_config`"
    if len(tokenizer) > config.vocab_size:
        raise UserError(
            f"The tokenizer has {len(tokenizer)} tokens but the encoder of {source} has {config.vocab_size}: "
            "vocabulary and tokenizer disagree. Use the tokenizer that belongs to the encoder."
        )
    if arguments.init_from:
        for name in ("pad_token_id", "cls_token_id", "sep_token_id", "mask_token_id"):
            of_config, of_tokenizer = getattr(config, name, None), getattr(tokenizer, name)
            if of_config is not None and of_config != of_tokenizer:
                raise UserError(
                    f"`tokenizer_name`: the tokenizer's `{name}` is {of_tokenizer}, but that of {source} is "
                    f"{of_config}: use the tokenizer that belongs to the encoder."
                )


def build_collator(
    data: DataArguments,
    model: ModelArguments,
    training: PredRecTrainingArguments,
    tokenizer: PreTrainedTokenizerBase,
) -> DataCollatorForPreTraining:
    """Builds the collator for training batches; the masks have the data seed if there is one."""
    try:
        return DataCollatorForPreTraining(
            tokenizer,
            seed=training.seed if training.data_seed is None else training.data_seed,
            mlm_probability=data.mlm_probability,
            mask_replace_prob=data.mask_replace_prob,
            random_replace_prob=data.random_replace_prob,
            masking_unit=data.masking_unit,
            context_scale=tuple(data.context_scale),
            target_scale=tuple(data.target_scale),
            num_target_blocks=0 if model.objective == "mlm" else data.num_target_blocks,
            num_mask_sets=data.num_mask_sets,
            min_context_tokens=data.min_context_tokens,
            context_excludes_targets=data.context_excludes_targets,
            crop_length=tuple(data.crop_length) if model.jepa_view == "crops" else None,
            padding_is_text=data.padding_is_text,
            label_view=model.mlm_view,
            max_seq_length=data.max_seq_length,
        )
    except ValueError as error:
        raise UserError(str(error)) from error


def unigram_entropy(rows: TokenRows, tokenizer: PreTrainedTokenizerBase, most: int = 20_000) -> float:
    """Returns the entropy, in nats, of the distribution of ordinary tokens: what knowing only frequencies costs."""
    sample = np.linspace(0, len(rows) - 1, min(len(rows), most)).astype(int)
    counts = sum(np.bincount(rows.row(int(index)), minlength=len(tokenizer)) for index in sample)
    counts = counts[~special_token_table(tokenizer)]
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum())


def describe(
    corpus: Corpus, train_rows: TokenRows | StreamedRows, eval_rows: TokenRows, tokenizer: PreTrainedTokenizerBase
) -> dict[str, str]:
    """Says what is trained on, for the console and the model card."""
    size = "streamed"
    if isinstance(train_rows, TokenRows):
        size = f"{len(train_rows):,} rows of at most {train_rows.max_seq_length} tokens"
    return {
        "data": f"{corpus.description}; {size}; {len(eval_rows):,} rows held out",
        "tokenizer": f"{len(tokenizer):,} tokens",
        "unigram entropy": f"{unigram_entropy(eval_rows, tokenizer):.3f} nats on held-out text "
        "(a masked-LM loss below this has learned more than word frequencies)",
    }
