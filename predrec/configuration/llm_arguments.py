"""Arguments of the commands that train and evaluate language models with LLM-JEPA."""

import json
from dataclasses import dataclass, field
from typing import Any, Literal

from ..errors import UserError
from ..rules import at_least, check_values, proper_share, share_below_one

DATA_RULES = (
    at_least(8, "generated_pairs", "generated_test_pairs", "max_seq_length"),
    at_least(0, "generated_depth"),
    at_least(1, "max_train_samples", "max_eval_samples", "max_test_samples"),
    proper_share("validation_share"),
)

MODEL_RULES = (at_least(1, "lora_rank"), at_least(300, "vocab_size"), share_below_one("lora_dropout"))


@dataclass
class LLMDataArguments:
    """Records, and how they become sequences, labels and views. Ranges are checked before anything is read."""

    train_file: list[str] = field(
        default_factory=list,
        metadata={"help": "jsonl with `messages` or `text` and `code`, or groups of paraphrases; also parquet."},
    )
    validation_file: list[str] = field(
        default_factory=list, metadata={"help": "Development records; a share of the training records if absent."}
    )
    test_file: list[str] = field(default_factory=list, metadata={"help": "Records to answer once, at the end."})
    generated_pairs: int = field(
        default=6000, metadata={"help": "Without `train_file`: descriptions with regexes to make and train on."}
    )
    generated_test_pairs: int = field(default=400, metadata={"help": "Generated pairs to test on."})
    generated_depth: int = field(default=2, metadata={"help": "Deepest nesting of operators in them; 3 is hard."})
    group_column: str = field(default="captions", metadata={"help": "Column with lists of paraphrases."})
    cyclic: bool = field(default=False, metadata={"help": "The last paraphrase of a group predicts the first."})
    validation_share: float = field(default=0.1, metadata={"help": "Share of training records held out."})
    split_seed: int = field(default=42, metadata={"help": "Seed that chooses the held-out records."})
    max_train_samples: int | None = field(default=None, metadata={"help": "Use only the first training records."})
    max_eval_samples: int | None = field(default=None, metadata={"help": "Use only the first development records."})
    max_test_samples: int | None = field(default=None, metadata={"help": "Use only the first test records."})
    task: str = field(default="exact_match", metadata={"help": "How answers are judged: synth, gsm8k, spider, ..."})
    max_seq_length: int = field(default=512, metadata={"help": "Longest sequence and longest view, in tokens."})
    chat_format: Literal["auto", "chat", "plain"] = field(
        default="auto", metadata={"help": "The tokenizer's chat template, or text, separator, code."}
    )
    separator: str = field(default="\n", metadata={"help": "Between text and code in the plain format."})
    view_prefix: Literal["template", "role_only"] = field(
        default="template", metadata={"help": "Before a view: what the template begins with, or its role's header."}
    )
    code_role: Literal["auto", "assistant", "user"] = field(default="auto", metadata={"help": "Role of a code view."})
    label_scope: Literal["completion", "all"] = field(default="completion", metadata={"help": "Supervised tokens."})
    direction: Literal["text_to_code", "code_to_text"] = field(
        default="text_to_code", metadata={"help": "Which view predicts which."}
    )
    predictor_position: Literal["append", "prepend"] = field(
        default="append", metadata={"help": "Predictor tokens after or before the content."}
    )
    readout: str = field(
        default="content_end", metadata={"help": "State that is read: content_end, template_end, or a negative index."}
    )
    layout: Literal["auto", "packed", "rows"] = field(
        default="auto", metadata={"help": "Views: many to a row where the model keeps them apart, or one."}
    )
    pad_to_max_length: bool = field(default=False, metadata={"help": "Every row as long as `max_seq_length`."})
    mask_eos_like_pad: bool = field(default=False, metadata={"help": "No label at tokens equal to the padding."})
    double_bos: bool = field(default=False, metadata={"help": "Let the tokenizer add tokens to rendered templates."})

    def __post_init__(self):
        check_values(self, DATA_RULES)
        if self.readout not in ("content_end", "template_end"):
            try:
                index = int(self.readout)
            except ValueError:
                index = 0
            if index >= 0:
                raise ValueError(
                    f"`readout` is {self.readout!r}; it must be content_end, template_end or a number below 0."
                )

    @property
    def readout_rule(self) -> str | int:
        """`readout` as [`RecordEncoder`] takes it."""
        return self.readout if self.readout.endswith("_end") else int(self.readout)


@dataclass
class LLMModelArguments:
    """The language model, its weights and its tokenizer."""

    model_name_or_path: str | None = field(
        default=None, metadata={"help": "Causal language model: Hub id or directory."}
    )
    init: Literal["pretrained", "random"] = field(
        default="pretrained", metadata={"help": "The model's own weights, or random ones from the run's seed."}
    )
    model_type: str | None = field(
        default=None, metadata={"help": "Architecture, where no model is named: llama, ..."}
    )
    model_config: dict[str, Any] | str | None = field(
        default=None, metadata={"help": "Fields of the architecture's configuration, as a mapping or JSON."}
    )
    tokenizer_name: str | None = field(default=None, metadata={"help": "Tokenizer; that of the model if absent."})
    train_tokenizer: bool = field(default=False, metadata={"help": "Train a byte-level tokenizer on the records."})
    vocab_size: int = field(default=1024, metadata={"help": "Tokens of a trained tokenizer at most."})
    attn_implementation: str | None = field(default=None, metadata={"help": "eager, sdpa, flash_attention_2, ..."})
    param_dtype: Literal["float32", "bfloat16"] = field(
        default="float32", metadata={"help": "Of weights and optimizer: small updates vanish in bfloat16."}
    )
    use_lora: bool = field(default=False, metadata={"help": "Train adapters instead of all weights."})
    lora_rank: int = field(default=16, metadata={"help": "Rank of the adapters."})
    lora_alpha: int | None = field(default=None, metadata={"help": "Scale of the adapters; twice the rank if absent."})
    lora_dropout: float = field(default=0.1, metadata={"help": "Dropout on the input of the adapters."})
    lora_target_modules: list[str] = field(
        default_factory=list, metadata={"help": "Layers with adapters; all projections if absent."}
    )
    trust_remote_code: bool = field(default=False, metadata={"help": "Run model code that comes with a checkpoint."})

    def __post_init__(self):
        if isinstance(self.model_config, str):
            try:
                self.model_config = json.loads(self.model_config)
            except json.JSONDecodeError as error:
                raise ValueError(f"`model_config` is not JSON: {error}") from error
        if self.model_config is not None and not isinstance(self.model_config, dict):
            raise ValueError("`model_config` must be a mapping of the model configuration's fields.")
        if bool(self.model_name_or_path) == bool(self.model_type):
            raise ValueError("Give `model_name_or_path` or `model_type`, one of them.")
        if self.model_type and self.init != "random":
            raise ValueError("`model_type` has no weights: use `init: random`, or name a model.")
        if self.model_config and self.init != "random":
            raise ValueError("`model_config` would not fit trained weights: use `init: random`.")
        if not self.train_tokenizer and not (self.tokenizer_name or self.model_name_or_path):
            raise ValueError("There is no tokenizer: give `tokenizer_name` or `train_tokenizer`.")
        if self.train_tokenizer and (self.tokenizer_name or self.init != "random"):
            raise ValueError("`train_tokenizer` is for `init: random` without `tokenizer_name`.")
        if self.use_lora and self.init == "random":
            raise ValueError("`use_lora` saves adapters alone: the weights of `init: random` would be lost. Drop one.")
        check_values(self, MODEL_RULES)


@dataclass
class LLMRunArguments:
    """Which runs: one, or several to compare, with every method and every seed."""

    compare: list[str] = field(
        default_factory=list, metadata={"help": "Methods to train and compare: ntp llm_jepa tube."}
    )
    seeds: list[int] = field(
        default_factory=list, metadata={"help": "Seeds of every method; the paper's are 82 23 37 84 4."}
    )
    generate: bool = field(default=True, metadata={"help": "Generate for the test records, and judge, at the end."})
    max_new_tokens: int | None = field(default=None, metadata={"help": "Longest answer; the task's if absent."})
    generation_batch_size: int = field(default=64, metadata={"help": "Prompts at a time."})
    strip_predictor_tokens: bool = field(
        default=False, metadata={"help": "Save with the original vocabulary; views can then no longer be predicted."}
    )
    reference_compat: bool = field(default=False, metadata={"help": "As the published code did, faults included."})

    def __post_init__(self):
        known = ("ntp", "llm_jepa", "tube")
        for method in self.compare:
            if method not in known:
                raise UserError(f"`compare`: {method!r} is not one of {', '.join(known)}.")
        for name in ("compare", "seeds"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise UserError(f"`{name}` {values} names something twice.")
        check_values(self, [at_least(1, "max_new_tokens", "generation_batch_size")])
