"""The heads that are fine-tuned, and a batch for each, for the tests of what holds for all of them.

A row is a text; to the head that chooses, it is a choice, and the batch is one question.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import (
    AutoModelForMultipleChoice,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    PreTrainedModel,
)

from predrec.modeling import (
    PredRecForMultipleChoice,
    PredRecForQuestionAnswering,
    PredRecForSequenceClassification,
    PredRecForTokenClassification,
)

from .tiny import FIRST_ORDINARY_ID, VOCAB_SIZE, encoder_config

LENGTH = 12
REAL = (LENGTH, LENGTH - 5, 3)
"""Real tokens of each row."""
NUM_LABELS = 3

# Float32: the same sums in another order.
CLOSE = {"rtol": 1e-6, "atol": 1e-6}


def random_ids(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(FIRST_ORDINARY_ID, VOCAB_SIZE, shape, generator=torch.Generator().manual_seed(seed))


def padding_mask() -> Tensor:
    """Returns the attention mask of rows with `REAL` tokens."""
    return (torch.arange(LENGTH) < torch.tensor(REAL)[:, None]).long()


@dataclass(frozen=True)
class Head:
    """A head: its classes, the name of its layer, and labels for three rows."""

    model_class: type[PreTrainedModel]
    auto_class: type
    layer: str
    labels: dict[str, Tensor]
    task_type: str
    """What PEFT calls the task; it has no name for multiple choice, which differs by the input's shape only."""
    scores_tokens: bool = False

    def build(self, seed: int = 0, **fields) -> PreTrainedModel:
        """Returns a tiny model without dropout, in evaluation mode."""
        torch.manual_seed(seed)
        return self.model_class(self.config(**fields)).eval()

    def config(self, **fields):
        return encoder_config(**({"num_labels": NUM_LABELS, "classifier_dropout": 0.0} | fields))

    @property
    def weights(self) -> set[str]:
        return {f"{self.layer}.weight", f"{self.layer}.bias"}

    def call(self, model: PreTrainedModel, inputs: dict[str, Tensor | None], labels: bool = False, **options):
        """Runs rows through the model, with the head's labels if wanted."""
        if self.model_class is PredRecForMultipleChoice:
            inputs = {name: None if tensor is None else tensor[None] for name, tensor in inputs.items()}
        return model(**inputs, **(self.labels if labels else {}), **options)

    def scores(self, model: PreTrainedModel, input_ids: Tensor | None = None, attention_mask=None, **inputs) -> Tensor:
        """Returns what the head says, row by row: `(rows, columns)`, or `(rows, sequence_length, columns)`."""
        given = {"input_ids": input_ids, "attention_mask": attention_mask, **inputs}
        output = self.call(model, {name: tensor for name, tensor in given.items() if tensor is not None})
        if self.model_class is PredRecForQuestionAnswering:
            return torch.stack([output.start_logits, output.end_logits], dim=-1)
        return output.logits.T if self.model_class is PredRecForMultipleChoice else output.logits


# Some tokens have no label, among them all padding.
TOKEN_LABELS = (random_ids(3, LENGTH, seed=1) % NUM_LABELS).masked_fill(padding_mask() == 0, -100)
TOKEN_LABELS[:, ::3] = -100

HEADS = {
    "sequence": Head(
        PredRecForSequenceClassification,
        AutoModelForSequenceClassification,
        "classifier",
        {"labels": torch.tensor([2, 0, 1])},
        "SEQ_CLS",
    ),
    "token": Head(
        PredRecForTokenClassification,
        AutoModelForTokenClassification,
        "classifier",
        {"labels": TOKEN_LABELS},
        "TOKEN_CLS",
        scores_tokens=True,
    ),
    "question": Head(
        PredRecForQuestionAnswering,
        AutoModelForQuestionAnswering,
        "qa_outputs",
        {"start_positions": torch.tensor([0, 3, 1]), "end_positions": torch.tensor([4, 5, 1])},
        "QUESTION_ANS",
        scores_tokens=True,
    ),
    "choice": Head(
        PredRecForMultipleChoice,
        AutoModelForMultipleChoice,
        "classifier",
        {"labels": torch.tensor([2])},
        "SEQ_CLS",
    ),
}
