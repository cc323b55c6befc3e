"""Two errors of the published code that can be trained with, to measure what they do."""

import json

import numpy as np
import pytest
import torch
from transformers import AutoModel

from predrec.commands.pretrain import main
from predrec.data_collators import DataCollatorForPreTraining
from predrec.data_collators.corpus import load_corpus
from predrec.modeling import PredRecPreTrainingConfig
from predrec.publish.weights import load_source
from tests import training
from tests.commands.test_pretrain import TINY

LENGTH = 32


def batch_of(lengths, **options) -> dict[str, torch.Tensor]:
    """A batch of rows of these lengths, with or without an error."""
    generator = np.random.default_rng(0)
    rows = [
        {"input_ids": np.array([2, *generator.integers(5, 90, length - 2), 3]), "example_ids": number, "epoch": 0}
        for number, length in enumerate(lengths)
    ]
    return DataCollatorForPreTraining(training.tokenizer(), min_context_tokens=4, max_seq_length=LENGTH, **options)(
        rows
    )


def positions(indices: torch.Tensor, mask: torch.Tensor) -> list[set[int]]:
    return [set(row[kept].tolist()) for row, kept in zip(indices.flatten(1), mask.flatten(1), strict=True)]


def test_context_sees_those_targets_that_lie_in_its_block():
    apart, over = (batch_of([LENGTH] * 40, context_excludes_targets=excludes) for excludes in (True, False))
    assert torch.equal(apart["target_indices"], over["target_indices"])
    assert torch.equal(apart["input_ids"], over["input_ids"])
    targets = positions(over["target_indices"], over["target_mask"])
    contexts = [positions(batch["context_indices"], batch["context_mask"]) for batch in (apart, over)]
    for hidden, seen, target in zip(*contexts, targets, strict=True):
        assert not hidden & target and hidden <= seen and seen - hidden <= target
    assert sum(bool(seen & target) for seen, target in zip(contexts[1], targets, strict=True)) > 30


def test_padding_counts_as_text_but_is_not_reconstructed():
    lengths = [10, 20, 31] * 10
    plain, filled = batch_of(lengths), batch_of(lengths, padding_is_text=True)
    assert filled["input_ids"].shape == (len(lengths), LENGTH) and "attention_mask" not in filled
    padding = torch.arange(LENGTH) >= torch.tensor(lengths)[:, None]
    assert (filled["labels"][padding] == -100).all() and (filled["input_ids"][padding] == 0).all()
    width = plain["labels"].shape[1]
    assert torch.equal(filled["labels"][:, :width], plain["labels"])
    for key in ("context", "target"):
        found = positions(filled[f"{key}_indices"], filled[f"{key}_mask"])
        assert sum(max(row, default=0) >= length for row, length in zip(found, lengths, strict=True)) >= 10, key
    assert filled["target_mask"].flatten(1).any(1).all()


def test_padding_that_is_text_needs_a_length():
    with pytest.raises(ValueError, match="`padding_is_text` needs `max_seq_length`"):
        DataCollatorForPreTraining(training.tokenizer(), padding_is_text=True)


@pytest.mark.parametrize("streaming", [False, True])
def test_texts_are_cut_after_so_many_characters(tmp_path, streaming):
    for name in ("train", "held-out"):
        (tmp_path / f"{name}.txt").write_text("\n".join(training.corpus()), encoding="utf-8")
    files = [str(tmp_path / "train.txt")], [str(tmp_path / "held-out.txt")]
    corpus = load_corpus(*files, streaming=streaming, max_characters=20)
    for part in (corpus.train, corpus.validation):
        assert [row["text"] for row in part] == [text[:20] for text in training.corpus()]
    assert corpus.description == "train.txt, the first 20 characters of a document"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with both errors."""
    folder = tmp_path_factory.mktemp("errors")
    (folder / "corpus.txt").write_text("\n".join(training.corpus()), encoding="utf-8")
    words = ["--train_file", str(folder / "corpus.txt"), "--output_dir", str(folder / "run"), *TINY]
    errors = ["--packing", "false", "--padding_is_text", "true", "--context_excludes_targets", "false"]
    assert main([*words, *errors]) == 0
    return folder / "run"


@pytest.mark.parametrize("weights", ["online", "ema"])
def test_encoder_goes_on_attending_to_padding(run, weights):
    encoder = AutoModel.from_pretrained(run) if weights == "online" else load_source(str(run), "ema", False).model
    assert encoder.config.attend_to_padding
    ids = torch.tensor([[2, 7, 8, 3, 0, 0]])
    with torch.no_grad():
        masked, whole = (encoder(ids, attention_mask=mask)[0] for mask in (ids.ne(0).long(), torch.ones_like(ids)))
    assert torch.equal(masked, whole)


def test_run_itself_masks_what_contexts_lack(run):
    """In training, the flag would also ignore the masks of contexts of different length."""
    config = json.loads((run / "checkpoint-4" / "config.json").read_text())
    assert config["padding_is_text"] and not config["encoder_config"]["attend_to_padding"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--padding_is_text", "true"], "set `packing` to false"),
        (["--max_characters", "5"], "`max_characters` is 5; it must be at least 16"),
        (["--padding_is_text", "true", "--packing", "false", "--model_type", "bert"], "for new predrec encoders"),
    ],
)
def test_padding_is_text_is_refused_where_it_means_nothing(tmp_path, capsys, words, message):
    (tmp_path / "corpus.txt").write_text("\n".join(training.corpus()), encoding="utf-8")
    given = ["--train_file", str(tmp_path / "corpus.txt"), "--output_dir", str(tmp_path / "run"), *TINY, *words]
    assert main(given) == 2
    assert message in capsys.readouterr().err


def test_other_encoders_are_refused_by_the_configuration():
    with pytest.raises(ValueError, match="`padding_is_text` is for predrec encoders"):
        PredRecPreTrainingConfig(encoder_config={"model_type": "bert"}, padding_is_text=True)
