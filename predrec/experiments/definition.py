"""An experiment: one YAML file that says which arms are trained, on which seeds, in which order, and what is asked."""

import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..configuration import DataArguments, ModelArguments, parse_recipe, read_recipe, write_recipe
from ..configuration.suggestions import did_you_mean
from ..errors import UserError
from ..trainers import PredRecTrainingArguments
from ..trainers.arguments_together import check_together
from ..trainers.checkpoints import MAY_DIFFER

PARTS = ("title", "data", "pretrain", "arms", "order", "probe", "geometry", "pairs", "contrasts", "primary")
ARM_PARTS = ("why", "levels", "updates_factor", "same_time_as")
PRIMARY_PARTS = ("question", "model", "baseline", "scores", "seeds")
FLOOR_PARTS = ("name", "model", "results", "pooling", "vectors", "first_seed")
ROUNDED_TO = 10
"""Updates of an arm with a factor: so that evaluations at tenths of the run hit its last update."""


@dataclass(frozen=True)
class Arm:
    """One way of training.

    Args:
        name (`str`): In file names and tables.
        why (`str`): One line: what it is there for.
        arguments (`dict[str, Any]`): Of `pretrain`, shared and own ones, as text.
        same_time_as (`str`, *optional*): Arm whose training time it is meant to have.
        updates_factor (`float`): How many times the shared number of updates it makes.
        levels (`dict[str, str]`): Level of each factor, in a design of factors.
    """

    name: str
    why: str
    arguments: dict[str, Any]
    same_time_as: str | None = None
    updates_factor: float = 1.0
    levels: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    """An arm with a seed; runs of one seed are pairs: they have the same data order and masks."""

    arm: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.arm}-{self.seed}"


@dataclass(frozen=True)
class Floor:
    """What a good encoder has to be above, such as random weights or the mean of its word embeddings.

    Args:
        name (`str`): In words.
        model (`str`): An arm, or a model of `results`.
        results (`str`, *optional*): Folder of other results, named from the experiment's; its own when absent.
        pooling (`str`, defaults to `"mean"`): Of the probes there.
        vectors (`str`, *optional*): `whitened`; as they are when absent.
        first_seed (`int`, defaults to 0): Seed of the first checkpoint there; the others follow.
    """

    name: str
    model: str
    results: str | None = None
    pooling: str = "mean"
    vectors: str | None = None
    first_seed: int = 0


@dataclass(frozen=True)
class Primary:
    """The one comparison that was declared before the runs.

    Args:
        question (`str`): In words.
        model, baseline (`str`): Two arms.
        scores (`dict[str, str]`): Metric of each task; their mean is compared.
        seeds (`int`): Declared number of pairs.
        first_seed (`int`, defaults to 1): Number of the first of them; the others follow.
        level (`float`, defaults to 0.05): Of the test; less where it is not the only one.
        floors (`tuple[Floor, ...]`): What the winner is shown beside, in no test.
    """

    question: str
    model: str
    baseline: str
    scores: dict[str, str]
    seeds: int
    first_seed: int = 1
    level: float = 0.05
    floors: tuple[Floor, ...] = ()

    def counts(self, seed: int) -> bool:
        """Returns whether a seed is one of the declared."""
        return self.first_seed <= seed < self.first_seed + self.seeds


@dataclass(frozen=True)
class Experiment:
    """What the file says.

    Args:
        title (`str`): Heading of the report.
        data (`dict[str, str]`): `train_file` and `validation_file`, patterns inside the folder of the data.
        arms (`dict[str, Arm]`): By name.
        order (`list[Run]`): Every run once, in the order in which they are made.
        probe, geometry (`dict[str, Any]`): Arguments of the two commands that evaluate; not run where empty.
        pairs (`list[tuple[str, str]]`): Model and baseline of the comparisons in the report: claims, and each task.
        contrasts (`list[tuple[str, str]]`): Two arms each whose difference in every measure is shown.
        primary (`Primary`, *optional*): The declared comparison.
    """

    title: str
    data: dict[str, str]
    arms: dict[str, Arm]
    order: list[Run]
    probe: dict[str, Any] = field(default_factory=dict)
    geometry: dict[str, Any] = field(default_factory=dict)
    pairs: list[tuple[str, str]] = field(default_factory=list)
    contrasts: list[tuple[str, str]] = field(default_factory=list)
    primary: Primary | None = None


def read_experiment(path: str | Path) -> Experiment:
    """Reads the definition of an experiment.

    Raises:
        UserError: If the file is missing, a part is unknown or lacking, or an arm is named that there is not.
    """
    content = read_recipe(path)
    _check_names(content, PARTS, f"experiment {str(path)!r}")
    for name in ("pretrain", "arms", "order", "data"):
        if not content.get(name):
            raise UserError(f"The experiment {str(path)!r} has no `{name}`.")
    shared = _mapping("pretrain", content["pretrain"])
    arms = {name: _arm(name, shared, own or {}) for name, own in _mapping("arms", content["arms"]).items()}
    experiment = Experiment(
        title=str(content.get("title") or Path(path).parent.name),
        data=_mapping("data", content["data"]),
        arms=arms,
        order=_order(content["order"], arms),
        probe=_mapping("probe", content.get("probe") or {}),
        geometry=_mapping("geometry", content.get("geometry") or {}),
        pairs=[_pair("pairs", pair, arms) for pair in content.get("pairs") or []],
        contrasts=[_pair("contrasts", pair, arms) for pair in content.get("contrasts") or []],
        primary=_primary(content["primary"], arms) if content.get("primary") else None,
    )
    for arm in arms.values():
        if arm.same_time_as is not None:
            _known(arm.same_time_as, arms, f"arm `{arm.name}`")
    return experiment


def _mapping(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UserError(f"`{name}` of an experiment is a mapping, not {value!r}.")
    return value


def _check_names(given: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    for name in given:
        if name not in known:
            raise UserError(f"Unknown part `{name}` in the {where}{did_you_mean(name, list(known))}")


def _number(name: str, text: Any, kind: type, least: float) -> Any:
    try:
        value = kind(text)
    except (TypeError, ValueError):
        raise UserError(f"`{name}` is {text!r}; it must be a number.") from None
    if not least <= value < float("inf"):
        raise UserError(f"`{name}` is {text}; it must be at least {least:g}.")
    return value


def _known(name: Any, arms: Mapping[str, Arm], where: str) -> str:
    if name not in arms:
        raise UserError(f"There is no arm {name!r} ({where}){did_you_mean(str(name), list(arms))}")
    return name


def _arm(name: str, shared: dict[str, Any], own: dict[str, Any]) -> Arm:
    own = _mapping(f"arms.{name}", own)
    if not name.replace("-", "").replace("_", "").isalnum():
        raise UserError(f"The name of an arm, {name!r}, goes into file names: letters, digits, `-` and `_` only.")
    for argument in ("seed", "output_dir", "train_file", "validation_file"):
        if argument in shared or argument in own:
            raise UserError(f"`{argument}` is set for every run: leave it out of the experiment (arm `{name}`).")
    if not own.get("why"):
        raise UserError(f"The arm `{name}` has no `why`: one line on what it is there for.")
    arguments = shared | {key: value for key, value in own.items() if key not in ARM_PARTS}
    arguments = {key: value for key, value in arguments.items() if value is not None}
    factor = _number(f"updates_factor of {name}", own.get("updates_factor", "1"), float, 0.01)
    if "updates_factor" in own:
        updates = _number("max_steps", arguments.get("max_steps"), int, 1) * factor
        arguments["max_steps"] = str(max(1, round(updates / ROUNDED_TO)) * ROUNDED_TO)
    levels = _mapping(f"levels of {name}", own.get("levels") or {})
    return Arm(name, str(own["why"]), arguments, own.get("same_time_as"), factor, levels)


def _order(entries: Any, arms: Mapping[str, Arm]) -> list[Run]:
    """Returns the runs, seed by seed within an entry, so that pairs are complete as early as can be."""
    runs: dict[Run, None] = {}
    for entry in entries if isinstance(entries, list) else [entries]:
        entry = _mapping("order", entry)
        _check_names(entry, ("arms", "seeds", "first_seed"), "order")
        names = entry.get("arms") or []
        names = [_known(name, arms, "order") for name in ([names] if isinstance(names, str) else names)]
        first = _number("first_seed", entry.get("first_seed", "1"), int, 0)
        for seed in range(first, first + _number("seeds", entry.get("seeds"), int, 1)):
            runs |= dict.fromkeys(Run(name, seed) for name in names)
    if not runs:
        raise UserError("`order` names no run: give entries with `arms` and `seeds`.")
    return list(runs)


def _pair(part: str, pair: Any, arms: Mapping[str, Arm]) -> tuple[str, str]:
    if not isinstance(pair, list) or len(pair) != 2:
        raise UserError(f"`{part}` holds {pair!r}; each is [model, baseline].")
    return _known(pair[0], arms, part), _known(pair[1], arms, part)


def _primary(content: Any, arms: Mapping[str, Arm]) -> Primary:
    content = _mapping("primary", content)
    _check_names(content, (*PRIMARY_PARTS, "first_seed", "level", "floors"), "primary comparison")
    missing = [name for name in PRIMARY_PARTS if not content.get(name)]
    if missing:
        raise UserError(f"`primary` lacks `{missing[0]}`.")
    level = _number("level", content.get("level", "0.05"), float, 0)
    if not 0 < level < 1:
        raise UserError(f"`level` is {level}; it must be strictly between 0 and 1.")
    return Primary(
        str(content["question"]),
        _known(content["model"], arms, "primary"),
        _known(content["baseline"], arms, "primary"),
        _mapping("primary.scores", content["scores"]),
        _number("seeds", content["seeds"], int, 1),
        _number("first_seed", content.get("first_seed", "1"), int, 0),
        level,
        tuple(_floor(floor, arms) for floor in content.get("floors") or []),
    )


def _floor(content: Any, arms: Mapping[str, Arm]) -> Floor:
    content = _mapping("a floor", content)
    _check_names(content, FLOOR_PARTS, "floor")
    for name in ("name", "model"):
        if not content.get(name):
            raise UserError(f"A floor of `primary` lacks `{name}`.")
    if content.get("results") is None:
        _known(content["model"], arms, "floors")
        others = [name for name in FLOOR_PARTS[3:] if name in content]
        if others:
            raise UserError(f"`{others[0]}` of a floor is for `results` of other experiments: drop it.")
    first = _number("first_seed", content.get("first_seed", "0"), int, 0)
    return Floor(**(content | {"first_seed": first}))


def resolve_arm(arm: Arm, tokenizer_name: str | None = None) -> tuple[dict[str, Any], PredRecTrainingArguments]:
    """Checks the arguments of an arm as `pretrain` would.

    Args:
        arm ([`Arm`]): One of an experiment's.
        tokenizer_name (`str`, *optional*): The tokenizer that the command is given for all arms; it decides nothing.

    Returns:
        Those that decide what is trained, with their final values, and the training arguments.

    Raises:
        UserError: If one is unknown, impossible, or does not go with the others.
    """
    kinds = (DataArguments, ModelArguments, PredRecTrainingArguments)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{arm.name}.yaml"
        write_recipe(path, arm.arguments)
        try:
            groups, values = parse_recipe([str(path), "--output_dir", folder], kinds)
            groups[0].tokenizer_name = tokenizer_name or groups[0].tokenizer_name
            check_together(*groups)
        except UserError as error:
            raise UserError(f"Arm `{arm.name}`: {str(error).replace(str(path), path.name)}") from error
    decisive = {name: value for name, value in values.items() if not MAY_DIFFER.fullmatch(name)}
    return decisive, groups[-1]


def digest(values: Mapping[str, Any]) -> str:
    """Returns a short hash of settings, whatever their order."""
    text = json.dumps(values, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def words_of(arguments: Mapping[str, Any]) -> list[str]:
    """Turns a mapping of arguments into words of a command line."""
    words: list[str] = []
    for name, value in arguments.items():
        words += [f"--{name}", *(value if isinstance(value, list) else [str(value)])]
    return words
