"""Probes on data of one's own."""

import numpy as np
import pytest

from predrec.errors import UserError
from predrec.eval import Embedder, ProbeSettings, load_encoder, probe

WORDS = ("the", "of", "and", "in", "to", "is")
TEXTS = [f"{word} {other}" for word in WORDS for other in WORDS]
CLASSES = [index // len(WORDS) % 2 for index in range(len(TEXTS))]
SETTINGS = ProbeSettings(num_epochs=80, batch_size=8, learning_rate=1e-2, dropout=0.0)


@pytest.fixture(scope="module")
def encoder(tiny_encoder, tmp_path_factory):
    return load_encoder(tiny_encoder(tmp_path_factory.mktemp("encoders") / "tiny"), dtype="float32", device="cpu")


@pytest.mark.parametrize("kind", [list, np.array], ids=["lists", "arrays"])
def test_classes_that_the_words_decide_are_learned(encoder, kind):
    predicted = probe(encoder, (kind(TEXTS), kind(CLASSES)), kind(TEXTS), seeds=(0, 1), settings=SETTINGS)
    assert predicted.shape == (2, len(TEXTS)) and set(predicted.flatten()) <= {0, 1}
    assert (predicted == CLASSES).mean() > 0.8


def test_scores_of_pairs_are_numbers_within_reach(encoder):
    pairs = [(text, TEXTS[0]) for text in TEXTS]
    scores = [float(text == TEXTS[0]) for text in TEXTS]
    predicted = probe(encoder, (pairs, scores), pairs, seeds=(3,))
    assert predicted.shape == (1, len(TEXTS)) and predicted.dtype.kind == "f"
    assert predicted[0].argmax() == 0


def test_an_embedder_keeps_the_vectors(encoder):
    embedder = Embedder(encoder, progress=False)
    first = probe(embedder, (TEXTS, CLASSES), TEXTS, seeds=(0,))
    count = embedder.num_encoded
    assert np.array_equal(probe(embedder, (TEXTS, CLASSES), TEXTS, seeds=(0,)), first)
    assert embedder.num_encoded == count == len(TEXTS)


@pytest.mark.parametrize(
    ("train", "pooling", "message"),
    [
        ((TEXTS, CLASSES[1:]), "mean", "a number for each text"),
        ((TEXTS, ["yes"] * len(TEXTS)), "mean", "a number for each text"),
        (([], []), "mean", "a number for each text"),
        ((TEXTS, [-1, *CLASSES[1:]]), "mean", "the class -1; classes are numbered from 0"),
        ((TEXTS, CLASSES), "average", "`pooling` is 'average'"),
        (([["a", "b"]] * 2, [0, 1]), "mean", "a list of texts, or of pairs of them as tuples"),
    ],
)
def test_what_is_no_data_is_refused(encoder, train, pooling, message):
    with pytest.raises(UserError, match=message):
        probe(encoder, train, TEXTS, pooling)


def test_one_text_in_place_of_many_is_refused(encoder):
    with pytest.raises(UserError, match="`texts` is 'the of'; it must be a list of texts"):
        Embedder(encoder, progress=False).vectors("the of", "mean")
    with pytest.raises(UserError, match="`pooling` is 'avg'"):
        Embedder(encoder, progress=False).vectors(TEXTS, "avg")


def test_an_encoder_in_training_mode_drops_nothing_out(encoder):
    encoder.model.train()
    encoder.__post_init__()
    assert not encoder.model.training
