"""The classifier of texts: its columns and the losses of its three kinds of labels; the rest is in `test_heads.py`."""

import pytest
import torch

from predrec.modeling import PredRecForSequenceClassification

from .heads import CLOSE, HEADS, LENGTH, padding_mask, random_ids

HEAD = HEADS["sequence"]


@pytest.fixture
def input_ids() -> torch.Tensor:
    return random_ids(3, LENGTH)


@pytest.fixture
def attention_mask() -> torch.Tensor:
    return padding_mask()


@pytest.mark.parametrize("num_labels", [1, 2, 3])
def test_logits_have_one_column_per_label(input_ids, num_labels):
    assert HEAD.build(num_labels=num_labels)(input_ids).logits.shape == (3, num_labels)


@pytest.mark.parametrize("shape", [(3,), (3, 1)])
def test_loss_of_classes_is_cross_entropy(input_ids, attention_mask, shape):
    labels = torch.tensor([2, 0, 1])
    output = HEAD.build()(input_ids, attention_mask, labels=labels.view(shape))
    expected = -torch.stack([output.logits[i].log_softmax(-1)[label] for i, label in enumerate(labels)]).mean()
    torch.testing.assert_close(output.loss, expected, **CLOSE)


@pytest.mark.parametrize("labels", [[0.5, 4.0, 2.25], [[0.5], [4.0], [2.25]], [0, 4, 2]])
def test_loss_of_a_score_is_the_mean_squared_error(input_ids, labels):
    labels = torch.tensor(labels)
    output = HEAD.build(num_labels=1)(input_ids, labels=labels)
    expected = (output.logits[:, 0] - labels.flatten().float()).pow(2).mean()
    torch.testing.assert_close(output.loss, expected, **CLOSE)


@pytest.mark.parametrize("dtype", [torch.float32, torch.long])
def test_loss_of_several_labels_at_once_is_binary_cross_entropy(input_ids, dtype):
    labels = torch.tensor([[1, 0, 1], [0, 0, 0], [1, 1, 1]], dtype=dtype)
    output = HEAD.build(problem_type="multi_label_classification")(input_ids, labels=labels)
    chances = output.logits.sigmoid()
    expected = -(labels * chances.log() + (1 - labels) * (1 - chances).log()).mean()
    torch.testing.assert_close(output.loss, expected, **CLOSE)


@pytest.mark.parametrize(("name", "value"), [("num_labels", 1), ("problem_type", "multi_label_classification")])
def test_save_and_load_keep_the_kind_of_labels(name, value, tmp_path):
    HEAD.build(**{name: value}).save_pretrained(tmp_path)
    assert getattr(PredRecForSequenceClassification.from_pretrained(tmp_path).config, name) == value


def test_several_scores_have_a_squared_error_of_all(input_ids):
    labels = torch.randn(3, 3, generator=torch.Generator().manual_seed(0))
    output = HEAD.build(num_labels=3, problem_type="regression")(input_ids, labels=labels)
    torch.testing.assert_close(output.loss, (output.logits - labels).pow(2).mean(), **CLOSE)


def test_floats_for_every_label_are_several_labels_at_once(input_ids):
    labels = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    losses = [
        HEAD.build(num_labels=3, problem_type=kind)(input_ids, labels=labels).loss
        for kind in (None, "multi_label_classification")
    ]
    torch.testing.assert_close(*losses)
