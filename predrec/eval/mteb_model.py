"""The encoder as `mteb` takes it, for `evaluate_sts --mteb` (extra `mteb`)."""

from collections.abc import Sequence
from typing import Any

import mteb
import numpy as np
from mteb.models.abs_encoder import AbsEncoder
from mteb.models.model_meta import ModelMeta

from .embeddings import Embedder

NAMES = {"stsb": "STSBenchmark", "sickr": "SICK-R", **{f"sts{year}": f"STS{year}" for year in range(12, 17)}}
"""What mteb calls the tasks. Its STS-B is the test split, `stsb_test` in results; GLUE has no labels for that one."""


class MtebEncoder(AbsEncoder):
    """A frozen encoder with a pooling, whose vectors mteb compares by cosine.

    Args:
        embedder (`Embedder`): Turns texts into vectors.
        name (`str`): Of the model.
        pooling (`str`): Untrained pooling with one vector per text.
    """

    def __init__(self, embedder: Embedder, name: str, pooling: str):
        self.embedder, self.pooling = embedder, pooling
        self.mteb_model_meta = ModelMeta.create_empty(
            overwrites={"name": f"predrec/{name}-{pooling}", "revision": embedder.encoder.weights}
        )

    def encode(self, inputs: Any, **kwargs: Any) -> np.ndarray:
        """Returns one vector per text, `(num_texts, hidden_size)`; `inputs` are batches of `{"text": [...]}`."""
        texts = [text for batch in inputs for text in batch["text"]]
        return self.embedder.vectors(texts, self.pooling).numpy()


def evaluate_with_mteb(
    embedder: Embedder, name: str, pooling: str, tasks: Sequence[str], loaded: Sequence[Any] | None = None
) -> dict[str, float]:
    """Evaluates on mteb's tasks.

    Args:
        embedder, name, pooling: As in [`MtebEncoder`].
        tasks (`Sequence[str]`): Our names of the tasks.
        loaded (`Sequence[mteb.AbsTask]`, *optional*): The tasks themselves, where their data are loaded already.

    Returns:
        `dict` of the main score, Spearman's correlation of cosines, by our name of the task.
    """
    chosen = loaded or [mteb.get_task(NAMES[task]) for task in tasks]
    results = mteb.evaluate(MtebEncoder(embedder, name, pooling), chosen, cache=None)
    scores = {result.task_name: float(result.get_score()) for result in results.task_results}
    return {task: scores[NAMES[task]] for task in tasks}
