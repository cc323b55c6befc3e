"""Recipes: YAML files of arguments, overridden on the command line and checked before anything is loaded."""

import argparse
import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NoReturn

from transformers import HfArgumentParser

from ..errors import UserError, one_line
from .help_screens import help_screen
from .model_arguments import ENCODER_ONLY
from .needs import without_meaning
from .recipe_files import read_recipe, write_recipe
from .suggestions import did_you_mean

SOURCE = (
    "train_file",
    "dataset_name",
    "dataset_config_name",
    "validation_file",
    "text_column",
    "sample_by",
    "streaming",
)
TOKENIZER = ("tokenizer_name", "train_tokenizer", "vocab_size")

REPLACING = {
    "train_file": SOURCE,
    "dataset_name": SOURCE,
    "tokenizer_name": TOKENIZER,
    "train_tokenizer": TOKENIZER,
    "validation_file": ("validation_share",),
    "init_from": ("init_from", *ENCODER_ONLY, *TOKENIZER),
}
"""What an argument on the command line takes out of the recipe: all that describes the thing it names."""

NOT_OF_THE_RUN = {"hub_token", "push_to_hub_token", "resume_from_checkpoint", "ignore_recipe_mismatch"}
"""Arguments of a call that do not describe the run: kept out of the resolved recipe, which is published."""

NAMED = re.compile(r"`(\w+)`|`(\w+)=|--(\w+)")
"""How a message names an argument."""

__all__ = ["RecipeParser", "parse_recipe", "read_recipe", "write_recipe"]


class RecipeParser(HfArgumentParser):
    """An `HfArgumentParser` that never guesses an abbreviation and raises [`UserError`] instead of exiting."""

    def __init__(self, dataclass_types: Sequence[type], **kwargs):
        super().__init__(dataclass_types, allow_abbrev=False, **kwargs)

    def error(self, message: str) -> NoReturn:
        hint = " A recipe comes first, before any argument." if ".yaml" in message else ""
        raise UserError(one_line(message[:1].upper() + message[1:] + hint))

    @property
    def field_names(self) -> list[str]:
        """Names of every argument."""
        return [f.name for kind in self.dataclass_types for f in dataclasses.fields(kind) if f.init]


def parse_recipe(
    argv: Sequence[str], dataclass_types: Sequence[type], prog: str = "pretrain"
) -> tuple[list[Any], dict[str, Any]]:
    """Turns `[recipe.yaml] --name value ...` into argument dataclasses; the command line wins over the recipe.

    A data source, a tokenizer or `init_from` on the command line replaces everything that the recipe says about it;
    an objective, a `jepa_view` and other choices leave out what has no meaning with them.

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
    path = argv.pop(0) if argv and not argv[0].startswith("-") else None
    recipe = {} if path is None else read_recipe(path)
    given = [_option_name(word, parser.field_names) for word in argv if word.startswith("--")]
    _check_names(recipe, parser.field_names, f"recipe {path!r}")
    _check_names(given, parser.field_names, "command line")
    for name in given:
        for replaced in (name, *REPLACING.get(name, ())):
            recipe.pop(replaced, None)
    for choice, chosen in _choices(argv, parser.field_names):
        for entry in without_meaning(choice, chosen):
            name, _, value = entry.partition("=")
            if not value or str(recipe.get(name)) == value:
                recipe.pop(name, None)
    try:
        # The command line comes last, so it wins.
        words = [word for name, value in recipe.items() for word in _as_words(parser, name, value)]
        arguments, values = _parse(parser, [*words, *argv])
    except UserError as error:
        if path is None or _is_about(str(error), given, recipe):
            raise
        raise UserError(f"{error} (In the recipe {path!r}.)") from error
    kept = {*recipe, *given} - NOT_OF_THE_RUN
    return arguments, {name: values[name] for name in parser.field_names if name in kept}


def _choices(argv: Sequence[str], known: Sequence[str]) -> list[tuple[str, str]]:
    """Returns names and values of the arguments of a command line; those of switches are `true` or `false`."""
    found = []
    for word, after in pairwise([*argv, "--"]):
        if word.startswith("--"):
            name, equals, value = _option_name(word, known), "=" in word, word.partition("=")[2]
            if not equals:
                value = ("false" if word[:5] in ("--no_", "--no-") else "true") if after.startswith("--") else after
            found.append((name, {"yes": "true", "1": "true", "no": "false", "0": "false"}.get(value.lower(), value)))
    return found


def _parse(parser: RecipeParser, words: Sequence[str]) -> tuple[list[Any], dict[str, Any]]:
    """Returns the argument dataclasses, and the value of every argument by its name."""
    for word in words:
        _check_word(word)
    try:
        values = vars(parser.parse_args(words))
        return list(parser.parse_args_into_dataclasses(words, look_for_args_file=False)), values
    except UserError:
        raise
    # The stock arguments check themselves, and raise whatever a value makes them raise.
    except Exception as error:
        kind = "" if isinstance(error, ValueError | TypeError) and str(error) else f"{type(error).__name__}: "
        raise UserError(one_line(f"{kind}{error}")) from error


def _is_about(message: str, given: Sequence[str], recipe: Mapping[str, Any]) -> bool:
    """Says whether a message names arguments of the command line, and none of the recipe's that are in force."""
    named = {next(filter(None, groups)) for groups in NAMED.findall(message)}
    return bool(named & set(given)) and not named & set(recipe)


def _check_word(word: str) -> None:
    """Refuses what no file name and no recipe can hold, before it fails where the run is written down."""
    if "\0" in word:
        raise UserError(f"The argument {word!r} holds a null character: leave it out.")
    try:
        word.encode("utf-8")
    except UnicodeEncodeError:
        raise UserError(f"The argument {word!r} is not valid UTF-8: rename what it names.") from None


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
            raise UserError(one_line(f"Unknown argument `{name}` in the {where}") + did_you_mean(str(name), known))


def _as_words(parser: argparse.ArgumentParser, name: str, value: Any) -> list[str]:
    """Turns one entry of a recipe into command-line words."""
    option = parser._option_string_actions[f"--{name}"]
    takes_list = option.nargs == "+"
    if value is None or value == []:
        if option.default not in (None, []):
            raise UserError(f"`{name}` takes a value; leave the line out for the default, {option.default}.")
        return []
    if isinstance(value, dict):
        if takes_list:
            raise UserError(f"`{name}` takes a list, not a mapping.")
        return [f"--{name}={json.dumps(_typed(value))}"]
    if isinstance(value, list):
        if not takes_list:
            raise UserError(f"`{name}` takes one value, not the list {value}.")
        for entry in value:
            if not isinstance(entry, str):
                raise UserError(f"`{name}` takes a list of single values, but {entry} is one of them.")
            _check_entry(name, entry)
        return [f"--{name}", *value]
    if takes_list:
        _check_entry(name, value)
        return [f"--{name}", value]
    # With "=", a value that begins with a dash is still a value.
    return [f"--{name}={value}"]


def _check_entry(name: str, entry: str) -> None:
    """Refuses an entry of a list that would be taken for an argument."""
    if re.match(r"-(?!\.?\d)", entry):
        raise UserError(f"`{name}`: {entry!r} begins with a dash, as arguments do: write './{entry}' for a file.")


def _typed(value: Any) -> Any:
    """Gives the scalars inside a mapping the type that JSON would give them."""
    if isinstance(value, dict):
        return {key: _typed(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_typed(entry) for entry in value]
    if value is None:
        return None
    try:
        return json.loads({"True": "true", "False": "false"}.get(value, value))
    except json.JSONDecodeError:
        return value
