"""What was answered, as records of results and as a table with paired differences."""

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from ..eval.answering import verdict_means
from ..eval.results import Results, add_record
from ..eval.statistics import compare
from .evaluation import table

LOGGED = ("eval_ntp_loss", "eval_matched_cosine", "eval_mismatched_cosine", "eval_effective_rank", "eval_retrieval")
"""Metrics of the last evaluation that go into the results of a run, with what was spent."""


def weights_digest(directory: str | Path) -> str:
    """Returns a hash of the weight files in a folder."""
    digest = sha256()
    for path in sorted(Path(directory).glob("*.safetensors")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def add_answers(
    results: Results,
    name: str,
    replicate: int,
    task: str,
    rows: Sequence[dict[str, Any]],
    trainer: Any = None,
    directory: str | Path | None = None,
) -> None:
    """Adds a model's verdicts, and what its training measured last."""
    shared = {"kind": "answers", "model": name, "replicate": replicate, "task": task}
    for metric, value in verdict_means(rows).items():
        add_record(results, metric=metric, value=value, num_eval=len(rows), **shared)
    described = {"name": name, "replicate": replicate, "weights": weights_digest(directory or "")}
    if trainer is not None:
        last = {key: value for entry in trainer.state.log_history for key, value in entry.items()}
        for key in LOGGED:
            if key in last:
                add_record(results, metric=key.removeprefix("eval_"), value=last[key], **shared | {"kind": "views"})
        steps = trainer.state.global_step
        described |= {"steps": steps, "seed": trainer.args.seed, "flops": trainer.spending.until(steps)}
        described |= {"train_seconds": round(last.get("train_runtime", 0.0), 1)}
    results.models.append(described)


def comparison(results: Results, baseline: str) -> str:
    """Lays out means and standard deviations over seeds, and paired differences to the baseline with their tests."""
    answers = results.select(kind="answers")
    metrics = list(dict.fromkeys((record.task, record.metric) for record in answers))
    names = results.model_names
    rows = []
    for task, metric in metrics:
        base = results.values(kind="answers", model=baseline, task=task, metric=metric)
        for name in names:
            values = results.values(kind="answers", model=name, task=task, metric=metric)
            if not len(values):
                continue
            spread = f" ± {100 * values.std(ddof=1):.2f}" if len(values) > 1 else ""
            cells = [task, metric, name, f"{100 * values.mean():.2f}{spread}", str(len(values))]
            rows.append([*cells, *(["", ""] if name == baseline else _difference(values, base))])
    header = ["task", "metric", "method", "percent", "seeds", f"minus {baseline}", "p (two-sided, greater)"]
    return "\n" + table(header, rows)


def _difference(values: np.ndarray, base: np.ndarray) -> list[str]:
    if len(values) != len(base):
        return ["not paired", ""]
    found = compare(100 * (values - base))
    if len(values) == 1:
        return [f"{found.effect:+.2f}", "one seed"]
    greater = stats.ttest_rel(values, base, alternative="greater").pvalue
    return [f"{found.effect:+.2f} [{found.low:+.2f}, {found.high:+.2f}]", f"{found.t_p:.3g}, {greater:.3g}"]
