"""`results.json`: one schema for everything that is measured, see [`Results`]."""

import json
import math
import zipfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError
from ..whole_files import whole_file

SCHEMA_VERSION = 1
SETTINGS = ("num_train", "num_eval", "num_epochs", "batch_size")
"""Fields of a record that say how a number was measured: numbers that differ in them are never averaged."""

LIBRARIES = ("predrec", "torch", "transformers", "datasets", "evaluate", "scikit-learn")
BASELINES = {"majority": "majority class", "bag-of-words": "TF-IDF bag of words"}
"""Names of models that are none, in records of probes."""
BEST_ON_EVAL = "best_on_eval"
"""Variant of scores after the best epoch on the evaluation split."""

DEVELOPMENT = "-development"
"""Behind the kind of scores on training rows that were held out for choices."""

SCORE_KINDS = ("probe", "finetune", "probe" + DEVELOPMENT, "finetune" + DEVELOPMENT)
"""Kinds of records that have notes and predictions."""


@dataclass(frozen=True)
class Record:
    """One measured number. What does not apply is `None` and left out of the file.

    Args:
        kind (`str`): `probe`, `finetune`, `geometry` or `sts`; `answers` or `views` of language models. The first two
            have [`DEVELOPMENT`] behind them where they were scored on held-out training rows, so that such scores are
            never taken for others.
        model (`str`): Name of the model, or of a baseline in [`BASELINES`].
        task (`str`), metric (`str`), value (`float`): What was measured.
        replicate (`int`): Which of the model's checkpoints, that is, of its pre-training seeds.
        pooling (`str`, *optional*), draw (`int`, *optional*): Pooling, and which untrained attention.
        head (`str`, *optional*), seed (`int`, *optional*): Head of a probe, and its seed.
        variant (`str`, *optional*): `raw`, `centred` or `whitened` vectors; `best_on_eval` for the best epoch on the
            evaluation split, which is selection on the test set and stands beside published numbers only.
        num_train (`int`, *optional*), num_eval (`int`, *optional*): Rows.
        num_epochs (`int`, *optional*), batch_size (`int`, *optional*): Of a probe.
    """

    kind: str
    model: str
    task: str
    metric: str
    value: float
    replicate: int = 0
    pooling: str | None = None
    draw: int | None = None
    head: str | None = None
    seed: int | None = None
    variant: str | None = None
    num_train: int | None = None
    num_eval: int | None = None
    num_epochs: int | None = None
    batch_size: int | None = None


@dataclass
class Results:
    """What a command measured.

    In the file: `schema_version`, `commands` (what was typed), `versions`, `models` (one entry per checkpoint: name,
    replicate and what [`FrozenEncoder.describe`] says), `records` (see [`Record`]), `spectra` (singular values,
    centred: model, replicate, task, pooling, values), `notes` (by `kind|task`). Predictions of probes are in
    `predictions.npz` beside it: `kind|model|replicate|task|pooling|head` of shape `(num_seeds, num_rows)`, with
    `|whitened` behind it for whitened vectors, and `kind|labels|task`.
    """

    commands: list[str] = field(default_factory=list)
    models: list[dict[str, Any]] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)
    spectra: list[dict[str, Any]] = field(default_factory=list)
    notes: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=lambda: {name: version(name) for name in LIBRARIES})
    predictions: dict[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self):
        self._index: dict[tuple[str, str], list[Record]] = {}
        self._indexed: tuple[list[Record], int] = ([], 0)

    @property
    def model_names(self) -> list[str]:
        """Names of the models, in the order they were given."""
        return list(dict.fromkeys(model["name"] for model in self.models))

    def select(self, *tests: Callable[[Record], bool], **wanted: Any) -> list[Record]:
        """Returns the records that pass the tests and whose fields have the wanted values."""
        records = self.records
        if "model" in wanted and "task" in wanted:
            records = self._records_of(wanted.pop("model"), wanted.pop("task"))
        found = [r for r in records if all(getattr(r, name) == value for name, value in wanted.items())]
        return [record for record in found if all(test(record) for test in tests)]

    def _records_of(self, model: str, task: str) -> list[Record]:
        """Returns the records of a model and task: of many, a report asks a thousand times."""
        known, count = self._indexed
        if known is not self.records or count != len(self.records):
            self._index = {}
            for record in self.records:
                self._index.setdefault((record.model, record.task), []).append(record)
            self._indexed = self.records, len(self.records)
        return self._index.get((model, task), [])

    def values(self, **wanted: Any) -> np.ndarray:
        """Returns the values of the selected records."""
        return np.array([record.value for record in self.select(**wanted)])

    def by_checkpoint(self, *tests: Callable[[Record], bool], **wanted: Any) -> dict[int, float]:
        """Returns the mean of the selected records of each checkpoint, by its number."""
        found: dict[int, list[float]] = {}
        for record in self.select(*tests, **wanted):
            found.setdefault(record.replicate, []).append(record.value)
        return {replicate: float(np.mean(values)) for replicate, values in sorted(found.items())}

    def sample(self, *tests: Callable[[Record], bool], **wanted: Any) -> np.ndarray:
        """Returns one value per checkpoint where there are several, else one per seed of the head or draw."""
        found = self.by_checkpoint(*tests, **wanted)
        if len(found) > 1:
            return np.array(list(found.values()))
        return np.array([record.value for record in self.select(*tests, **wanted)])


def ways_of(results: Results, kind: str) -> list[tuple[str | None, str | None, str | None]]:
    """Returns the poolings, heads and kinds of vectors that were scored; `None` for vectors as they are."""
    own = [record for record in results.select(kind=kind) if record.model not in BASELINES]
    return list(dict.fromkeys((r.pooling, r.head, r.variant) for r in own if r.variant != BEST_ON_EVAL))


def add_record(results: Results, **fields: Any) -> None:
    """Adds a record.

    Raises:
        ValueError: If the value is not finite: what cannot be measured has no record.
    """
    record = Record(**fields)
    if not math.isfinite(record.value):
        raise ValueError(f"{record} is not finite.")
    results.records.append(record)


def write_results(folder: str | Path, results: Results) -> Path:
    """Writes `results.json`, and `predictions.npz` where there are predictions; returns the path of the first."""
    path, predictions = Path(folder) / "results.json", Path(folder) / "predictions.npz"
    record_lines = [
        json.dumps({name: value for name, value in asdict(record).items() if value is not None})
        for record in results.records
    ]
    head = {
        "schema_version": SCHEMA_VERSION,
        "commands": results.commands,
        "versions": results.versions,
        "models": results.models,
        "notes": results.notes,
    }
    spectra = [
        json.dumps(spectrum | {"values": [float(f"{value:.5g}") for value in spectrum["values"]]})
        for spectrum in results.spectra
    ]
    text = json.dumps(head, indent=1)[:-2]
    text += ',\n "records": [\n  ' + ",\n  ".join(record_lines) + '\n ],\n "spectra": [\n  ' + ",\n  ".join(spectra)
    predictions.unlink(missing_ok=True)  # Scores may lie without predictions, never beside those of others.
    with whole_file(path) as staging:
        staging.write_text(text + "\n ]\n}\n", encoding="utf-8")
    if results.predictions:
        with whole_file(predictions) as staging, open(staging, "wb") as file:
            np.savez_compressed(file, **results.predictions)
    return path


def read_results(path: str | Path) -> Results:
    """Reads what [`write_results`] wrote.

    Args:
        path (`str`): The file, or its folder.

    Raises:
        UserError: If there is no such file, it is no results file, or one of another schema version.
    """
    path = Path(path) / "results.json" if Path(path).is_dir() else Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        found = content.get("schema_version")
        if found != SCHEMA_VERSION:
            raise UserError(
                f"{path} has schema version {found}, but this predrec reads version {SCHEMA_VERSION}: "
                "measure again, or use the predrec that wrote it."
            )
        records = [Record(**record) for record in content["records"]]
        results = Results(
            content["commands"], content["models"], records, content["spectra"], versions=content["versions"]
        )
        results.notes = notes_by_kind(content["notes"], records)
    except FileNotFoundError:
        raise UserError(f"There are no results at {str(path)!r}.") from None
    except UserError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is not a results file: {error}") from error
    predictions = path.with_name("predictions.npz")
    if predictions.is_file():
        try:
            with np.load(predictions, allow_pickle=False) as arrays:
                results.predictions = _predictions_by_kind({name: arrays[name] for name in arrays.files}, records)
        except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
            raise UserError(f"{predictions} is damaged: {error}. Measure again, or delete it.") from error
    return results


def notes_by_kind(notes: dict[str, str], records: Sequence[Record]) -> dict[str, str]:
    """Puts the kind of scores before the task of notes from files that do not say it."""
    found = {}
    for key, text in notes.items():
        own = {r.kind for r in records if r.task == key and r.kind.endswith(DEVELOPMENT) == ("held out" in text)}
        found |= {key: text} if "|" in key else {f"{kind}|{key}": text for kind in SCORE_KINDS if kind in own}
    return found


def _predictions_by_kind(predictions: dict[str, np.ndarray], records: Sequence[Record]) -> dict[str, np.ndarray]:
    """Puts the kind of scores before the keys of predictions from a file that does not say it, where it is sure."""
    if not any(key.startswith("labels|") for key in predictions):
        return predictions
    found = {}
    for key, values in predictions.items():
        parts = key.split("|")
        task = parts[1] if parts[0] == "labels" else parts[2]
        kinds = {r.kind for r in records if r.task == task and r.num_eval in (None, values.shape[-1])}
        kinds &= set(SCORE_KINDS)
        if parts[0] != "labels":
            kinds = {kind for kind in kinds if kind.startswith("finetune") == (parts[3] == "finetune")}
        if len({kind.endswith(DEVELOPMENT) for kind in kinds}) == 1:  # Else one has taken the place of the other.
            found |= {f"{kind}|{key}": values for kind in kinds}
    return found


def merge_results(parts: Sequence[Results]) -> Results:
    """Puts results together.

    Raises:
        UserError: If one name stands for two checkpoints, the same number was measured twice, or numbers of one mean
            differ in [`SETTINGS`].
    """
    merged = Results(versions=parts[0].versions if parts else {})
    seen: dict[tuple[str, int], str] = {}
    for part in parts:
        for model in part.models:
            key = (model["name"], model["replicate"])
            known = seen.setdefault(key, model["weights"])
            if known != model["weights"]:
                raise UserError(f"`{key[0]}` (checkpoint {key[1]}) is a different encoder in two of the results.")
            if not any((other["name"], other["replicate"]) == key for other in merged.models):
                merged.models.append(model)
        merged.commands += [command for command in part.commands if command not in merged.commands]
        merged.spectra += [spectrum for spectrum in part.spectra if spectrum not in merged.spectra]
        merged.notes |= part.notes
        merged.predictions |= part.predictions
        merged.records += part.records
    merged.records = list(_once(merged.records))
    return merged


def _once(records: Iterable[Record]) -> Iterable[Record]:
    """Leaves out what is there twice, and refuses what no mean may mix."""
    seen: dict[tuple, float] = {}
    settings: dict[tuple, dict[str, int | None]] = {}
    for record in records:
        fields = asdict(record)
        value, how = fields.pop("value"), {name: fields.pop(name) for name in SETTINGS}
        number = tuple(fields.values())
        averaged = tuple(value for name, value in fields.items() if name not in ("seed", "draw"))
        what = f"{record.model}, {record.task}, {record.metric}"
        for name, known in settings.setdefault(averaged, how).items():
            if how[name] != known:
                where = ", ".join(filter(None, (record.kind, record.pooling, record.head, record.variant)))
                raise UserError(
                    f"The results hold {what} ({where}; checkpoint {record.replicate}) with `{name}` {known} and with "
                    f"{how[name]}, which have no common mean: give one of them."
                )
        if number not in seen:
            seen[number] = value
            yield record
        elif seen[number] != value:
            raise UserError(f"The results disagree on {what}: give one of them.")
