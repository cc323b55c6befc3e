"""Recipes: YAML files of arguments, overridden on the command line and checked before anything is loaded."""

import argparse
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import yaml
from huggingface_hub.errors import StrictDataclassError
from transformers import HfArgumentParser

from ..errors import UserError
from .help_screens import help_screen
from .model_arguments import ENCODER_ONLY
from .suggestions import did_you_mean

REPLACED_TOGETHER = (
    ("train_file", "dataset_name", "dataset_config_name", "validation_file", "text_column", "sample_by", "streaming"),
    ("tokenizer_name", "train_tokenizer", "vocab_size"),
    ("init_from", *ENCODER_ONLY, "tokenizer_name", "train_tokenizer", "vocab_size"),
)
"""Arguments that describe one thing. Its first members on the command line replace the recipe's whole group."""

REPLACING = {
    "train_file": REPLACED_TOGETHER[0],
    "dataset_name": REPLACED_TOGETHER[0],
    "tokenizer_name": REPLACED_TOGETHER[1],
    "train_tokenizer": REPLACED_TOGETHER[1],
    "init_from": REPLACED_TOGETHER[2],
}


NOT_OF_THE_RUN = {"hub_token", "push_to_hub_token", "resume_from_checkpoint", "ignore_recipe_mismatch"}
"""Arguments of a call that do not describe the run: kept out of the resolved recipe, which is published."""


class RecipeParser(HfArgumentParser):
    """An `HfArgumentParser` that never guesses an abbreviation and raises [`UserError`] instead of exiting."""

    def __init__(self, dataclass_types: Sequence[type], **kwargs):
        super().__init__(dataclass_types, allow_abbrev=False, **kwargs)

    def error(self, message: str) -> NoReturn:
        hint = " A recipe comes first, before any argument." if ".yaml" in message else ""
        raise UserError(message[:1].upper() + message[1:] + hint)

    @property
    def field_names(self) -> list[str]:
        """Names of every argument."""
        return [f.name for kind in self.dataclass_types for f in dataclasses.fields(kind) if f.init]


class _RecipeLoader(yaml.BaseLoader):
    """Reads every scalar as text, builds nothing but lists and mappings, and refuses a key that stands twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[str, Any]:
        keys = [key.value for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"`{key}` stands there twice", node.start_mark)
        return super().construct_mapping(node, deep)


def read_recipe(path: str | Path) -> dict[str, Any]:
    """Reads a recipe as text values: strings, lists of strings, and mappings.

    Numbers and booleans stay text until the argument's own type turns them, so `5e-5`, `no` and `1.10` mean what they
    say.

    Raises:
        UserError: If the file is missing, is not YAML, or is not a mapping.
    """
    try:
        recipe = yaml.load(Path(path).read_text(encoding="utf-8"), Loader=_RecipeLoader)
    except FileNotFoundError:
        raise UserError(f"The recipe {str(path)!r} does not exist.") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"The recipe {str(path)!r} cannot be read: {' '.join(str(error).split())}") from error
    if recipe is None or recipe == "":
        recipe = {}
    if not isinstance(recipe, dict):
        raise UserError(f"The recipe {str(path)!r} must be a mapping of argument names to values.")
    return recipe


def parse_recipe(
    argv: Sequence[str], dataclass_types: Sequence[type], prog: str = "pretrain"
) -> tuple[list[Any], dict[str, Any]]:
    """Turns `[recipe.yaml] --name value ...` into argument dataclasses; the command line wins over the recipe.

    A data source, a tokenizer or `init_from` on the command line replaces everything that the recipe says about it.

    Args:
        argv (`Sequence[str]`): Command-line arguments without the program.
        dataclass_types (`Sequence[type]`): Argument dataclasses, which check their values on construction.
        prog (`str`, defaults to `"pretrain"`): Name of the command, a key of `SCREENS`, for its help.

    Returns:
        One instance per dataclass, and the resolved recipe: every argument that was given and describes the run, with
        its final value. Secrets are not in it.

    Raises:
        UserError: With the nearest valid name for an unknown one, and for a wrong type or an impossible value.
    """
    parser, argv = RecipeParser(dataclass_types, prog=prog), list(argv)
    _help(argv, parser, dataclass_types)
    recipe: dict[str, Any] = {}
    if argv and not argv[0].startswith("-"):
        recipe = read_recipe(argv.pop(0))
    _check_names(recipe, parser.field_names, "recipe")
    given = [_option_name(word, parser.field_names) for word in argv if word.startswith("--")]
    _check_names(given, parser.field_names, "command line")
    for name in given:
        for replaced in REPLACING.get(name, ()):
            recipe.pop(replaced, None)
    # The command line comes last, so it wins; a list on it replaces the recipe's list.
    words = [word for name, value in recipe.items() for word in _as_words(parser, name, value)] + argv
    try:
        values = vars(parser.parse_args(words))
        arguments = parser.parse_args_into_dataclasses(words, look_for_args_file=False)
    except UserError:
        raise
    except (ValueError, TypeError, StrictDataclassError) as error:
        raise UserError(" ".join(str(error).split())) from error
    kept = {*recipe, *given} - NOT_OF_THE_RUN
    return list(arguments), {name: values[name] for name in parser.field_names if name in kept}


def _help(argv: Sequence[str], parser: RecipeParser, dataclass_types: Sequence[type]) -> None:
    """Prints the help, if it is asked for, and leaves."""
    if "--help_all" in argv:
        parser.print_help()
    elif "--help" in argv or "-h" in argv:
        print(help_screen(parser.prog, parser, dataclass_types), end="")
    else:
        return
    raise SystemExit(0)


def _option_name(word: str, known: Sequence[str]) -> str:
    name = word[2:].split("=", 1)[0].replace("-", "_")
    return name if name in known else name.removeprefix("no_")


def _check_names(names: Any, known: Sequence[str], where: str) -> None:
    for name in names:
        if name not in known:
            raise UserError(f"Unknown argument `{name}` in the {where}" + did_you_mean(str(name), known))


def _as_words(parser: argparse.ArgumentParser, name: str, value: Any) -> list[str]:
    """Turns one entry of a recipe into command-line words."""
    takes_list = parser._option_string_actions[f"--{name}"].nargs == "+"
    if isinstance(value, dict):
        if takes_list:
            raise UserError(f"`{name}` takes a list, not a mapping.")
        return [f"--{name}={json.dumps(_typed(value))}"]
    if isinstance(value, list):
        if not takes_list:
            raise UserError(f"`{name}` takes one value, not the list {value}.")
        return [f"--{name}", *map(str, value)] if value else []
    if value in ("null", "Null", "NULL", "~", ""):
        return []
    # With "=", a value that begins with a dash is still a value.
    return [f"--{name}", value] if takes_list else [f"--{name}={value}"]


def _typed(value: Any) -> Any:
    """Gives the scalars inside a mapping the type that JSON would give them."""
    if isinstance(value, dict):
        return {key: _typed(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_typed(entry) for entry in value]
    try:
        return json.loads({"~": "null", "True": "true", "False": "false"}.get(value, value))
    except json.JSONDecodeError:
        return value


def write_recipe(path: str | Path, recipe: dict[str, Any], comment: str = "") -> None:
    """Writes a recipe that [`parse_recipe`] reads back to the same arguments."""
    text = yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True)
    Path(path).write_text((f"# {comment}\n" if comment else "") + text, encoding="utf-8")
