"""Arguments of `probe_glue`."""

from dataclasses import dataclass, field

from transformers import TrainingArguments

from ..errors import UserError
from ..rules import at_least, check_values, positive, proper_share, share_below_one
from .evaluation_arguments import check_poolings
from .switches import switch_or_text

PROBE_TRAINING = (
    "output_dir",
    "num_train_epochs",
    "learning_rate",
    "weight_decay",
    "per_device_train_batch_size",
    "seed",
    "do_train",
    "do_eval",
)
"""Of `TrainingArguments`, what a probe follows; the others are for fine-tuning and refused with a probe."""

PROBE_ONLY = (
    *("head", "pooling", "dropout", "mlp_size"),
    *("vectors", "whitening_file", "whitening_epsilon"),
    *("encoder_dtype", "num_attention_draws", "use_embedding_cache", "embedding_cache_dir"),
)

VECTORS = ("raw", "whitened")

PROBE_RULES = (
    at_least(1, "seeds", "mlp_size"),
    at_least(0, "whitening_epsilon"),
    share_below_one("dropout"),
    proper_share("validation_share"),
)

TRAINING_RULES = (
    at_least(1, "per_device_train_batch_size"),
    at_least(0, "weight_decay", "seed"),
    positive("learning_rate"),
)


@dataclass
class ProbeArguments:
    """How a task is learned.

    Args:
        mode (`"probe"` or `"finetune"`, defaults to `"probe"`): Frozen encoder, or ordinary fine-tuning.
        head (`"linear"` or `"mlp"`, defaults to `"linear"`): Of a probe.
        pooling (`list[str]`, defaults to `["mean"]`): Of a probe, one or several of mean, max, weighted, attention,
            cls, attention-trained, weighted-trained, embeddings. Untrained attention has another draw for every seed;
            `embeddings` is the mean of the word embeddings, a bag of words that the encoder has not read.
        seeds (`int`, defaults to 5): Seeds, from `seed` on.
        dropout (`float`, defaults to 0.2): Of a probe's last layer.
        mlp_size (`int`, defaults to 256): Width of the hidden layer of `head=mlp`.
        vectors (`list[str]`, defaults to `["raw"]`): What heads of a probe take: `raw` vectors, or `whitened` ones, or
            both. Whitening gives every direction the same variance, by a map that no label has gone into.
        whitening_file (`str`, *optional*): What that map is fitted on: the first 6,000 sentences of 6 to 20 words of a
            file or glob of text, JSON or parquet; the training rows of each task when absent.
        whitening_epsilon (`float`, *optional*): What whitening adds to the variance of every direction, as a share of
            the mean, 0.01 when absent: directions that are quieter stay quiet.
        validation_share (`float`, *optional*): Score on this share of the training rows, and do not read the
            evaluation split: for choices, which would otherwise be tuned on the split that is reported.
    """

    mode: str = field(default="probe", metadata={"help": "Frozen encoder or not.", "choices": ["probe", "finetune"]})
    head: str = field(default="linear", metadata={"help": "Head of a probe.", "choices": ["linear", "mlp"]})
    pooling: list[str] = field(
        default_factory=lambda: ["mean"], metadata={"help": "Poolings: mean max cls attention weighted embeddings."}
    )
    seeds: int = field(default=5, metadata={"help": "Number of seeds, from `seed` on."})
    dropout: float = field(default=0.2, metadata={"help": "Dropout before a probe's last layer."})
    mlp_size: int = field(default=256, metadata={"help": "Width of the hidden layer of an mlp head."})
    vectors: list[str] = field(default_factory=lambda: ["raw"], metadata={"help": "raw, whitened, or both."})
    whitening_file: str | None = field(
        default=None, metadata={"help": "Text to fit whitening on; the training rows if absent."}
    )
    whitening_epsilon: float | None = field(
        default=None, metadata={"help": "What whitening adds to each variance, as a share of the mean (0.01)."}
    )
    validation_share: float | None = field(
        default=None, metadata={"help": "Score on this share of the training rows instead of the evaluation split."}
    )

    def __post_init__(self):
        check_poolings(self.pooling)
        for word in self.vectors:
            if word not in VECTORS:
                raise UserError(f"`vectors` {word!r} is not one of {', '.join(VECTORS)}.")
        trained = [pooling for pooling in self.pooling if pooling.endswith("-trained")]
        if "whitened" in self.vectors and trained:
            raise UserError(f"`pooling {trained[0]}` pools while it learns: drop it, or `--vectors whitened`.")
        for name in ("whitening_file", "whitening_epsilon"):
            if getattr(self, name) is not None and "whitened" not in self.vectors:
                raise UserError(f"`{name}` has no effect without `--vectors whitened`.")
        check_values(self, PROBE_RULES)


@dataclass
class GlueTrainingArguments(TrainingArguments):
    """`TrainingArguments` with the defaults of a probe: learning rate 1e-3, weight decay 0.01, batches of 256.

    Epochs are the task's own unless given. Fine-tuning keeps the defaults of `TrainingArguments`.
    """

    learning_rate: float = field(default=1e-3, metadata={"help": "Of AdamW; 5e-5 when fine-tuning."})
    weight_decay: float = field(default=0.01, metadata={"help": "Of AdamW; 0 when fine-tuning."})
    num_train_epochs: float = field(default=3.0, metadata={"help": "Epochs (a probe has its task's if absent)."})
    per_device_train_batch_size: int = field(default=256, metadata={"help": "Rows per update; 8 when fine-tuning."})

    def __post_init__(self):
        self.resume_from_checkpoint = switch_or_text(self.resume_from_checkpoint)
        super().__post_init__()


FINETUNE_DEFAULTS = {"learning_rate": 5e-5, "weight_decay": 0.0, "per_device_train_batch_size": 8}


def check_mode(mode: str, given: dict, training: GlueTrainingArguments) -> None:
    """Refuses arguments that the mode would ignore, and values that no training can have.

    Raises:
        UserError: Naming them.
    """
    own = set(GlueTrainingArguments.__dataclass_fields__) & set(given)
    if training.resume_from_checkpoint:
        own.add("resume_from_checkpoint")
    ignored = sorted(own - set(PROBE_TRAINING) if mode == "probe" else set(PROBE_ONLY) & set(given))
    if ignored:
        other = "finetune" if mode == "probe" else "probe"
        raise UserError(f"`{ignored[0]}` has no effect with `mode={mode}`: drop it, or pass `--mode {other}`.")
    if "mlp_size" in given and given.get("head") != "mlp":
        raise UserError("`mlp_size` has no effect with a linear head: drop it, or pass `--head mlp`.")
    if training.load_best_model_at_end and "validation_share" not in given:
        raise UserError(
            "`load_best_model_at_end` would choose by the split that is reported: drop it, or choose on rows that are "
            "held out, with `--validation_share`."
        )
    check_values(training, TRAINING_RULES)
