"""The encoder as mteb takes it, where the extra is installed."""

import numpy as np
import pytest

from predrec.eval.embeddings import Embedder
from predrec.eval.encoder import load_encoder
from predrec.eval.sts import similarity_scores

mteb = pytest.importorskip("mteb", reason="needs the extra `mteb`")

FIRST = ["a cat sits", "the dog runs", "a bird sings", "rain falls"]
SECOND = ["a cat sits", "the dog sleeps", "rain falls", "the sun shines"]
SCORES = [5.0, 3.0, 1.0, 2.0]


def test_mteb_gives_the_score_that_we_compute(tiny_encoder, tmp_path):
    from datasets import Dataset, DatasetDict

    from predrec.eval.mteb_model import evaluate_with_mteb

    task = mteb.get_task("STSBenchmark")
    rows = Dataset.from_dict({"sentence1": FIRST, "sentence2": SECOND, "score": SCORES})
    task.dataset, task.data_loaded = DatasetDict(dict.fromkeys(task.metadata.eval_splits, rows)), True
    embedder = Embedder(load_encoder(tiny_encoder(tmp_path / "encoder"), dtype="float32"), progress=False)
    ours = similarity_scores(*(embedder.vectors(texts, "mean") for texts in (FIRST, SECOND)), np.array(SCORES))
    theirs = evaluate_with_mteb(embedder, "tiny", "mean", ["stsb"], [task])
    assert theirs["stsb"] == pytest.approx(ours["spearmanr"], abs=1e-6)
