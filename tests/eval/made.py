"""Results written by hand and a reader of pages, for the tests of claims, figures, reports and cards."""

from collections.abc import Sequence
from html.parser import HTMLParser

import numpy as np

from predrec.eval.geometry import CENTRED_IN_PAPER
from predrec.eval.results import Results, add_record

MODELS = ("hybrid", "mlm")
MEASURES = {
    "uniformity": -0.3,
    "mean_cosine": 0.6,
    "alignment": 0.2,
    "spectral_entropy": 0.7,
    "effective_rank": 210.0,
    "stable_rank": 4.0,
    "rank_90": 90.0,
    "intra_inter_ratio": 0.9,
}
"""A likely value of each measure that is taken of raw and of centred vectors."""

CROSS_VALIDATED = {"semantic_probe": 0.61, "token_probe": 0.7, "probe_gap": -0.09}
"""The same of the probes of `analyze_representations`, which have no variant."""


def model_entry(name: str, replicate: int = 0) -> dict:
    """Returns what results say of a checkpoint."""
    return {
        "name": name,
        "replicate": replicate,
        "folder": f"runs/{name}-{replicate}",
        "weights": f"{name}{replicate}",
        "fingerprint": f"{name}{replicate}",
        "model_type": "predrec",
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_parameters": 12_345_678,
        "max_seq_length": 64,
        "dtype": "float32",
    }


def results_of(**num_checkpoints: int) -> Results:
    """Returns results without numbers: `results_of(hybrid=8, mlm=8)`."""
    models = [model_entry(name, one) for name, count in num_checkpoints.items() for one in range(count)]
    return Results(commands=["predrec by_hand"], models=models, versions={"torch": "2.0"})


def plant(results: Results, model: str, values: Sequence[float], **fields) -> None:
    """Adds one record per value, each of another checkpoint."""
    for replicate, value in enumerate(values):
        add_record(results, model=model, replicate=replicate, value=float(value), **fields)


def plant_seeds(results: Results, model: str, values: Sequence[float], **fields) -> None:
    """Adds one record per value, each of another seed of a linear head on mean-pooled vectors."""
    shared = {"kind": "probe", "pooling": "mean", "head": "linear", "num_train": 100, "num_eval": 40}
    for seed, value in enumerate(values):
        add_record(results, model=model, seed=seed, value=float(value), **(shared | fields))


def add_probes(results: Results, num_seeds: int = 6) -> None:
    """Adds probes of a classification and of STS-B, whose head does not vary by seed, with baselines and votes."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, 40)
    results.predictions["probe|labels|sst2"] = labels
    for name, value in (("majority", 0.5), ("bag-of-words", 0.55)):
        add_record(results, kind="probe", model=name, task="sst2", metric="accuracy", value=value)
    for model in results.models:
        name, replicate = model["name"], model["replicate"]
        level = 0.7 if name == results.model_names[0] else 0.6
        who = {"replicate": replicate}
        plant_seeds(results, name, generator.normal(level, 0.02, num_seeds), task="sst2", metric="accuracy", **who)
        best = {"task": "sst2", "metric": "accuracy", "variant": "best_on_eval"}
        plant_seeds(results, name, generator.normal(level + 0.05, 0.02, num_seeds), **best, **who)
        for metric in ("spearmanr", "pearson"):
            plant_seeds(results, name, [level / 2 + replicate / 100] * num_seeds, task="stsb", metric=metric, **who)
        right = generator.random((num_seeds, 40)) < level
        results.predictions[f"probe|{name}|{replicate}|sst2|mean|linear"] = np.where(right, labels, 1 - labels)
    results.notes["probe|sst2"] = "trained on 100 of 67,349 rows: not comparable with published scores"


def add_finetuning(results: Results, num_seeds: int = 3) -> None:
    """Adds scores of fine-tuning."""
    generator = np.random.default_rng(1)
    for model in results.models:
        scores = generator.normal(0.8, 0.02, num_seeds)
        fields = {"kind": "finetune", "pooling": None, "head": None, "task": "rte", "metric": "accuracy"}
        plant_seeds(results, model["name"], scores, replicate=model["replicate"], **fields)


def add_geometry(
    results: Results,
    tasks: Sequence[str] = ("sst2", "cola"),
    poolings: Sequence[str] = ("mean", "max", "weighted", "attention"),
    noise: float = 0.02,
) -> None:
    """Adds every measure, raw and centred, and spectra; attention has two draws."""
    generator = np.random.default_rng(2)
    for model in results.models:
        first = model["name"] == results.model_names[0]
        for task in tasks:
            for pooling in poolings:
                where = {"task": task, "pooling": pooling}
                who = {"model": model["name"], "replicate": model["replicate"]}
                for draw in (0, 1) if pooling == "attention" else (None,):
                    fields = {"kind": "geometry", "draw": draw, "num_eval": 40, **who, **where}
                    for metric, value in (MEASURES | CROSS_VALIDATED).items():
                        for variant in ("raw", "centred") if metric in MEASURES else (None,):
                            # The first model has more of everything.
                            level = value + 0.2 * abs(value) * first + noise * abs(value) * generator.normal()
                            level += (variant == "centred") * 0.01
                            add_record(results, metric=metric, variant=variant, value=level, **fields)
                values = (10.0 * 0.7 ** np.arange(16)).tolist()
                results.spectra.append({**who, **where, "values": values})


def add_similarity(results: Results) -> None:
    """Adds correlations of cosines with human scores."""
    for index, model in enumerate(results.models):
        for variant, value in (("raw", 0.3), ("centred", 0.4), ("whitened", 0.5)):
            fields = {"kind": "sts", "task": "sts12", "metric": "spearmanr", "pooling": "mean", "variant": variant}
            who = {"model": model["name"], "replicate": model["replicate"]}
            add_record(results, value=value - index / 100, **fields, **who)


PARTS = {"probe": add_probes, "finetune": add_finetuning, "geometry": add_geometry, "sts": add_similarity}
"""What adds the records of each kind."""


def full_results(num_checkpoints: int = 1, models: Sequence[str] = MODELS, parts: Sequence[str] = tuple(PARTS)):
    """Returns results of every kind for the models."""
    results = results_of(**dict.fromkeys(models, num_checkpoints))
    for part in parts:
        PARTS[part](results)
    return results


def variant_in_paper(metric: str) -> str | None:
    """Returns how the paper takes a measure."""
    if metric in CROSS_VALIDATED:
        return None
    return "centred" if metric in CENTRED_IN_PAPER else "raw"


class Page(HTMLParser):
    """Reads a page: its text, its tags in order with attributes, and the tags that do not close as they should."""

    VOID = frozenset({"meta", "img", "br", "hr", "link", "input"})

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.unbalanced: list[str] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        self.unbalanced += self._open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_endtag(self, tag):
        if self._open and self._open[-1] == tag:
            self._open.pop()
        else:
            self.unbalanced.append(f"/{tag}")

    def handle_data(self, data):
        self.texts.append(data)

    @property
    def references(self) -> list[str]:
        """What the page would load or lead to."""
        return [value for _, attributes in self.tags for name, value in attributes.items() if name in ("src", "href")]
