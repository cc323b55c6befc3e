"""Recipe files: YAML without anything that could be more than it looks, read as text and bounded in size."""

from pathlib import Path
from typing import Any

import yaml

from ..errors import UserError

MAX_BYTES = 2**18
"""Largest recipe that is read, a hundred times the largest one here: parsing it takes seconds, not hours."""

NOTHING = ("", "~", "null", "Null", "NULL")
"""How YAML writes that there is no value."""


class _RecipeLoader(yaml.BaseLoader):
    """Reads every scalar as text, or as `None` where there is no value; builds nothing but lists and mappings.

    Refused are aliases, with which a short file can stand for terabytes; tags, which ask for other types or even for
    code; and a key that stands twice.
    """

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            raise yaml.composer.ComposerError(
                None, None, f"the alias `*{event.anchor}` is not read: write the value out", event.start_mark
            )
        if event.tag is not None:
            raise yaml.composer.ComposerError(
                None, None, f"the tag `{event.tag}` is not read: write the value alone", event.start_mark
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[str, Any]:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key is not a single word", key.start_mark)
            if key.value in seen:
                problem = f"`{key.value}` stands there twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)

    def construct_scalar(self, node: yaml.ScalarNode) -> str | None:
        # A scalar in quotes is the text that stands there, the empty one as well.
        return None if node.style is None and node.value in NOTHING else super().construct_scalar(node)


def read_recipe(path: str | Path) -> dict[str, Any]:
    """Reads a recipe as text values: strings, lists of strings, and mappings; `None` where there is no value.

    Numbers and booleans stay text until the argument's own type turns them, so `5e-5`, `no` and `1.10` mean what they
    say.

    Raises:
        UserError: If the file is missing, has more than 256 KiB, is not YAML, holds aliases or tags, or is not a
            mapping.
    """
    try:
        with Path(path).open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise UserError(f"The recipe {str(path)!r} has more than {MAX_BYTES >> 10} KiB: it is no recipe.")
        recipe = yaml.load(content.decode("utf-8"), Loader=_RecipeLoader)
    except FileNotFoundError:
        raise UserError(f"The recipe {str(path)!r} does not exist.") from None
    except RecursionError:
        raise UserError(f"The recipe {str(path)!r} cannot be read: it is nested too deep.") from None
    except UserError:
        raise
    # A null byte in the path is a ValueError, as undecodable text is; PyYAML leaks some lookups.
    except (OSError, ValueError, LookupError, yaml.YAMLError) as error:
        raise UserError(f"The recipe {str(path)!r} cannot be read: {' '.join(str(error).split())}") from error
    if recipe is None:
        recipe = {}
    if not isinstance(recipe, dict):
        raise UserError(f"The recipe {str(path)!r} must be a mapping of argument names to values.")
    return recipe


def write_recipe(path: str | Path, recipe: dict[str, Any], comment: str = "") -> None:
    """Writes a recipe that [`parse_recipe`] reads back to the same arguments."""
    text = yaml.dump(recipe, Dumper=_RecipeDumper, sort_keys=False, allow_unicode=True)
    Path(path).write_text((f"# {comment}\n" if comment else "") + text, encoding="utf-8")


class _RecipeDumper(yaml.SafeDumper):
    """Writes a list that stands twice twice, since aliases are not read."""

    def ignore_aliases(self, data: Any) -> bool:
        return True
