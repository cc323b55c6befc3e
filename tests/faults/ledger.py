"""What faults did: one record each, and the account of all."""

import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file

from .runs import MAX_STEPS, Run, history


@dataclass(frozen=True)
class Fault:
    """A fault, and what came of it.

    Args:
        kind (`str`): What was done to the run.
        moment (`str`): When.
        recovered (`bool`): Whether the run that went on ended well.
        steps_lost (`int`): Updates that had to be made again.
        corrupted (`bool`): Whether any weight or logged number is another than in a run without faults.
        problem (`str`): What should not have been, for a person to read; empty if all is well.
        seconds (`float`): How long the fault took to end the run.
    """

    kind: str
    moment: str
    recovered: bool
    steps_lost: int
    corrupted: bool
    problem: str = ""
    seconds: float = 0.0


class Reference:
    """The run without faults that every recovered one must equal, to the bit.

    Args:
        run ([`Run`]): It; it must have ended well.
    """

    def __init__(self, run: Run):
        assert run.code == 0, run.log[-3000:]
        folder = run.folder
        self.history = history(folder)
        self.files = {name: load_file(folder / "run" / name) for name in self._names()}
        self.optimizer = self._optimizer(folder)

    @staticmethod
    def _names() -> tuple[str, ...]:
        return "model.safetensors", f"checkpoint-{MAX_STEPS}/model.safetensors"

    @staticmethod
    def _optimizer(folder: Path) -> dict:
        path = folder / "run" / f"checkpoint-{MAX_STEPS}" / "optimizer.pt"
        return torch.load(path, weights_only=True)["state"]

    def difference(self, folder: Path) -> str:
        """Says in what a run differs from this one: weights, target encoder, export, optimizer, logged numbers."""
        for name, expected in self.files.items():
            found = load_file(folder / "run" / name)
            if _differ(found, expected):
                return f"{name} differs"
        found = self._optimizer(folder)
        if found.keys() != self.optimizer.keys() or any(_differ(found[key], self.optimizer[key]) for key in found):
            return "the optimizer differs"
        return "" if history(folder) == self.history else "what was logged differs"


def _differ(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> bool:
    return found.keys() != expected.keys() or any(not torch.equal(found[name], expected[name]) for name in found)


def record(
    kind: str,
    moment: str,
    stopped: Run,
    resumed: Run,
    began_at: int,
    reference: Reference,
    problem: str = "",
    seconds: float = 0.0,
) -> Fault:
    """Makes the record of a fault.

    Args:
        kind (`str`): What was done.
        moment (`str`): When.
        stopped (`Run`): The run that it was done to.
        resumed (`Run`): The one that went on.
        began_at (`int`): The step that it went on from.
        reference (`Reference`): The run without faults.
        problem (`str`): What was wrong in between.
        seconds (`float`): How long the run took to end.
    """
    recovered = resumed.code == 0
    difference = reference.difference(resumed.folder) if recovered else f"exit code {resumed.code}"
    if not recovered:
        print(resumed.log[-2000:], file=sys.stderr)
    problems = "; ".join(filter(None, (problem, difference)))
    lost = stopped.step - began_at
    return Fault(kind, moment, recovered, lost, recovered and bool(difference), problems, round(seconds, 2))


def account(faults: list[Fault]) -> list[dict]:
    """Returns a row for each kind: faults, recovered, steps lost on average and at most, corrupted, problems."""
    rows = []
    for kind in dict.fromkeys(fault.kind for fault in faults):
        of_kind = [fault for fault in faults if fault.kind == kind]
        lost = [fault.steps_lost for fault in of_kind]
        rows.append(
            {
                "kind": kind,
                "faults": len(of_kind),
                "recovered": sum(fault.recovered for fault in of_kind),
                "mean_steps_lost": round(sum(lost) / len(lost), 2),
                "most_steps_lost": max(lost),
                "corrupted": sum(fault.corrupted for fault in of_kind),
                "problems": sum(bool(fault.problem) for fault in of_kind),
                "longest_end_seconds": max(fault.seconds for fault in of_kind),
            }
        )
    return rows


def table(rows: list[dict]) -> str:
    """Returns the account as a Markdown table."""
    lines = [
        "| fault | times | recovered | updates made again, mean (most) | work corrupted |",
        "|---|---:|---:|---:|---:|",
    ]
    for row in rows:
        lost = f"{row['mean_steps_lost']:.1f} ({row['most_steps_lost']})"
        lines.append(f"| {row['kind']} | {row['faults']} | {row['recovered']} | {lost} | {row['corrupted']} |")
    total = {name: sum(row[name] for row in rows) for name in ("faults", "recovered", "corrupted")}
    most = max(row["most_steps_lost"] for row in rows)
    lines.append(f"| all | {total['faults']} | {total['recovered']} | ({most}) | {total['corrupted']} |")
    return "\n".join(lines)


def as_json(faults: list[Fault]) -> list[dict]:
    return [asdict(fault) for fault in faults]
