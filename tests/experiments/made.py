"""Experiments and finished runs written by hand, for the tests of both."""

from pathlib import Path

DEFINITION = """
title: A test
data: {train_file: train.txt, validation_file: held-out.txt}
pretrain:
  tokenizer_name: somebody/tokenizer
  max_seq_length: 32
  per_device_train_batch_size: 4
  max_steps: 100
arms:
  hybrid: {why: both losses}
  mlm: {why: one loss, objective: mlm}
  mlm-time: {why: more of one loss, objective: mlm, updates_factor: 2.26, same_time_as: hybrid}
order:
  - {arms: [mlm, hybrid], seeds: 1}
  - {arms: [mlm, hybrid, mlm-time], seeds: 3}
probe: {tasks: [sst2, stsb], seeds: 2}
pairs: [[hybrid, mlm]]
primary:
  question: Is it better?
  model: hybrid
  baseline: mlm-time
  seeds: 8
  scores: {sst2: accuracy, stsb: spearmanr}
""".replace("why: one loss,", 'why: "one loss",').replace("question: Is it better?", 'question: "Is it better?"')


def write_definition(folder: Path, text: str = DEFINITION) -> Path:
    """Writes an experiment; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "experiment.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def content(arm: str, seed: int, score: float = 0.6, **changes) -> dict:
    """Returns what is in the file of a finished run: two scores that both are `score`."""
    probe = {"kind": "probe", "pooling": "mean", "head": "linear", "num_train": 100, "num_eval": 40, "seeds": [42, 43]}
    found = {
        "format": 1,
        "arm": arm,
        "seed": seed,
        "finished": "2026-01-01",
        "definition": f"definition of {arm}",
        "data": "data",
        "command": f"predrec pretrain {arm}.yaml",
        "arguments": {"max_steps": "100"},
        "steps": 100,
        "tokens": 12800,
        "seconds": {"training": 90.0, "rest": 10.0, "probes": 20.0},
        "seconds_at_median_speed": 80.0,
        "last": {"eval_mlm_loss": 6.5 + seed / 10},
        "curves": {"mlm_loss": [[50, 7.0], [100, 6.4]], "eval_mlm_loss": [[50, 7.1], [100, 6.5 + seed / 10]]},
        "evaluation": "evaluation",
        "versions": {"torch": "2.0"},
        "machine": "2 CPU cores",
        "model": {
            "name": arm,
            "replicate": 0,
            "folder": f"{arm}-{seed}",
            "weights": f"{arm}{seed}",
            "fingerprint": f"{arm}{seed}",
            "model_type": "predrec",
            "hidden_size": 16,
            "num_hidden_layers": 2,
            "num_parameters": 1_000,
            "max_seq_length": 32,
            "dtype": "float32",
        },
        "measured": [
            {"baseline": "majority", "kind": "probe", "task": "sst2", "values": {"accuracy": [0.5]}},
            {**probe, "task": "sst2", "values": {"accuracy": [score - 0.1, score + 0.1]}},
            {**probe, "task": "stsb", "values": {"spearmanr": [score, score]}},
        ],
        "spectra": [],
        "notes": {},
    }
    return found | changes
