"""What is measured: sizes, and arms as changes to the paper's recipe."""

from dataclasses import dataclass
from typing import Any

from transformers import BertConfig

from ..modeling import PredRecConfig, PredRecPreTrainingConfig

VOCAB_SIZE = 30522

SIZES: dict[str, dict[str, int]] = {
    "tiny": {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 512},
    "paper": {"hidden_size": 512, "num_hidden_layers": 6, "num_attention_heads": 8, "intermediate_size": 2048},
    "base": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072},
}

_NARROW = {"predictor_hidden_size": 0.5, "predictor_num_attention_heads": 0.5}
"""Shares of the encoder's."""

ARMS: dict[str, dict[str, Any]] = {
    "mlm": {"objective": "mlm"},
    "hybrid": {},
    "context_view": {"mlm_view": "context"},
    "narrow_predictor": {**_NARROW, "predictor_num_hidden_layers": 0.5},
    "cross_predictor": {"predictor_attention": "cross"},
    "jepa_dropout": {"jepa_dropout": 0.5},
    "two_mask_sets": {"num_mask_sets": 2},
    "cheapest": {
        **_NARROW,
        "predictor_num_hidden_layers": 0.5,
        "predictor_attention": "cross",
        "mlm_view": "context",
    },
    "crops": {
        "jepa_view": "crops",
        "target_layers": 0,
        "whiten_targets": True,
        "num_mask_sets": 16,
        "crop_length": (8, 20),
    },
    "float32_target": {"float32_target": True},
    "bert": {"objective": "mlm"},
    "plain_mlm": {"objective": "mlm"},
    "plain": {},
}
"""Arms. `bert` is `BertForMaskedLM` through the stock `Trainer`; `plain` is [`plain_loss`]; numbers below 1 for the
predictor are shares of the encoder's."""

NOT_OF_THE_MODEL = ("num_mask_sets", "crop_length", "float32_target")
"""Fields of an arm that are the collator's, or this package's own."""

BASELINES = ("bert", "plain", "plain_mlm")
QUICK = ("mlm", "hybrid", "cheapest", "bert", "plain")


@dataclass(frozen=True)
class Setting:
    """One thing to time.

    Args:
        arm (`str`): Of `ARMS`.
        size (`str`, defaults to `"paper"`): Of `SIZES`.
        length (`int`, defaults to 512): Tokens in a row, all of them real.
        batch_size (`int`, defaults to 8): Rows in a batch, of all processes together.
        warmup, steps (`int`): Updates before the clock starts, and while it runs.
        num_workers (`int`, defaults to 2): Processes that make batches.
        num_processes (`int`, defaults to 1): Processes that train.
        torch_compile (`bool`, defaults to `False`): Compile the model.
        use_cpu (`bool`, defaults to `False`): Leave an accelerator alone.
    """

    arm: str
    size: str = "paper"
    length: int = 512
    batch_size: int = 8
    warmup: int = 3
    steps: int = 4
    num_workers: int = 2
    num_processes: int = 1
    torch_compile: bool = False
    use_cpu: bool = False

    def encoder_config(self) -> PredRecConfig:
        return PredRecConfig(vocab_size=VOCAB_SIZE, max_position_embeddings=max(512, self.length), **SIZES[self.size])

    def bert_config(self) -> BertConfig:
        """The same size for `BertForMaskedLM`, without dropout."""
        return BertConfig(
            vocab_size=VOCAB_SIZE,
            max_position_embeddings=max(512, self.length),
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            **SIZES[self.size],
        )

    def options(self) -> dict[str, Any]:
        """Returns the arm's fields, with shares of the encoder's sizes turned into numbers."""
        encoder = SIZES[self.size]
        options = {"predictor_num_hidden_layers": 1.0} | ARMS[self.arm]
        for name, value in options.items():
            if isinstance(value, float) and name.startswith("predictor_"):
                options[name] = max(1, int(value * encoder[name.removeprefix("predictor_")]))
        return options

    def pretraining_config(self) -> PredRecPreTrainingConfig:
        """Returns the pre-training model's configuration; what is not the model's is left out."""
        options = {k: v for k, v in self.options().items() if k not in NOT_OF_THE_MODEL}
        return PredRecPreTrainingConfig(encoder_config=self.encoder_config(), **options)
