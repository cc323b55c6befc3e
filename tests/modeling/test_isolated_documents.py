"""Documents that share a row, but do not see one another, equal documents in rows of their own."""

import pytest
import torch
from datasets import Dataset

from predrec.data_collators import DataCollatorForPreTraining, IsolatedRows, tokenize_documents

from .tiny import pretraining_model

TEXTS = [
    "the cat sat on the mat and then the dog ran on the mat and the cat ran",
    "a dog ran",
    "and then the dog sat on a cat and the cat sat on a mat and then the unknown dogs ran and the cat sat",
    "the unknown dogs walked and then the cats ran and the dog sat on the mat",
] * 2


@pytest.fixture(scope="module")
def rows(tiny_tokenizer) -> IsolatedRows:
    return IsolatedRows(tokenize_documents(Dataset.from_dict({"text": TEXTS}), tiny_tokenizer), tiny_tokenizer, 60)


@pytest.fixture
def collator(tiny_tokenizer) -> DataCollatorForPreTraining:
    return DataCollatorForPreTraining(tiny_tokenizer, unpad=True, min_context_tokens=4, pad_to_multiple_of=8)


@pytest.mark.parametrize("model_type", ["predrec", "bert", "roberta"])
def test_states_of_packed_documents_equal_those_of_single_ones(rows, collator, model_type):
    model = pretraining_model(model_type, encoder={"pad_token_id": 0})
    batch = collator([rows[0], rows[1]])
    states = model.target_states(batch["original_input_ids"], batch["attention_mask"], batch["layout"])
    alone = [
        model.target_states(torch.from_numpy(document)[None], None)[0]
        for index in (0, 1)
        for document in rows.documents(index)
    ]
    assert len(alone) > 4
    torch.testing.assert_close(states, torch.cat(alone), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mlm_view", ["full", "context"])
def test_losses_of_packed_documents_are_those_of_padded_ones(rows, collator, mlm_view):
    model = pretraining_model(mlm_view=mlm_view).train()
    collator.label_view = mlm_view
    batch = collator([rows[0], rows[1]])
    padded = pretraining_model(mlm_view=mlm_view, attn_implementation="sdpa").train()
    collator.unpad = False
    expected, found = padded(**collator([rows[0], rows[1]])), model(**batch)
    assert found.num_labels == expected.num_labels
    assert found.num_targets == expected.num_targets
    torch.testing.assert_close(found.mlm_loss, expected.mlm_loss)
    torch.testing.assert_close(found.jepa_loss, expected.jepa_loss)


def test_each_document_has_masks_of_its_own(rows, collator):
    batch = collator([rows[0]])
    assert len(batch["context_mask"]) == len(rows.documents(0)) == len(batch["example_ids"])
    long_enough = batch["attention_mask"].sum(1) >= 16
    assert (batch["target_mask"].any(2).all(1) == long_enough).all()


def test_masks_of_a_document_do_not_depend_on_the_rest_of_the_batch(rows, collator):
    alone, together = collator([rows[1]]), collator([rows[0], rows[1]])
    length = alone["input_ids"].shape[1]
    later = together["example_ids"] == 1
    assert torch.equal(together["labels"][later][:, :length], alone["labels"])
