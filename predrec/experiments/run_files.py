"""`runs/<arm>-<seed>.json`: what a finished run leaves, small enough to commit; how runs are put together."""

import json
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..eval.results import BASELINES, Record, Results, notes_by_kind
from ..whole_files import whole_file
from .definition import Run

FORMAT = 1
DIGITS = 6
"""Of every measured number; a score of 10,000 rows has four."""

OF_THE_GROUP = [f.name for f in fields(Record) if f.name not in ("model", "replicate", "metric", "value", "seed")]
OF_THE_ROWS = ("tokenizer_name", "max_seq_length", "packing", "isolate_documents")
"""Arguments of an arm that make other rows of the same data, with another fingerprint."""

BY_LINE = ("curves", "measured", "spectra")
"""Parts whose entries take a line each."""


def rounded(value: float, digits: int = DIGITS) -> float:
    """Rounds to significant digits."""
    return float(f"{value:.{digits}g}")


def pack(results: Results) -> dict[str, Any]:
    """Makes the results of one checkpoint small.

    Draws of untrained attention are averaged, the copies for weighted pooling are left out, and records that differ
    in nothing but metric, value and seed share a line: `values` has a list per metric, in the order of `seeds`.
    """
    groups: dict[tuple, dict[str, dict[int | None, list[float]]]] = {}
    for record in results.records:
        if record.pooling == "weighted":
            continue
        shared = asdict(record) | {"draw": None}
        baseline = record.model if record.model in BASELINES else None
        key = (baseline, *(shared[name] for name in OF_THE_GROUP))
        seeds = groups.setdefault(key, {}).setdefault(record.metric, {})
        seeds.setdefault(record.seed, []).append(record.value)
    measured = []
    for (baseline, *shared), metrics in groups.items():
        seeds = list(next(iter(metrics.values())))
        entry = {"baseline": baseline} | dict(zip(OF_THE_GROUP, shared, strict=True)) | {"seeds": seeds}
        if seeds == [None]:
            entry["seeds"] = None
        values = {
            metric: [rounded(sum(found[seed]) / len(found[seed])) for seed in found]
            for metric, found in metrics.items()
        }
        measured.append({name: value for name, value in entry.items() if value is not None} | {"values": values})
    spectra = [
        {"task": one["task"], "pooling": one["pooling"], "values": [rounded(value, 3) for value in one["values"]]}
        for one in results.spectra
        if one["pooling"] in ("mean", "max")
    ]
    return {"measured": measured, "spectra": spectra, "notes": results.notes}


def unpack(content: dict[str, Any]) -> Results:
    """Returns the results of a run's file; the seed is the number of the checkpoint."""
    arm, seed = content["arm"], content["seed"]
    results = Results(versions=content["versions"])
    if content.get("model"):
        results.models.append(content["model"] | {"name": arm, "replicate": seed})
    for entry in content["measured"]:
        shared = {name: entry[name] for name in OF_THE_GROUP if name in entry}
        model, replicate = (entry["baseline"], 0) if "baseline" in entry else (arm, seed)
        for metric, values in entry["values"].items():
            for head, value in zip(entry.get("seeds", [None]), values, strict=True):
                results.records.append(
                    Record(**shared, model=model, replicate=replicate, metric=metric, value=value, seed=head)
                )
    results.notes = notes_by_kind(content["notes"], results.records)
    results.spectra = [spectrum | {"model": arm, "replicate": seed} for spectrum in content["spectra"]]
    return results


def write_run(path: Path, content: dict[str, Any]) -> Path:
    """Writes the file of a run: it appears whole or not at all."""
    lines = []
    for name, value in content.items():
        if name in BY_LINE and value:
            pairs = value.items() if isinstance(value, dict) else enumerate(value)
            keys = [f"{json.dumps(key)}: " if isinstance(value, dict) else "" for key, _ in pairs]
            entries = value.values() if isinstance(value, dict) else value
            parts = [f"  {key}{json.dumps(entry)}" for key, entry in zip(keys, entries, strict=True)]
            opening, closing = "{}" if isinstance(value, dict) else "[]"
            lines.append(f" {json.dumps(name)}: {opening}\n" + ",\n".join(parts) + f"\n {closing}")
        else:
            lines.append(f" {json.dumps(name)}: {json.dumps(value)}")
    with whole_file(path) as staging:
        staging.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    return path


def read_run(path: Path) -> dict[str, Any]:
    """Reads what [`write_run`] wrote.

    Raises:
        UserError: If it is no file of a run, or one of another format.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise UserError(f"{path} has format {content['format']}, but this predrec reads format {FORMAT}.")
        unpack(content)
    except UserError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is not the file of a run: {error}. Delete it to make the run again.") from error
    return content


def read_runs(folder: Path) -> dict[Run, dict[str, Any]]:
    """Reads the files of all finished runs of an experiment.

    Raises:
        UserError: If a file is damaged, or its name is not that of the run in it.
    """
    found = {}
    for path in sorted(folder.glob("*.json")):
        content = read_run(path)
        run = Run(content["arm"], content["seed"])
        if path.stem != run.name:
            raise UserError(f"{path} holds the run {run.name}: rename it.")
        found[run] = content
    return found


def stale(found: dict[Run, dict[str, Any]], definitions: dict[str, str], evaluation: str) -> list[str]:
    """Says which files do not belong to the experiment as it is now, and why: they are never mixed in."""
    problems = []
    data: dict[tuple, str] = {}
    seen: dict[str, Any] = {}
    for run, content in found.items():
        if run.arm not in definitions:
            problems.append(f"{run.name}: the experiment has no arm `{run.arm}`")
        elif content["definition"] != definitions[run.arm]:
            problems.append(f"{run.name}: trained from another definition of the arm")
        elif content["evaluation"] != evaluation:
            problems.append(f"{run.name}: probed or measured with other settings")
        elif data.setdefault(_rows_of(content), content["data"]) != content["data"]:
            problems.append(f"{run.name}: trained on other data or another tokenizer")
        elif other := differences(seen, content):
            problems.append(f"{run.name}: measured with other {other[0]}")
        else:
            seen |= measured_on(content)
    return problems


def measured_on(content: dict[str, Any]) -> dict[str, Any]:
    """Returns what the scores of a run depend on beside its settings: precision, numbers of rows, and their texts."""
    found = {"precision": content["model"]["dtype"]} if content.get("model") else {}
    for entry in content["measured"]:
        if "baseline" not in entry:
            name = f"numbers of rows of {entry['task']} ({entry['kind']})"
            found[name] = entry.get("num_train"), entry.get("num_eval")
    # Files from before there was this part are compared by the numbers alone.
    return found | {f"rows of {name}": text for name, text in content.get("texts", {}).items()}


def differences(seen: dict[str, Any], content: dict[str, Any]) -> list[str]:
    """Returns in which of what [`measured_on`] returns a run differs from what was seen of others."""
    return [name for name, value in measured_on(content).items() if seen.get(name, value) != value]


def _rows_of(content: dict[str, Any]) -> tuple:
    return tuple(content["arguments"].get(name) for name in OF_THE_ROWS)


def merge_runs(contents: Sequence[dict[str, Any]]) -> Results:
    """Puts runs together as the report takes them; baselines, which need no encoder, come from the first."""
    merged = Results(versions=contents[0]["versions"] if contents else {})
    for content in contents:
        part = unpack(content)
        known = any(record.model in BASELINES for record in merged.records)
        merged.models += part.models
        merged.records += [record for record in part.records if not (known and record.model in BASELINES)]
        merged.spectra += part.spectra
        merged.notes |= part.notes
    return merged
