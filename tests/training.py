"""Tiny corpora, models and trainers for tests that train."""

import re
from functools import cache
from pathlib import Path

import numpy as np
from datasets import Dataset
from transformers import Trainer

from predrec.data_collators import (
    DataCollatorForPreTraining,
    DocumentRows,
    IsolatedRows,
    PackedRows,
    StreamedRows,
    tokenize_documents,
)
from predrec.data_collators.tokenizers import train_tokenizer
from predrec.modeling import PredRecConfig, PredRecForPreTraining, PredRecPreTrainingConfig
from predrec.trainers import PredRecTrainer, PredRecTrainingArguments

SENTENCE = "the old sea takes a slow grey ship past two quiet towns where few people ever wait for any news"
WORDS = re.split(" ", SENTENCE)
LENGTH = 32


@cache
def corpus(num_documents: int = 120) -> tuple[str, ...]:
    """Documents of random words, some short and some long."""
    generator = np.random.default_rng(0)
    return tuple(" ".join(generator.choice(WORDS, size=generator.integers(5, 60))) for _ in range(num_documents))


@cache
def tokenizer():
    return train_tokenizer(list(corpus()), vocab_size=100, max_seq_length=LENGTH)


@cache
def _tokenized(first: int, last: int) -> Dataset:
    return tokenize_documents(Dataset.from_dict({"text": list(corpus()[first:last])}), tokenizer())


def rows(first: int, last: int, packing: bool = True):
    return (PackedRows if packing else DocumentRows)(_tokenized(first, last), tokenizer(), LENGTH)


def train_rows(kind: str):
    """The rows that are trained on: packed, documents, isolated, or streamed with or without packing."""
    if kind.startswith("streamed"):
        documents = Dataset.from_dict({"text": list(corpus()[:100])}).to_iterable_dataset(num_shards=4)
        return StreamedRows(documents, tokenizer(), LENGTH, packing=kind == "streamed")
    kinds = {"packed": PackedRows, "documents": DocumentRows, "isolated": IsolatedRows}
    return kinds[kind](_tokenized(0, 100), tokenizer(), LENGTH)


def encoder_config(**overrides) -> PredRecConfig:
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    return PredRecConfig(**{"vocab_size": len(tokenizer()), "position_embedding_type": "rotary", **sizes, **overrides})


CROPS = {"jepa_view": "crops", "target_layers": 0, "whiten_targets": True, "center_decay": 0.99}
"""Crops that predict the whitened mean of their word embeddings."""


def model(objective: str = "hybrid", encoder=None, **overrides) -> PredRecForPreTraining:
    options = {"predictor_num_hidden_layers": 1} | overrides
    config = PredRecPreTrainingConfig(encoder_config=encoder or encoder_config(), objective=objective, **options)
    return PredRecForPreTraining(config)


def collator(objective: str = "hybrid", **overrides) -> DataCollatorForPreTraining:
    blocks = 0 if objective == "mlm" else 2
    return DataCollatorForPreTraining(
        tokenizer(), num_target_blocks=blocks, min_context_tokens=4, max_seq_length=LENGTH, **overrides
    )


def training_arguments(output_dir: Path | str, **overrides) -> PredRecTrainingArguments:
    defaults = {
        "per_device_train_batch_size": 8,
        "per_device_eval_batch_size": 8,
        "max_steps": 6,
        "learning_rate": 1e-3,
        "logging_steps": 1,
        "eval_strategy": "no",
        "save_strategy": "no",
        "monitor_examples": 8,
        "disable_tqdm": True,
    }
    return PredRecTrainingArguments(output_dir=str(output_dir), **{**defaults, **overrides})


def trainer(
    output_dir: Path | str, objective: str = "hybrid", packing: bool = True, kind: str | None = None, **overrides
) -> PredRecTrainer:
    """A trainer over the tiny corpus. Overrides that no training argument has go to the model's configuration."""
    kind = kind or ("packed" if packing else "documents")
    known = PredRecTrainingArguments.__dataclass_fields__
    arguments = training_arguments(output_dir, **{k: v for k, v in overrides.items() if k in known})
    from transformers import set_seed

    set_seed(arguments.seed)
    options = {k: v for k, v in overrides.items() if k not in known and k not in ("callbacks", "recipe")}
    masks = {"label_view": options.get("mlm_view", "full")}
    if options.get("jepa_view") == "crops":
        masks |= {"crop_length": (3, 7), "num_mask_sets": 3}
    return PredRecTrainer(
        model=model(objective, **options),
        args=arguments,
        data_collator=collator(objective, **masks),
        train_dataset=train_rows(kind),
        eval_dataset=rows(100, 120, packing),
        processing_class=tokenizer(),
        callbacks=overrides.get("callbacks"),
        recipe=overrides.get("recipe"),
    )


def logged(trainer: Trainer, name: str) -> list[float]:
    """Returns what was logged by a name, in its order."""
    return [entry[name] for entry in trainer.state.log_history if name in entry]
